import pytest

from matsci_hpc.preflight.quota import Quota, parse_quota

# The forms of quota(1) -w -p, of it with a passed soft limit, and of lfs-quota(1) -q, as their manuals have them.
QUOTA = """\
Disk quotas for user ada (uid 1000):
     Filesystem  blocks   quota   limit   grace   files   quota   limit   grace
server:/home     1000    1500    2000       0     300       0       0       0
/dev/sdb1        1800*   1500    2000 1700000000    10     100     200       0
"""
LUSTRE = "/lustre 4096 0 8192 - 12 0 100 -\n"
LUSTRE_OVER = "/lustre 9000* 8000 8192 6d23h59m 12 0 0 -\n"


def test_quota_program():
    assert list(parse_quota(QUOTA)) == [
        Quota("server:/home", 1000 * 1024, None),
        Quota("/dev/sdb1", 200 * 1024, 190),
    ]


@pytest.mark.parametrize(
    ("answer", "quota"), [(LUSTRE, Quota("/lustre", 4096 * 1024, 88)), (LUSTRE_OVER, Quota("/lustre", 0, None))]
)
def test_lustre(answer, quota):
    assert list(parse_quota(answer)) == [quota]


@pytest.mark.parametrize("answer", ["", "Disk quotas for user ada (uid 1000): none\n", "lfs: error: no such device\n"])
def test_no_quota(answer):
    assert not list(parse_quota(answer))
