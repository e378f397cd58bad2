import pytest

from matsci_hpc import resources
from matsci_hpc.errors import MachineError
from matsci_hpc.resources import shipped


def test_checkout():
    assert shipped("job_templates/common/job.sh.j2").read_text().startswith("#!/bin/bash\n")
    assert shipped("scaling_studies").is_dir()


def test_wheel(tmp_path, monkeypatch):
    inside = tmp_path / "matsci_hpc/shipped/job_templates/sites"
    inside.mkdir(parents=True)
    (inside / "local.yaml").touch()
    monkeypatch.setattr(resources, "__file__", str(tmp_path / "matsci_hpc/resources.py"))
    assert shipped("job_templates/sites/local.yaml") == (inside / "local.yaml").resolve()
    with pytest.raises(MachineError, match="install the package again"):
        shipped("data_prep/README.md")


@pytest.mark.parametrize("wrong", ["", "matsci_hpc/cli.py", "/etc/passwd", "data_prep/../pyproject.toml"])
def test_nothing_else_is_shipped(wrong):
    with pytest.raises(ValueError, match="not under"):
        shipped(wrong)
