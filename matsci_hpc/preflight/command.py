"""What `matsci-hpc check` does."""

from pathlib import Path

from matsci_hpc.launch.schedulers import SCHEDULERS
from matsci_hpc.launch.sites.find import load_site
from matsci_hpc.launch.start import Wish, plan_chain
from matsci_hpc.preflight.show import as_json, show_runs
from matsci_hpc.preflight.thorough import check_chain

ERROR_CODE = 2


def check_wish(wish: Wish, like: Path | None, *, json: bool) -> int:
    """Check what `submit` would start, print what was found, and give the exit code.

    Args:
        wish: what is asked for.
        like: a run whose speed is taken where the runs have none of their own.
        json: print one object instead of lines.

    Raises:
        UserInputError: A config or the site cannot be read, or their numbers do not fit together.
    """
    machine = load_site(wish.site)
    arrays = machine.scheduler in SCHEDULERS and SCHEDULERS[machine.scheduler].has_arrays
    checked = check_chain(plan_chain(wish, machine, arrays=arrays), machine, like)
    if json:
        found = list(checked)
        print(as_json(found))
        findings = [finding for each in found for finding in each.findings]
    else:
        findings = show_runs(checked)
    return ERROR_CODE if any(each.level == "error" for each in findings) else 0
