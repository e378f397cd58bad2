import shutil

import pytest

from matsci_hpc.preflight.disk import Need, Room, data_set_need, rooms, run_need, space_findings


@pytest.mark.parametrize(
    ("room", "levels"),
    [
        (Room(10_000, 100, "free"), ["ok"]),
        (Room(None, None, "free"), ["ok"]),
        (Room(1_100, 100, "free"), ["warning"]),
        (Room(999, 100, "free"), ["error"]),
        (Room(10_000, 11, "free"), ["warning"]),
        (Room(10_000, 9, "free"), ["error"]),
        (Room(999, 9, "free"), ["error", "error"]),
    ],
)
def test_need_against_room(room, levels):
    found = list(space_findings(Need(1_000, 10, "things"), [room]))
    assert [each.level for each in found] == levels


def test_the_tightest_room_is_named():
    (finding,) = space_findings(Need(1, 1, "things"), [Room(9_000, None, "free"), Room(2_000, None, "left of a quota")])
    assert "2 kB that are left of a quota" in finding.text


def test_room_of_this_disk(tmp_path):
    disk = rooms(tmp_path / "new/run")[0]
    assert 0.5 < disk.bytes / shutil.disk_usage(tmp_path).free < 2  # other tests write meanwhile
    assert str(tmp_path.resolve()) in disk.words


def test_checkpoints_of_a_run(train_config):
    few = run_need(train_config(checkpoint={"keep": 2, "every_steps": 1}), 1e6)
    assert 4e6 < few.bytes < 4.1e6  # two, the best one, and one in work
    assert run_need(train_config(checkpoint={"keep": 50, "every_steps": 3}), 1e6).bytes == pytest.approx(4e6, rel=0.02)


def test_data_set():
    need = data_set_need(10, 100.0, 2_000, unpacked_bytes=5e4)
    assert need.bytes == 2.5e5
    assert "10 shards of 20 kB and the unpacked input, 50 kB" in need.words
