"""Sizes of records that are known without reading them, by which heavy blocks of a preparation are begun first."""

from itertools import pairwise

import pytest
from record_inputs import NAMES, section, write_records

from matsci_hpc.config.prep import PrepConfig
from matsci_hpc.sources.registry import open_source
from matsci_hpc.work_sharing import claim_order

LENGTHS = [1] * 70 + [40] * 30 + [5] * 37


@pytest.fixture(params=NAMES)
def source(request, tmp_path):
    """Two files of the same records."""
    paths = [tmp_path / folder / NAMES[request.param] for folder in ("a", "b")]
    for path in paths:
        path.parent.mkdir()
        write_records(request.param, path, LENGTHS)
    sections = section(request.param, *paths)
    config = PrepConfig.model_validate({"source": sections, "out": tmp_path / "out", "neighbors": {"cutoff": 3.0}})
    return open_source(config, tmp_path / "staging"), sum(path.stat().st_size for path in paths)


def test_sizes_of_parts_are_together_that_of_the_input(source):
    records, size = source
    whole = records.input_bytes(0, len(records))
    assert size - 32 < whole <= size  # without the header of a table
    for cuts in ([0, 1, 16, 17, 100, 137, 138, 274], list(range(275))):
        parts = [records.input_bytes(start, stop) for start, stop in pairwise(cuts)]
        assert min(parts) >= 0
        assert sum(parts) == whole


def test_heavy_blocks_come_first(source):
    records, _ = source
    assert claim_order(records, 9, 32)[:4] == [2, 6, 7, 3]  # which hold 26, 17, 13 and 4 chains of 40 atoms
