import json
import os
import subprocess
import sys
import threading
import time

import pytest
from ranks import environment
from run_dirs import evaluation_line, metrics_line, straggler, write_lines, write_run
from terminal import talk

from matsci_hpc.analysis import run_tail
from matsci_hpc.analysis.run_tail import RunTail, Tail
from matsci_hpc.analysis.watch import sparkline, time_left_s
from matsci_hpc.errors import UserInputError


def watch(*arguments, **extra):
    words = [sys.executable, "-m", "matsci_hpc", "watch", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False, env=environment(COLUMNS="200", **extra))


@pytest.fixture
def going_on(tmp_path):
    """A run at step 200 of 500 whose last line names a straggler."""
    run_dir = write_run(tmp_path / "demo", steps=500, lives=1, done=False)
    write_lines(run_dir / "metrics.jsonl", [metrics_line(step) for step in range(5, 201, 5)])
    write_lines(run_dir / "evaluations.jsonl", [evaluation_line(step) for step in range(50, 201, 50)])
    return run_dir


def test_one_view_says_where_a_run_stands(going_on):
    result = watch(going_on, "--once")
    assert result.returncode == 0, result.stderr
    text = " ".join(result.stdout.split())
    for expected in (
        "demo running last line",
        "40.0% step 200 of 500, epoch 0, about 36 s left",  # 0.12 s a step
        "graphs/s",
        "4 ranks",
        "forward",
        "communication",
        "predicted cost 1.0",
        "180 W by processors",
        "stragglers rank 3 on node017: busy 1.50 times as long as the median rank, slower node, 1 line in a row",
        "held out point_group: accuracy 0.",
        "at step 200",
    ):
        assert expected in text


@pytest.mark.parametrize(
    ("marks", "said"),
    [
        ({"DONE": "{}"}, "complete"),
        ({"STOPPED": "signal SIGTERM\n"}, "stopped (signal SIGTERM)"),
        ({"STOP": ""}, "asked to stop"),
    ],
)
def test_how_a_run_ended(going_on, marks, said):
    for name, text in marks.items():
        (going_on / name).write_text(text)
    text = watch(going_on).stdout  # no terminal: one view, as with --once
    assert said in text
    assert "left" not in text


def test_a_run_without_a_line_and_a_folder_that_is_no_run(tmp_path):
    (tmp_path / "config.yaml").write_text("steps: 5\n")
    assert "no step on record yet" in watch(tmp_path, "--once").stdout
    result = watch(tmp_path / "none", "--once")
    assert result.returncode == 2
    assert "is not a training run" in result.stderr


def test_odd_records_are_shown_and_cannot_write_on_the_terminal(going_on):
    escape = "\x1b]0;owned\x07\x1b[2J[bold]x[/bold]"
    line = metrics_line(205) | {"stragglers": [straggler(host=escape)], "losses": {escape: 1.0}, "loss": None}
    odd = [line, {"step": 210, "life": 0, "stragglers": [straggler(host=escape)], "lr": "x", "time_s": None}]
    evaluation = {"step": 205, "metrics": {escape: {"mae": 0.5, "unit": escape}, "y": 3}, "loss": None}
    with (going_on / "metrics.jsonl").open("a") as file:
        file.write("".join(f"{json.dumps(each)}\n" for each in odd))
    with (going_on / "evaluations.jsonl").open("a") as file:
        file.write(json.dumps(evaluation) + "\n")
    (going_on / "STOPPED").write_text(escape)
    for encoding in ("utf-8", "ascii"):
        result = watch(going_on, "--once", PYTHONIOENCODING=encoding)
        assert result.returncode == 0, result.stderr
        assert "\x1b" not in result.stdout
        assert "\x07" not in result.stdout
        assert "[bold]x[/bold]" in result.stdout
        assert "not finite" in result.stdout


def test_on_a_terminal_it_follows_the_run_to_its_end(going_on):
    def go_on():
        time.sleep(3)
        with (going_on / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(metrics_line(500)) + "\n")
        (going_on / "DONE").touch()

    thread = threading.Thread(target=go_on)
    thread.start()
    words = [sys.executable, "-m", "matsci_hpc", "watch", going_on, "--every", "0.2"]
    screen = talk(words, [], {**environment(), "TERM": "xterm"})
    thread.join()
    assert "step 200 of 500" in screen
    assert "step 500 of 500" in screen
    assert "complete" in screen


def test_each_byte_is_read_once_and_a_torn_line_when_it_is_whole(tmp_path):
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)
    tail.poll()
    assert list(tail.lines) == []
    path.write_text('{"step": 1}\nnot json\n[1]\n{"step": 2')
    tail.poll()
    assert [line["step"] for line in tail.lines] == [1]
    with path.open("a") as file:
        file.write('5}\n{"step": 26}\n')
    tail.poll()
    tail.poll()
    assert [line["step"] for line in tail.lines] == [1, 25, 26]
    path.write_text('{"step": 3}\n')  # the run was begun anew
    tail.poll()
    assert [line["step"] for line in tail.lines] == [3]


def test_of_a_long_record_the_end_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(run_tail, "BEGIN_BYTES", 100)
    path = tmp_path / "metrics.jsonl"
    write_lines(path, [{"step": step} for step in range(1, 1001)])
    tail = Tail(path)
    tail.poll()
    steps = [line["step"] for line in tail.lines]
    assert steps == list(range(steps[0], 1001))
    assert 3 <= len(steps) <= 8


def test_time_left_follows_the_present_life(tmp_path):
    run_dir = write_run(tmp_path / "run", lives=1, steps=500, done=False)
    slow = [metrics_line(step, time_per_step_s=9.0) for step in range(5, 101, 5)]
    fast = [metrics_line(step, life=1) | {"time_s": 1000 + step} for step in range(101, 201, 5)]
    write_lines(run_dir / "metrics.jsonl", slow + fast)
    assert time_left_s(RunTail(run_dir).look()) == pytest.approx(500 - 196)
    write_lines(run_dir / "metrics.jsonl", fast[:1])
    assert time_left_s(RunTail(run_dir).look()) is None


def test_a_curve_in_one_line():
    assert sparkline([], fancy=True) == ""
    assert sparkline([1.0, 1.0], fancy=False) == "__"
    assert sparkline([float(x) for x in range(8)], fancy=True) == "▁▂▃▄▅▆▇█"
    assert len(sparkline([float(x) for x in range(1000)], fancy=False)) == 40


def test_a_config_that_is_torn_is_told(tmp_path):
    (tmp_path / "config.yaml").write_text("steps: [1,\n")
    with pytest.raises(UserInputError, match="not valid YAML"):
        RunTail(tmp_path).look()


def test_ctrl_c_ends_the_view_alone(going_on):
    ours, theirs = os.openpty()
    words = [sys.executable, "-m", "matsci_hpc", "watch", str(going_on), "--every", "0.2"]
    with subprocess.Popen(
        ["env", "--default-signal=INT", *words],  # what a shell starts in the background ignores it
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment(TERM="xterm"),
    ) as process:
        os.close(theirs)
        seen = b""
        while b"held out" not in seen:
            seen += os.read(ours, 4096)
        process.send_signal(2)
        try:
            process.wait(timeout=60)
        finally:
            process.kill()
    os.close(ours)
    assert process.returncode == 0
