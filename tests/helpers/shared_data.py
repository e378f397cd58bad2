"""The real data sets beside the project, for tests that need them."""

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2].parent / "shared/data"


def shared_data(name):
    """Path of one of the real data sets; the test is skipped where it is not there."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return path
