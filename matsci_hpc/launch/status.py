"""How one submitted job stands: by what its script last said, what the queue says, and what lies on disk."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from matsci_hpc.launch.job import status_file
from matsci_hpc.launch.journal import Entry
from matsci_hpc.launch.schedulers.base import Phase, QueueState

TAIL_BYTES = 1 << 16
"""End of metrics.jsonl that is read for the newest step."""
WITHOUT_A_WORD = "ended without a word: cancelled, killed, or its node was lost"


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a job stands.

    Attributes:
        entry: what was submitted; of an array, this run of it.
        job_id: its present number: where a job goes on under a new one, that of its newest life.
        phase: waiting, running or ended; None if nobody knows.
        text: in a few words.
        life: number of the life, from 1; None before the first.
    """

    entry: Entry
    job_id: str
    phase: Phase | None
    text: str
    life: int | None

    @property
    def step(self) -> int | None:
        """Newest step of a training run that is known, or number of shards of a preparation; read from disk now."""
        return _step(self.entry)


@dataclass(frozen=True, slots=True)
class LastWords:
    """What a job script last said.

    Attributes:
        job_id: the number under which it ran.
        life: number of the life, from 1.
        text: how it stood.
    """

    job_id: str
    life: int
    text: str


def runs_of(entry: Entry) -> Iterator[Entry]:
    """The entry, or one for each run of an array."""
    if not entry.outputs:
        yield entry
    for number, output in enumerate(entry.outputs):
        yield replace(
            entry,
            job_id=f"{entry.job_id}_{number}",
            name=Path(output).name,
            output=output,
            outputs=(),
            status=str(status_file(entry.verb, Path(output))),
            log=entry.log.replace("_*", f"_{number}"),
        )


def words_about(runs: Sequence[Entry]) -> list[LastWords | None]:
    """What the job scripts last said about each of these.

    Jobs of the same run share one file. Words under the number of one of them are about that one alone. Under a number
    that none has they are about the newest: a life under a new number, or the script submitted by hand.
    """
    said = {path: _read_words(Path(path)) for path in {each.status for each in runs}}
    numbers = {(each.status, each.job_id) for each in runs}
    newest = {each.status: place for place, each in enumerate(runs)}
    found: list[LastWords | None] = []
    for place, each in enumerate(runs):
        words = said[each.status]
        known = words is not None and (each.status, words.job_id) in numbers
        about = words is not None and (each.job_id == words.job_id if known else newest[each.status] == place)
        found.append(words if about else None)
    return found


def is_over(said: LastWords | None) -> bool:
    """Whether the job script has said how the job ended, so that no scheduler need be asked."""
    return said is not None and _verdict(said.text) is not None


def standing(
    entry: Entry, said: LastWords | None, queue: Mapping[str, QueueState] | None, newest_id: str | None = None
) -> Standing:
    """Put together what is known of a job.

    Args:
        entry: the job, or one run of an array.
        said: the last words about it.
        queue: the scheduler's answer; None if it cannot be asked from here.
        newest_id: the newest job of the same run.
    """
    job_id, life, words = (said.job_id, said.life, said.text) if said is not None else (entry.job_id, None, None)
    state = queue.get(job_id) if queue is not None else None
    phase, text = _judge(state, words, asked=queue is not None)
    if text == WITHOUT_A_WORD and newest_id not in {None, entry.job_id}:
        text = f"ended; job {newest_id} of the same run came later"
    return Standing(entry=entry, job_id=job_id, phase=phase, text=text, life=life)


def _judge(state: QueueState | None, words: str | None, *, asked: bool) -> tuple[Phase | None, str]:
    verdict = _verdict(words)
    if state is not None and state.phase == "waiting":
        return "waiting", f"waiting: {state.reason}" if state.reason else "waiting"
    if state is not None and state.phase == "running":
        if verdict:  # the script has spoken its last word, the scheduler is still clearing up
            return "ended", verdict
        return "running", state.word.lower()
    if verdict:
        return "ended", verdict
    if state is not None:
        word = state.word.lower().replace("_", " ")
        return "ended", f"{word}: {state.reason}" if state.reason else word
    if not asked:
        return None, words or "unknown"
    return "ended", WITHOUT_A_WORD


def _verdict(words: str | None) -> str | None:
    """The last words of a job, if they are about its end."""
    return words if words and words.partition(":")[0] not in {"running", "again", "queued"} else None


def _read_words(path: Path) -> LastWords | None:
    try:
        job_id, life, text = path.read_text(encoding="utf-8").strip().split(" ", 2)
        return LastWords(job_id, int(life), text)
    except (OSError, ValueError):
        return None


def _step(entry: Entry) -> int | None:
    output = Path(entry.output)
    if entry.verb == "prep":
        return sum(1 for _ in output.glob("shard-*.h5"))
    if entry.verb != "train":
        return None
    try:
        with (output / "metrics.jsonl").open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
            lines = file.read().splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        try:
            return int(json.loads(line)["step"])
        except (ValueError, TypeError, KeyError):
            continue  # torn, or the beginning is cut off
    return None
