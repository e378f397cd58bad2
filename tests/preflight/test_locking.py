from matsci_hpc.preflight.locking import flock_findings, hdf5_findings


def test_locks_of_this_disk(tmp_path):
    (finding,) = flock_findings(tmp_path / "new/run")
    assert finding.level == "ok"
    assert not list(tmp_path.iterdir())


def test_hdf5_must_take_no_lock(site):
    def level(machine, environ):
        (finding,) = hdf5_findings(machine, environ)
        return finding.level

    assert level(site(), {}) == "ok"
    assert level(site(), {"HDF5_USE_FILE_LOCKING": "TRUE"}) == "ok"  # a job has an environment of its own
    assert level(site(scheduler="local"), {"HDF5_USE_FILE_LOCKING": "TRUE"}) == "warning"
    assert level(site(environment={"HDF5_USE_FILE_LOCKING": "TRUE"}), {}) == "warning"
