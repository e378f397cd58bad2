"""The commands that look at data sets through an encoder, and at targets without one; thin like those of `cli`."""

import math
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from matsci_hpc.config.train import Target


@click.command()
@click.argument("run", type=click.Path(path_type=Path), metavar="RUN_OR_CHECKPOINT")
@click.option(
    "--data",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    metavar="DATASET",
    help="Folder of a data set; may be repeated.",
)
@click.option("--split", default="val", show_default=True, help="Of these data sets; all stands for every split.")
@click.option("--limit", type=click.IntRange(min=1), help="Most samples of a data set, drawn by --seed.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the samples drawn.")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FOLDER", help="Where to write.")
@click.option("--checkpoint", metavar="WHICH", help="best, newest or a step; default: the best, else the newest.")
@click.option(
    "--untrained", type=click.IntRange(min=0), metavar="SEED", help="Random parameters in an encoder of the same shape."
)
@click.option(
    "--stretch",
    is_flag=True,
    help="Let the encoder's Gaussians and envelope reach to the cutoff of each data set, as fine-tuning does.",
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "xpu"]), default="auto", show_default=True)
@click.option(
    "--trust-module", is_flag=True, help="Import an encoder from outside this package, if that is what it is."
)
def embed(
    run: Path,
    data: tuple[Path, ...],
    split: str,
    limit: int | None,
    seed: int,
    out: Path,
    checkpoint: str | None,
    untrained: int | None,
    stretch: bool,
    device: str,
    trust_module: bool,
) -> dict[str, object]:
    """Embed data sets by the encoder of a run.

    Writes FOLDER/embeddings.h5, with ids, formulas, data sets and targets beside the embeddings, and
    FOLDER/embeddings.json, which says what they are. Under mpirun or srun all ranks share the work; each computes on
    one core, unless OMP_NUM_THREADS says otherwise. The bytes are the same on any number of ranks.

    A run that has not saved a checkpoint yet stands for the parameters that it begins with.
    """
    # Every batch has another shape, each of which oneDNN would keep kernels for; read when torch is loaded.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    from matsci_hpc.embeddings.embed import Question
    from matsci_hpc.embeddings.embed import embed as run_embedding
    from matsci_hpc.parallel.mpi import open_world

    world = open_world()
    question = Question(
        source=run,
        data=data,
        out=out,
        split=split,
        limit=limit,
        seed=seed,
        checkpoint=checkpoint,
        untrained=untrained,
        stretch=stretch,
        trust_module=trust_module,
        device=device,
    )
    about = run_embedding(question, world)
    if world.rank == 0:
        for note in about.notes:
            print(f"matsci-hpc: warning: {note}", file=sys.stderr)
        for each in about.data_sets:
            drawn = f", drawn from {each.of:,}" if each.samples < each.of else ""
            print(f"{each.name}: {each.samples:,} samples of split {each.split}{drawn}")
        print(f"{out}: {about.samples:,} embeddings of {about.width} numbers by {about.encoder.title}")
    return {"samples": about.samples, "width": about.width}


@click.command("map")
@click.argument("embeddings", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FOLDER", help="Where to write.")
@click.option(
    "--method",
    type=click.Choice(["auto", "umap", "pca"]),
    default="auto",
    show_default=True,
    help="Of the picture; auto is umap where umap-learn is installed.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of UMAP, folds and samples.")
@click.option("--neighbors", type=click.IntRange(min=2), default=15, show_default=True, help="Of a sample, for UMAP.")
@click.option("--k", type=click.IntRange(min=1), default=10, show_default=True, help="Neighbours for the purity.")
@click.option("--folds", type=click.IntRange(min=2, max=20), default=5, show_default=True, help="Of the linear probe.")
@click.option("--no-numbers", is_flag=True, help="Draw only; then no package of the extra `embed` is needed for pca.")
def map_embeddings(
    embeddings: tuple[Path, ...],
    out: Path,
    method: str,
    seed: int,
    neighbors: int,
    k: int,
    folds: int,
    no_numbers: bool,
) -> dict[str, object]:
    """Draw a map of embeddings, and say in numbers how far data sets and classes lie apart.

    EMBEDDINGS are folders that `embed` wrote. Those by the same encoder make one map; those by another one make another
    map beside it, so that before and after training can be compared.

    All numbers are of the embeddings themselves, not of the picture. They need scikit-learn, and UMAP needs umap-learn:
    the extra `embed`.
    """
    from matsci_hpc.analysis.map_report import MapSettings, write_map

    settings = MapSettings(method=method, seed=seed, neighbors=neighbors, k=k, folds=folds, numbers=not no_numbers)
    written = write_map(embeddings, out, settings)
    print(written.summary)
    print(written.page)
    return {"page": str(written.page)}


class Sizes(click.ParamType):  # type: ignore[type-arg]
    """Numbers of training samples, such as 1000,4000,all."""

    name = "N[,N...]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int | None, ...]:
        """In the order given, each once; `all` is None."""
        if isinstance(value, tuple):
            return value
        try:
            found = [None if each.strip() == "all" else int(each) for each in str(value).split(",")]
        except ValueError:
            self.fail(f"{value!r} is no list of numbers, such as 1000,4000,all", param, ctx)
        if any(each is not None and each < 1 for each in found):
            self.fail(f"{value!r}: numbers of samples are 1 or more", param, ctx)
        return tuple(dict.fromkeys(found))


class Derived(click.ParamType):  # type: ignore[type-arg]
    """A yes-or-no target that follows from a number, such as metal=band_gap<1e-6."""

    name = "NAME=OTHER<VALUE"
    _form = re.compile(r"\s*([^=<>]*[^=<>\s])\s*=\s*([^=<>\s]+)\s*([<>])\s*([^=<>\s]+)\s*")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        """Its name, and the section of `targets` that a training run would have for it."""
        from matsci_hpc.config.threshold import unfit_threshold
        from matsci_hpc.config.train import Target

        if isinstance(value, tuple):
            return value
        found = self._form.fullmatch(str(value))
        if found is None:
            what = f'{value!r} is not NAME=OTHER<VALUE or NAME=OTHER>VALUE, such as "metal=band_gap<1e-6"'
            if not set("<>") & set(str(value)):
                what += "; put it in quotes, for < and > mean files to the shell"
            self.fail(what, param, ctx)
        name, other, sign, number = found.groups()
        if re.search(r"[.\s]", name):
            self.fail(
                f"{value!r}: a target cannot be called {name!r}: a name has no dots, spaces, =, < or >", param, ctx
            )
        try:
            threshold = float(number)
        except ValueError:
            threshold = math.nan
        if not math.isfinite(threshold):
            self.fail(f"{value!r}: {number!r} is no number; write one in the unit of {other}, such as 1e-6", param, ctx)
        if (why := unfit_threshold(threshold)) is not None:
            self.fail(f"{value!r}: {why}", param, ctx)
        return name, Target(of=other, below=threshold) if sign == "<" else Target(of=other, above=threshold)


def by_name(ctx: click.Context, param: click.Parameter, value: tuple[tuple[str, "Target"], ...]) -> dict[str, "Target"]:
    """What is derived, by name; a name may be given once."""
    found = dict(value)
    if len(found) < len(value):
        names = [name for name, _ in value]
        twice = next(name for name in names if names.count(name) > 1)
        raise click.BadParameter(f"{twice} is derived twice; call one of them otherwise", ctx, param)
    return found


@click.command()
@click.argument("data", type=click.Path(path_type=Path), metavar="DATASET")
@click.option("--target", "targets", multiple=True, metavar="NAME", help="May be repeated; default: all that can be.")
@click.option(
    "--derive",
    "derived",
    multiple=True,
    type=Derived(),
    callback=by_name,
    help='A yes-or-no target of a number, in quotes, such as "metal=band_gap<1e-6" (or >); judged as well; may be '
    "repeated.",
)
@click.option("--split", default="test", show_default=True, help="That is judged on.")
@click.option("--train", default="train", show_default=True, help="Split that is learned from.")
@click.option(
    "--sizes", type=Sizes(), default="all", show_default=True, help="Training samples, such as 1000,4000,all."
)
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="How many, from 0 on.")
@click.option("--trees", type=click.IntRange(min=1), default=200, show_default=True, help="Of a forest.")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FOLDER", help="Where to write.")
def baseline(
    data: Path,
    targets: tuple[str, ...],
    derived: dict[str, "Target"],
    split: str,
    train: str,
    sizes: tuple[int | None, ...],
    seeds: int,
    trees: int,
    out: Path,
) -> dict[str, object]:
    """Errors of predictions that need no network, on the same splits.

    Two models for each target: its mean (of classes the commonest one), and a random forest of scikit-learn that knows
    the composition alone. Errors are in the unit of the target. Writes FOLDER/baselines.csv,
    baselines.json, and compare.csv for `compare`.

    A part of n samples is the one that `data.subset` of a training run draws by the same seed. Needs the extra `embed`.
    """
    from matsci_hpc.analysis.baselines import BaselineSettings, baselines, table_of, write_baselines

    settings = BaselineSettings(data, targets, train, split, sizes, tuple(range(seeds)), trees, derived)
    scores = list(baselines(settings))
    write_baselines(out, settings, scores)
    print(table_of(scores))
    print(f"{out / 'baselines.csv'}: mean and standard deviation of {seeds} seeds")
    return {"scores": len(scores)}
