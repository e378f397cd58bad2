import pytest

from matsci_hpc.errors import UserInputError
from matsci_hpc.launch.sites import limit_in_seconds, load_site, site_names


@pytest.fixture
def site_file(tmp_path):
    def write(text):
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return str(path)

    return write


@pytest.mark.parametrize("name", site_names())
def test_shipped_sites_are_valid(name):
    load_site(name)


def test_unknown_site_lists_the_known_ones():
    with pytest.raises(UserInputError, match=r"unknown site 'perlmutter'; choose one of .*local, .*slurm_cpu"):
        load_site("perlmutter")


def test_site_by_path(site_file):
    site = load_site(site_file('scheduler: slurm\nlauncher: srun --mpi=pmix\nenvironment: {A: 1, B: "on"}\n'))
    assert site.environment == {"A": "1", "B": "on"}
    assert site.launcher_words == ["srun", "--mpi=pmix"]


@pytest.mark.parametrize(("scheduler", "launcher"), [("slurm", "srun"), ("local", "mpirun")])
def test_launcher_follows_the_scheduler(scheduler, launcher, site_file):
    assert load_site(site_file(f"scheduler: {scheduler}")).launcher_words == [launcher]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("scheduler: pbspro", "'local' or 'slurm'"),
        ("partition: cpu", "scheduler is missing"),
        ("scheduler: slurm\npartitoin: cpu", r"mine.yaml:2: unknown key partitoin; did you mean partition"),
        ("scheduler: slurm\nenvironment: {A-B: x}", "'A-B' is not a name"),
        ("scheduler: slurm\nenvironment: {'A;touch pwned': x}", "not a name"),
        ("scheduler: slurm\nenvironment: {A: true}", "environment.A"),
        ("scheduler: slurm\noptions: [-N 3]", "not a long option"),
        ("scheduler: slurm\nlauncher: ''", "name the command"),
        ('scheduler: slurm\nlauncher: "srun \'x"', "no closing quotation"),
        ("scheduler: slurm\nmemory: lots", "memory"),
        ("scheduler: slurm\ntime_limit: 90", "time_limit"),
        ("scheduler: slurm\ntime_limit: '00:02:00'\nsignal_before_end_s: 120", "not within time_limit"),
        ("scheduler: local\nsetup: [module load x]", "for batch jobs"),
        ("- a", "mapping of keys to values"),
        ("a: [", "not valid YAML"),
    ],
)
def test_wrong_site_file(text, says, site_file):
    with pytest.raises(UserInputError, match=says):
        load_site(site_file(text))


def test_missing_site_file():
    with pytest.raises(UserInputError, match=r"nowhere/x\.yaml: cannot read"):
        load_site("nowhere/x.yaml")


@pytest.mark.parametrize(
    ("text", "seconds"), [("00:01:30", 90), ("4:00:00", 14400), ("120:00:00", 432000), ("2-01:00:00", 176400)]
)
def test_limit_in_seconds(text, seconds):
    assert limit_in_seconds(text) == seconds
