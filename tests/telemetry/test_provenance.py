import json

from matsci_hpc.telemetry.progress import Progress
from matsci_hpc.telemetry.provenance import describe_machine, launch_environment


def test_a_record_is_json():
    record = json.loads(json.dumps(describe_machine()))
    assert record["packages"]["numpy"]
    assert record["cores"] >= 1


def test_no_secret_is_recorded():
    environ = {
        "SLURM_JOB_ID": "17",
        "OMP_NUM_THREADS": "2",
        "SLURM_JWT": "eyJ",
        "FI_SECRET": "x",
        "OMPI_MCA_store_passwd": "x",
        "PMIX_SECURITY_KEY": "x",
        "HOME": "/home/ada",
        "AWS_SESSION": "x",
    }
    assert launch_environment(environ) == {"OMP_NUM_THREADS": "2", "SLURM_JOB_ID": "17"}


def test_progress_in_a_log_file(capsys):
    with Progress(10, "shards", shown=True, interval_s=0.0) as progress:
        for done in (0, 3, 3, 10):
            progress.show(done)
    lines = capsys.readouterr().err.splitlines()
    # Also where nothing is new: it shows that the job lives.
    assert [line.partition(",")[0] for line in lines] == [f"{n}/10 shards" for n in (0, 3, 3, 10)]
    with Progress(10, "shards", shown=False, interval_s=0.0) as progress:
        progress.show(5)
    assert capsys.readouterr().err == ""
