import os
from pathlib import Path

from matsci_hpc.preflight.mounts import Mount
from matsci_hpc.preflight.paths import existence_findings, reach_findings, writable

SHARED = [Mount(Path("/"), "nfs4")]
LOCAL_DISK = [Mount(Path("/"), "ext4")]


def test_a_folder_that_can_be_made(tmp_path):
    assert [each.level for each in writable(tmp_path / "a/b")] == ["ok"]


def test_a_folder_below_a_file(tmp_path):
    (tmp_path / "file").touch()
    (finding,) = writable(tmp_path / "file/run")
    assert finding.level == "error"
    assert f"{tmp_path / 'file'} is a file" in finding.text


def test_a_closed_folder():
    if (child := os.fork()) == 0:
        if os.geteuid() == 0:  # root may write everywhere
            os.setuid(65534)
        os._exit([each.level for each in writable(Path("/usr/runs"))] != ["error"])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_missing_input_container_and_archive(prep_config, subject, site, tmp_path):
    config = prep_config(source={"kind": "cif", "path": "nowhere.tar"})
    found = list(existence_findings(subject(config, site=site(container={"image": str(tmp_path / "no.sif")}))))
    assert [each.text for each in found if each.level == "error"] == [
        "input nowhere.tar: is not there",
        f"container {tmp_path / 'no.sif'}: is not there",
    ]
    (tmp_path / "no.sif").touch()
    (tmp_path / "nowhere.tar").touch()
    config = prep_config(source={"kind": "cif", "path": str(tmp_path / "nowhere.tar")})
    found = list(existence_findings(subject(config, site=site(container={"image": str(tmp_path / "no.sif")}))))
    assert [each.level for each in found] == ["ok"]


def test_encoder_to_start_from(train_config, subject, tmp_path):
    config = train_config(init_from=str(tmp_path / "before"))
    assert [each.level for each in existence_findings(subject(config))] == ["ok", "error"]
    assert [each.level for each in existence_findings(subject(config, awaited=[tmp_path / "before"]))] == ["ok"]


def test_what_nodes_see(train_config, subject, site, tmp_path):
    config = train_config()
    shared = list(reach_findings(subject(config), SHARED))
    assert {each.level for each in shared} == {"ok"}
    assert {each.text.split()[0] for each in shared} == {"run_dir", "config", "working", "data", "python"}
    node_local = subject(config, site=site(node_local=str(tmp_path)))
    # A shared type wins over what the path looks like.
    assert {each.level for each in reach_findings(node_local, SHARED)} == {"ok"}
    found = list(reach_findings(node_local, LOCAL_DISK))
    unseen = [each for each in found if each.level == "warning"]
    assert any(f"run_dir {config.run_dir}" in each.text for each in unseen)
    assert not list(reach_findings(subject(config, site=site(scheduler="local")), LOCAL_DISK))


def test_scratch_is_named(train_config, subject, site, tmp_path, monkeypatch):
    monkeypatch.setenv("SCRATCH", "/scratch/ada")
    machine = site(node_local=str(tmp_path), scratch="$SCRATCH")
    found = list(reach_findings(subject(train_config(), site=machine), LOCAL_DISK))
    assert any("such as /scratch/ada" in (each.advice or "") for each in found)


def test_every_input_of_a_source_by_split(prep_config, subject, site, tmp_path):
    (tmp_path / "val.csv").touch()
    paths = {"val": str(tmp_path / "val.csv"), "test": str(tmp_path / "test.csv")}
    config = prep_config(source={"kind": "csv", "path": paths})
    found = [each.text for each in existence_findings(subject(config)) if each.level == "error"]
    assert found == [f"input {tmp_path / 'test.csv'}: is not there"]
    seen = [each.text for each in reach_findings(subject(config, site=site()), SHARED)]
    assert sum(text.startswith("input ") for text in seen) == 2
