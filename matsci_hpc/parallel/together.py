"""Work that may fail on one rank, done so that every rank learns of it and none waits for ever."""

import socket
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from typing import Any, TypeVar

import torch

from matsci_hpc.errors import JobError, MachineError, MatsciError, RankError, UserInputError
from matsci_hpc.parallel.communicator import Communicator

T = TypeVar("T")


def on_first(comm: Communicator, work: Any) -> Any:
    """Run `work` on rank 0; give its result, which JSON must know, or raise its MatsciError, on every rank."""
    outcome: tuple[Any, str | None, bool] = (None, None, False)
    if comm.rank == 0:
        try:
            outcome = (work(), None, False)
        except MatsciError as error:
            outcome = (None, str(error), isinstance(error, UserInputError))
    result, failure, by_user = comm.broadcast_object(outcome)
    if failure is not None:
        raise UserInputError(failure) if by_user else JobError(failure)
    return result


def on_every(comm: Communicator, work: Callable[[], T]) -> T:
    """Run `work` on every rank. Where it fails on others only, rank 0 cannot tell, so each of these does."""
    outcome: T | MatsciError
    try:
        outcome = work()
    except MatsciError as error:
        outcome = error
    failed = comm.all_gather(torch.tensor(float(isinstance(outcome, MatsciError))))
    if not isinstance(outcome, MatsciError):
        return outcome
    if failed[0]:
        raise outcome
    raise RankError(comm.rank, f"failed, rank 0 did not: {outcome}")


TEXT_BYTES = 256


def texts_of_all(comm: Communicator, text: str) -> list[str]:
    """A short text of every rank, by rank, cut off after `TEXT_BYTES`; collective."""
    own = text.encode(errors="replace")[:TEXT_BYTES]
    message = torch.zeros(TEXT_BYTES, dtype=torch.uint8)
    message[: len(own)] = torch.tensor(list(own), dtype=torch.uint8)
    return [bytes(row).rstrip(b"\0").decode(errors="replace") for row in comm.all_gather(message).tolist()]


def gather_rows(comm: Communicator, rows: torch.Tensor) -> torch.Tensor:
    """The rows of all ranks, one rank's after the other's: [all rows, width]; collective.

    Args:
        comm: the ranks.
        rows: of this rank, [n, width]; n may differ from rank to rank.
    """
    counts = comm.all_gather(torch.tensor(len(rows))).tolist()
    padded = rows.new_zeros(max(counts), rows.shape[1])
    padded[: len(rows)] = rows
    return torch.cat([own[:count] for own, count in zip(comm.all_gather(padded), counts, strict=True)])


TURN_S = 1.0
"""Seconds of work between two looks at how the others fare."""
_MESSAGE_BYTES = 2048


def work_together(
    comm: Communicator,
    work: Generator[int, None, None],
    progress: Callable[[], None] = lambda: None,
    show: Callable[[int], None] = lambda _: None,
) -> None:
    """Do each rank's part of a long work; none waits in a collective for much longer than a turn of the others.

    A rank whose work stands still stays away from the next meeting, so that it is found out as any hanging rank is.

    Args:
        comm: the ranks.
        work: this rank's part, in small steps; each gives how much it did.
        progress: called after each of them.
        show: called after each turn with the amount done by all ranks.

    Raises:
        MatsciError: what befell the lowest rank that failed, on every rank; the work of the others ends early.
    """
    done, amount = False, 0
    failure: MatsciError | None = None
    with closing(work):
        while True:
            end_s = time.monotonic() + TURN_S
            try:
                while not done and time.monotonic() < end_s:
                    step = next(work, None)
                    done = step is None
                    amount += step or 0
                    progress()
            except MatsciError as error:
                done, failure = True, error
            state = torch.tensor([not done, failure is not None, amount], dtype=torch.float64)
            comm.all_reduce(state)
            unfinished, failures, total = state.tolist()
            show(int(total))
            if failures:
                raise _first_failure(comm, failure)
            if not unfinished:
                return


def _first_failure(comm: Communicator, own: MatsciError | None) -> MatsciError:
    """The failure of the lowest rank that has one, for every rank to raise; collective."""
    if own is not None and comm.size == 1:
        return own
    text = b"" if own is None else f"rank {comm.rank} on {socket.gethostname()}: {own}".encode()[: _MESSAGE_BYTES - 1]
    message = torch.zeros(_MESSAGE_BYTES, dtype=torch.uint8)
    message[0] = isinstance(own, UserInputError)
    message[1 : 1 + len(text)] = torch.tensor(list(text), dtype=torch.uint8)
    for row in comm.all_gather(message).tolist():
        by_user, text = row[0], bytes(row[1:]).rstrip(b"\0")
        if text:
            return (UserInputError if by_user else JobError)(text.decode(errors="replace"))
    raise AssertionError("no rank has failed")


@contextmanager
def until_the_end(comm: Communicator) -> Iterator[None]:
    """Leave the others at the end of what ranks do together, whichever end it is.

    They are told why a rank has failed, and a fault of the machine that one rank of several meets names that rank.
    """
    failure: str | None = None
    try:
        yield
    except MachineError as error:
        failure = str(error)
        if comm.size == 1 or isinstance(error, RankError | JobError):
            raise
        raise RankError(comm.rank, f"failed: {error}") from None
    except BaseException as error:
        failure = f"{type(error).__name__}: {error}"
        raise
    finally:
        comm.close(failure)
