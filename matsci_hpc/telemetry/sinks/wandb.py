"""Offline runs of Weights & Biases, in RUN_DIR/wandb. Nothing is sent; `wandb sync` does that, if anybody wants it."""

import os
import re
import secrets
from pathlib import Path

from matsci_hpc.telemetry.sinks.sink import Numbers, Origin
from matsci_hpc.whole_files import write_atomic

STEP = "step"
"""Of the run, against which everything is drawn. W&B's own step is the number of the line: it may never fall."""


class Wandb:
    """An offline run for each life, all with one id, which `wandb sync` joins.

    An offline log cannot be taken back: after a rollback the steps are written again, and `train/rollbacks` tells the
    courses apart. Repetitions with the same results are left out.

    Args:
        origin: of the run.
    """

    def __init__(self, origin: Origin) -> None:
        os.environ["WANDB_MODE"] = "offline"  # whatever the account's own setting is
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb
        from ruamel.yaml import YAML

        self._run = wandb.init(
            project="matsci-hpc",
            name=origin.folder.resolve().name,
            id=_run_id(origin.folder / "wandb" / "id"),
            dir=str(origin.folder),
            mode="offline",
            config=YAML(typ="safe", pure=True).load(origin.config),
            settings=wandb.Settings(
                console="off", disable_git=True, disable_code=True, silent=True, x_disable_stats=True
            ),
        )
        self._run.define_metric(STEP)
        self._line = origin.lines
        self._drawn: set[str] = set()
        self._teardown = wandb.teardown

    def write(self, step: int, numbers: Numbers, *, repeated: bool = False) -> None:
        """Add the numbers of a step."""
        self._line += 1
        if repeated:
            return
        for prefix in {name.partition("/")[0] for name in numbers} - self._drawn:
            self._drawn.add(prefix)
            self._run.define_metric(f"{prefix}/*", step_metric=STEP)
        self._run.log({STEP: step, **numbers}, step=self._line)

    def go_back(self, step: int) -> None:
        """Nothing is to be done: what is repeated from here on is no less than any other line."""

    def close(self) -> None:
        """Write everything."""
        self._run.finish()
        self._teardown()  # the process that writes the file may still be at it


def _run_id(file: Path) -> str:
    """The id that the first life drew: a name would be that of other runs of the same project too."""
    if file.is_file() and re.fullmatch(r"[0-9a-f]{16}", known := file.read_text(encoding="ascii").strip()):
        return known
    drawn = secrets.token_hex(8)
    file.parent.mkdir(exist_ok=True)
    write_atomic(file, f"{drawn}\n".encode())
    return drawn
