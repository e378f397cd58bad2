"""Offline runs of Weights & Biases, in RUN_DIR/wandb. Nothing is sent; `wandb sync` does that, if anybody wants it."""

import os
import re

from matsci_hpc.telemetry.sinks.sink import TRAINING, Numbers, Origin


class Wandb:
    """An offline run for each life, all with one id, which `wandb sync` joins.

    An offline log cannot be taken back, and steps that are repeated come out the same: so they are left out.

    Args:
        origin: of the run.
    """

    def __init__(self, origin: Origin) -> None:
        os.environ["WANDB_MODE"] = "offline"  # whatever the account's own setting is
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb
        from ruamel.yaml import YAML

        name = origin.folder.resolve().name
        self._run = wandb.init(
            project="matsci-hpc",
            name=name,
            id=_run_id(name),
            dir=str(origin.folder),
            mode="offline",
            config=YAML(typ="safe", pure=True).load(origin.config),
            settings=wandb.Settings(
                console="off", disable_git=True, disable_code=True, silent=True, x_disable_stats=True
            ),
        )
        self._origin = origin
        self._teardown = wandb.teardown

    def write(self, step: int, numbers: Numbers) -> None:
        """Add the numbers of a step."""
        trains = any(name.startswith(f"{TRAINING}/") for name in numbers)
        if step > (self._origin.written_step if trains else self._origin.evaluated_step):
            self._run.log(numbers, step=step)

    def close(self) -> None:
        """Write everything."""
        self._run.finish()
        self._teardown()  # the process that writes the file may still be at it


def _run_id(name: str) -> str:
    """The name without what an id may not hold."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", name)[:64]
