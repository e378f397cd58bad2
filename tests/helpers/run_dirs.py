"""Synthetic run directories, written as the trainer writes them."""

import json
import math
import random
from pathlib import Path

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
"""Markup that must come out as text wherever it comes in."""

POINT_GROUPS = [
    "1", "-1", "2", "m", "2/m", "222", "mm2", "mmm", "4", "-4", "4/m", "422", "4mm", "-42m", "4/mmm",
    "6mm", "3", "-3", "32", "3m", "-3m", "6", "-6", "6/m", "622", "-62m", "6/mmm", "23", "m-3",
    "432", "-43m", "m-3m",
]  # fmt: skip

CONFIG = """\
run_dir: runs/{name}
seed: 7
data:
  train: [datasets/symmetry_dev, datasets/mp_gap]
  split: train
  held_out: val
steps: {steps}
batch:
  graphs: 64
targets:
  {target}: {{weight: 1.0, loss: auto}}
  band_gap: {{weight: 0.5, loss: huber}}
model: {{name: egnn, layers: 5, width: 32}}
optimizer: {{lr: 0.001}}
parallel: {{backend: gloo}}
log_every: {log_every}
"""


def metrics_line(step, *, life=0, target="point_group", noise=None, steps=500, time_per_step_s=0.12, nan=False):
    """One line of metrics.jsonl."""
    noise = noise or random.Random(step)
    loss = 3.3 * math.exp(-step / (0.22 * steps)) + 0.12 + 0.06 * noise.gauss(0, 1) * math.exp(-step / steps)
    warm = min(1.0, step / (0.06 * steps))
    compute, data, comm = (
        0.078 + noise.uniform(0, 0.006),
        0.004 + noise.expovariate(600),
        0.014 + noise.uniform(0, 0.01),
    )
    parts = data + compute + comm + 0.006 + 0.002
    atoms, edges = 64 * noise.randint(22, 26), 64 * noise.randint(700, 860)
    return {
        "step": step,
        "epoch": step * 64 // 16000,
        "samples_seen": step * 64,
        "time_s": step * time_per_step_s,
        "life": life,
        "loss": None if nan else loss,
        "losses": {target: None if nan else 0.8 * loss, "band_gap": 0.4 * loss},
        "weights": {target: 1 + step / steps, "band_gap": 0.5},
        "lr": 1e-3 * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps))),
        "grad_norm": None if nan else 4 * math.exp(-step / 200) + 0.3 + noise.expovariate(4),
        "graphs": 64,
        "atoms": atoms,
        "edges": edges,
        "ranks": 4,
        "step_time_s": parts * 1.04,
        "step_time_mean_s": parts,
        "step_time_min_s": parts * 0.97,
        "data_time_s": data,
        "forward_time_s": 0.4 * compute,
        "backward_time_s": 0.6 * compute,
        "compute_time_s": compute,
        "comm_time_s": comm,
        "optimizer_time_s": 0.006,
        "other_time_s": 0.002,
        "cost_imbalance": 1.01 + noise.expovariate(60),
        "graphs_per_s": 64 / (parts * 1.04),
        "atoms_per_s": atoms / (parts * 1.04),
        "edges_per_s": edges / (parts * 1.04),
        "memory_bytes": int(1.1e9 + 2e8 * (1 - math.exp(-step / 80))),
        "cpu_energy_j": 180.0 * 5 * time_per_step_s,
        "energy_nodes": 1,
        "straggler_count": int(step % 50 == 0),
        "stragglers": [straggler(step // 50 % 3)] if step % 50 == 0 else [],
    }


def straggler(intervals=1, host="node017"):
    """One of the ranks named in a metrics line."""
    return {"rank": 3, "host": host, "ratio": 1.5, "reason": "node", "intervals": intervals}


def ranks_line(step, *, life=0, ranks=4, steps=5):
    """One line of ranks.jsonl; the last rank is the slow one."""
    slow = [1.0] * (ranks - 1) + [1.5]
    parts = {"data": 0.004, "forward": 0.03, "backward": 0.05, "comm": 0.02, "optimizer": 0.006}
    times = {f"{part}_time_s": [time_s * each for each in slow] for part, time_s in parts.items()}
    return {
        "step": step,
        "first_step": step - steps + 1,
        "life": life,
        "steps": steps,
        **times,
        "step_time_s": [0.12] * ranks,
        "graphs": [16 * steps] * ranks,
        "atoms": [400 * steps] * ranks,
        "edges": [12000 * steps] * ranks,
        "predicted_cost": [24000.0] * ranks,
        "memory_bytes": [1100000000] * ranks,
    }


def evaluation_line(step, *, target="point_group", classes=None, unit="eV", steps=500, split="val"):
    """One line of evaluations.jsonl: a target of every kind."""
    done = 1 - math.exp(-step / (0.3 * steps))
    noise = random.Random(step)
    classes = classes or POINT_GROUPS
    return {
        "step": step,
        "epoch": step * 64 // 16000,
        "samples_seen": step * 64,
        "time_s": step * 0.12,
        "split": split,
        "samples": 2000,
        "time_taken_s": 3.4,
        "loss": 2.6 * (1 - done) + 0.2,
        "metrics": {
            target: {
                "accuracy": 0.05 + 0.9 * done,
                "loss": 3.4 * (1 - done) + 0.15,
                "chance": 0.047,
                "classes": 32,
            },
            "band_gap": {
                "mae": 1.1 * (1 - done) + 0.31,
                "rmse": 1.5 * (1 - done) + 0.5,
                "loss": 0.8 * (1 - done) + 0.1,
                "unit": unit,
                "baseline_mae": 1.24,
                "baseline_rmse": 1.57,
                "r2": 0.9 * done,
            },
            "is_metal": {
                "accuracy": 0.6 + 0.3 * done,
                "auroc": 0.5 + 0.44 * done,
                "loss": 0.3,
                "chance": 0.58,
            },
            "tags": {"f1": 0.8 * done, "exact": 0.6 * done, "loss": 0.2},
        },
        "per_class": {
            target: {
                name: {
                    "accuracy": min(1.0, 0.5 + 0.5 * done * noise.random()),
                    "count": noise.randint(30, 94),
                }
                for name in classes
            }
        },
        "confusion": {target: confusion(classes, right=round(40 * done))},
    }


def confusion(classes, right):
    """An entry of `confusion` in a line of evaluations.jsonl: what is not right is named as the next class."""
    count = len(classes)
    counts = [[0] * count for _ in classes]
    for number, row in enumerate(counts):
        row[number] = right
        row[(number + 1) % count] += 40 - right
    return {"classes": list(classes), "counts": counts}


def write_run(
    folder,
    *,
    steps=500,
    log_every=5,
    lives=2,
    done=True,
    evaluate_every=50,
    target="point_group",
    classes=None,
    provenance=None,
    unit="eV",
    data_set="symmetry_dev",
    split="val",
):
    """Write a whole run directory; with two lives, the second repeats the steps after its checkpoint."""
    folder = Path(folder)
    (folder / "checkpoints" / f"step-{steps:06d}").mkdir(parents=True)
    noise = random.Random(3)
    spans = (
        [(log_every, steps)] if lives == 1 else [(log_every, int(0.63 * steps)), (int(0.6 * steps) + log_every, steps)]
    )
    lines = [
        metrics_line(step, life=life, target=target, noise=noise, steps=steps)
        for life, (first, last) in enumerate(spans)
        for step in range(first, last + 1, log_every)
    ]
    evaluations = [
        evaluation_line(step, target=target, classes=classes, unit=unit, steps=steps, split=split)
        for step in range(evaluate_every, steps + 1, evaluate_every)
    ]
    # A JSON string is also a YAML string, so that any target name can stand as a key.
    config = CONFIG.format(name=folder.name, steps=steps, log_every=log_every, target=json.dumps(target))
    (folder / "config.yaml").write_text(config, encoding="utf-8")
    write_lines(folder / "metrics.jsonl", lines)
    write_lines(folder / "ranks.jsonl", [ranks_line(line["step"], life=line["life"]) for line in lines])
    write_lines(folder / "evaluations.jsonl", evaluations)
    (folder / "provenance.json").write_text(json.dumps(provenance or PROVENANCE), encoding="utf-8")
    (folder / "data.json").write_text(json.dumps(data_sets(data_set)), encoding="utf-8")
    if done:
        (folder / "DONE").touch()
    return folder


def write_lines(path, lines):
    """Write one JSON object per line."""
    Path(path).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def data_sets(name="symmetry_dev"):
    """Content of data.json."""
    return [
        {
            "path": f"datasets/{name}",
            "samples": 20000,
            "splits": {"train": 16000, "val": 2000, "test": 2000},
            "cutoff_angstrom": 6.0,
        }
    ]


PROVENANCE = {
    "started": "2025-03-04T09:12:44+00:00",
    "command": ["matsci-hpc", "train", "pretrain.yaml", "steps=500"],
    "versions": {"matsci_hpc": "0.1.0", "python": "3.11.9", "torch": "2.6.0+cpu", "numpy": "2.2.3"},
    "git": {"commit": "3f2a91c07d", "changed_files": []},
    "host": {"name": "node017", "system": "Linux 5.14", "memory_bytes": 270000000000},
    "cpu": {"model": "EPYC 7763", "cores": 64, "flags": ["avx2", "fma"]},
    "mpi": {"library": "Open MPI 5.0.5", "standard": "4.0"},
    "environment": {"SLURM_JOB_ID": "884213", "SLURM_NNODES": "2", "OMP_NUM_THREADS": "16"},
}
