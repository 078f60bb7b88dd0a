"""Exact copies and near duplicates of a packed data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from leukotree.data import duplicates
from leukotree.data.alike import alike, groups

_SHOWN = 3
"""Largest number of pairs in a message."""


@dataclass(frozen=True)
class Pair:
    """Two rows of an index that look the same."""

    rows: tuple[int, int]
    exact: bool
    """Whether their bytes are equal."""
    across: bool
    """Whether they are in different folds."""


@dataclass(frozen=True)
class SimilarImages:
    """The images of a data set that look the same."""

    index: pd.DataFrame
    """Columns shown (the image's name in messages), leaf, group, fold and sha256."""
    near: Sequence[tuple[int, int]]
    """Pairs of rows with nearly equal thumbnails and different bytes. Of copies only the first counts."""

    @cached_property
    def copies(self) -> list[np.ndarray]:
        """The rows of each picture that has exact copies."""
        return duplicates.copies(self.index["sha256"])

    @cached_property
    def pairs(self) -> list[Pair]:
        """The first image of each set of copies with every other one, and the near duplicates.

        Pairs across folds come first, and copies before near duplicates.
        """
        fold = self.index["fold"].to_numpy()
        copies = [(int(rows[0]), int(other)) for rows in self.copies for other in rows[1:]]
        both = [(rows, True) for rows in copies] + [(rows, False) for rows in self.near]
        pairs = [Pair(rows, exact, bool(fold[rows[0]] != fold[rows[1]])) for rows, exact in both]
        return sorted(pairs, key=lambda pair: (not pair.across, not pair.exact))

    @cached_property
    def groups(self) -> list[np.ndarray]:
        """The sets of three or more rows that pairs join, directly or through others; the largest first."""
        joined = groups(len(self.index), [pair.rows for pair in self.pairs])
        return sorted((rows for rows in joined if len(rows) > 2), key=lambda rows: (-len(rows), int(rows[0])))

    def errors(self) -> list[str]:
        """Return errors about copies in different folds or groups, and copies with different leaves."""
        divisible = duplicates.differing(self.index, self.copies, "group")
        conflicts = duplicates.differing(self.index, self.copies, "leaf")
        texts = self.across_folds()
        if divisible and not texts:
            shown = duplicates.describe(self.index, divisible, "group")
            texts.append(
                f"leakage: {len(divisible)} picture(s) are in several groups, which inner folds would "
                f"divide, e.g. {shown}"
            )
        if conflicts:
            shown = duplicates.describe(self.index, conflicts, "leaf")
            texts.append(
                f"labels: {len(conflicts)} picture(s) have exact copies with different leaves, e.g. {shown}"
            )
        return texts

    def across_folds(self) -> list[str]:
        """Return an error if exact copies are in different folds."""
        apart = duplicates.differing(self.index, self.copies, "fold")
        if not apart:
            return []
        shown = duplicates.describe(self.index, apart, "fold")
        return [f"leakage: {sum(map(len, apart))} images have an exact copy in another fold, e.g. {shown}"]

    def warnings(self) -> list[str]:
        """Return warnings about copies within a fold, and near duplicates across folds."""
        texts = []
        if repeated := int(self.index.duplicated(["fold", "sha256"]).sum()):
            texts.append(f"{repeated} image(s) repeat another of their fold byte for byte")
        return [*texts, *self.near_across_folds()]

    def near_across_folds(self) -> list[str]:
        """Return a warning about near duplicates in different folds."""
        if across := [pair.rows for pair in self.pairs if pair.across and not pair.exact]:
            names = self.index["shown"]
            pairs = [f"{names.iloc[first]} and {names.iloc[second]}" for first, second in across[:_SHOWN]]
            shown = "; ".join(pairs)
            return [f"{len(across)} pair(s) of near duplicates across folds (look at them), e.g. {shown}"]
        return []

    def as_dict(self) -> dict[str, Any]:
        """Return all copies and near duplicates for scripts."""
        return {
            "copies": [self._described([int(row) for row in rows]) for rows in self.copies],
            "near_duplicates": [self._described(list(pair)) for pair in self.near],
        }

    def _described(self, rows: list[int]) -> dict[str, Any]:
        samples = self.index.iloc[rows]
        folds, leaves = [int(fold) for fold in samples["fold"]], samples["leaf"].tolist()
        return {
            "images": samples["shown"].tolist(),
            "leaves": leaves,
            "groups": samples["group"].tolist(),
            "folds": folds,
            "across_folds": len(set(folds)) > 1,
            "leaves_differ": len(set(leaves)) > 1,
        }


def compare(
    index: pd.DataFrame, names: Sequence[str], thumbnails: np.ndarray, decoded: np.ndarray
) -> SimilarImages:
    """Compare all images of an index by their digests and their thumbnails.

    Of exact copies only the first is compared with other images: n copies of each of two near duplicates
    would give n * n pairs.

    Args:
        names: (N,) names of the images.
        thumbnails: (N, 9, 9, 3) uint8.
        decoded: (N,) bool; other images have no thumbnail.
    """
    rows = np.flatnonzero(decoded)
    firsts = rows[~index["sha256"].iloc[rows].duplicated().to_numpy()]
    near = [(int(firsts[first]), int(firsts[second])) for first, second in alike(thumbnails[firsts])]
    return SimilarImages(index.assign(shown=list(names)), near)
