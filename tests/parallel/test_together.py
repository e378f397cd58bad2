"""Long work shared by ranks: none waits for ever, and what befalls one is known to all."""

import sys

import pytest
from ranks import mpirun, run_command

from matsci_hpc.errors import MachineError, UserInputError
from matsci_hpc.parallel.communicator import SingleProcess
from matsci_hpc.parallel.together import work_together

PROGRAM = """
import sys, time
from matsci_hpc.config.train import Parallel
from matsci_hpc.errors import MachineError, MatsciError, UserInputError
from matsci_hpc.parallel import together
from matsci_hpc.parallel.communicator import open_communicator
from matsci_hpc.parallel.node import find_node
together.TURN_S = 0.05
comm = open_communicator(Parallel())
ticks, shown, closed = [], [], []

def work():
    try:
        for number in range(20 * comm.rank):
            time.sleep(0.005)
            yield 1
            if number == 19 and sys.argv[1] == str(comm.rank):
                raise (MachineError if sys.argv[2] == "machine" else UserInputError)(f"no space for {comm.rank}")
    finally:
        closed.append(True)

try:
    together.work_together(comm, work(), lambda: ticks.append(1), shown.append)
    outcome = "done"
except MatsciError as error:
    outcome = f"{type(error).__name__} {error}"
node = find_node(comm)
line = f"{comm.rank}|{outcome}|{len(ticks)}|{shown[-1]}|{shown == sorted(shown)}|{node.ranks}|{node.first}|{node.nodes}"
sys.stdout.write(line + "\\n")
comm.close()
"""


def run(*arguments):
    result = run_command(mpirun(3, sys.executable, "-c", PROGRAM, *arguments), timeout_s=60)
    assert result.returncode == 0, result.stderr
    return [line.split("|") for line in sorted(result.stdout.splitlines())]


@pytest.mark.mpi
def test_each_does_its_part():
    lines = run("nobody", "machine")
    assert [line[0] for line in lines] == ["0", "1", "2"]
    assert {line[1] for line in lines} == {"done"}
    assert [int(line[2]) for line in lines] == [1, 21, 41]
    assert {(line[3], line[4]) for line in lines} == {("60", "True")}
    assert [line[5:] for line in lines] == [["(0, 1, 2)", str(rank == 0), "1"] for rank in range(3)]


@pytest.mark.mpi
@pytest.mark.parametrize(("kind", "error"), [("machine", "JobError"), ("user", "UserInputError")])
def test_the_failure_of_one_is_everybodys(kind, error):
    lines = run("1", kind)
    messages = {line[1] for line in lines}
    assert len(messages) == 1
    message = messages.pop()
    assert message.startswith(f"{error} rank 1 on ")
    assert message.endswith(": no space for 1")
    assert int(lines[2][2]) < 41  # the others do not finish in vain


def test_one_process_keeps_its_own_words():
    def work(error):
        yield 1
        raise error

    for kind in (UserInputError, MachineError):
        with pytest.raises(kind, match=r"^why$"):
            work_together(SingleProcess(), work(kind("why")))
