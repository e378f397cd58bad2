"""Whether the checkpoint that a run begins with fits it, as far as that is known without reading a tensor."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from matsci_hpc.config.train import TrainConfig
from matsci_hpc.preflight.finding import Finding
from matsci_hpc.preflight.folder import newest_step
from matsci_hpc.preflight.subject import Subject
from matsci_hpc.shards.manifest import Manifest
from matsci_hpc.training.encoder_shape import refuse_other_shape
from matsci_hpc.training.learned_from import describe, read_learned_from
from matsci_hpc.training.misfits import neighbor_misfits


def beginning_findings(config: TrainConfig, manifests: Mapping[Path, Manifest], subject: Subject) -> Iterator[Finding]:
    """Whether sizes and neighbours are the same; nothing is said of what is not there yet, or of no account any more.

    Raises:
        UserInputError: the checkpoint does not fit.
    """
    begins = config.init_from
    if begins is None or subject.is_awaited(begins) or newest_step(subject.output) or not begins.is_dir():
        return
    checkpoint = _likely_checkpoint(begins)
    if checkpoint is None:
        text = f"{begins} holds no checkpoint"
        if subject.after:
            yield Finding("warning", "init_from", f"{text}; a job before this one may make it")
        else:
            yield Finding("error", "init_from", text, "train it until it has saved one, or name another run")
        return
    refuse_other_shape(checkpoint, config.model)
    if len(manifests) == len(config.data.entries):
        here = describe(list(manifests.values()), {})
        # What differs and is accepted is told by the trial, with all else that the run begins with.
        list(neighbor_misfits(checkpoint, read_learned_from(checkpoint), here, config.fine_tune.neighbors))


def _likely_checkpoint(begins: Path) -> Path | None:
    """The checkpoint that will be taken if none is damaged."""
    if not (begins / "checkpoints").is_dir():
        return begins if (begins / "state.json").is_file() else None
    newest = newest_step(begins)
    if not newest:
        return None
    path = begins / "checkpoints" / f"step-{newest:06d}"
    best = json.loads((path / "state.json").read_text(encoding="utf-8"))["run"]["best_step"] or newest
    chosen = path.with_name(f"step-{best:06d}")
    return chosen if chosen.is_dir() else path
