import pytest

from matsci_hpc.errors import UserInputError
from matsci_hpc.launch.sites.find import load_site
from matsci_hpc.launch.sites.model import limit_in_seconds, limit_text, memory_in_bytes


def test_unknown_site_lists_the_known_ones():
    with pytest.raises(UserInputError, match=r"unknown site 'perlmuter'; choose one of .*local, .*perlmutter_cpu"):
        load_site("perlmuter")


def test_site_by_path(site_file):
    site = load_site(site_file('scheduler: slurm\nlauncher: srun --mpi=pmix\nenvironment: {A: 1, B: "on"}\n'))
    assert site.environment == {"A": "1", "B": "on"}
    assert site.launcher == "srun --mpi=pmix"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("scheduler: pbspro", "'local', 'slurm', 'pbs'"),
        ("partition: cpu", "scheduler is missing"),
        ("scheduler: slurm\npartitoin: cpu", r"mine.yaml:2: unknown key partitoin; did you mean partition"),
        ("scheduler: slurm\nenvironment: {A-B: x}", "'A-B' is not a name"),
        ("scheduler: slurm\nenvironment: {'A;touch pwned': x}", "not a name"),
        ("scheduler: slurm\nenvironment: {A: true}", "environment.A"),
        ("scheduler: slurm\noptions: [constraint=cpu]", "not an option"),
        ("scheduler: slurm\nlauncher: ''", "name the command"),
        ('scheduler: slurm\nlauncher: "srun \'x"', "no closing quotation"),
        ("scheduler: slurm\nlauncher: mpiexec -n {tasks}", r"{tasks} is none of .*{ranks}"),
        ("scheduler: slurm\nmemory: lots", "memory"),
        ("scheduler: slurm\nmemory_per_node: 512 GB", "memory_per_node"),
        ("scheduler: slurm\ntime_limit: 90", "time_limit"),
        ("scheduler: slurm\nmax_time_limit: 2 days", "max_time_limit"),
        ("scheduler: slurm\ntime_limit: '00:02:00'\nsignal_before_end_s: 120", "not within time_limit"),
        ("scheduler: slurm\nscratch: $(touch pwned)", "more than a path"),
        ("scheduler: slurm\nnode_local: '/tmp/`id`'", "more than a path"),
        ("scheduler: slurm\nnode_local: '/tmp\"; id; \"'", "more than a path"),
        ("scheduler: slurm\nmaster_address_suffix: ';id'", "master_address_suffix"),
        ("scheduler: slurm\ncpus_per_core: 0", "cpus_per_core"),
        ("scheduler: slurm\ngpu_request: gpus", "'gpus-per-node', 'gres' or 'none'"),
        ("scheduler: slurm\nnode_kinds: {GPU node: {}}", "not a name for a kind"),
        ("scheduler: slurm\nnode_kinds: {gpu: {speed: 0}}", "node_kinds.gpu.speed"),
        ("scheduler: slurm\nenvironment_archive: /x.tar", "needs node_local"),
        (
            "scheduler: slurm\nnode_local: /tmp\nenvironment_archive: /x.tar\ncontainer: {image: /x.sif}",
            "not both",
        ),
        ("scheduler: slurm\ncontainer: {image: /x.sif, command: []}", "container.command"),
        ("scheduler: pbs\nnode_local: /tmp\nenvironment_archive: /x.tar", "which this scheduler has not"),
        ("scheduler: pbs\nnode_kinds: {gpu: {}}", "only Slurm has"),
        ("scheduler: pbs\ncpus_per_core: 2", "words of Slurm"),
        ("scheduler: pbs\ngpu_request: gres", "words of Slurm"),
        ("scheduler: local\nsetup: [module load x]", "for batch jobs"),
        ("scheduler: local\nwrapper: [nice]", "for batch jobs"),
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
    ("text", "time_s"), [("00:01:30", 90), ("4:00:00", 14400), ("120:00:00", 432000), ("2-01:00:00", 176400)]
)
def test_limit_in_seconds(text, time_s):
    assert limit_in_seconds(text) == time_s
    assert limit_in_seconds(limit_text(time_s)) == time_s


@pytest.mark.parametrize(
    ("text", "number"), [("1", 1 << 20), ("512", 512 << 20), ("2K", 2048), ("3M", 3 << 20), ("4G", 4 << 30), ("0", 0)]
)
def test_memory_in_bytes(text, number):
    assert memory_in_bytes(text) == number


@pytest.mark.parametrize(
    ("signal_before_end_s", "last_call_s"), [(2, 1), (8, 4), (15, 5), (25, 5), (60, 12), (120, 24), (300, 30)]
)
def test_how_long_before_the_limit_ranks_are_ended(signal_before_end_s, last_call_s, site_file):
    site = load_site(site_file(f"scheduler: slurm\nsignal_before_end_s: {signal_before_end_s}\n"))
    assert site.last_call_s == last_call_s
