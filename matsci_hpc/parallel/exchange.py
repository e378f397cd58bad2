"""Summing gradients over the ranks while backward still computes others.

Gradients lie in one buffer in about the order in which backward ends them, cut into buckets. A bucket is sent as soon
as all its gradients are there and all buckets before it are on their way, so that every rank sends in the same order.
What backward never reached is sent as it stands, as zeros, at the end.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.utils.hooks import RemovableHandle

from matsci_hpc.parallel.communicator import Communicator, Pending
from matsci_hpc.parallel.gradients import FlatGradients
from matsci_hpc.parallel.tree import tree_sum

Compression = Literal["none", "bf16", "fp16"]
_SHORT = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(slots=True)
class _Bucket:
    """Gradients that are sent together.

    Attributes:
        part: of the buffer.
        parameters: whose gradients these are.
        missing: how many of them backward has not ended yet.
        sent: what is on its way: the part itself, or a shorter form of it.
        pending: tells when it has arrived.
    """

    part: Tensor
    parameters: list[Parameter]
    missing: int = 0
    sent: Tensor | None = None
    pending: Pending | None = None


class GradientExchange:
    """Sums the gradients of all ranks.

    In a step, `sending` goes around the last backward pass, and `finish` follows.

    Args:
        gradients: of this rank, in the order in which backward ends them; of one layout on all ranks.
        comm: the ranks.
        bucket_bytes: of gradients sent together; a larger gradient has a bucket of its own.
        overlap: whether to send during backward, or all buckets after it.
        compression: number format on the way.
        ordered: add up in one order, after backward, that is the same for any backend and any number of ranks
            (`tree.py`); every rank receives the gradients of all.

    Attributes:
        in_flight_s: time of the last step from the first bucket's start to the arrival of all.
        measures: whether to note the norm of this rank's own gradients before they are summed.
        own_square: its square in the last step that was measured.
    """

    def __init__(
        self,
        gradients: FlatGradients,
        comm: Communicator,
        bucket_bytes: float,
        *,
        overlap: bool = True,
        compression: Compression = "none",
        ordered: bool = False,
    ) -> None:
        self.in_flight_s = 0.0
        self.measures = False
        self.own_square = 0.0
        self._squares: list[Tensor] = []
        self._ordered = ordered
        self._comm = comm
        self._short = _SHORT.get(compression)
        self._buckets = list(cut_into_buckets(gradients, bucket_bytes)) if comm.size > 1 else []
        self._begun = 0
        self._start_s = 0.0
        self._listens = False
        self._hooks: list[RemovableHandle] = []
        if overlap and not ordered:
            for bucket in self._buckets:
                for each in bucket.parameters:
                    hook = each.register_post_accumulate_grad_hook(partial(self._note, bucket))  # type: ignore[no-untyped-call]
                    self._hooks.append(hook)

    def detach(self) -> None:
        """Leave the parameters alone, before another exchange takes them over."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    @property
    def bucket_sizes(self) -> list[int]:
        """Bytes of each bucket, in the order in which they are sent."""
        return [each.part.numel() * each.part.element_size() for each in self._buckets]

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Around the backward pass after which the gradients are whole."""
        for each in self._buckets:
            each.missing = len(each.parameters)
        self._listens = True
        try:
            yield
        finally:
            self._listens = False

    def finish(self, also: Tensor) -> None:
        """Wait until the gradients are those of all ranks; collective.

        Args:
            also: summed over the ranks besides, in its own precision.

        Raises:
            RankError: a rank is gone.
        """
        if self._ordered and self._buckets:
            self._add_up_in_order(also)
            return
        for bucket in self._buckets[self._begun :]:
            self._begin(bucket)
        last = self._comm.all_reduce_start(also)
        ended_s = self._start_s
        for bucket in self._buckets:
            if bucket.pending is not None:
                bucket.pending.wait()
                ended_s = max(ended_s, bucket.pending.ended_s)
            if bucket.sent is not None and bucket.sent is not bucket.part:
                bucket.part.copy_(bucket.sent)
            bucket.pending = bucket.sent = None
        last.wait()
        self._begun = 0
        self.in_flight_s = ended_s - self._start_s
        self._note_square()

    def _add_up_in_order(self, also: Tensor) -> None:
        self._start_s = time.perf_counter()
        for bucket in self._buckets:
            self._measure(bucket)
            bucket.part.copy_(tree_sum(self._comm.all_gather(bucket.part)))
        also.copy_(tree_sum(self._comm.all_gather(also)))
        self.in_flight_s = time.perf_counter() - self._start_s
        self._note_square()

    def _measure(self, bucket: _Bucket) -> None:
        if self.measures:
            self._squares.append(bucket.part.double().square().sum())

    def _note_square(self) -> None:
        self.own_square = float(sum(self._squares))
        self._squares = []

    def _note(self, bucket: _Bucket, _: Tensor) -> None:
        """A gradient of the bucket is there."""
        if not self._listens:
            return
        bucket.missing -= 1
        while self._begun < len(self._buckets) and self._buckets[self._begun].missing == 0:
            self._begin(self._buckets[self._begun])

    def _begin(self, bucket: _Bucket) -> None:
        if self._begun == 0:
            self._start_s = time.perf_counter()
        self._begun += 1
        self._measure(bucket)
        bucket.sent = bucket.part if self._short is None else bucket.part.to(self._short)
        bucket.pending = self._comm.all_reduce_start(bucket.sent)


def cut_into_buckets(gradients: FlatGradients, bucket_bytes: float) -> Iterator[_Bucket]:
    """Cut the buffer between parameters."""
    size = gradients.buffer.element_size()
    start = stop = 0
    together: list[Parameter] = []
    for each in gradients.parameters:
        if together and (stop - start + each.numel()) * size > bucket_bytes:
            yield _Bucket(gradients.buffer[start:stop], together)
            start, together = stop, []
        together.append(each)
        stop += each.numel()
    if together:
        yield _Bucket(gradients.buffer[start:stop], together)


def reached(losses: Iterable[Tensor]) -> set[Parameter]:
    """Parameters that a backward pass from these losses would reach."""
    found: set[Parameter] = set()
    seen: set[object] = set()
    ahead = [each.grad_fn for each in losses if each.grad_fn is not None]
    while ahead:
        node = ahead.pop()
        if node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if isinstance(variable, Parameter):
            found.add(variable)
        ahead += [following for following, _ in node.next_functions if following is not None]
    return found
