import json

from matsci_hpc.scaling.export import write_extra_p
from matsci_hpc.scaling.table import Row, Table


def lines_of(tmp_path, *rows):
    path = tmp_path / "extra_p.jsonl"
    write_extra_p(path, Table(rows, "here").series())
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_throughput_is_exported_with_its_repeats_and_as_time_of_a_sample(tmp_path):
    rows = [
        Row(p, throughput=x, repeat=str(k), labels={"backend": name})
        for name in ("a->b ü", "c")
        for k, x in enumerate((50.0, 80.0))
        for p in (2, 1)
    ]
    found = lines_of(tmp_path, *rows)
    assert found[0] == {
        "params": {"p": 1},
        "callpath": "backend=a-b ü",
        "metric": "throughput",
        "value": [50.0, 80.0],
    }
    assert found[1]["metric"] == "time per sample"
    assert found[1]["value"] == [1 / 50, 1 / 80]
    assert [point["params"]["p"] for point in found] == [1, 1, 2, 2] * 2


def test_times_of_work_are_exported_as_they_are(tmp_path):
    found = lines_of(tmp_path, Row(1, time_s=8.0), Row(2, time_s=5.0))
    assert [(point["params"]["p"], point["metric"], point["value"]) for point in found] == [
        (1, "time", [8.0]),
        (2, "time", [5.0]),
    ]
