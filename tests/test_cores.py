import pytest

from matsci_hpc.cores import domains_of, list_text, memory_domains, ranks_per_domain, read_list

TWO = {0: frozenset(range(4)), 1: frozenset(range(4, 8))}


@pytest.mark.parametrize(("text", "numbers"), [("0-3,8\n", {0, 1, 2, 3, 8}), ("5", {5}), ("", set()), ("\n", set())])
def test_lists_of_the_kernel(text, numbers):
    assert read_list(text) == numbers
    assert read_list(list_text(numbers)) == numbers


def test_ranges_are_joined():
    assert list_text([3, 1, 2, 7, 9, 10]) == "1-3,7,9-10"


def test_domains_as_the_kernel_describes_them(tmp_path):
    # The last is memory without cores, such as the HBM of a Xeon Max.
    for number, cores in enumerate(["0-3,8-11", "4-7,12-15", ""]):
        (tmp_path / f"node{number}").mkdir()
        (tmp_path / f"node{number}" / "cpulist").write_text(f"{cores}\n")
    (tmp_path / "possible").write_text("0-2\n")
    domains = memory_domains(tmp_path)
    assert domains == {0: read_list("0-3,8-11"), 1: read_list("4-7,12-15")}
    assert domains_of({8, 9}, domains) == [0]
    assert domains_of({3, 4}, domains) == [0, 1]


def test_a_kernel_that_does_not_tell(tmp_path):
    assert memory_domains(tmp_path / "none") == {}


@pytest.mark.parametrize(
    ("ranks", "cores", "each"),
    [
        (2, range(8), 1),
        (8, range(8), 4),
        (3, range(8), None),
        (2, range(4), None),
        (2, range(6), None),
        (2, [0, 1, 4, 5], 1),
    ],
)
def test_ranks_share_the_domains_evenly_or_not_at_all(ranks, cores, each):
    assert ranks_per_domain(ranks, cores, TWO) == each
