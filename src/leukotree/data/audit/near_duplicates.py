"""Pictures of a packed data set that are copies of each other, byte for byte or to the eye: the part of an
audit that looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from leukotree.data import duplicates

THUMBNAIL = 9
"""Side of the thumbnails that are compared, in pixels: 9 x 8 brightness differences make a hash of 64
bits."""
_BITS = 2
"""Near duplicates differ in at most this many bits of their hashes ..."""
_LEVELS = 4.0
"""... and by at most this many of 255 levels between thumbnails, on average over pixels and channels."""
_SHOWN = 3


@dataclass(frozen=True)
class Pair:
    """Two rows of an index that look the same."""

    rows: tuple[int, int]
    exact: bool
    """Whether their bytes are the same."""
    across: bool
    """Whether they stand in different folds."""


@dataclass(frozen=True)
class Lookalikes:
    """What looks the same in a data set."""

    index: pd.DataFrame
    """Columns shown (what people call the image), leaf, group, fold and sha256."""
    near: Sequence[tuple[int, int]]
    """Pairs of rows with nearly the same thumbnail, and other bytes; copies stand there by the first of
    them."""

    @cached_property
    def copies(self) -> list[np.ndarray]:
        """Rows of each picture that stands more than once."""
        return duplicates.copies(self.index["sha256"])

    @cached_property
    def pairs(self) -> list[Pair]:
        """The first image of each set of copies with every other one, and the near duplicates: those across
        folds first, copies before near ones."""
        fold = self.index["fold"].to_numpy()
        exact = [(int(rows[0]), int(other)) for rows in self.copies for other in rows[1:]]
        both = [(pair, True) for pair in exact] + [(pair, False) for pair in self.near]
        pairs = [Pair(rows, copied, bool(fold[rows[0]] != fold[rows[1]])) for rows, copied in both]
        return sorted(pairs, key=lambda pair: (not pair.across, not pair.exact))

    def errors(self) -> list[str]:
        """Copies in different folds or groups, and copies with different leaves."""
        apart = duplicates.differing(self.index, self.copies, "fold")
        divisible = duplicates.differing(self.index, self.copies, "group")
        conflicts = duplicates.differing(self.index, self.copies, "leaf")
        texts = []
        if apart:
            n = sum(map(len, apart))
            shown = duplicates.describe(self.index, apart, "fold")
            texts.append(f"leakage: {n} images have an exact copy in another fold, e.g. {shown}")
        if divisible and not apart:
            shown = duplicates.describe(self.index, divisible, "group")
            texts.append(
                f"leakage: {len(divisible)} picture(s) stand in several groups, which inner folds would divide, e.g. {shown}"
            )
        if conflicts:
            shown = duplicates.describe(self.index, conflicts, "leaf")
            texts.append(
                f"labels: {len(conflicts)} picture(s) have exact copies with different leaves, e.g. {shown}"
            )
        return texts

    def warnings(self) -> list[str]:
        """Copies within a fold, and images that look the same in several folds."""
        texts = []
        if repeated := int(self.index.duplicated(["fold", "sha256"]).sum()):
            texts.append(f"{repeated} image(s) repeat another of their fold byte for byte")
        if across := [pair.rows for pair in self.pairs if pair.across and not pair.exact]:
            names = self.index["shown"]
            shown = [f"{names.iloc[one]} and {names.iloc[other]}" for one, other in across[:_SHOWN]]
            texts.append(
                f"{len(across)} pair(s) of near duplicates across folds (look at them), e.g. {'; '.join(shown)}"
            )
        return texts

    def as_dict(self) -> dict[str, Any]:
        """All of it, for scripts."""
        return {
            "copies": [self._described([int(row) for row in rows]) for rows in self.copies],
            "near_duplicates": [self._described(list(pair)) for pair in self.near],
        }

    def _described(self, rows: list[int]) -> dict[str, Any]:
        known = self.index.iloc[rows]
        lists = {
            name: known[column].tolist()
            for name, column in (("images", "shown"), ("leaves", "leaf"), ("groups", "group"))
        }
        folds = [int(fold) for fold in known["fold"]]
        return {
            **lists,
            "folds": folds,
            "across_folds": len(set(folds)) > 1,
            "leaves_differ": len(set(lists["leaves"])) > 1,
        }


def look(
    index: pd.DataFrame, names: Sequence[str], thumbnails: np.ndarray, decoded: np.ndarray
) -> Lookalikes:
    """Compare all images of an index, called `names`, by their digests and their thumbnails, (N, 9, 9, 3)
    uint8.

    Of copies only the first is compared with other pictures: n copies of two of them would make n * n pairs.
        Those that are not
    `decoded`, (N,) bool, have no thumbnail.
    """
    seen = np.flatnonzero(decoded)
    firsts = seen[~index["sha256"].iloc[seen].duplicated().to_numpy()]
    near = [(int(firsts[one]), int(firsts[other])) for one, other in alike(thumbnails[firsts])]
    return Lookalikes(index.assign(shown=list(names)), near)


def alike(thumbnails: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of rows with nearly the same thumbnail, ascending. (N, 9, 9, 3) uint8.

    Hashes that differ in at most `_BITS` bits agree in one of `_BITS` + 1 bands of bits, so that only images
    that share a band are compared.
    """
    grey = thumbnails[:, :-1].astype(np.int64) @ [299, 587, 114]  # (N, 8, 9) luma times 1000
    bits = (np.diff(grey, axis=2) > 0).reshape(len(grey), -1)  # (N, 64)
    flat = thumbnails.reshape(len(thumbnails), -1).astype(np.int16)
    pairs: set[tuple[int, int]] = set()
    for band in range(
        _BITS + 1
    ):  # bits from all over the image: a dark border would fill a band of neighbours
        _, bucket = np.unique(np.packbits(bits[:, band :: _BITS + 1], axis=1), axis=0, return_inverse=True)
        for rows in duplicates.repeated_labels(bucket.ravel()):
            for place, one in enumerate(rows[:-1]):
                others = rows[place + 1 :]
                others = others[(bits[others] != bits[one]).sum(axis=1) <= _BITS]
                others = others[np.abs(flat[others] - flat[one]).mean(axis=1) <= _LEVELS]
                pairs.update((int(one), int(other)) for other in others)
    return sorted(pairs)
