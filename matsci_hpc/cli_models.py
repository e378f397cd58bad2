"""The commands that use what was trained; thin like those of `cli`."""

from pathlib import Path
from typing import Any

import click

MODEL = click.argument("model", type=click.Path(path_type=Path))
CHECKPOINT = click.option(
    "--checkpoint", metavar="WHICH", help="Of a run: best, newest, or a step. Default: the best, else the newest."
)
TRUST = click.option(
    "--trust-module", is_flag=True, help="Import an encoder from outside this package, which runs its code."
)


@click.command()
@MODEL
@click.argument("source", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--data", type=click.Path(path_type=Path), multiple=True, metavar="DATASET", help="Metrics on this one.")
@click.option("--split", help="Of the data sets. With --data: val by default.")
@click.option(
    "--structures", type=click.Path(path_type=Path), metavar="FILE", help="Predictions of these; a data set, too."
)
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Predictions: .csv, .jsonl or .xyz.")
@CHECKPOINT
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "xpu"]), default="auto", show_default=True)
@TRUST
def evaluate(
    model: Path,
    source: tuple[str, ...],
    data: tuple[Path, ...],
    split: str | None,
    structures: Path | None,
    out: Path | None,
    **options: Any,
) -> dict[str, object]:
    """Metrics of a trained model on prepared data, or its predictions of structures.

    MODEL is a run, one of its checkpoints, or an exported file. Under mpirun or srun all ranks share the work.

    \b
      matsci-hpc evaluate RUN_DIR --data datasets/mp_gap --split test --out test.json
      matsci-hpc evaluate RUN_DIR --structures new.extxyz --out new.csv
      matsci-hpc evaluate RUN_DIR --structures table.csv --out new.csv structure_column=cif id_column=id

    The kind of structures is told by their names, or by kind=KIND; KEY=VALUE is for the section `source` of
    docs/sources.md. Structures that cannot be used are listed beside the output, with the reason.
    """  # noqa: D301 - click looks for the character itself
    from matsci_hpc.errors import UserInputError

    if bool(data) == (structures is not None):
        raise UserInputError("give either --data, for metrics, or --structures, for predictions")
    if structures is not None:
        if out is None:
            raise UserInputError("--structures needs --out FILE: .csv, .jsonl or .xyz")
        return _predict(model, structures, source, split, out, options)
    if source:
        raise UserInputError(f"{source[0]}: KEY=VALUE is for --structures; a prepared data set needs none")
    return _judge(model, data, split or "val", out, options)


def _judge(
    model: Path, data: tuple[Path, ...], split: str, out: Path | None, options: dict[str, Any]
) -> dict[str, object]:
    from textwrap import indent

    from matsci_hpc.inference.judging import judge
    from matsci_hpc.training.evaluation_table import evaluation_table
    from matsci_hpc.whole_files import write_atomic

    found, first = judge(model, data, split, **options)
    if first:
        averaged = ", averaged parameters" if found["weights"] == "average" else ""
        print(f"{found['model']} at step {found['step']:,}{averaged}, split {split} of {', '.join(found['data'])}")
        print(indent(evaluation_table(found["metrics"]), "  "))
        if out is not None:
            kept = {key: value for key, value in found.items() if key != "time_taken_s"}
            write_atomic(out, f"{_indented(kept)}\n".encode())
            print(out)
    return found


def _indented(values: dict[str, Any]) -> str:
    """JSON with a list of whole numbers on one line, as a row of a matrix; strings in JSON hold no line breaks."""
    import json
    import re

    text = json.dumps(values, indent=1)
    return re.sub(r"\[\n[\d,\s]+\]", lambda found: f"[{' '.join(found[0][1:-1].split())}]", text)


def _predict(
    model: Path, structures: Path, source: tuple[str, ...], split: str | None, out: Path, options: dict[str, Any]
) -> dict[str, object]:
    import sys

    from matsci_hpc.inference.inputs import source_config
    from matsci_hpc.inference.predicting import limit_threads, load_together, predict_file, work_folder
    from matsci_hpc.inference.tables import format_of
    from matsci_hpc.parallel.mpi import open_world
    from matsci_hpc.shards.describe import counted

    format_of(out)
    limit_threads()
    world = open_world()
    loaded = load_together(model, world, **options)
    config = world.on_first(lambda: source_config(structures, source, loaded.cutoff, work_folder(out), split))
    done = predict_file(config, loaded, out, world)
    if world.rank == 0:
        if done.unseen:
            from ase.data import chemical_symbols

            counts = ", ".join(f"{chemical_symbols[number]} in {count:,}" for number, count in done.unseen.items())
            print(
                f"matsci-hpc: warning: structures hold elements that the model never saw in training, so their "
                f"predictions mean little: {counts}",
                file=sys.stderr,
            )
        made = counted(done.inputs - done.rejected, "prediction")
        print(f"{out}: {made} of {', '.join(loaded.targets)} by {counted(world.size, 'rank')}")
        if done.rejected:
            print(f"{counted(done.rejected, 'structure')} could not be used: {done.quarantine}")
    return {"predictions": done.inputs - done.rejected, "rejected": done.rejected}


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, metavar="FOLDER", help="Folder, or FILE.safetensors."
)
@CHECKPOINT
@click.option("--heads/--encoder-only", default=True, help="Whether to export the heads as well; default: yes.")
@click.option("--licence", metavar="SPDX", help="Of the model, for its card, such as apache-2.0.")
@click.option(
    "--data-licence", "data_licences", multiple=True, metavar="DATASET=LICENCE", help="Of a data set, for the card."
)
@click.option(
    "--evaluation",
    "evaluations",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Metrics that `evaluate --out` wrote, for the card.",
)
def export(
    run_dir: Path,
    out: Path,
    checkpoint: str | None,
    heads: bool,
    licence: str | None,
    data_licences: tuple[str, ...],
    evaluations: tuple[Path, ...],
) -> dict[str, object]:
    """The model of a run as one file of safetensors, with a model card.

    Load it with `load_model` (docs/using_models.md), or evaluate it.
    """
    from matsci_hpc.errors import UserInputError
    from matsci_hpc.inference.exporting import Wishes
    from matsci_hpc.inference.exporting import export as export_model

    licences = {}
    for each in data_licences:
        name, separator, value = each.partition("=")
        if not separator or not name or not value:
            raise UserInputError(f"--data-licence {each!r}: expected DATASET=LICENCE, such as mp_gap=CC-BY-4.0")
        licences[name] = value
    file, card = export_model(run_dir, out, checkpoint, Wishes(heads, licence, licences, evaluations))
    print(file)
    print(card)
    return {"model": str(file), "card": str(card)}
