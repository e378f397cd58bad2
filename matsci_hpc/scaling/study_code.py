"""By which code and on what kind of machine a run was made, which may not differ between runs that are compared."""

import json
from collections.abc import Mapping
from typing import Any

from matsci_hpc.config.study import StudyConfig
from matsci_hpc.errors import UserInputError
from matsci_hpc.scaling.study_plan import StudyRun


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
    """Model of the processor, and of the GPUs that rank 0 sees."""
    gpus = provenance.get("gpus")
    words = [str(provenance.get("cpu") or "unknown"), *(gpus if isinstance(gpus, list) else [])]
    return ", ".join(map(str, words))


def threads_of(provenance: Mapping[str, Any]) -> str:
    """OMP_NUM_THREADS of a rank."""
    environment = provenance.get("environment")
    return str(environment.get("OMP_NUM_THREADS", "unknown")) if isinstance(environment, dict) else "unknown"


def refuse_other_code(study: StudyConfig, finished: list[StudyRun]) -> None:
    """See to it, before anything is started, that the runs to come are comparable with those that are there.

    Raises:
        UserInputError: these were made by another version.
    """
    if "code" in study.allow or not finished:
        return
    from matsci_hpc.telemetry.provenance import describe_machine

    now = code_of(describe_machine())
    others = [(run.name, code) for run in finished if (code := code_of(read_provenance(run))) != now]
    if others:
        name, code = others[0]
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise UserInputError(
            f"{study.out}: {name}{more} ran by {code}, and this is {now}: runs of one study are compared, so give "
            f"the study another out, remove {study.out}/runs, or say allow: [code]"
        )
