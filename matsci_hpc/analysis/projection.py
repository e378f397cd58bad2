"""From embeddings to the two coordinates of a map."""

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from matsci_hpc.errors import MachineError, UserInputError
from matsci_hpc.versions import installed

Floats = NDArray[np.float64]
Method = Literal["umap", "pca"]
FEWEST_FOR_UMAP = 10
EXTRA = "pip install 'matsci-hpc[embed]'"


@dataclass(frozen=True, slots=True)
class Projection:
    """Places on a map.

    Attributes:
        method: that made them.
        place: float64 [n, 2].
        axes: what to write at the two axes.
    """

    method: Method
    place: Floats
    axes: tuple[str, str]


def standardised(embedding: NDArray[np.float32]) -> Floats:
    """Every feature with mean 0 and standard deviation 1 over all points; those that do not vary are left out.

    Args:
        embedding: [n, width].

    Returns:
        float64 [n, features that vary].

    Raises:
        UserInputError: none varies, so all points are one.
    """
    values = embedding.astype(np.float64)
    spread = values.std(axis=0)
    varies = spread > 1e-7 * np.maximum(np.abs(values).max(axis=0), 1e-30)
    if not varies.any():
        raise UserInputError("all embeddings are the same, so there is no map of them; is this the right checkpoint?")
    scaled: Floats = (values[:, varies] - values[:, varies].mean(axis=0)) / spread[varies]
    return scaled


def choose_method(wanted: str, samples: int) -> Method:
    """The method of a map.

    Args:
        wanted: `umap`, `pca` or `auto`, which is UMAP where it is installed and there are enough samples.
        samples: to be drawn.

    Raises:
        UserInputError: too few samples.
        MachineError: UMAP is asked for and not installed.
    """
    if wanted == "auto":
        return "umap" if installed("umap-learn") and samples >= FEWEST_FOR_UMAP else "pca"
    if wanted == "umap" and not installed("umap-learn"):
        raise MachineError(f"--method umap needs umap-learn, which is not installed: {EXTRA}; or take --method pca")
    if wanted == "umap" and samples < FEWEST_FOR_UMAP:
        raise UserInputError(f"{samples} samples are too few for UMAP; take --method pca, or embed more")
    return "pca" if wanted == "pca" else "umap"


def project(features: Floats, method: Method, *, seed: int, neighbors: int) -> Projection:
    """Place points on a map.

    Args:
        features: [n, width], from `standardised`.
        method: how.
        seed: of UMAP.
        neighbors: of a point that UMAP looks at.
    """
    if method == "pca":
        place, shares = principal_components(features)
        first, second = (f"principal component {k + 1} ({100 * share:.0f} %)" for k, share in enumerate(shares))
        return Projection("pca", place, (first, second))
    return Projection("umap", _umap(features, seed, neighbors), ("UMAP 1", "UMAP 2"))


def principal_components(features: Floats) -> tuple[Floats, tuple[float, float]]:
    """The first two principal components, by a singular value decomposition.

    A component is turned so that its largest loading is positive, for its sign means nothing.

    Args:
        features: [n, width], each with mean 0.

    Returns:
        Scores [n, 2], and the share of the variance that each component has.
    """
    left, strength, loadings = np.linalg.svd(features, full_matrices=False)
    largest = np.abs(loadings).argmax(axis=1)
    scores = left * strength * np.sign(loadings[np.arange(len(loadings)), largest])
    shares = strength**2 / max(float((strength**2).sum()), 1e-300)
    if scores.shape[1] < 2:
        scores, shares = np.pad(scores, ((0, 0), (0, 1))), np.pad(shares, (0, 1))
    return scores[:, :2], (float(shares[0]), float(shares[1]))


def _umap(features: Floats, seed: int, neighbors: int) -> Floats:
    """McInnes, Healy and Melville (2018), arXiv:1802.03426; on one core, where its seed decides everything."""
    import umap

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="n_jobs value")
        made = umap.UMAP(n_neighbors=min(neighbors, len(features) - 1), min_dist=0.1, random_state=seed, n_jobs=1)
        place: Floats = np.asarray(made.fit_transform(features.astype(np.float32)), dtype=np.float64)
    return place
