"""The clouds that some settings give, pinned: whoever changes them has to raise the version of the generator."""

import hashlib

import pytest

from matsci_hpc import point_groups
from matsci_hpc.sources.cloud_generator import VERSION, CloudGenerator

USUAL = {"max_atoms": 48, "max_orbits": 6, "min_distance": 0.05, "jitter": 0.0}
SETTINGS = {
    "usual": (point_groups.crystallographic(), USUAL),
    "hard": (("C1", "Oh", "Ih"), {"max_atoms": 120, "max_orbits": 20, "min_distance": 0.15, "jitter": 0.0}),
    "jitter": (point_groups.crystallographic(), USUAL | {"jitter": 0.01}),
}
PINNED_VERSION = 2
PINNED = {
    "usual": "8766df17f90d21f61933a511f11f1a5f",
    "hard": "26b0767027f29af348ff7aec9a303329",
    "jitter": "1e5b8de976e77604a0507052023efd1d",
}


def digest(block):
    """Of all arrays of a block, as little-endian machines hold them."""
    found = hashlib.blake2b(digest_size=16)
    for array, kind in (
        (block.position, "<f4"),
        (block.atomic_number, "<u1"),
        (block.offset, "<i8"),
        (block.point_group, "<i2"),
    ):
        found.update(array.astype(kind, casting="equiv").tobytes())
    return found.hexdigest()


@pytest.mark.parametrize("name", SETTINGS)
def test_changed_clouds_have_another_version(name):
    groups, settings = SETTINGS[name]
    found = digest(CloudGenerator(groups, seed=121, **settings).block("train", 0))
    assert (VERSION, found) == (PINNED_VERSION, PINNED[name]), (
        f"block ('train', 0) of the {name} settings is not the one pinned for version {PINNED_VERSION} of the clouds. "
        "If that is meant, raise VERSION in sources/cloud_generator.py and pin the new version and digests here: data "
        "sets and runs made earlier must count as other data. If only the jitter differs, look whether this numpy "
        "draws other normal numbers (Generator.standard_normal), which it may do between releases."
    )
