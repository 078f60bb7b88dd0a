"""Class weights and softened targets: numbers of a loss that are known before training. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from leukotree.errors import InputError


def class_weights(counts: Sequence[int] | np.ndarray, tau: float) -> np.ndarray:
    """(K,) alpha = (inverse frequency)^tau, scaled to mean 1.

    Raises InputError for a class without training images.
    """
    numbers = np.asarray(counts, dtype=np.float64)
    if (numbers <= 0).any():
        raise InputError(
            f"class weights: a class has no training images (counts {numbers.astype(int).tolist()})"
        )
    weights = numbers**-tau
    return weights / weights.mean()


def soft_targets(distances: np.ndarray, beta: float) -> np.ndarray:
    """(L, L) target of each leaf (column) for a sample of a leaf (row).

    Proportional to exp(-beta d / d_max), rows sum to 1 (Bertinetto et al. 2020, soft labels). A large beta
    gives one-hot targets.

    distances: (L, L) heights of the lowest common ancestors of the leaves.
    """
    similarity = np.exp(-beta * distances / distances.max())
    return similarity / similarity.sum(axis=1, keepdims=True)
