"""Comparisons whose runs came to values that a test chooses, as records on disk."""

import json
from pathlib import Path

from matsci_hpc.comparison.plan import load_comparison, plan_comparison
from matsci_hpc.config.loading import dump_config
from matsci_hpc.launch.sites.find import load_site

TRAIN = {
    "run_dir": "runs/base",
    "data": {"train": ["datasets/crystals"]},
    "steps": 1,
    "batch": {"graphs": 10},
}
COMPARISON = {
    "base": "train.yaml",
    "out": "comparisons/small",
    "arms": {"scratch": {}, "pretrained": {"init_from": "runs/pretrain"}},
    "seeds": [1, 2, 3],
    "train_samples": [100, "full"],
    "steps": 20,
    "metric": {"target": "gap", "name": "mae"},
}
FULL = 400
"""Samples of the whole training split."""


def write_config(folder, **changes):
    """Write `train.yaml` and `comparison.yaml`, and give the path of the latter. None leaves a key out."""
    (folder / "train.yaml").write_text(json.dumps(TRAIN))
    kept = {key: value for key, value in (COMPARISON | changes).items() if value is not None}
    (folder / "comparison.yaml").write_text(json.dumps(kept))
    return folder / "comparison.yaml"


def write_pretraining(folder, **changes):
    """A run of 3 h on two hosts, which arms begin with."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(json.dumps(TRAIN | changes))
    line = {"step": 5000, "samples_seen": 320000, "time_s": 10800.0, "life": 0, "rollbacks": 0}
    (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    (folder / "provenance.json").write_text(json.dumps({"hosts": {"node1": "0-3", "node2": "4-7"}}))
    (folder / "data.json").write_text(json.dumps([{"fingerprint": "clouds"}]))


def write_runs(path, values, *, held_out=None, unit="eV"):
    """Write the records of every run of a comparison.

    Args:
        path: of the comparison.
        values: of a run, its values on the test split, by metric name.
        held_out: of a run, the same on the held-out split; as on the test split if left out.
        unit: of the target.

    Returns:
        The runs.
    """
    runs = plan_comparison(load_comparison(path), load_site("local"))
    for run in runs:
        output = Path(run.job.output)
        output.mkdir(parents=True)
        steps = run.training.steps
        (output / "config.yaml").write_text(dump_config(run.config))
        (output / "DONE").write_text(json.dumps({"step": steps}))
        (output / "provenance.json").write_text(json.dumps({"matsci_hpc": "0.1.0", "hosts": {"node1": "0"}}))
        splits = {"train": FULL, "val": 50, "test": 50}
        (output / "data.json").write_text(json.dumps([{"fingerprint": "crystals", "splits": splits}]))
        metrics = [
            {"step": step, "samples_seen": 10 * step, "time_s": 36.0 * step / steps, "loss": 1.0, "skipped_steps": 0}
            for step in (steps // 2, steps)
        ]
        known = (held_out or values)(run)
        evaluations = [
            _evaluation(step, "val", {name: factor * value for name, value in known.items()}, unit)
            for step, factor in ((steps // 2, 2), (steps, 1))
        ]
        final = _evaluation(steps, "test", values(run), unit) | {"chosen": "best", "weights_step": steps}
        for name, lines in (("metrics", metrics), ("evaluations", [*evaluations, final])):
            (output / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return runs


def _evaluation(step, split, values, unit):
    metrics = {"samples": 50, "baseline_mae": 1.5, "unit": unit, **values}
    return {
        "step": step,
        "samples_seen": 10 * step,
        "split": split,
        "samples": 50,
        "loss": values.get("mae", 1.0),
        "metrics": {"gap": metrics},
    }
