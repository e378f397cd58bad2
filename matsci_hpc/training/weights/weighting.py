"""The weighting of a run's targets, step by step."""

from torch import Tensor

from matsci_hpc.loading.loader import StepWork
from matsci_hpc.training.setup import Run
from matsci_hpc.training.weights import gradnorm, uncertainty
from matsci_hpc.training.weights.base import FixedWeights, Losses, Weights, weighted
from matsci_hpc.training.weights.shared_layer import SharedGradients, last_shared_layer


class Weighting:
    """Carries out the section `weighting` of the config.

    In a step, `begin` comes first, `total` for each part of it, `end_share` after each share, `finish` once the losses
    of the global batch are known, and `learn` if the step moved the parameters.

    Args:
        run: its tasks and ranks; its memory keeps what is learned.
    """

    def __init__(self, run: Run) -> None:
        """Collective."""
        config = run.config.weighting
        self._tasks = run.tasks
        self._shared: SharedGradients | None = None
        self._losses: Losses = {}
        self._norms: dict[str, float] = {}
        self._weights: Weights
        if config.rule == "uncertainty":
            rate = config.rate or uncertainty.RATE
            self._weights = uncertainty.UncertaintyWeights(run.tasks, rate, config.max_factor)
        elif config.rule == "gradnorm":
            rate = config.rate or gradnorm.RATE
            self._weights = gradnorm.GradNormWeights(run.tasks, config.every_steps, config.alpha, rate)
            parameter = run.model.get_parameter(last_shared_layer(run))
            ordered = run.config.parallel.reduction == "ordered"
            self._shared = SharedGradients([task.name for task in run.tasks], parameter, run.comm, ordered=ordered)
        else:
            self._weights = FixedWeights(run.tasks)
        run.course.attach("weighting", self._weights)

    def begin(self, step: int) -> None:
        """A new step, from 1."""
        if self._shared is not None:
            self._shared.begin(active=self._weights.measures(step))

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """What a part of the step goes back from: its losses added up by their weights."""
        if self._shared is not None:
            self._shared.add(losses)
        return weighted(self._weights.current, losses)

    def end_share(self) -> None:
        """The parts so far are the share of a rank, maybe of one of several that this one stands for."""
        if self._shared is not None:
            self._shared.end_share()

    def finish(self, by_target: Losses, work: StepWork) -> tuple[float, dict[str, float]]:
        """The loss of the step, and the weights in it; collective.

        Args:
            by_target: losses of the global batch, 0 where no sample carries the target.
            work: of the step.
        """
        counts = work.target_counts
        self._losses = {task.name: by_target[task.name] for task in self._tasks if counts[task.column]}
        self._norms = self._shared.finish() if self._shared is not None else {}
        return float(self._weights.objective(self._losses)), dict(self._weights.current)

    def learn(self) -> None:
        """Let the weights of the next step follow from this one."""
        self._weights.learn(self._losses, self._norms)
