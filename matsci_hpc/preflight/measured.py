"""What a trial of a few steps found, and how it is started: in a process of its own, as a rank would be."""

import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from matsci_hpc.config.train import TrainConfig
from matsci_hpc.errors import MachineError, UserInputError
from matsci_hpc.launch.environment import rank_environment, thread_environment
from matsci_hpc.launch.script_desk import outside_of_jobs
from matsci_hpc.preflight.folder import newest_step
from matsci_hpc.preflight.subject import Subject

TRIAL_S = 8.0
"""Time for steps; importing, planning and reading come on top."""
TIMEOUT_S = 300.0
_LAUNCHER = re.compile(r"(OMPI|PMI|PMIX|PALS|TORCHELASTIC|MPI)_|^(RANK|WORLD_SIZE|LOCAL_RANK)$")


@dataclass(frozen=True, slots=True)
class Trial:
    """A few steps of rank 0, and the plan of the run. Costs are predicted ones: edges + 30 atoms.

    Attributes:
        threads: that the steps were computed with.
        step_times_s, step_costs: of each measured step on this rank.
        first_step_s: time of the step before these.
        startup_s: from the start of the process to the first step: imports, data, model.
        mean_cost: of the rank that a step waits for, mean over the steps; of a rank of speed 1.
        largest_cost: the same of the largest step.
        efficiency: time of perfectly divided steps over that of the real ones.
        epochs: that the steps of the run make.
        warnings: of the plan.
        parameter_bytes: of the weights.
        program_bytes: of the process with its model built, but without weights and gradients.
        fixed_bytes: of weights, of gradients and Adam's states of those that are trained, and of the running mean of
            the weights, if the run keeps one.
        work_bytes: of the tensors of the largest share of any rank, at their peak, without what the allocator adds.
        evaluation_cost: largest batch of an evaluation.
        trial_cost: largest part that this trial computed at once.
        trial_work_bytes: of the tensors of that part.
        steps_bytes: private memory after the steps, which the process keeps from its peak.
        peak_bytes: the same with an evaluation batch.
        planning_bytes: that planning takes.
        evaluation_s: time of a rank's share of an evaluation of the held-out split.
        final_s: the same of the split that is evaluated at the end.
        look_s: longest time in an evaluation until a wish to stop is heard.
        average_bytes: of that mean.
        beginning: what is taken from the run of `init_from` and what is not, in words.
        beginning_warnings: what of it may be a mistake.
    """

    threads: int
    step_times_s: list[float]
    step_costs: list[float]
    first_step_s: float
    startup_s: float
    mean_cost: float
    largest_cost: float
    efficiency: float
    epochs: float
    warnings: list[str]
    parameter_bytes: int
    program_bytes: int
    fixed_bytes: int
    work_bytes: float
    evaluation_cost: float
    trial_cost: float
    trial_work_bytes: float
    steps_bytes: int
    peak_bytes: int
    planning_bytes: int
    evaluation_s: float
    look_s: float
    final_s: float = 0.0
    average_bytes: int = 0
    beginning: list[str] = field(default_factory=list)
    beginning_warnings: list[str] = field(default_factory=list)

    @property
    def checkpoint_bytes(self) -> int:
        """Weights, Adam's two moments of each, and their running mean."""
        return 3 * self.parameter_bytes + self.average_bytes

    @property
    def costs_per_s(self) -> float:
        """Predicted cost that one rank computes in a second."""
        return sum(self.step_costs) / max(sum(self.step_times_s), 1e-9)


def measure(subject: Subject, ranks: int, threads: int) -> Trial:
    """Take a few steps as one rank of a job, with the variables that a rank gets.

    Args:
        subject: a training run whose data are there.
        ranks: of the job.
        threads: of the rank.

    Raises:
        UserInputError: data and config do not fit.
        MachineError: the trial ended without a result.
    """
    words = [str(subject.job.python), "-m", "matsci_hpc.preflight.trial", str(subject.job.config)]
    words += [str(ranks), str(TRIAL_S), *subject.overrides]
    if _has_begun_or_waits(subject):
        words.append("init_from=null")
    environ = trial_environment(os.environ, subject.site.environment, threads)
    return Trial(**json.loads(result_of(words, environ)))


def result_of(words: Sequence[str], environ: Mapping[str, str]) -> str:
    """Run a trial in a process of its own; the last line that it prints.

    Args:
        words: the command.
        environ: all its variables.

    Raises:
        UserInputError: data and config do not fit.
        MachineError: the trial ended without a result.
        TimeoutError: it takes too long here.
    """
    try:
        done = subprocess.run(  # noqa: S603 - our own program on the user's own config
            words, env=environ, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"a few steps of one rank took more than {TIMEOUT_S:.0f} s here") from None
    said = done.stderr.strip().splitlines() or ["nothing"]
    if done.returncode == UserInputError.exit_code:
        raise UserInputError("\n".join(said))
    if done.returncode == MachineError.exit_code:
        raise MachineError("\n".join(said))
    if done.returncode != 0:
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        raise RuntimeError(f"a trial of one rank ended by {how}: {said[-1]}")
    return done.stdout.splitlines()[-1]


def _has_begun_or_waits(subject: Subject) -> bool:
    """Whether the encoder to start from is of no account any more, or not there yet."""
    start = subject.config.init_from if isinstance(subject.config, TrainConfig) else None
    return start is not None and (newest_step(subject.output) > 0 or subject.is_awaited(start))


def is_launchers(name: str) -> bool:
    """Whether a variable of this name tells a process that it is a rank."""
    return _LAUNCHER.search(name) is not None


def trial_environment(environ: Mapping[str, str], of_site: Mapping[str, str], threads: int) -> dict[str, str]:
    """The variables of one rank without a launcher: this process may itself run inside a job."""
    outside = outside_of_jobs() if environ is os.environ else dict(environ)
    kept = {name: value for name, value in outside.items() if not is_launchers(name)}
    # The capacity as the command `train` sets it.
    ours = rank_environment(chosen=of_site) | {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64"}
    return kept | ours | dict(of_site) | thread_environment(threads)
