import json
import resource

import pytest

from matsci_hpc.telemetry import recorder
from matsci_hpc.telemetry.recorder import JsonLines


def test_a_line_that_a_crash_tore_does_not_spoil_the_next(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "lo')
    JsonLines(path).append({"step": 2, "loss": float("nan")})
    first, _, last = path.read_text().splitlines()
    assert [json.loads(first), json.loads(last)] == [{"step": 1}, {"step": 2, "loss": None}]


@pytest.fixture
def file_size_limit():
    """Limit the size of files; Python ignores SIGXFSZ, so writing fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (soft if size is None else size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def steps_in(path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_lines_that_do_not_fit_are_kept_and_written_later(tmp_path, file_size_limit, capsys):
    path = tmp_path / "metrics.jsonl"
    lines = JsonLines(path)
    lines.append({"step": 1})
    for first in (2, 5):
        file_size_limit(path.stat().st_size + 8)  # takes a part of a line
        for step in range(first, first + 3):
            lines.append({"step": step, "loss": 1.0})
        assert steps_in(path) == list(range(1, first))
        file_size_limit(None)
        assert lines.flush()
    lines.append({"step": 8})
    lines.close()
    assert steps_in(path) == list(range(1, 9))
    assert capsys.readouterr().err.count("warning") == 2  # the second one after a success in between


def test_what_is_kept_is_bounded_and_what_is_lost_is_said(tmp_path, file_size_limit, capsys, monkeypatch):
    monkeypatch.setattr(recorder, "MAX_WAITING", 3)
    path = tmp_path / "metrics.jsonl"
    lines = JsonLines(path)
    file_size_limit(0)
    for step in range(1, 6):
        lines.append({"step": step})
    file_size_limit(None)
    lines.close()
    assert steps_in(path) == [3, 4, 5]
    assert "2 lines are lost" in capsys.readouterr().err
