"""What ranks tell each other once they have met and before a backend joins them.

A rank that cannot go on (a broken GPU, a package that its node lacks) must say so before the others wait for it in a
collective, and only here can it: what joins ranks differs by the devices that they found.
"""

import json
import socket
import time
from dataclasses import asdict, dataclass

from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]

from matsci_hpc.errors import JobError, MatsciError, RankError, UserInputError
from matsci_hpc.parallel.watched import Meeting

LINGER_S = 10.0
"""Longest time that the first rank, which may hold the store, waits for the others to read why the job ends."""
_REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Roll:
    """Who is there.

    Attributes:
        ranks: their number by the type of device that they compute on, most of them first.
        example: one of each, as `rank 3 on node07`.
    """

    ranks: dict[str, int]
    example: dict[str, str]

    @property
    def device(self) -> str | None:
        """The type of device of all; None if they differ."""
        return next(iter(self.ranks)) if len(self.ranks) == 1 else None

    def __str__(self) -> str:
        parts = (f"{count} on {kind} ({self.example[kind]})" for kind, count in self.ranks.items())
        return ", ".join(parts)


def call_roll(meeting: Meeting, device: str, refusal: MatsciError | None) -> Roll:
    """Learn what all ranks compute on; collective.

    Args:
        meeting: of the ranks.
        device: type of the device of this one.
        refusal: why this one cannot go on, if it cannot.

    Raises:
        MatsciError: why a rank cannot go on, on every rank.
        RankError: rank 0 is gone.
    """
    info, store = meeting.info, meeting.store
    kind = device if refusal is None else _REFUSED
    who = f"rank {info.rank} on {socket.gethostname()}"
    mine = json.dumps({"who": who, "text": str(refusal), "by_user": isinstance(refusal, UserInputError)})
    try:
        # Four calls a rank, since one process serves all of them.
        if store.compare_set(f"roll example {kind}", "", mine).decode() == mine:
            _note_kind(store, kind)
        store.add(f"roll count {kind}", 1)
        if store.add("roll", 1) == info.size:
            store.set("roll called", json.dumps(_outcome(store, info.size)))
        outcome = json.loads(store.get("roll called"))
        if outcome["refusal"] is not None:
            _leave_together(store, info.rank, info.size)
    except (DistError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise RankError(info.rank, f"lost rank 0 while the ranks met ({reason}); its own output says why") from None
    if outcome["refusal"] is not None:
        raise (UserInputError if outcome["by_user"] else JobError)(outcome["refusal"])
    return Roll(**outcome["roll"])


def _note_kind(store: TCPStore, kind: str) -> None:
    """Add a kind to the list of those that there are; by the first rank of its kind."""
    known = store.compare_set("roll kinds", "", kind).decode()
    while kind not in known.split():
        known = store.compare_set("roll kinds", known, f"{known} {kind}").decode()


def _outcome(store: TCPStore, size: int) -> dict[str, object]:
    """What the last rank finds when all have come."""
    kinds = store.get("roll kinds").decode().split()
    ranks = {kind: store.add(f"roll count {kind}", 0) for kind in kinds}
    examples = {kind: json.loads(store.get(f"roll example {kind}")) for kind in kinds}
    refused = examples.get(_REFUSED)
    if refused is not None:
        alike = ranks[_REFUSED] == size
        text = refused["text"] if alike else f"{refused['who']}: {refused['text']}"
        return {"refusal": text, "by_user": refused["by_user"]}
    most_first = sorted(ranks, key=lambda kind: (-ranks[kind], kind))
    roll = Roll({kind: ranks[kind] for kind in most_first}, {kind: examples[kind]["who"] for kind in most_first})
    return {"refusal": None, "roll": asdict(roll)}


def _leave_together(store: TCPStore, rank: int, size: int) -> None:
    """The store ends with the first rank, so that one goes last."""
    left = store.add("roll left", 1)
    end_s = time.monotonic() + LINGER_S
    while rank == 0 and left < size and time.monotonic() < end_s:
        time.sleep(0.01)
        left = store.add("roll left", 0)
