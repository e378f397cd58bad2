"""Latency and bandwidth of the links between ranks, from measured all-reduces.

Of n bytes over one link a message takes alpha + n beta (Hockney's model). An all-reduce of n bytes over p ranks is a
sequence of messages, whose number and size depend on the way it is done:

| form | time | done by |
|---|---|---|
| `ring` | 2 (p - 1) alpha + 2 (p - 1)/p n beta | each rank hands pieces to the next |
| `tree` | L (alpha + n beta) | recursive doubling: whole vectors between pairs |
| `halving` | 2 L alpha + 2 (1 - 2^-L) n beta | Rabenseifner: halves between pairs, and back |
| `two_level` | ring of the k ranks of a node, with alpha', beta'; then ring of the N nodes | sums within nodes first |

with L = floor(log2 p). Where p is no power of two, tree and halving fold the ranks beyond one into others before and
after: 2 (alpha + n beta) more. These are the times of `communication` for one rank a node, but for the additions of
numbers, which are part of beta here; `two_level` is a ring between the nodes here, and there whatever is quickest.

| symbol | variable | unit |
|---|---|---|
| alpha | `Link.latency_s` | s |
| 1 / beta | `Link.bandwidth_bytes_per_s` | bytes/s |
| n | `bytes_each` | bytes of the vector on each rank |
| p, N, k = p / N | `ranks`, `nodes` | |

In `two_level` all ranks of a node share its link to the others.

Sources: R. W. Hockney, Parallel Computing 20 (1994) 389; R. Thakur, R. Rabenseifner, W. Gropp, Int. J. High Perform.
Comput. Appl. 19 (2005) 49.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from matsci_hpc.errors import UserInputError
from matsci_hpc.parallel.measurements import Measurement
from matsci_hpc.scaling.fitting import NO_DIFFERENCE, Fit, Floats, Interval, Problem
from matsci_hpc.scaling.link import Link

Form = Literal["ring", "tree", "halving", "two_level"]
FORMS: tuple[Form, ...] = get_args(Form)


@dataclass(frozen=True)
class LinkInterval:
    """What the measurements leave open, with 95 % confidence."""

    latency_s: Interval
    bandwidth_bytes_per_s: Interval


@dataclass(frozen=True)
class AllReduceFit:
    """A form of all-reduce and its links."""

    form: Form
    link: Link
    """Between ranks; in `two_level` between nodes."""
    within_node: Link | None
    """Between the ranks of a node, in `two_level`."""
    link_interval: LinkInterval | None
    """None with too few measurements."""
    within_node_interval: LinkInterval | None
    fit: Fit
    """The parameters are alpha in s and beta in s/byte, then those within a node."""
    alike: tuple[Form, ...] = ()
    """Other forms that the measurements do not tell from this one. One number of ranks tells none apart."""

    def time_s(self, bytes_each: ArrayLike, ranks: ArrayLike, nodes: ArrayLike = 1) -> Floats:
        """What an all-reduce takes by this fit; the arguments are broadcast against each other.

        Args:
            bytes_each: size of the vector on each rank.
            ranks: how many take part.
            nodes: on how many nodes they are, in equal numbers; matters to `two_level` only.
        """
        return all_reduce_s(self.form, self.link, bytes_each, ranks, nodes, self.within_node)


def all_reduce_s(
    form: Form,
    link: Link,
    bytes_each: ArrayLike,
    ranks: ArrayLike,
    nodes: ArrayLike = 1,
    within_node: Link | None = None,
) -> Floats:
    """What an all-reduce takes over known links; one rank alone takes no time.

    Args:
        form: the way it is done.
        link: between ranks, or in `two_level` between nodes.
        bytes_each: size of the vector on each rank.
        ranks: how many take part.
        nodes: on how many nodes they are.
        within_node: between the ranks of a node; `link` if left out.
    """
    inner = within_node or link
    parts = [link.latency_s, 1 / link.bandwidth_bytes_per_s, inner.latency_s, 1 / inner.bandwidth_bytes_per_s]
    terms = _terms(form, *_broadcast(bytes_each, ranks, nodes))
    return np.asarray(terms @ np.array(parts[: terms.shape[-1]]))


def fit_all_reduce(
    bytes_each: ArrayLike,
    ranks: ArrayLike,
    time_s: ArrayLike,
    nodes: ArrayLike = 1,
    form: Form | None = None,
) -> AllReduceFit:
    """Fit the links to measured all-reduces, by least squares of relative errors.

    Args:
        bytes_each: [m], size of the vector on each rank.
        ranks: [m] or one number, at least 2.
        time_s: [m], measured.
        nodes: [m] or one number.
        form: the way it is done; None: the one that fits best. `two_level` is tried where there are nodes with several
            ranks, several nodes, and different layouts.

    Raises:
        UserInputError: there are fewer measurements than parameters, or they are no such measurements.
    """
    sizes, counts, at_nodes, times = (
        np.atleast_1d(each) for each in np.broadcast_arrays(*_broadcast(bytes_each, ranks, nodes), _floats(time_s))
    )
    if not all(np.isfinite(each).all() and (each > 0).all() for each in (sizes, counts, at_nodes, times)):
        raise UserInputError("all-reduces to fit: sizes, ranks, nodes and times must be positive numbers")
    if (counts < 2).any():
        raise UserInputError("all-reduces to fit: one rank alone sends nothing; leave it out")
    forms = FORMS if form is None else (form,)
    made = [made for each in forms if (made := _fit(each, sizes, counts, at_nodes, times)) is not None]
    if not made:
        wanted = "two sizes" if form != "two_level" else "two sizes on several layouts of nodes"
        raise UserInputError(f"all-reduces to fit: latency and bandwidth need measurements of {wanted} at least")
    best = min(made, key=lambda each: (_order(each.fit), FORMS.index(each.form)))
    near = [each.form for each in made if each is not best and _order(each.fit) - _order(best.fit) < NO_DIFFERENCE]
    return replace(best, alike=tuple(near))


def fit_measurements(measurements: Sequence[Measurement], form: Form | None = None) -> AllReduceFit:
    """Fit to what `matsci-hpc doctor --comm` has measured on one backend, on one or several numbers of ranks.

    Raises:
        UserInputError: there are too few measurements.
    """
    points = [(each.key, point) for each in measurements for point in each.points]
    return fit_all_reduce(
        [point.bytes for _, point in points],
        [key.ranks for key, _ in points],
        [point.time_s for _, point in points],
        [key.nodes for key, _ in points],
        form,
    )


def _fit(form: Form, sizes: Floats, ranks: Floats, nodes: Floats, times: Floats) -> AllReduceFit | None:
    """None if the measurements cannot tell its parameters apart."""
    from scipy.optimize import nnls

    terms = _terms(form, sizes, ranks, nodes)
    relative = terms / times[:, None]
    scale = np.linalg.norm(relative, axis=0)
    if not scale.all() or np.linalg.matrix_rank(relative / scale) < terms.shape[1]:
        return None
    start = nnls(relative / scale, np.ones(len(times)))[0] / scale
    start = np.maximum(start, 1e-3 / scale / terms.shape[1])  # the solver begins inside the bounds
    none, any_size = np.zeros(terms.shape[1]), np.full(terms.shape[1], np.inf)
    fit = Problem(lambda values: (terms @ values, terms), times, none, any_size).solve(start)
    links = [Link(float(alpha), _inverse(beta)) for alpha, beta in fit.values.reshape(-1, 2)]
    intervals: list[LinkInterval | None] = [None] * len(links)
    if fit.intervals is not None:
        pairs = zip(fit.intervals[::2], fit.intervals[1::2], strict=True)
        intervals = [LinkInterval(alpha, Interval(_inverse(beta.high), _inverse(beta.low))) for alpha, beta in pairs]
    two = form == "two_level"
    return AllReduceFit(form, links[0], links[1] if two else None, intervals[0], intervals[1] if two else None, fit)


def _terms(form: Form, sizes: Floats, ranks: Floats, nodes: Floats) -> Floats:
    """What alpha, beta (and those within a node) are multiplied by, [..., 2 or 4]."""
    if form == "ring":
        return _ring(sizes, ranks)
    if form == "two_level":
        return np.concatenate([_ring(sizes, nodes), _ring(sizes, np.maximum(ranks / nodes, 1.0))], axis=-1)
    rounds = np.frexp(ranks)[1] - 1.0  # floor of the logarithm, without its rounding
    folded = np.where(ranks > np.exp2(rounds), 2.0, 0.0)
    if form == "tree":
        return np.stack([rounds + folded, (rounds + folded) * sizes], axis=-1)
    return np.stack([2 * rounds + folded, (2 * (1 - np.exp2(-rounds)) + folded) * sizes], axis=-1)


def _ring(sizes: Floats, members: Floats) -> Floats:
    return np.stack([2 * (members - 1), 2 * (members - 1) / members * sizes], axis=-1)


def _order(fit: Fit) -> float:
    """By Akaike's criterion, else by the sum of squares; rounding does not decide between equal forms."""
    return round(fit.aicc if fit.aicc is not None else fit.squares, 6)


def _broadcast(*arrays: ArrayLike) -> list[Floats]:
    return list(np.broadcast_arrays(*(_floats(each) for each in arrays)))


def _floats(array: ArrayLike) -> Floats:
    return np.asarray(array, dtype=np.float64)


def _inverse(value: float) -> float:
    return 1 / float(value) if value > 0 else math.inf
