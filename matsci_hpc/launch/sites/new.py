"""`matsci-hpc site new`: a few questions, and a site file that loads."""

import io
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matsci_hpc.config.loading import load_config, read_yaml
from matsci_hpc.errors import UserInputError
from matsci_hpc.launch.sites.find import site_names, site_path
from matsci_hpc.launch.sites.model import Site, limit_in_seconds, limit_text
from matsci_hpc.launch.sites.slurm_facts import Nodes, Partition, associations, mpi_plugins, partitions
from matsci_hpc.whole_files import write_atomic

SUBMITTERS = {"slurm": "sbatch", "pbs": "qsub", "lsf": "bsub", "flux": "flux"}
"""The command by which a scheduler is recognised, in the order of looking."""
_BASES = {"slurm": ("slurm_cpu", "slurm_gpu"), "pbs": ("pbs",), "lsf": ("lsf",), "flux": ("flux",), "local": ("local",)}
"""Shipped files to begin with; the second is for nodes with GPUs."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What the command line has answered already; None is still to be asked.

    Attributes:
        base: shipped site to begin with.
        scheduler, partition, account, qos, launcher, time_limit: as in a site file.
        ranks_per_node, cpus_per_rank, gpus_per_rank: as in a site file.
        setup: shell lines.
    """

    base: str | None = None
    scheduler: str | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    launcher: str | None = None
    time_limit: str | None = None
    ranks_per_node: int | None = None
    cpus_per_rank: int | None = None
    gpus_per_rank: int | None = None
    setup: Sequence[str] = ()


Question = Callable[[str, Any], Any]
"""Asks a person, with a default; gives the answer in the default's type."""


def new_site(path: Path, answers: Answers, *, take_defaults: bool, overwrite: bool) -> None:
    """Ask, write the file, and say what comes next.

    Args:
        path: of the new file.
        answers: what need not be asked.
        take_defaults: ask nothing.
        overwrite: replace a file that is there.

    Raises:
        UserInputError: A file is there, or an answer makes no site.
    """
    ask = _default if take_defaults or not sys.stdin.isatty() else _prompt
    if path.suffix not in {".yaml", ".yml"}:
        raise UserInputError(f"{path}: name a site file .yaml, so that --site takes it for a path")
    if path.exists() and not overwrite and not (ask is _prompt and _confirm(f"{path} is there. Replace it?")):
        raise UserInputError(f"{path} is there already; name another file, or add --overwrite")
    tree = compose(answers, ask)
    _write(path, tree)
    print(f"{path} written; it is yours to edit")
    if tree.get("account_required") and not tree.get("account"):
        print("  account  must be set in it before the first job")
    print(f"  check    matsci-hpc site check {path}")
    print(f"  try      matsci-hpc submit CONFIG --site {path} --dry-run")


def compose(answers: Answers, ask: Question) -> Any:
    """The YAML tree of a site, comments of the file that it begins with included."""
    base = read_yaml(site_path(answers.base)) if answers.base else None
    scheduler = answers.scheduler or (base["scheduler"] if base else ask("Scheduler", _scheduler_here()))
    if base is not None and scheduler != base["scheduler"]:
        raise UserInputError(f"{answers.base} is a site with {base['scheduler']}, not with {scheduler}")
    if scheduler not in _BASES:
        raise UserInputError(f"unknown scheduler {scheduler!r}; choose one of {', '.join(_BASES)}")
    known = partitions() if scheduler == "slurm" else []
    if isinstance(known, str):
        print(f"Slurm does not tell of its partitions: {known}")
        known = []
    chosen = _ask_partition(answers, base, ask, known)
    nodes = _typical(chosen)
    tree = base if base is not None else _generic(scheduler, gpus=nodes is not None and nodes.gpus > 0)
    if scheduler != "local":
        _ask_queue(tree, answers, ask, chosen)
        if base is None:
            _put(tree, "description", f"{scheduler}, {tree.get('partition') or 'its default queue'}")
    _ask_size(tree, answers, ask, nodes if base is None else None)
    if scheduler != "local":
        _ask_start(tree, answers, ask, fresh=base is None, answering=bool(known))
    return tree


def _scheduler_here() -> str:
    return next((name for name, command in SUBMITTERS.items() if shutil.which(command)), "local")


def _generic(scheduler: str, *, gpus: bool) -> Any:
    from ruamel.yaml.comments import CommentedMap

    shipped = [name for name in _BASES[scheduler] if name in site_names()]
    if shipped:
        return read_yaml(site_path(shipped[-1] if gpus else shipped[0]))
    return CommentedMap(scheduler=scheduler)


def _ask_partition(answers: Answers, base: Any, ask: Question, known: list[Partition]) -> Partition | None:
    """The partition, if the cluster tells of it."""
    if not known:
        return None
    name = answers.partition or (base or {}).get("partition")
    if name is None:
        if ask is _prompt:
            print("Partitions of this cluster:")
            for each in known:
                print(f"  {each.name:<12} {_about(each)}")
        default = next((each.name for each in known if each.default), known[0].name)
        name = ask("Partition", default)
    return next((each for each in known if each.name == name), Partition(name, False, None, ()))


def _about(partition: Partition) -> str:
    limit = "no time limit" if partition.max_time_s is None else f"{partition.max_time_s / 3600:g} h"
    groups = "; ".join(
        f"nodes: {each.number} of {each.cpus // each.cpus_per_core} cores, {each.memory_mb / 1024:.0f} GB"
        + (f", {each.gpus} GPUs" if each.gpus else "")
        for each in partition.nodes
    )
    return f"{limit}; {groups}"


def _typical(partition: Partition | None) -> Nodes | None:
    """The nodes that most of a partition are."""
    return max(partition.nodes, key=lambda each: each.number, default=None) if partition else None


def _ask_queue(tree: Any, answers: Answers, ask: Question, chosen: Partition | None) -> None:
    partition = answers.partition or (chosen.name if chosen else None) or tree.get("partition")
    if partition is None:
        partition = ask("Queue (empty: the scheduler's default)", "")
    _put(tree, "partition", partition or None, "queue of the job")
    account = answers.account
    if account is None:
        mine = associations() if chosen is not None and shutil.which("sacctmgr") else ""
        accounts = sorted(mine) if isinstance(mine, dict) else []
        if len(accounts) > 1 and ask is _prompt:
            print(f"Your accounts: {', '.join(accounts)}")
        account = ask("Account that is charged (empty: none)", tree.get("account") or (accounts[0] if accounts else ""))
    _put(tree, "account", account or None, "project that is charged")
    if answers.qos is not None:
        _put(tree, "qos", answers.qos or None, "quality of service")
    limit = answers.time_limit or ask("Time limit of one life of a job, HH:MM:SS", _limit(tree, chosen))
    _put(tree, "time_limit", limit, "training saves before it, and goes on in the next life")
    if chosen is not None and chosen.max_time_s is not None:
        _put(tree, "max_time_limit", limit_text(chosen.max_time_s), "of the partition")


def _limit(tree: Any, chosen: Partition | None) -> str:
    usual = str(tree.get("time_limit") or "04:00:00")
    if chosen is None or chosen.max_time_s is None:
        return usual
    return usual if limit_in_seconds(usual) <= chosen.max_time_s else limit_text(chosen.max_time_s)


def _ask_size(tree: Any, answers: Answers, ask: Question, nodes: Nodes | None) -> None:
    """Ranks: one for each GPU, or else for each socket."""
    gpus = nodes.gpus if nodes else int(tree.get("gpus_per_node", 0))
    cores = nodes.cpus // nodes.cpus_per_core if nodes else int(tree.get("cores_per_node", 0))
    usual = (nodes.gpus or nodes.sockets) if nodes else int(tree.get("ranks_per_node", 1))
    ranks = answers.ranks_per_node or int(ask("Ranks on a node", usual))
    _put(tree, "ranks_per_node", ranks)
    if tree["scheduler"] == "local":
        return
    share = max(1, cores // ranks) if nodes and ranks > 0 else int(tree.get("cpus_per_rank", 1))
    _put(tree, "cpus_per_rank", answers.cpus_per_rank or int(ask("Cores of a rank", share)))
    asked = answers.gpus_per_rank
    if asked is None and (gpus or "gpus_per_rank" in tree):
        share = gpus // ranks if nodes and ranks > 0 else int(tree.get("gpus_per_rank", 0))
        asked = int(ask("GPUs of a rank", share))
    if asked is not None:
        _put(tree, "gpus_per_rank", asked)
    if nodes:
        if nodes.cpus_per_core > 1:
            _put(tree, "cpus_per_core", nodes.cpus_per_core, "Slurm counts hardware threads here")
        _put(tree, "cores_per_node", cores, "what sinfo says of the nodes")
        _put(tree, "gpus_per_node", nodes.gpus)
        _put(tree, "memory_per_node", f"{nodes.memory_mb}M")


def _ask_start(tree: Any, answers: Answers, ask: Question, *, fresh: bool, answering: bool) -> None:
    launcher = answers.launcher
    if launcher is None and fresh and tree["scheduler"] == "slurm":
        launcher = ask("Launcher", _launcher(tree) if answering else str(tree.get("launcher", "srun")))
    if launcher:
        _put(tree, "launcher", launcher)
    setup = list(answers.setup)
    if not setup and fresh and ask is _prompt:
        print("Shell lines before the ranks start, such as `module load openmpi`; an empty line ends them.")
        while line := str(ask("Line", "")).strip():
            setup.append(line)
    if setup:
        _put(tree, "setup", setup, "shell lines before the ranks start")


def _launcher(tree: Any) -> str:
    known = mpi_plugins()
    usual = str(tree.get("launcher", "srun"))
    if isinstance(known, str):
        return usual
    return next((f"srun --mpi={each}" for each in ("pmix", "pmi2", "cray_shasta") if each in known), "srun")


def _put(tree: Any, key: str, value: Any, comment: str | None = None) -> None:
    """Set a key, where the file has it or at its end; None takes it away."""
    if value is None:
        tree.pop(key, None)
        return
    new = key not in tree
    tree[key] = value
    if new and comment and not isinstance(value, list):
        tree.yaml_add_eol_comment(comment, key)


def _write(path: Path, tree: Any) -> None:
    from ruamel.yaml import YAML
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString

    for key in ("time_limit", "max_time_limit"):
        if key in tree:
            tree[key] = DoubleQuotedScalarString(tree[key])  # 04:00:00 is a number to older readers of YAML
    yaml = YAML(typ="rt")
    yaml.width = 10_000
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = io.StringIO()
    yaml.dump(tree, stream)
    text = stream.getvalue()
    trial = path.with_name(f".{path.name}.new.yaml")
    write_atomic(trial, text.encode())
    try:
        load_config(Site, trial)
    except UserInputError as error:
        raise UserInputError(str(error).replace(str(trial), "these answers")) from None
    finally:
        trial.unlink(missing_ok=True)
    write_atomic(path, text.encode())


def _default(_question: str, default: Any) -> Any:
    return default


def _prompt(question: str, default: Any) -> Any:
    import click

    return click.prompt(question, default=default, type=type(default))


def _confirm(question: str) -> bool:
    import click

    return click.confirm(question, default=False)
