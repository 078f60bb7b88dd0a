"""Agreement of readers: Cohen's kappa, Fleiss' kappa and Krippendorff's alpha, as functions of (K, K) tables.

A reading is a category from 0, or `UNREAD`. Tables can be added over images, so the functions take sums of
any images, also with weights: a bootstrap draw is such a sum. Where all readings are of one category, no
disagreement can be expected, and the value is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from leukotree.taxonomy import Taxonomy

UNREAD = -1


class Categories:
    """The categories of readings at one depth of a tree: the nodes of a cut, then names that the tree lacks.

    A name that the tree lacks is a leaf that no image of the data set has. It is a category of its own,
    because it disagrees with every other leaf.
    """

    def __init__(self, nodes: Sequence[str], taxonomy: Taxonomy, names: Sequence[str]) -> None:
        """names: all readings. `nodes`: a cut of the taxonomy (`Taxonomy.cuts`)."""
        known = set(taxonomy.nodes)
        self.names = [*nodes, *sorted({name for name in names if name} - known)]
        place = {name: number for number, name in enumerate(self.names)}
        self._code = {"": UNREAD, taxonomy.root: UNREAD}
        for node in taxonomy.edges:
            above = [name for name in taxonomy.path(node) if name in place]
            self._code[node] = place[above[-1]] if above else UNREAD
        self._code |= {name: place[name] for name in self.names}

    def __len__(self) -> int:
        return len(self.names)

    def codes(self, readings: Sequence[str] | np.ndarray) -> np.ndarray:
        """(N,) int64 categories of N readings. A reading that stops above the cut is `UNREAD`."""
        names, inverse = np.unique(np.asarray(readings, dtype=object).astype(str), return_inverse=True)
        codes = np.array([self._code[name] for name in names], dtype=np.int64)
        return codes[inverse.ravel()]


def coincidences(codes: np.ndarray, n_categories: int) -> np.ndarray:
    """(N, K, K) coincidences of each image, from (N, R) codes of R readers.

    An image with m readings has the number of ordered pairs of readings with values c and k, divided by m - 1
    (Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability"). It has zeros where m is below 2.
    """
    counts = _votes(codes, n_categories)
    read = counts.sum(axis=1)
    pairs = counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(n_categories, dtype=int)
    return np.where(read[:, None, None] > 1, pairs / np.maximum(read - 1, 1)[:, None, None], 0.0)


def cohen(confusion: np.ndarray) -> np.ndarray:
    """(...) Cohen's kappa (1960), from (..., K, K) counts: rows the first reader, columns the second."""
    total = confusion.sum(axis=(-2, -1))
    share = confusion / _or_nan(total)[..., None, None]
    expected = (share.sum(axis=-1) * share.sum(axis=-2)).sum(axis=-1)
    return _beyond_chance(np.trace(share, axis1=-2, axis2=-1), expected)


def fleiss(coincidence: np.ndarray) -> np.ndarray:
    """(...) Fleiss' kappa (1971), from (..., K, K) sums of `coincidences` of images that all readers read."""
    share = coincidence / _or_nan(coincidence.sum(axis=(-2, -1)))[..., None, None]
    expected = (share.sum(axis=-1) ** 2).sum(axis=-1)
    return _beyond_chance(np.trace(share, axis1=-2, axis2=-1), expected)


def krippendorff(coincidence: np.ndarray) -> np.ndarray:
    """(...) Krippendorff's alpha for nominal data, from (..., K, K) sums of `coincidences`. Images may lack
    readings. `alpha` is the same for one set of readings, by a library."""
    total = coincidence.sum(axis=(-2, -1))
    marginal = coincidence.sum(axis=-1)
    observed = total - np.trace(coincidence, axis1=-2, axis2=-1)
    expected = total**2 - (marginal**2).sum(axis=-1)
    return 1 - (total - 1) * observed / _or_nan(expected)


def alpha(codes: np.ndarray, n_categories: int) -> float:
    """Krippendorff's alpha for nominal data by the library `krippendorff`, from (N, R) codes. NaN where no
    image has two readings, or all readings are of one category."""
    import krippendorff as library

    counts = _votes(codes, n_categories)
    counts = counts[counts.sum(axis=1) > 1]
    if (counts.sum(axis=0) > 0).sum() < 2:
        return float("nan")
    return float(library.alpha(value_counts=counts, level_of_measurement="nominal"))


def _votes(codes: np.ndarray, n_categories: int) -> np.ndarray:
    """(N, K) number of readings of each category, from (N, R) codes."""
    return (codes[..., None] == np.arange(n_categories)).sum(axis=1)


def _beyond_chance(observed: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """(observed - expected) / (1 - expected)."""
    return (observed - expected) / _or_nan(1 - expected)


def _or_nan(value: np.ndarray) -> np.ndarray:
    """NaN where a divisor is 0, up to rounding."""
    return np.where(value > 1e-12, value, np.nan)
