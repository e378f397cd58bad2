import pytest

from matsci_hpc.preflight.limits import account_findings, time_limit_findings


@pytest.mark.parametrize(
    ("limit", "machine", "level"),
    [
        ("01:00:00", {}, "ok"),
        ("01:00:00", {"max_time_limit": "01:00:00"}, "ok"),
        ("1-00:00:00", {"max_time_limit": "23:59:59"}, "error"),
        ("00:02:00", {"signal_before_end_s": 120}, "error"),
        ("00:02:01", {"signal_before_end_s": 120}, "ok"),
        ("00:00:00", {}, "error"),
        (None, {}, "note"),
    ],
)
def test_time_limit(limit, machine, level, job, site):
    (finding,) = time_limit_findings(job(time_limit=limit), site(**machine))
    assert finding.level == level


def test_this_machine_has_no_limit(job, site):
    assert not list(time_limit_findings(job(time_limit="00:00:01"), site(scheduler="local")))


def test_account(site):
    assert not list(account_findings(site()))
    assert not list(account_findings(site(account_required=True, account="abc")))
    assert [each.level for each in account_findings(site(account_required=True))] == ["error"]
