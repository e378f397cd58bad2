"""In which order backward ends the gradients of a model, as far as it can be told beforehand, on all ranks alike."""

from torch.nn import Parameter

from matsci_hpc.loading.sanity import checked_batch
from matsci_hpc.parallel.exchange import reached
from matsci_hpc.parallel.together import on_first
from matsci_hpc.training.setup import Run

FEW = 2
"""Samples of the batch on which is seen which parameters the losses reach."""


def in_backward_order(run: Run) -> list[Parameter]:
    """Parameters in the reverse of the order in which they are made, which for most models is that of backward.

    Those that some step may leave without a gradient come last, since whatever stands behind them waits for them: of
    heads whose target not every sample carries, and those that no loss reaches at all. Collective.
    """
    named = list(run.model.named_parameters())[::-1]
    if run.comm.size * run.config.parallel.virtual_ranks == 1:
        return [each for _, each in named]
    # Rank 0 looks for all: what a compiler makes of the model may differ from one processor to the next.
    steady = set(on_first(run.comm, lambda: _reached_in_every_step(run)))
    return [each for name, each in named if name in steady] + [each for name, each in named if name not in steady]


def _reached_in_every_step(run: Run) -> list[str]:
    split = run.config.data.split
    every = run.collection.split_counts(split).sum()
    always = [task.name for task in run.tasks if task.statistics.count == every]
    batch = run.precision.cast(checked_batch(run.collection, run.collection.in_split(split, FEW)[:FEW]))
    run.model.eval()  # a look leaves no trace in layers that keep statistics or draw random numbers
    with run.precision.autocast():
        outputs = run.model(batch)
    run.model.train()
    found = reached(outputs[name] for name in (always or outputs))
    of_other_heads = {
        id(each) for task in run.tasks if task.name not in always for each in run.model.head(task.name).parameters()
    }
    return [name for name, each in run.model.named_parameters() if each in found and id(each) not in of_other_heads]
