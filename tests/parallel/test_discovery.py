import pytest

from matsci_hpc.errors import MachineError
from matsci_hpc.parallel.discovery import RankInfo, discover
from matsci_hpc.parallel.rendezvous import first_node, known_address

SRUN = {
    "SLURM_PROCID": "5",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_ID": "77",
    "SLURM_STEP_ID": "0",
}
MIXED = {
    "SLURM_HET_SIZE": "2",
    "SLURM_JOB_ID": "77",
    "SLURM_JOB_NODELIST": "n[1-2]",
    "SLURM_JOB_NODELIST_HET_GROUP_0": "n2",
    "SLURM_JOB_NODELIST_HET_GROUP_1": "n1",
    "SLURM_NTASKS": "3",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "n[1-2]",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NUM_TASKS": "3",
}
LAUNCHES = [
    ("nothing", {}, RankInfo(0, 1, 0, 1, "none")),
    ("batch shell", {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_JOB_ID": "1"}, RankInfo(0, 1, 0, 1, "none")),
    ("srun on two nodes", SRUN | {"SLURM_STEP_NUM_NODES": "2"}, RankInfo(5, 8, 1, None, "srun")),
    ("srun on one node", SRUN | {"SLURM_STEP_NUM_NODES": "1"}, RankInfo(5, 8, 1, 8, "srun")),
    # Seen under Slurm 22.05: two ranks of component 0 on n2 and one of component 1 on n1 are numbered through.
    ("heterogeneous job", MIXED | {"SLURM_PROCID": "2", "SLURM_LOCALID": "0"}, RankInfo(2, 3, 0, None, "srun")),
    ("heterogeneous job, local", MIXED | {"SLURM_PROCID": "1", "SLURM_LOCALID": "1"}, RankInfo(1, 3, 1, None, "srun")),
    (
        "mpirun in a Slurm job",
        SRUN
        | {
            "OMPI_COMM_WORLD_RANK": "3",
            "OMPI_COMM_WORLD_SIZE": "4",
            "OMPI_COMM_WORLD_LOCAL_RANK": "1",
            "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
        },
        RankInfo(3, 4, 1, 2, "Open MPI"),
    ),
    (
        "torchrun under srun",
        SRUN | {"RANK": "6", "WORLD_SIZE": "16", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"},
        RankInfo(6, 16, 0, 2, "torchrun"),
    ),
    (
        "Aurora",
        {"PALS_RANKID": "13", "PALS_LOCAL_RANKID": "1", "PALS_LOCAL_SIZE": "12", "PMI_RANK": "13", "PMI_SIZE": "24"},
        RankInfo(13, 24, 1, 12, "PALS"),
    ),
    (
        "jsrun",
        {"JSM_NAMESPACE_RANK": "2", "JSM_NAMESPACE_SIZE": "6", "JSM_NAMESPACE_LOCAL_RANK": "2"},
        RankInfo(2, 6, 2, None, "jsrun"),
    ),
    ("Flux", {"FLUX_TASK_RANK": "2", "FLUX_JOB_SIZE": "6", "FLUX_TASK_LOCAL_ID": "0"}, RankInfo(2, 6, 0, None, "Flux")),
    (
        "Intel MPI",
        {"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"},
        RankInfo(1, 2, 1, 2, "Hydra"),
    ),
]


@pytest.mark.parametrize(("environ", "expected"), [each[1:] for each in LAUNCHES], ids=[each[0] for each in LAUNCHES])
def test_rank_of_every_launcher(environ, expected):
    assert discover(environ) == expected


def test_master_address_wins():
    info = RankInfo(1, 2, 1, None, "srun")
    environ = SRUN | {"MASTER_ADDR": "head", "MASTER_PORT": "1234", "SLURM_STEP_NODELIST": "n[1-2]"}
    assert known_address(info, environ) == ("head", 1234)


def test_slurm_tells_the_first_node_and_a_port_of_the_step():
    info = RankInfo(1, 2, 1, None, "srun")
    host, port = known_address(info, SRUN | {"SLURM_STEP_NODELIST": "n[03-05,9],login1"})
    assert host == "n03"
    assert 20000 <= port < 60000
    other = known_address(info, SRUN | {"SLURM_STEP_NODELIST": "n[03-05]", "SLURM_STEP_ID": "1"})
    assert other[1] != port


def test_rank_0_of_a_heterogeneous_job_is_on_a_node_of_its_first_component():
    info = RankInfo(2, 3, 0, None, "srun")
    assert known_address(info, MIXED)[0] == "n2"
    one_component = MIXED | {
        "SLURM_JOB_NODELIST_HET_GROUP_1": "n[1,3]",
        "SLURM_STEP_NODELIST": "n[1,3]",
        "SLURM_STEP_NUM_TASKS": "2",
    }
    assert known_address(RankInfo(1, 2, 0, None, "srun"), one_component)[0] == "n1"


def test_one_node_stays_on_loopback():
    info = RankInfo(1, 2, 1, 2, "srun")
    assert known_address(info, SRUN | {"SLURM_STEP_NODELIST": "n03"})[0] == "127.0.0.1"


def test_mpirun_alone_tells_no_address():
    assert known_address(RankInfo(1, 2, 1, 2, "Open MPI"), {}) is None


def test_damaged_node_list_says_what_to_set():
    with pytest.raises(MachineError, match="MASTER_ADDR"):
        first_node("n[03-")
