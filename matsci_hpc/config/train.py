"""The config of `matsci-hpc train`."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from matsci_hpc.config.base import Folder, Section
from matsci_hpc.config.data import Data
from matsci_hpc.config.dynamics import Average, Dynamics, Spikes
from matsci_hpc.config.fine_tune import FineTune
from matsci_hpc.config.gradient_targets import refuse_bad_gradients
from matsci_hpc.config.job import JobRequest
from matsci_hpc.config.model import Egnn, Model
from matsci_hpc.config.records import Records
from matsci_hpc.config.threshold import Threshold
from matsci_hpc.config.weighting import Weighting

Momentum = Annotated[float, Field(ge=0.0, lt=1.0)]


class Oversized(Section):
    """Samples that are too large to train on, for memory or for balance."""

    cost: PositiveFloat
    """Samples of a higher predicted cost (edges + 30 atoms) are oversized."""
    policy: Literal["error", "keep", "skip"] = "error"
    """`error` names them and trains nothing; `keep` trains on them and warns; `skip` leaves them out of every epoch and
    lists them in the run."""


class Batch(Section):
    """The global batch: what all ranks together learn from in one step. Give `graphs` or `cost`."""

    graphs: PositiveInt | None = None
    """Number of samples over all ranks, not per rank."""
    cost: PositiveFloat | None = None
    """Instead of a number of samples: as many as come near this predicted cost (edges + 30 atoms, over all ranks) and
    do not pass it, so that steps take equally long. A single sample above it makes a step of its own."""
    grouping: Literal["auto", "none", "similar"] = "auto"
    """Train large samples in steps with others of about their size, so that no rank waits for the one that got the
    largest. `auto` does so from 32 ranks on if the ranks would idle otherwise, and for as few samples as that takes;
    `none` draws every step at random; `similar` groups at any number of ranks."""
    group_above: PositiveFloat | None = None
    """With `similar`: predicted cost above which samples are grouped; left out, it is chosen as by `auto`."""
    oversized: Oversized | None = None
    """What to do with samples that are too large; left out, none is."""
    micro_batches: PositiveInt = 1
    """Parts that a rank computes one after the other in a step, which takes less memory and learns the same."""
    micro_cost: PositiveFloat | None = None
    """Most predicted cost that a rank computes at once; as many more parts are made as that takes."""

    @model_validator(mode="after")
    def _graphs_or_cost(self) -> Self:
        if (self.graphs is None) == (self.cost is None):
            raise ValueError("give either graphs or cost" + ("" if self.graphs is None else ", not both"))
        if self.group_above is not None and self.grouping != "similar":
            raise ValueError(f"group_above needs grouping: similar, not {self.grouping}")
        return self


class Balance(Section):
    """How a step is divided over the ranks. It changes who computes what, never what is learned."""

    fit: bool = False
    """Fit the cost of an atom against that of an edge to the times of the steps, and divide by it from the next epoch
    on. Otherwise an atom costs as much as 30 edges."""
    speeds: list[PositiveFloat] | None = Field(default=None, min_length=1)
    """Speed of each rank against the others, for a job of unequal nodes: with [4, 4, 1] the first two ranks get four
    times as much as the third. Left out, all are equally fast."""


class Parallel(Section):
    """How ranks talk to each other."""

    backend: Literal["auto", "none", "gloo", "mpi", "horovod", "nccl", "xccl", "ccl"] = "auto"
    """`auto` takes none for one rank, and for several nccl on CUDA and ROCm, xccl on GPUs of Intel, gloo on processors;
    another one where `matsci-hpc doctor --comm` measured it to be faster on as many ranks of the same machine.
    `mpi` is the cluster's own MPI, through mpi4py; `horovod` has to be built first (docs/horovod.md); `ccl` is oneCCL
    through oneccl_bindings_for_pytorch, which Intel has given up in favour of xccl."""
    horovod_operations: Literal["auto", "mpi", "ccl"] = "auto"
    """Who carries out Horovod's sums: MPI or oneCCL; `auto` takes what HOROVOD_CPU_OPERATIONS says, else MPI."""
    bucket_mb: PositiveFloat = 1.0
    """Gradients of about so many megabytes are sent together, once backward has ended them. More take fewer messages,
    less begin earlier."""
    overlap: bool = True
    """Send while backward computes the gradients that come later. Off, everything is sent after it."""
    compression: Literal["none", "bf16", "fp16"] = "none"
    """Number format of gradients on the way, which halves what is sent of float32. `bf16` keeps two to three digits of
    any size; `fp16` three to four, of sizes from 6e-8 to 65504: what is larger counts as not finite. `mpi` and
    `horovod` add up in float32 all the same, gloo and nccl in the format itself."""
    reduction: Literal["backend", "ordered"] = "backend"
    """In which order the gradients of the ranks are added: as the backend likes, or `ordered`: in pairs of neighbours,
    the same to the last bit for any backend and any number of ranks of which `virtual_ranks` make the same whole. It
    costs the overlap, and every rank holds the gradients of all."""
    virtual_ranks: PositiveInt = 1
    """Each rank stands for so many: it computes their shares one after the other, so that few ranks follow the course
    of many. 2 ranks with 4 are 8 ranks to the optimiser: up to rounding, or to the last bit with reduction: ordered."""
    timeout_s: PositiveFloat = 60.0
    """A rank without progress (part of a step, batch of an evaluation) counts as hung, and the job is over within this
    time: to leave time for that, the rank itself ends after 70 % of it."""
    startup_timeout_s: PositiveFloat = 300.0
    """The same until the first step: meeting the others, opening the data, building the model."""

    @model_validator(mode="after")
    def _ordered_as_far_as_possible(self) -> Self:
        if self.reduction == "ordered" and self.compression != "none":
            raise ValueError("reduction: ordered sends gradients as they are, so leave out compression")
        if self.reduction == "ordered" and self.virtual_ranks.bit_count() > 1:
            raise ValueError(
                f"reduction: ordered needs virtual_ranks of 1, 2, 4, 8 and so on, not {self.virtual_ranks}: a rank "
                "adds up a branch of a tree of pairs"
            )
        return self


class Target(Section):
    """How one target is learned."""

    weight: PositiveFloat = 1.0
    """Factor of its loss in the sum."""
    loss: Literal["auto", "mse", "mae", "huber"] = "auto"
    """For regression; `auto` is huber. Others use the (binary) cross-entropy of their kind."""
    scaling: Literal["auto", "standard", "none"] = "auto"
    """For regression: `standard` learns (value - mean) / standard deviation, both over the training split; `none` the
    value itself. `auto` is standard."""
    extensive: bool = False
    """The value grows with the number of atoms, as a total energy does: it is learned per atom, and its errors are told
    per atom, too."""
    references: bool = False
    """Take off an energy of each element first, fitted to the training split by least squares (docs/targets.md)."""
    of: str | None = None
    """Derive a yes-or-no target from a number of the data sets: {of: band_gap, below: 1.0e-6} is yes for metals."""
    below: Threshold | None = None
    """With `of`: yes below this value, in the unit of that target."""
    above: Threshold | None = None
    """With `of`: yes above this value."""

    gradient_of: str | None = None
    """Of a vector of every atom: the energy, another target, whose negative gradient it is. Left out, such a target has
    a head of its own. docs/forces.md."""

    @model_validator(mode="after")
    def _derived_by_one_threshold(self) -> Self:
        thresholds = [each for each in (self.below, self.above) if each is not None]
        if self.of is None and thresholds:
            raise ValueError("below and above are for targets that are derived: give of, the name of another target")
        if self.of is not None and len(thresholds) != 1:
            raise ValueError("of needs either below or above, a value of that target")
        return self

    @model_validator(mode="after")
    def _a_gradient_is_that_alone(self) -> Self:
        others = {"of": self.of is not None, "extensive": self.extensive, "references": self.references}
        wrong = next((name for name, given in others.items() if given), None)
        if self.gradient_of is not None and wrong is not None:
            raise ValueError(f"gradient_of: a gradient has no {wrong}; leave it out")
        return self


class Optimizer(Section):
    """AdamW."""

    lr: PositiveFloat = 1e-3
    """Peak learning rate at `base_batch`."""
    betas: tuple[Momentum, Momentum] = (0.9, 0.999)
    eps: PositiveFloat = 1e-8
    weight_decay: NonNegativeFloat = 1e-2
    clip_norm: PositiveFloat | None = None
    """Gradients with a larger global norm are scaled down to it."""
    clip_quantile: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Gradients with a larger norm than this part of those of the last steps are scaled down to that norm, as by
    AutoClip. Both bounds may be given; the lower one counts. The first steps, before ten norms are known, are not
    bounded by it."""
    clip_window: int = Field(default=1000, ge=10)
    """Steps that `clip_quantile` looks back on."""
    clip_ratio: PositiveFloat | None = None
    """Adaptive gradient clipping: the gradient of each unit, a row of a matrix or a bias, is scaled down to this part
    of the norm of the unit's own parameters; 0.01 is usual. The last layer of the heads is left alone. The other bounds
    then count for what is left."""


class Schedule(Section):
    """The learning rate over the run."""

    scaling: Literal["none", "sqrt", "linear"] = "none"
    """How the learning rate grows with the global batch over `base_batch`."""
    base_batch: PositiveInt = 32
    warmup_steps: NonNegativeInt = 0
    """Linear rise from zero."""
    decay: Literal["constant", "cosine", "exponential", "plateau"] = "cosine"
    """`plateau` lowers it whenever held-out losses have stopped falling."""
    final_fraction: float = Field(gt=0.0, le=1.0, default=0.01)
    """Learning rate at the last step, as a fraction of the peak; with `plateau`, the least it falls to."""
    plateau_factor: float = Field(gt=0.0, lt=1.0, default=0.5)
    """With `plateau`: what it is multiplied by."""
    plateau_evaluations: PositiveInt = 5
    """With `plateau`: so many evaluations in a row that are not the best so far."""


class Checkpoint(Section):
    """What survives a stop."""

    every_steps: PositiveInt = 200
    keep: PositiveInt = 3
    """Newest checkpoints kept; the best one is kept besides."""
    timeout_s: PositiveFloat = 600.0
    """A file system that takes nothing for so long while a rank waits for it is taken for hung and ends the job."""


class NonFinite(Section):
    """What happens when a loss or gradient is NaN or infinite."""

    policy: Literal["stop", "skip", "rollback"] = "stop"
    """`stop` writes what led to it to RUN_DIR/nonfinite and ends the run; `skip` leaves the parameters as they are and
    goes on with the next step; `rollback` goes back to a checkpoint as `spikes.rollback` says, leaves the step out
    where none is old enough, and stops once all rollbacks are used up."""
    limit: PositiveInt = 10
    """So many skipped steps in a row end the run all the same."""


class Evaluate(Section):
    """Held-out metrics during the run."""

    every_steps: PositiveInt = 250
    """A last evaluation always follows the last step."""
    final_split: str | None = None
    """Split that is evaluated once, when all steps are done, such as `test`: a further line of evaluations.jsonl. It
    decides nothing in the run."""
    final_weights: Literal["best", "last"] = "best"
    """The parameters for it: those of the lowest held-out loss, or those of the last step; averaged ones where the run
    averages."""


class TrainConfig(Section):
    """One training run: pretraining, fine-tuning and multi-task runs are configs of it."""

    run_dir: Folder
    seed: int = Field(ge=0, lt=2**63, default=0)
    """Of the parameters and the order of the samples."""
    data: Data
    init_from: Path | None = None
    """Fine-tuning: folder of another run (its best checkpoint, else its newest usable one), one checkpoint folder, or a
    file of `matsci-hpc export`, whose encoder this run starts from, averaged if it holds averages. `model` must be as
    there but for `readout` and `head_layers`. Once this run has a checkpoint of its own it goes on from that."""
    fine_tune: FineTune = FineTune()
    """What else is taken from there, what is frozen, and how fast the encoder learns."""
    steps: PositiveInt
    """Optimiser steps of the whole run."""
    max_time_s: PositiveFloat | None = None
    """Stop cleanly, with a checkpoint, when this life of the run has trained for so long."""
    batch: Batch
    balance: Balance = Balance()
    targets: dict[str, Target] = Field(default_factory=dict)
    """Targets to learn, by name; empty = every number and label of whole structures that the data sets have. Targets of
    atoms are learned where they are named."""
    weighting: Weighting = Weighting()
    """How the losses of several targets become one."""
    model: Model = Egnn()
    """The encoder, by its `name`, and the heads."""
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    parallel: Parallel = Parallel()
    device: Literal["auto", "cpu", "cuda", "xpu"] = "auto"
    """`auto` takes a GPU where torch sees one, else the processor. GPUs of AMD are cuda, too. The ranks of a node take
    its GPUs in turn."""
    precision: Literal["float32", "float64", "bf16"] = "float32"
    kernels: Literal["auto", "scatter", "segment", "triton"] = "auto"
    """On a GPU, who adds up what edges bring to atoms. `auto` measures them when the run begins, and takes the fastest
    whose sums are the same from run to run, which those of `scatter` are not."""
    optimize: Literal["none", "compile", "ipex"] = "none"
    """`compile` lets PyTorch compile the model at the start, a minute or so; whether it pays depends on the model and
    the device (docs/performance.md). `ipex` takes Intel's extension for PyTorch, 2.8 with torch 2.8. Numbers are the
    same up to rounding, and checkpoints go from one to the other."""
    checkpoint: Checkpoint = Checkpoint()
    evaluate: Evaluate = Evaluate()
    nonfinite: NonFinite = NonFinite()
    dynamics: Dynamics = Dynamics()
    spikes: Spikes = Spikes()
    average: Average = Average()
    job: JobRequest = JobRequest()
    log_every: PositiveInt = 10
    """Steps between lines in metrics.jsonl."""
    records: Records = Records()
    record_samples: bool = False
    """Write to RUN_DIR/samples which samples each rank trains on in each step; a line per rank and step. The numbers
    count the samples of all data sets from 0, in the order of `data.train` and of the index, one data set after the
    other."""

    @property
    def gradients(self) -> dict[str, str]:
        """Targets that are the negative gradient of an energy, and its name."""
        return {name: each.gradient_of for name, each in self.targets.items() if each.gradient_of is not None}

    @model_validator(mode="after")
    def _gradients_can_be_had(self) -> Self:
        envelope = getattr(self.model, "envelope", True)  # a module of the user's own answers for itself
        refuse_bad_gradients(self.gradients, self.targets, envelope=envelope, optimize=self.optimize)
        return self

    @model_validator(mode="after")
    def _nothing_endless_is_looked_through(self) -> Self:
        if self.data.stream is not None and self.batch.oversized is not None:
            raise ValueError(
                "batch.oversized: an endless source is never looked through; its max_atoms bounds every sample"
            )
        return self

    @model_validator(mode="after")
    def _gradient_norms_need_the_whole_graph(self) -> Self:
        if self.weighting.rule == "gradnorm" and self.optimize == "compile":
            raise ValueError("weighting.rule: gradnorm goes back through a step more than once: set optimize: none")
        return self

    @model_validator(mode="after")
    def _virtual_ranks_are_alike(self) -> Self:
        if self.parallel.virtual_ranks > 1 and self.balance.speeds is not None:
            raise ValueError("balance.speeds: virtual ranks are all equally fast, so leave out speeds")
        return self

    @model_validator(mode="after")
    def _the_final_split_is_held_out(self) -> Self:
        if self.evaluate.final_split is None:
            return self
        if self.evaluate.final_split == self.data.split:
            raise ValueError(f"evaluate.final_split: {self.data.split!r} is trained on; name another split")
        if self.evaluate.final_weights == "best" and self.data.held_out is None:
            raise ValueError(
                "evaluate.final_weights: the best parameters are those of the lowest held-out loss; give "
                "data.held_out, or final_weights: last"
            )
        return self

    @model_validator(mode="after")
    def _plateaus_need_evaluations(self) -> Self:
        if self.schedule.decay == "plateau" and self.data.held_out is None:
            raise ValueError("schedule.decay: plateau goes by held-out losses; give data.held_out, or another decay")
        return self

    @model_validator(mode="after")
    def _scaling_needs_a_count(self) -> Self:
        if self.schedule.scaling != "none" and self.batch.graphs is None:
            raise ValueError(
                f"schedule.scaling: {self.schedule.scaling} needs batch.graphs; with batch.cost set it to none"
            )
        return self
