"""Answers of a model to images. Several seeds, and several repeats, may answer the same image."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Answers(NamedTuple):
    """M answers of a model to N images: of several seeds, and of several repeats."""

    image: np.ndarray
    """(M,) int64 from 0: the image of each answer."""
    code: np.ndarray
    """(M,) int64: the category, or leaf index."""
    weight: np.ndarray
    """(M,) 1 / (number of answers to the image), so that each image counts once."""

    @classmethod
    def once(cls, code: np.ndarray) -> Answers:
        """One answer to each of N images."""
        return cls(np.arange(len(code)), code, np.ones(len(code)))

    def tables(
        self, cluster: np.ndarray, n_clusters: int, true: np.ndarray, n: int, images: np.ndarray
    ) -> np.ndarray:
        """(P, n, n) counts, from the (N,) clusters and (N,) true codes of the images, of some (N,) bool
        images."""
        rows = images[self.image]
        image = self.image[rows]
        cells = (cluster[image] * n + true[image]) * n + self.code[rows]
        counts = np.bincount(cells, self.weight[rows], minlength=n_clusters * n * n)
        return counts.reshape(n_clusters, n, n)
