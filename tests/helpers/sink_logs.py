"""What the logs of other programs hold, read by these programs' own code: number -> [(step, value), ...]."""

import struct
from collections import defaultdict
from pathlib import Path

Series = dict[str, list[tuple[int, float]]]


def read_tensorboard(folder: Path) -> Series:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def read_mlflow(folder: Path) -> Series:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=folder.as_uri())
    (experiment,) = client.search_experiments(filter_string="name = 'matsci-hpc'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    history = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    return {name: [(each.step, each.value) for each in values] for name, values in history.items()}


def read_wandb(folder: Path) -> Series:
    """All lives together, by the step of the run; within a life W&B's own step has to grow."""
    import json

    from wandb.proto import wandb_internal_pb2

    found: Series = defaultdict(list)
    for path in sorted(folder.glob("offline-run-*/*.wandb")):
        for data in _records(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            if not row:
                continue
            found["_step"].append((len(found["_step"]), row["_step"]))
            for name, value in row.items():
                if "/" in name:
                    found[name].append((int(row["step"]), value))
    numbers = [number for _, number in found.pop("_step", [])]
    assert numbers == sorted(set(numbers))
    return found


def _records(data: bytes, block=32768):
    """The records of a log of LevelDB's form, after 7 bytes of header; W&B's package can write it, not read it."""
    assert data[:4] == b":W&B"
    place, parts = 7, []
    while place < len(data):
        if block - place % block < 7:  # too little room for a header: filled with zeros
            place += block - place % block
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        parts.append(data[place + 7 : place + 7 + length])
        place += 7 + length
        if kind in {1, 4}:  # whole, or its last part
            yield b"".join(parts)
            parts = []
