import pytest

from matsci_hpc.preflight.margin import Margin, margin_findings, write_time_s
from matsci_hpc.preflight.speed import Speed

SPEED = Speed(1.0, 1.0, 1.0, 1.0, 0.0, 0.0, "a test", measured_there=True)
GUESS = Speed(1.0, 1.0, 1.0, 1.0, 0.0, 0.0, "a test", measured_there=False)


def test_what_happens_after_the_signal():
    assert Margin(notice_s=1, step_s=5, look_s=2, write_s=10).total_s == 26
    assert Margin(notice_s=1, step_s=5, look_s=8, write_s=10).total_s == 29


@pytest.mark.parametrize(
    ("write_s", "speed", "level"),
    [(1, SPEED, "ok"), (30, SPEED, "warning"), (60, SPEED, "error"), (60, GUESS, "warning")],
)
def test_margin(write_s, speed, level, site):
    margin = Margin(notice_s=1, step_s=5, look_s=0, write_s=write_s)
    (finding,) = margin_findings(margin, 1e6, site(signal_before_end_s=120), speed)
    assert finding.level == level
    if level != "ok":
        wanted = int(finding.advice.split()[-3])
        # What it says helps.
        assert [each.level for each in margin_findings(margin, 1e6, site(signal_before_end_s=wanted), speed)] == ["ok"]


def test_a_run_here_has_no_limit(site):
    assert not list(margin_findings(Margin(1, 1, 1, 1e6), 1e6, site(scheduler="local"), SPEED))


def test_writing_is_measured_and_leaves_nothing(tmp_path):
    assert write_time_s(tmp_path / "new/run", 40_000_000) > 0
    assert write_time_s(tmp_path, 0) >= 0
    assert not list(tmp_path.iterdir())
