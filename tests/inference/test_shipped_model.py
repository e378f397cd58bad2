"""The model that is shipped with the study of symmetry pretraining."""

import shutil
from collections import Counter

import yaml

from matsci_hpc import load_model
from matsci_hpc.config.loading import load_config
from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.inference.judging import judge
from matsci_hpc.parallel.mpi import World
from matsci_hpc.prepare import prepare
from matsci_hpc.resources import shipped

STUDY = shipped("scaling_studies") / "symmetry_learning"


def test_it_names_clouds_of_its_test_split_as_well_as_the_study_says(tmp_path):
    recipe = yaml.safe_load((STUDY / "data.yaml").read_text())
    # Samples of a split do not depend on how many others there are: these are the first of the 20,000.
    recipe["source"]["samples"] = {"test": 1000}
    path = tmp_path / "data.yaml"
    path.write_text(yaml.safe_dump(recipe | {"out": str(tmp_path / "clouds")}))
    prepare(load_config(PrepConfig, path), World())
    found, _ = judge(
        STUDY / "model/encoder.safetensors", [tmp_path / "clouds"], "test", checkpoint=None, device="cpu",
        trust_module=False,
    )  # fmt: skip
    counts = found["confusion"]["point_group"]["counts"]
    right = sum(row[number] for number, row in enumerate(counts))
    assert 0.93 < right / 1000 < 0.97


def test_it_loads_from_any_folder_without_the_run(tmp_path):
    shutil.copy(STUDY / "model/encoder.safetensors", tmp_path / "other.safetensors")
    model = load_model(tmp_path / "other.safetensors")
    assert Counter(spec.kind for spec in model.targets.values()) == {"class": 1}
    assert model.about.origin.step == 15_625
