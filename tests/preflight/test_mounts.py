from pathlib import Path

import pytest

from matsci_hpc.preflight.mounts import Mount, expanded, mount_of, mounts_here, nearest, reach, read_mounts

TABLE = """\
/dev/nvme0n1p2 / ext4 rw,relatime 0 0
tmpfs /dev/shm tmpfs rw 0 0
server:/export/home /home nfs4 rw,vers=4.2 0 0
10.0.0.1@o2ib:/fs1 /lustre\\040one lustre rw,flock 0 0
/dev/sdb1 /home/scratch\\011x xfs rw 0 0
sshfs#me@there: /remote fuse.sshfs rw 0 0
"""


def test_table():
    mounts = read_mounts(TABLE)
    assert mounts[3] == Mount(Path("/lustre one"), "lustre", "10.0.0.1@o2ib:/fs1")
    assert mount_of(Path("/lustre one/ada/run"), mounts).type == "lustre"
    assert mount_of(Path("/home/ada"), mounts).type == "nfs4"
    assert mount_of(Path("/homes"), mounts).type == "ext4"
    assert mount_of(Path("/home/scratch\tx/a"), mounts).type == "xfs"


@pytest.mark.parametrize(
    ("path", "who"),
    [
        ("/home/ada/runs", "shared"),
        ("/lustre one/run", "shared"),
        ("/remote/x", "shared"),
        ("/tmp/x", "node"),  # noqa: S108
        ("/dev/shm/x", "node"),  # noqa: S108
        ("/opt/venv/bin/python", "unknown"),
        ("/data/node/ada", "node"),
    ],
)
def test_reach(path, who):
    assert reach(Path(path), read_mounts(TABLE), Path("/data/node"))[0] == who


def test_a_later_mount_lies_over_an_earlier_one():
    mounts = [Mount(Path("/x"), "ext4"), Mount(Path("/x"), "nfs")]
    assert mount_of(Path("/x/y"), mounts).type == "nfs"


def test_this_machine():
    mounts = mounts_here()
    assert mount_of(Path("/proc/self"), mounts).type == "proc"
    assert mount_of(nearest(Path(__file__)), mounts) is not None


def test_nearest_follows_links(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert nearest(tmp_path / "link/a/b") == (tmp_path / "real").resolve()


def test_paths_of_a_site_file(monkeypatch):
    monkeypatch.setenv("SCRATCH_OF_TEST", "/scratch/ada")
    monkeypatch.delenv("NOT_SET_HERE", raising=False)
    assert expanded("$SCRATCH_OF_TEST/runs") == Path("/scratch/ada/runs")
    assert expanded("$NOT_SET_HERE/runs") is None
    assert expanded(None) is None
