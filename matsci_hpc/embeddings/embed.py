"""Embeddings of data sets on many ranks, the same bytes on any number of them.

What a batch holds follows from the samples alone, since sums of floating-point numbers depend on the shape of the
arrays that they are part of. Batches are handed out one by one to whichever rank is free, and each rank writes its rows
at their place in one file, so that no rank ever holds more than a batch.
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from matsci_hpc.embeddings.about import ABOUT, About, EmbeddedData, EncoderOrigin, write_about
from matsci_hpc.embeddings.choice import Chosen, choose
from matsci_hpc.embeddings.encoder import encoder_of, stretched
from matsci_hpc.embeddings.files import FILE, begin_file, open_rows
from matsci_hpc.embeddings.table import make_table
from matsci_hpc.errors import UserInputError
from matsci_hpc.folder_lock import FolderLock
from matsci_hpc.loading.collection import Collection
from matsci_hpc.loading.plan import COST
from matsci_hpc.loading.sanity import checked_batch
from matsci_hpc.models.registry import Model
from matsci_hpc.parallel.device import device_name, take_device
from matsci_hpc.parallel.discovery import discover
from matsci_hpc.parallel.mpi import World
from matsci_hpc.shards.manifest import PROVENANCE, FileRecord
from matsci_hpc.targets import TargetSpec
from matsci_hpc.telemetry.progress import Progress
from matsci_hpc.telemetry.provenance import describe_machine
from matsci_hpc.training.precision import Precision
from matsci_hpc.whole_files import file_checksum, output_error, sync, write_atomic

BATCH_COST = 150_000.0
"""Predicted cost of a batch, in edges: large enough to be efficient, small enough for any memory."""
MOST_GRAPHS = 2048
"""Of a batch, so that small structures do not make few large pieces of work."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be embedded.

    Attributes:
        source, checkpoint, untrained, trust_module: as `encoder_of` takes them.
        data: folders of data sets.
        split, limit, seed: as `choose` takes them.
        out: folder of the results.
        device: auto, cpu, cuda or xpu.
    """

    source: Path
    data: tuple[Path, ...]
    out: Path
    split: str = "val"
    limit: int | None = None
    seed: int = 0
    checkpoint: str | None = None
    untrained: int | None = None
    stretch: bool = False
    trust_module: bool = False
    device: str = "auto"


def embed(question: Question, world: World) -> About:
    """Embed, and write the folder; collective over all ranks of `world`.

    Raises:
        UserInputError: the run or the data cannot be used so, or the folder cannot be written.
        MachineError: a shard or checkpoint cannot be read, or the disk is full or failing.
    """
    start_s = time.perf_counter()
    one_thread()
    # Rank 0 first, so that a mistake is said once; what the others find then is their own trouble.
    world.on_first(lambda: _refuse_mistakes(question))
    with world.ending_all():
        device = take_device(question.device, discover(os.environ))
        model, origin = _encoder(question)
        chosen = choose(question.data, question.split, question.limit, question.seed)
        precision = Precision(origin.precision, device.type)
        models = _by_cutoff(model, origin, chosen)
        for each in models.values():
            each.to(device=device, dtype=precision.dtype).eval()
    lock = FolderLock(question.out, f"{question.out}: {{holder}} is embedding into it; choose another --out")
    partial = question.out / f".{FILE}.part"
    try:
        offset, targets = world.on_first(lambda: _begin(question.out, origin, chosen, partial, lock))
        _compute(world, _Encoder(models, precision, origin), chosen, partial, offset)
        world.barrier()
        about = world.on_first(lambda: _finish(question, origin, chosen, targets, partial))
        if world.rank == 0:
            record = describe_machine() | {"ranks": world.size, "device": device_name(device)}
            record["time_taken_s"] = time.perf_counter() - start_s
            write_atomic(question.out / PROVENANCE, (json.dumps(record, indent=1) + "\n").encode())
    finally:
        if world.rank == 0:
            partial.unlink(missing_ok=True)
        lock.release()
    return about


def one_thread() -> None:
    """Compute on one core, unless OMP_NUM_THREADS says otherwise: more threads may add up in another order."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


@dataclass(frozen=True, slots=True)
class Piece:
    """Samples that are embedded together.

    Attributes:
        chosen: number of their data set.
        first: row of the first one in the file.
        samples: int64 [n], consecutive among the chosen ones.
    """

    chosen: int
    first: int
    samples: NDArray[np.int64]


def cut(chosen: Sequence[Chosen]) -> Iterator[Piece]:
    """All chosen samples in pieces, which depend on their sizes alone."""
    first = 0
    for number, each in enumerate(chosen):
        costs = COST.of(each.collection.atoms(each.samples), each.collection.edges(each.samples)).tolist()
        start, load = 0, 0.0
        for place, cost in enumerate(costs):
            if place > start and (load + cost > BATCH_COST or place - start == MOST_GRAPHS):
                yield Piece(number, first + start, each.samples[start:place])
                start, load = place, 0.0
            load += cost
        yield Piece(number, first + start, each.samples[start:])
        first += len(each.samples)


@dataclass(frozen=True, slots=True)
class _Encoder:
    models: dict[float, Model]
    """By the cutoff of the data."""
    precision: Precision
    origin: EncoderOrigin

    @property
    def width(self) -> int:
        return int(self.origin.model["embedding_width"])

    def embed(self, collection: Collection, samples: NDArray[np.int64]) -> NDArray[np.float32]:
        """Embeddings of some samples, [n, width].

        Raises:
            UserInputError: one of them is not finite.
            MachineError: a shard is damaged.
        """
        batch = self.precision.cast(checked_batch(collection, samples))
        with torch.no_grad():
            found = self.models[collection.cutoff].embed(batch).float().cpu().numpy()
        wrong = np.flatnonzero(~np.isfinite(found).all(axis=1))
        if len(wrong):
            raise UserInputError(
                f"{collection.sample_name(int(samples[wrong[0]]))}: its embedding is not finite: the encoder "
                f"({self.origin.title}) has diverged, or does not bear such a structure; take an earlier --checkpoint"
            )
        return found


def _compute(world: World, encoder: _Encoder, chosen: Sequence[Chosen], partial: Path, offset: int) -> None:
    """Let every piece be embedded by one of the ranks; collective."""
    pieces = list(cut(chosen))
    total = sum(len(each.samples) for each in chosen)
    counter = world.counter()
    with (
        world.ending_all(),
        open_rows(partial, offset, encoder.width) as rows,
        Progress(total, "samples", shown=world.rank == 0) as progress,
    ):
        while (number := counter.take()) < len(pieces):
            piece = pieces[number]
            progress.show(piece.first)  # all pieces before have been handed out
            rows.write(piece.first, encoder.embed(chosen[piece.chosen].collection, piece.samples))
    counter.free()


def _by_cutoff(model: Model, origin: EncoderOrigin, chosen: Sequence[Chosen]) -> dict[float, Model]:
    """The encoder for each cutoff of the data: the same one for all, unless it is to stretch."""
    cutoffs = {each.collection.cutoff for each in chosen}
    if not origin.stretched:
        return dict.fromkeys(cutoffs, model)
    own = origin.cutoff_angstrom
    return {cutoff: model if cutoff == own else stretched(model, origin, cutoff) for cutoff in cutoffs}


def _refuse_mistakes(question: Question) -> None:
    """Whatever can be wrong with the question itself."""
    out = question.out
    others = [path.name for path in out.iterdir() if not path.name.startswith(".")] if out.is_dir() else []
    if others and ABOUT not in others:
        raise UserInputError(f"{out}: the folder is not empty and holds no embeddings; choose another --out")
    model, origin = _encoder(question)
    chosen = choose(question.data, question.split, question.limit, question.seed)
    _by_cutoff(model, origin, chosen)


def _encoder(question: Question) -> tuple[Model, EncoderOrigin]:
    model, origin = encoder_of(
        question.source, question.checkpoint, question.untrained, trust_module=question.trust_module
    )
    return model, origin.model_copy(update={"stretched": question.stretch})


def _begin(
    out: Path, origin: EncoderOrigin, chosen: Sequence[Chosen], partial: Path, lock: FolderLock
) -> tuple[int, dict[str, TargetSpec]]:
    """Write all but the embeddings, on rank 0; gives their place in the file, and what the targets are."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        table = make_table(chosen)
        offset = begin_file(partial, table.columns, table.targets, int(origin.model["embedding_width"]))
    except OSError as error:
        raise output_error(out, error) from None
    return offset, table.targets


def _finish(
    question: Question, origin: EncoderOrigin, chosen: Sequence[Chosen], targets: dict[str, TargetSpec], partial: Path
) -> About:
    """Give the file its name and write what it is, on rank 0."""
    path = question.out / FILE
    try:
        record = FileRecord(file=FILE, bytes=partial.stat().st_size, xxh3_128=file_checksum(partial))
        partial.replace(path)
        sync(question.out)
    except OSError as error:
        raise output_error(path, error) from None
    about = About(
        encoder=origin,
        width=int(origin.model["embedding_width"]),
        samples=sum(len(each.samples) for each in chosen),
        limit=question.limit,
        seed=question.seed,
        data_sets=[_described(each, question.split) for each in chosen],
        targets=targets,
        notes=notes(origin, chosen),
        file=record,
    )
    write_about(question.out, about)
    return about


def _described(chosen: Chosen, split: str) -> EmbeddedData:
    (data,) = chosen.collection.datasets
    return EmbeddedData(
        name=chosen.name,
        path=data.name,
        fingerprint=data.manifest.fingerprint,
        split=split,
        samples=len(chosen.samples),
        of=chosen.of,
        cutoff_angstrom=chosen.collection.cutoff,
        rule=data.manifest.neighbors.rule,
    )


def notes(origin: EncoderOrigin, chosen: Sequence[Chosen]) -> list[str]:
    """What a reader should know before trusting the embeddings."""
    found = []
    for each in chosen:
        cutoff = each.collection.cutoff
        if cutoff != origin.cutoff_angstrom:
            met = (
                "its Gaussians and envelope are stretched to them, and yet these are other graphs than it knows."
                if origin.stretched
                else "these are other graphs than it knows. Where that matters, prepare the data set with the cutoff "
                "of the run, or give --stretch."
            )
            found.append(
                f"{each.name} has edges up to {cutoff:g} Å, and the encoder was trained with edges up to "
                f"{origin.cutoff_angstrom:g} Å: {met}"
            )
        (data,) = each.collection.datasets
        left_out = [name for name, spec in data.manifest.targets.items() if not spec.is_number]
        if left_out:
            found.append(
                f"{each.name}: {', '.join(left_out)} left out: only numbers and labels of the whole structure are kept "
                "beside its embedding."
            )
    return found
