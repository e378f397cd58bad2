"""Recipes whose raw data have splits of their own, and not all that training needs."""

import csv
import itertools
from pathlib import Path

import pytest
import yaml
from ranks import ROOT
from shared_data import shared_data

from matsci_hpc.config.loading import load_config
from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.loading.collection import Collection
from matsci_hpc.loading.labels import sample_ids
from matsci_hpc.parallel.mpi import World
from matsci_hpc.prepare import prepare


@pytest.mark.parametrize("name", ["perov_5", "carbon_24"])
def test_the_recipe_divides_one_file_and_keeps_the_test_split_of_the_other(name, tmp_path):
    """A few rows of the real files, by the splits and the source of the recipe that is shipped."""
    config = yaml.safe_load((ROOT / f"data_prep/{name}.yaml").read_text())
    ids = {}
    for split, path in config["source"]["path"].items():
        lines = csv.DictReader(shared_data(f"{name}/{Path(path).name}").open(newline=""))
        rows = list(itertools.islice(lines, 60))
        ids[split] = {row["material_id"] for row in rows}
        config["source"]["path"][split] = str(tmp_path / Path(path).name)
        with (tmp_path / Path(path).name).open("w", newline="") as file:
            table = csv.DictWriter(file, rows[0])
            table.writeheader()
            table.writerows(rows)
    config |= {"out": str(tmp_path / "data"), "neighbors": {"cutoff": 3.0}}
    (tmp_path / "prep.yaml").write_text(yaml.safe_dump(config))
    prepare(load_config(PrepConfig, tmp_path / "prep.yaml"), World())
    data = Collection([tmp_path / "data"])
    found = {
        split: {each.decode() for each in sample_ids(data, data.in_split(split))} for split in ("train", "val", "test")
    }
    assert found["test"] == ids["test"]
    assert found["train"] | found["val"] == ids["*"]
    assert 0 < len(found["val"]) < len(found["train"])
