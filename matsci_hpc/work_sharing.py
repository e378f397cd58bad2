"""How ranks share the blocks of a preparation: who takes which, how they end together, and how far they are.

A rank takes the next block from a counter, so ranks with light blocks take more of them. Heavy blocks are handed out
first, where the source knows its sizes, so that none is begun when all others are done. A rank that fails, or is asked
to end by a signal, also while it waits for the last blocks of the others, says so on the board; the others see it
between two structures, drop their block, and all of them meet and raise one and the same error.
"""

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from matsci_hpc.errors import MatsciError, StoppedError
from matsci_hpc.interruption import Interruption
from matsci_hpc.parallel.board import Board, Pulse
from matsci_hpc.parallel.mpi import World
from matsci_hpc.sources.base import FlatSource, Source
from matsci_hpc.structure import Rejected, Structure
from matsci_hpc.telemetry.progress import Progress

CLAIMED, FAILED, BLOCKS, INPUTS, KEPT_INPUTS, REJECTED = range(6)
"""Places on the board."""
LOOK_S = 0.5
"""Time between two looks at the board while a block is in work."""
SHOW_S = 0.2
"""Time between two looks for the progress that is shown."""
GRACE_S = 15.0
"""How long a rank that failed waits for the others before it ends them."""


@runtime_checkable
class KnowsSizes(Protocol):
    """A source that can tell without reading how large inputs are."""

    def input_bytes(self, start: int, stop: int) -> int:
        """Bytes of the inputs `start` to `stop - 1`."""
        ...


class _OthersStopped(Exception):  # noqa: N818 - no error of this rank
    """Another rank has failed or was stopped; it will say why."""


@dataclass(slots=True)
class RankWork:
    """What one rank did: where the node-hours went."""

    rank: int
    host: str
    blocks: int = 0
    """Blocks that it took, those found finished included."""
    kept_shards: int = 0
    """Those of them that an earlier, interrupted call had finished."""
    inputs: int = 0
    busy_s: float = 0.0
    longest_block: int | None = None
    longest_s: float = 0.0


@dataclass(frozen=True, slots=True)
class BlockResult:
    """What became of a block: inputs that were rejected, and whether an earlier call had finished it, with a shard."""

    rejected: int
    kept: bool
    kept_shard: bool


def claim_order(source: Source, blocks: int, block_size: int) -> Sequence[int]:
    """The order in which blocks are handed out: the largest first, or as they come if sizes are not known."""
    if not isinstance(source, KnowsSizes):
        return range(blocks)
    count = len(source)
    sizes = [source.input_bytes(n * block_size, min((n + 1) * block_size, count)) for n in range(blocks)]
    return sorted(range(blocks), key=lambda number: -sizes[number])


class BlockLoop:
    """All blocks of a source, shared by the ranks of a world. Collective to make.

    Args:
        world: the ranks.
        source: gives the inputs.
        block_size: inputs of a block.
        interruption: notes signals.
        called: what blocks are to people.
    """

    def __init__(
        self, world: World, source: Source, block_size: int, interruption: Interruption, called: str = "shards"
    ) -> None:
        self._world = world
        self._source = source
        self._size = block_size
        self._blocks = -(-len(source) // block_size)
        self._interruption = interruption
        self._called = called
        self._board: Board = world.board(6)
        self._work = RankWork(world.rank, socket.gethostname())
        self._counted = 0
        self._looked_s = 0.0
        self._first_to_fail = False

    def run(self, convert: Callable[[Source, int], BlockResult]) -> list[RankWork]:
        """Have every block converted by one of the ranks, and give what each of them did; collective.

        Args:
            convert: converts the block of a number, from the source that it is given.

        Raises:
            MatsciError: of any rank, on every rank.
        """
        failure: MatsciError | None = None
        with self._shown(), self._world.ending_all():
            order = claim_order(self._source, self._blocks, self._size)
            try:
                while (turn := self._board.add(CLAIMED)) < self._blocks:
                    self.check()
                    self._one_block(order[turn], convert)
            except _OthersStopped:
                pass
            except MatsciError as error:
                failure = error
                self._first_to_fail = self._board.add(FAILED) == 0
            failure = self._meet(failure)
        self._board.free()
        _raise_first(self._world.gather((failure, socket.gethostname())))
        return self._world.gather(self._work)

    def check(self) -> None:
        """Between two structures: whether to go on."""
        self._interruption.check()
        now_s = time.monotonic()
        if now_s - self._looked_s >= LOOK_S:
            self._looked_s = now_s
            if self._board.read(FAILED):
                raise _OthersStopped

    def read(self, start: int, stop: int) -> Iterator[Structure | Rejected]:
        """The inputs of the source, counted on the board as they come."""
        pending = 0
        for each in self._source.read(start, stop):
            if time.monotonic() - self._looked_s >= LOOK_S:
                self._count(pending)
                pending = 0
            self.check()
            pending += 1
            yield each
        self._count(pending)

    def _one_block(self, number: int, convert: Callable[[Source, int], BlockResult]) -> None:
        start_s = time.monotonic()
        self._counted = 0
        inputs = min(self._size, len(self._source) - number * self._size)
        source = self._source
        watched = _WatchedFlat(source, self) if isinstance(source, FlatSource) else _Watched(source, self)
        result = convert(watched, number)
        self._count(inputs - self._counted)  # whatever did not come through `read`
        self._board.add(REJECTED, result.rejected)
        self._board.add(KEPT_INPUTS, inputs if result.kept else 0)
        self._board.add(BLOCKS)
        work, time_s = self._work, time.monotonic() - start_s
        work.blocks += 1
        work.kept_shards += result.kept_shard
        work.inputs += inputs
        work.busy_s += time_s
        if time_s > work.longest_s:
            work.longest_block, work.longest_s = number, time_s

    def _count(self, inputs: int) -> None:
        if inputs:
            self._counted += inputs
            self._board.add(INPUTS, inputs)

    def _meet(self, failure: MatsciError | None) -> MatsciError | None:
        """Wait for all ranks, and give the failure of this one; a signal that comes meanwhile is one, too."""
        if failure is None:
            try:
                self._board.meet(meanwhile=self._interruption.check)
            except StoppedError as error:
                failure = error
                self._first_to_fail = self._board.add(FAILED) == 0
        # Whoever is not there in time sits in one very long call; the first rank to fail ends it, and says why.
        if failure is not None and not self._board.meet(GRACE_S if self._first_to_fail else 2 * GRACE_S):
            raise failure
        return failure

    def _shown(self) -> "_Shown":
        return _Shown(self._board, self._blocks, len(self._source), self._called, shown=self._world.rank == 0)


class _Watched:
    """A source that looks up between two structures."""

    def __init__(self, source: Source, loop: BlockLoop) -> None:
        self._source = source
        self.targets, self.splits = source.targets, source.splits
        self.identity, self.remarks = source.identity, source.remarks
        self.read = loop.read

    def __len__(self) -> int:
        return len(self._source)


class _WatchedFlat(_Watched):
    """One that gives many samples at once: 4096 take some 50 ms, so the loop looks up only between blocks."""

    def __init__(self, source: FlatSource, loop: BlockLoop) -> None:
        super().__init__(source, loop)
        self.read_flat = source.read_flat


class _Shown:
    """Rank 0 shows the board every SHOW_S, by a thread: its own block may take long."""

    def __init__(self, board: Board, blocks: int, inputs: int, called: str, *, shown: bool) -> None:
        self._board, self._blocks, self._called = board, blocks, called
        self._progress = Progress(inputs, "inputs", shown=shown)
        self._pulse = Pulse(self._look, SHOW_S) if shown else None

    def __enter__(self) -> None:
        self._progress.__enter__()

    def __exit__(self, *_: object) -> None:
        if self._pulse is not None:
            self._pulse.stop()
        self._progress.__exit__(None, None, None)

    def _look(self) -> None:
        inputs, blocks, kept, rejected = map(self._board.read, (INPUTS, BLOCKS, KEPT_INPUTS, REJECTED))
        note = f"{blocks:,}/{self._blocks:,} {self._called}, {rejected:,} rejected"
        self._progress.show(inputs, note, skipped=kept)


def _raise_first(outcomes: list[tuple[MatsciError | None, str]]) -> None:
    """Raise what befell the first rank; that it was stopped is no news beside a failure."""
    found = [(rank, host, error) for rank, (error, host) in enumerate(outcomes) if error is not None]
    for rank, host, error in sorted(found, key=lambda each: isinstance(each[2], StoppedError)):
        if len(outcomes) > 1 and not isinstance(error, StoppedError):
            error.args = (f"rank {rank} on {host}: {error}",)
        raise error
