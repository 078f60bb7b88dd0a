"""Copies of one picture: which rows they are, and whether they stand together in one group and with one
leaf."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from leukotree.errors import InputError

if TYPE_CHECKING:
    from leukotree.data.dataset import Dataset

_NAMED = 3
"""Sets of copies that one message names, and images of each set."""


def copies(digests: pd.Series) -> list[np.ndarray]:
    """Positions of the rows of each digest that stands more than once, ascending, in the order of their first
    rows."""
    repeated = np.flatnonzero(digests.duplicated(keep=False).to_numpy())
    sets = same(pd.factorize(digests.iloc[repeated])[0])
    return [repeated[rows] for rows in sorted(sets, key=lambda rows: int(rows[0]))]


def divided(table: pd.DataFrame, sets: list[np.ndarray], *by: str) -> list[np.ndarray]:
    """Those sets of copies whose rows differ in a column of `by`."""
    columns = [table[name].to_numpy() for name in by]
    return [rows for rows in sets if any(len(set(column[rows])) > 1 for column in columns)]


def joined(groups: pd.Series, sets: list[np.ndarray]) -> pd.Series:
    """The groups after those that share a copy became one, over any number of steps; it has the name of the
    first of them."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    codes, names = pd.factorize(groups, sort=True)
    one = np.concatenate([np.full(len(rows), codes[rows[0]]) for rows in sets])
    other = np.concatenate([codes[rows] for rows in sets])
    links = coo_array((np.ones(len(one)), (one, other)), shape=(len(names), len(names)))
    component = connected_components(links, directed=False)[1]
    first = pd.Series(np.arange(len(names))).groupby(component).transform("min").to_numpy()
    return pd.Series(names[first[codes]], index=groups.index)


def resolve(table: pd.DataFrame, sets: list[np.ndarray], join: bool) -> list[np.ndarray]:
    """The sets of copies whose groups must become one.

    Args:
        table: columns shown (what a person calls the image), leaf and group.
        sets: copies of one picture each.
        join: whether groups may be joined.

    Raises InputError for copies with different leaves, and for those in different groups unless these may be
    joined.
    """
    if conflicts := divided(table, sets, "leaf"):
        raise InputError(
            f"exact copies of one picture have different leaves: {described(table, conflicts, 'leaf')}; "
            "keep the row whose leaf is right, and take the others out of the manifest"
        )
    apart = divided(table, sets, "group")
    if apart and not join:
        raise InputError(
            f"exact copies of one picture stand in different groups, which the folds would divide: "
            f"{described(table, apart, 'group')}; keep them together with --group-duplicates, or take rows out of the manifest"
        )
    return apart


def refuse(dataset: Dataset) -> None:
    """Raises InputError where an exact copy of an image stands in two folds, or in two groups, which inner
    folds may divide."""
    index = dataset.index
    apart = divided(index, copies(index["sha256"]), "fold", "group")
    if not apart:
        return
    conflicts = divided(index, apart, "leaf")
    text = described(index.assign(shown=index["image"]), conflicts or apart, "leaf", "fold")
    fix = "take the copies with a wrong leaf out of the manifest, then " if conflicts else ""
    raise InputError(
        f"{dataset.folder}: exact copies of one picture in different folds or groups, so that a model would be tested on what it "
        f"was trained on: {text}; {fix}pack the manifest into an empty folder with --group-duplicates"
    )


def described(table: pd.DataFrame, sets: list[np.ndarray], *by: str) -> str:
    """The images of the first sets, with what they differ in, and how many more sets there are."""

    def image(row: int) -> str:
        known = table.iloc[row]
        return f"{known['shown']!r} ({', '.join(f'{name} {known[name]}' for name in by)})"

    def one(rows: np.ndarray) -> str:
        column = table[by[0]].to_numpy()
        first = [
            int(rows[column[rows] == value][0]) for value in dict.fromkeys(column[rows])
        ]  # one image of each, first
        order = list(dict.fromkeys([*first, *(int(row) for row in rows)]))
        more = f" and {len(order) - _NAMED} more" if len(order) > _NAMED else ""
        return " = ".join(image(row) for row in order[:_NAMED]) + more

    rest = f" (and {len(sets) - _NAMED} more pictures)" if len(sets) > _NAMED else ""
    return "; ".join(one(rows) for rows in sets[:_NAMED]) + rest


def same(labels: np.ndarray) -> list[np.ndarray]:
    """Rows of each label that occurs more than once, ascending."""
    order = np.argsort(labels, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    return [part for part in parts if len(part) > 1]
