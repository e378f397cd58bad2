"""A store of files of MLflow, in RUN_DIR/mlflow."""

import os
import posixpath
import re
import time
from typing import Any

from matsci_hpc.telemetry.sinks.sink import Numbers, Origin

EXPERIMENT = "matsci-hpc"


class Mlflow:
    """One run for all lives. Its files only grow: of a step that is written again, the latest value counts.

    Repetitions with the same results are left out.

    Args:
        origin: of the run.
    """

    def __init__(self, origin: Origin) -> None:
        # A database, which MLflow would rather have, needs locks that many parallel file systems lack.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.entities import Metric
        from mlflow.tracking import MlflowClient

        self._metric = Metric
        self._client: Any = MlflowClient(tracking_uri=(origin.folder.resolve() / "mlflow").as_uri())
        experiment = self._client.get_experiment_by_name(EXPERIMENT)
        known = [] if experiment is None else self._client.search_runs([experiment.experiment_id], max_results=1)
        if known:
            self._run_id = known[0].info.run_id
        else:
            number = self._client.create_experiment(EXPERIMENT) if experiment is None else experiment.experiment_id
            self._run_id = self._client.create_run(number, run_name=origin.folder.resolve().name).info.run_id
            self._client.log_text(self._run_id, origin.config, "config.yaml")
        self._last: dict[str, int] = {}
        self._names: dict[str, str] = {}

    def write(self, step: int, numbers: Numbers, *, repeated: bool = False) -> None:
        """Add the numbers of a step; those that are repeated only where the store lacks them."""
        now_ms = int(1e3 * time.time())
        named = {self._name(name): value for name, value in numbers.items()}
        fresh = [
            self._metric(name, value, now_ms, step)
            for name, value in named.items()
            if not repeated or step > self._step(name)
        ]
        if fresh:
            self._client.log_batch(self._run_id, metrics=fresh)
            self._last.update({each.key: max(step, self._last.get(each.key, step)) for each in fresh})

    def go_back(self, step: int) -> None:
        """Nothing is to be done: what is written from here on has later times."""

    def close(self) -> None:
        """Mark the run as ended; a later life goes on with it."""
        self._client.set_terminated(self._run_id)

    def _name(self, name: str) -> str:
        """A name as MLflow allows it, another one for each."""
        if name not in self._names:
            allowed = posixpath.normpath(re.sub(r"[^\w/.\- :]", "_", name))
            while allowed in self._names.values():
                allowed += "_"
            self._names[name] = allowed
        return self._names[name]

    def _step(self, name: str) -> int:
        """The last step of a number that is in the store."""
        if name not in self._last:
            history = self._client.get_metric_history(self._run_id, name)
            self._last[name] = max((each.step for each in history), default=-1)
        return self._last[name]
