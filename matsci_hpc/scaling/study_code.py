"""By which code and on what kind of machine a run was made, which may not differ between runs that are compared."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matsci_hpc.config.run_set import RunSetConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.launch.sites.model import Site
from matsci_hpc.scaling.study_plan import StudyRun, site_of


def read_provenance(run: StudyRun) -> dict[str, Any]:
    """What a run says of its origin; empty if it does not."""
    try:
        found = json.loads((run.job.output / "provenance.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def code_of(provenance: Mapping[str, Any]) -> str:
    """Version, commit and torch, which computes nearly all of a step."""
    packages = provenance.get("packages")
    torch = packages.get("torch") if isinstance(packages, dict) else None
    words = (provenance.get("matsci_hpc"), provenance.get("git"), f"torch {torch}" if torch else None)
    return " ".join(str(word) for word in words if word) or "unknown"


def hardware_of(provenance: Mapping[str, Any]) -> str:
    """Model of the processor, and models of the GPUs that rank 0 sees, whose number follows that of the ranks."""
    gpus = provenance.get("gpus")
    models = sorted({str(gpu) for gpu in gpus}) if isinstance(gpus, list) else []
    return ", ".join([str(provenance.get("cpu") or "unknown"), *models])


def of_all_lives(provenance: Mapping[str, Any], what: Callable[[Mapping[str, Any]], str], *keys: str) -> str:
    """Code or hardware of a run, with those of earlier lives that were otherwise.

    Args:
        provenance: of the last life.
        what: `code_of` or `hardware_of`.
        keys: that tell lives apart; an earlier life notes less than the last one.
    """
    earlier = provenance.get("earlier_lives")
    others = [
        what(life)
        for life in (earlier if isinstance(earlier, list) else [])
        if isinstance(life, dict) and any(key in life and life[key] != provenance.get(key) for key in keys)
    ]
    return " after ".join([what(provenance), *dict.fromkeys(reversed(others))])


def threads_of(provenance: Mapping[str, Any]) -> str:
    """OMP_NUM_THREADS of a rank."""
    environment = provenance.get("environment")
    return str(environment.get("OMP_NUM_THREADS", "unknown")) if isinstance(environment, dict) else "unknown"


def refuse_other_code(study: RunSetConfig, site: Site, finished: Sequence[StudyRun]) -> None:
    """See to it, before anything is started, that the runs to come are comparable with those that are there.

    Where ranks run on other nodes or in an image, nobody knows here which code they will run: only those that are there
    are compared.

    Raises:
        UserInputError: they were made by another version.
    """
    if "code" in study.allow or not finished:
        return
    from matsci_hpc.telemetry.provenance import describe_machine

    codes = [(run.name, code_of(read_provenance(run))) for run in finished]
    this, now = ("this is", code_of(describe_machine()))
    if site.scheduler != "local":
        this, now = (f"{codes[0][0]} by", codes[0][1])
    others = [(name, code) for name, code in codes if code != now]
    if others:
        name, code = others[0]
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise UserInputError(
            f"{study.out}: {name}{more} ran by {code}, and {this} {now}: runs of one study are "
            f"compared, so give the study another out, remove {study.out}/runs, or say allow: [code]"
        )


def refuse_other_threads(study: RunSetConfig, site: Site, finished: Sequence[StudyRun]) -> None:
    """See to it, before anything is started here, that ranks get as many threads as those that are there had.

    Raises:
        UserInputError: the study was extended, and its largest run now leaves another number.
    """
    if site.scheduler != "local" or study.sets_threads or "hardware" in study.allow:
        return
    for run in finished:
        before = threads_of(read_provenance(run))
        now = site_of(run, site).environment.get("OMP_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS", "unknown")
        if "unknown" not in {before, now} and before != now:
            raise UserInputError(
                f"{study.out}: {run.name} ran with {before} threads of a rank, and the runs to come would have {now}: "
                f"give the study the axis threads: [{before}] and another out, set OMP_NUM_THREADS={before}, remove "
                f"{study.out}/runs, or say allow: [hardware]"
            )
