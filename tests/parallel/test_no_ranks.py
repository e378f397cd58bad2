import pytest

from matsci_hpc.errors import MachineError
from matsci_hpc.parallel.discovery import discover


@pytest.mark.parametrize(("rank", "size"), [("x", "2"), ("", ""), ("2", "2"), ("-1", "2"), ("0", "0"), ("0", "many")])
def test_what_is_no_rank(rank, size):
    with pytest.raises(MachineError, match=f"^RANK={rank} and WORLD_SIZE={size} in the environment"):
        discover({"RANK": rank, "WORLD_SIZE": size})
