"""The command line: thin commands, nothing else. Heavy packages are imported inside the commands that need them.

What has to do with jobs is in `cli_launch`.
"""

import faulthandler
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

import matsci_hpc
from matsci_hpc.cli_compare import compare
from matsci_hpc.cli_embed import baseline, embed, map_embeddings
from matsci_hpc.cli_launch import cancel, check, doctor, jobs, site, submit
from matsci_hpc.cli_models import evaluate, export
from matsci_hpc.cli_predict import predict
from matsci_hpc.cli_study import study
from matsci_hpc.errors import MatsciError, RankError
from matsci_hpc.resources import find_config

CONFIG = click.argument("config", type=click.Path(path_type=Path))
OVERRIDES = click.argument("overrides", nargs=-1, metavar="[KEY.SUB=VALUE]...")
FOLDER = click.argument("folder", type=click.Path(path_type=Path))


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(matsci_hpc.__version__, prog_name="matsci-hpc")
def cli() -> None:
    """From raw crystal structures to a pretrained graph network on a cluster.

    Every CONFIG is one YAML file; KEY.SUB=VALUE after it overrides a value in it.
    """


@cli.command()
@CONFIG
@OVERRIDES
def prep(config: Path, overrides: tuple[str, ...]) -> dict[str, object]:
    """Turn structures or clouds into a data set of HDF5 shards.

    Under mpirun or srun all ranks share the work. Run the same command again after a crash or a signal (Ctrl-C,
    SIGTERM): finished shards are kept.
    """
    from matsci_hpc.config.loading import load_config
    from matsci_hpc.config.prep import PrepConfig
    from matsci_hpc.parallel.mpi import open_world
    from matsci_hpc.prepare import prepare
    from matsci_hpc.shards.describe import counted, describe
    from matsci_hpc.shards.histogram_table import histogram_table
    from matsci_hpc.training.allocator import keep_freed_memory

    keep_freed_memory()  # the arrays of one shard are those of the next: fresh pages cost a quarter of the time
    found = find_config(config)
    _refuse_other_kind(found, "prep")
    checked = load_config(PrepConfig, found, overrides)
    world = open_world()
    result = prepare(checked, world)
    if world.rank == 0:
        print(describe(checked.out))
        print(histogram_table(checked.out, sys.stdout.encoding))
        rate = result.manifest.counts.samples / max(result.time_s, 1e-9)
        if result.reused_shards == len(result.manifest.shards):
            print("complete already, nothing was done")
        else:
            print(f"done in {result.time_s:.1f} s by {counted(world.size, 'rank')}, {rate:,.0f} samples/s")
    return {"samples": result.manifest.counts.samples, "shards": len(result.manifest.shards)}


@cli.command()
@CONFIG
@OVERRIDES
def train(config: Path, overrides: tuple[str, ...]) -> dict[str, object]:
    """Train as one rank of a run.

    Start it under mpirun, srun or torchrun, or alone. Goes on from the newest checkpoint in run_dir. To stop it
    cleanly: touch RUN_DIR/STOP, Ctrl-C, SIGTERM, SIGUSR1 or SIGUSR2; RUN_DIR/STOPPED then says why it stopped.
    """
    from matsci_hpc.training.stopping import StopSignals

    signals = StopSignals()  # before the slow imports
    # Every step has other shapes, each of which oneDNN would keep kernels for; read when torch is loaded.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    faulthandler.enable()  # a shard that is cut off while it is mapped ends the process by a signal
    from matsci_hpc.config.loading import load_config
    from matsci_hpc.config.train import TrainConfig
    from matsci_hpc.parallel.discovery import discover

    found = find_config(config)
    _refuse_other_kind(found, "train")
    checked = load_config(TrainConfig, found, overrides)
    from matsci_hpc.training.loop import train as run_training

    outcome = run_training(checked, signals)
    signals.ignore()
    info = discover(os.environ)
    if info.rank == 0:
        if outcome.complete:
            print(f"complete after {outcome.step:,} steps; next: matsci-hpc report {checked.run_dir}")
        else:
            print(f"stopped at step {outcome.step:,} ({outcome.reason}); the same command goes on from there")
    if info.size > 1:
        from matsci_hpc.parallel.deadline import leave_within

        leave_within(checked.parallel.timeout_s)
    return {"step": outcome.step, "complete": outcome.complete, "reason": outcome.reason}


@cli.command()
@CONFIG
@OVERRIDES
@click.option("--ranks", type=click.IntRange(min=1), required=True, help="Ranks of the job.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def plan(config: Path, overrides: tuple[str, ...], ranks: int, as_json: bool) -> None:
    """Show what training would do on so many ranks.

    Sizes come from the indexes of the data sets; only a few samples are read, to measure the memory of the model. Costs
    are predicted ones: edges + 30 atoms.

    \b
      efficiency  time of a perfectly divided step over its real time, mean of the steps
      by time     the same for all steps together, so that long steps count for more
      worst 5 %   mean efficiency of the worst twentieth of the steps
      mean share  cost of a rank in a step, mean of all
      largest     largest cost of a rank in a step, at least that of the largest sample
      takes       the plan that the run takes, and why
      memory      what a rank needs at least
      planning    time and memory that each rank spends on the order of an epoch
    """  # noqa: D301 - click looks for the character itself
    import json

    from matsci_hpc.config.loading import load_config
    from matsci_hpc.config.train import TrainConfig

    found = find_config(config)
    _refuse_other_kind(found, "train")
    checked = load_config(TrainConfig, found, overrides)
    from matsci_hpc.analysis.plan_report import make_plan_report, render

    made = make_plan_report(checked, ranks)
    print(json.dumps(made.to_json(), indent=1) if as_json else render(made, str(config)))


@cli.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
def report(run_dir: Path) -> dict[str, object]:
    """Write RUN_DIR/report.html, one file about a run, and the same as Markdown, CSV and PNG beside it.

    With loss, throughput, time split, config and provenance.
    """
    from matsci_hpc.analysis.report import write_report

    path = write_report(run_dir)
    print(path)
    return {"report": str(path)}


@cli.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option("--once", is_flag=True, help="Show it once and end.")
@click.option("--every", type=click.FloatRange(min=0.1), default=2.0, show_default=True, help="Seconds between looks.")
def watch(run_dir: Path, once: bool, every: float) -> None:
    """Show a run while it goes on: progress, rate, loss, time, balance, stragglers.

    It reads the files of the run only, which may be running on another machine. Ctrl-C ends the view, not the run.
    """
    from matsci_hpc.analysis.watch import watch as show

    show(run_dir, once=once, every_s=every)


cli.add_command(predict)


@cli.group()
def shards() -> None:
    """Look at a data set and check it."""


@shards.command("info")
@FOLDER
@click.option(
    "--plot", type=click.Path(path_type=Path), help="Also draw sizes and targets, split by split: a PNG file."
)
def shards_info(folder: Path, plot: Path | None) -> None:
    """What a data set holds."""
    from matsci_hpc.shards.describe import describe
    from matsci_hpc.shards.histogram_table import histogram_table

    print(describe(folder))
    print(histogram_table(folder, sys.stdout.encoding))
    if plot is not None:
        from matsci_hpc.analysis.data_set_plot import plot_data_set

        plot_data_set(folder, plot)
        print(plot)


@shards.command("verify")
@FOLDER
def shards_verify(folder: Path) -> None:
    """Read every byte again and compare checksums; exit code 2 if anything differs.

    Under mpirun or srun the ranks share the files.
    """
    from matsci_hpc.errors import UserInputError
    from matsci_hpc.parallel.mpi import open_world
    from matsci_hpc.shards.verify import verify

    world = open_world()
    faults = verify(folder, world)
    if faults:
        raise UserInputError("\n".join(faults))
    if world.rank == 0:
        print(f"{folder}: every checksum holds")


for command in (
    *(embed, map_embeddings, baseline, evaluate, export),
    *(submit, check, jobs, cancel, site, doctor, study, compare),
):
    cli.add_command(command)


def _refuse_other_kind(config: Path, verb: str) -> None:
    """Say that a config is for the other verb, instead of listing all the keys that it lacks."""
    from matsci_hpc.config.loading import read_yaml
    from matsci_hpc.errors import UserInputError

    keys = read_yaml(config)
    other, mark, own = ("train", "run_dir", "source") if verb == "prep" else ("prep", "source", "run_dir")
    if mark in keys and own not in keys:
        raise UserInputError(f"{config}: this is a config of `matsci-hpc {other}`, not of `matsci-hpc {verb}`")


def main() -> None:
    """Run a command."""
    with plain_errors():
        cli.main(standalone_mode=False)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn failures that a user can mend into one line each and an exit code."""
    try:
        yield
    except click.exceptions.Abort:
        _complain("interrupted")
        sys.exit(130)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        _complain(error.format_message())
        sys.exit(2)
    except RankError as error:
        print(f"matsci-hpc: error: {error}", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        # Not sys.exit: MPI's farewell on the way out would wait for ever for a rank that hangs.
        os._exit(error.exit_code)
    except MatsciError as error:
        # The first rank out makes the launcher end the others by SIGTERM, on their own way out. A rank that fell to it
        # would hide the exit code: of 2 and 143, srun gives the larger one.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _complain(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _complain("interrupted")
        sys.exit(130)


def _complain(text: str) -> None:
    """Print an error once, however many ranks found it."""
    from matsci_hpc.parallel.discovery import discover

    try:
        first = discover(os.environ).rank == 0
    except MatsciError:  # that very environment may be what is wrong
        first = True
    if first:
        for line in text.splitlines():
            print(f"matsci-hpc: error: {line}", file=sys.stderr)
