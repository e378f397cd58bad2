"""Every command of the README runs as it stands there."""

import re
import shlex
import sys
from pathlib import Path

import pytest
from crystals import write_crystals
from ranks import ROOT, run_command

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines() if line]
SET_UP = ["make demo", "make test"]
"""Run by .ci/run itself: the first makes the data and the run that the picture shows, the second runs this file."""


def test_the_promise_is_two_commands():
    assert COMMANDS[:2] == SET_UP
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert all(re.search(rf"^{command}$", script, flags=re.MULTILINE) for command in SET_UP)


def test_links_and_folders_exist():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    named = re.findall(r"`([a-z_]+(?:/[a-z_]+)*/(?:[a-z_.]+\.(?:py|yaml))?)`", README)
    assert links
    assert named
    outputs = ("runs/", "datasets/")
    missing = [path for path in links + named if not path.startswith(outputs) and not (ROOT / path).exists()]
    # `runs/`, `sites/` and `slurm/` in the table are folders of job_templates.
    assert [path for path in missing if not (ROOT / "job_templates" / path).exists()] == []


@pytest.mark.mpi
def test_the_commands_on_own_crystals_and_for_a_cluster(tmp_path):
    write_crystals(tmp_path / "cifs", 80)
    (tmp_path / "cifs" / "properties.csv").rename(tmp_path / "properties.csv")
    config = re.search(r"```yaml\n(.*?)```", README, flags=re.DOTALL).group(1)
    (tmp_path / "my_crystals.yaml").write_text(config)
    programs = Path(sys.executable).parent
    for line in COMMANDS[2:]:
        words = shlex.split(line)
        if words[0] == "source":
            assert words[1] == ".venv/bin/activate"
            continue
        assert words[0] == "matsci-hpc"
        if "run_dir=runs/my_gap" in words:
            words += ["steps=4"]  # the only thing left out is patience
        result = run_command(words, cwd=tmp_path, PATH=f"{programs}:/usr/bin:/bin")
        assert result.returncode == 0, f"{line}\n{result.stdout}{result.stderr}"
        if "--dry-run" in words:
            assert result.stdout.startswith("#!/bin/bash\n")
    assert (tmp_path / "runs" / "my_gap" / "report.html").stat().st_size > 1e6
