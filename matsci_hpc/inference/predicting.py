"""The MPI driver of predictions: claim a block of structures, predict, write its text; repeat until none is left.

Blocks and the batches within them follow from the input alone, and their texts are joined in order, so the file has the
same bytes for any number of ranks. A block's text appears by rename in a folder beside the output; the same command
started again after a crash or a signal keeps what is finished.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import xxhash

from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.conversion import read_block
from matsci_hpc.errors import MatsciError, UserInputError
from matsci_hpc.folder_lock import FolderLock
from matsci_hpc.inference.graphs import Graph
from matsci_hpc.inference.inputs import open_input
from matsci_hpc.inference.opening import find_model, load_model
from matsci_hpc.inference.tables import format_of, head, piece
from matsci_hpc.inference.trained import TrainedModel
from matsci_hpc.interruption import Interruption
from matsci_hpc.parallel.mpi import World
from matsci_hpc.sources.base import Source
from matsci_hpc.whole_files import appearing, output_error, write_atomic
from matsci_hpc.work_sharing import BlockLoop, BlockResult

BLOCK = 64
"""Structures of a block, the unit of work of a rank."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Predicted:
    """What was done.

    Attributes:
        inputs: of the source.
        rejected: those of them that could not be used.
        out, quarantine: the files.
        unseen: structures by element that no training sample had, by atomic number.
    """

    inputs: int
    rejected: int
    out: Path
    quarantine: Path
    unseen: dict[int, int]


def work_folder(out: Path) -> Path:
    """Where the texts of blocks lie until all are done."""
    return out.with_name(f".{out.name}.work")


def quarantine_of(out: Path) -> Path:
    """The file of inputs that could not be used: a line for each, with its reason."""
    return out.with_suffix(".quarantine.jsonl")


def limit_threads() -> None:
    """One thread for each rank, unless OMP_NUM_THREADS says otherwise: the last digits of sums depend on it."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or 1))


def load_together(path: Path, world: World, checkpoint: str | None, **options: Any) -> TrainedModel:
    """The same model on every rank; collective. Rank 0 chooses, since a run may save another checkpoint meanwhile.

    Args:
        path: as in `load_model`.
        world: the ranks.
        checkpoint: as in `load_model`.
        options: likewise.

    Raises:
        UserInputError, MachineError: as `load_model`, on every rank.
    """

    def chosen() -> str:
        where = find_model(path, checkpoint)[2]
        load_model(where, **options)
        return where

    where = world.on_first(chosen)
    with world.ending_all():
        return load_model(where, **options)


def predict_file(config: PrepConfig, model: TrainedModel, out: Path, world: World) -> Predicted:
    """Predict every structure of a source; collective over all ranks.

    Args:
        config: the source and the cutoff.
        model: on every rank the same.
        out: file to write; its end tells the format.
        world: the ranks.

    Raises:
        UserInputError: bad input, none of it usable, or no place to write.
        MachineError: the output cannot be written.
        StoppedError: a signal asked for the end.
    """
    interruption = Interruption()
    job = _Job(config, model, format_of(out), out, work_folder(out))
    lock = FolderLock(job.work, f"{out}: {{holder}} is writing it; wait for it, end it, or choose another --out")

    def first(task: Callable[[], T]) -> T:
        return world.on_first(lambda: interruption.obeyed_at_once(task))

    with interruption.noted():
        try:
            source = first(lambda: job.begin(lock))
            BlockLoop(world, source, BLOCK, interruption, "blocks").run(job.block)
            done = first(lambda: job.finish(len(source)))
        finally:
            lock.release()
        if world.rank == 0:
            shutil.rmtree(job.work, ignore_errors=True)
        return done


@dataclass(frozen=True, slots=True)
class _Job:
    config: PrepConfig
    model: TrainedModel
    kind: str
    out: Path
    work: Path

    def begin(self, lock: FolderLock) -> Source:
        """Open the source, and throw away blocks of another input or model; on rank 0."""
        try:
            self.work.mkdir(exist_ok=True)
            lock.acquire()
        except OSError as error:
            raise output_error(self.out, error) from None
        try:
            source = open_input(self.config, self.work)
        except MatsciError:
            lock.release()
            if not any(self.work.glob("block-*")):
                shutil.rmtree(self.work, ignore_errors=True)
            raise
        section = self.config.source.model_dump(mode="json", exclude={"path"})
        model = [self.model.about.model_dump(mode="json"), self.model.precision.name]
        made_of = json.dumps([model, self.kind, source.identity, section], sort_keys=True)
        mark, seal = xxhash.xxh3_128_hexdigest(made_of.encode()), self.work / "made_of"
        try:
            if not seal.is_file() or seal.read_text(encoding="utf-8") != mark:
                for each in self.work.glob("block-*"):
                    each.unlink()
                write_atomic(seal, mark.encode())
        except OSError as error:
            raise output_error(self.out, error) from None
        return source

    def block(self, source: Source, number: int) -> BlockResult:
        """Predict a block, unless an earlier call has done so."""
        text, about = self._files(number)
        if text.is_file() and about.is_file():
            return BlockResult(len(json.loads(about.read_bytes())["quarantine"]), kept=True, kept_shard=True)
        start = number * BLOCK
        structures, edges, rejected = read_block(self.config, source, start, min(start + BLOCK, len(source)))
        graphs = list(map(Graph, structures, edges))
        made = piece(self.kind, self.model.targets, self.model.predict_graphs(graphs), structures) if graphs else ""
        told = {
            "quarantine": [each.model_dump() for each in rejected],
            "unseen": self.model.unseen_elements(graphs),
        }
        write_atomic(about, json.dumps(told).encode())
        write_atomic(text, made.encode(errors="backslashreplace"))
        return BlockResult(len(rejected), kept=False, kept_shard=False)

    def finish(self, inputs: int) -> Predicted:
        """Join the blocks; on rank 0."""
        quarantine, unseen = [], dict[int, int]()
        blocks = range(-(-inputs // BLOCK))
        for number in blocks:
            told = json.loads(self._files(number)[1].read_bytes())
            quarantine += told["quarantine"]
            for element, count in told["unseen"].items():
                unseen[int(element)] = unseen.get(int(element), 0) + count
        lines = "".join(f"{json.dumps(each, ensure_ascii=False)}\n" for each in quarantine)
        write_atomic(quarantine_of(self.out), lines.encode(errors="backslashreplace"))
        if len(quarantine) == inputs:
            shutil.rmtree(self.work, ignore_errors=True)
            raise UserInputError(
                f"none of the {inputs:,} structures can be used; the reasons stand in {quarantine_of(self.out)}, the "
                f"first is: {quarantine[0]['reason']}"
            )
        with appearing(self.out) as temporary, temporary.open("wb") as file:
            file.write(head(self.kind, self.model.targets).encode())
            for number in blocks:
                file.write(self._files(number)[0].read_bytes())
        return Predicted(inputs, len(quarantine), self.out, quarantine_of(self.out), dict(sorted(unseen.items())))

    def _files(self, number: int) -> tuple[Path, Path]:
        """The text of a block, which appears last, and what else is to be told of it."""
        return self.work / f"block-{number:06d}.text", self.work / f"block-{number:06d}.json"
