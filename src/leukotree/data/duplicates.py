"""Exact copies of a picture: find them, check their groups and leaves, join their groups."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import pandas as pd

from leukotree.errors import InputError

_NAMED = 3
"""Largest number of sets of copies in one message, and of images of each set."""


def copies(digests: pd.Series) -> list[np.ndarray]:
    """Return the sets of equal digests with two or more rows, in the order of their first rows.

    A set holds the positions of its rows, ascending.
    """
    repeated = np.flatnonzero(digests.duplicated(keep=False).to_numpy())
    sets = repeated_labels(pd.factorize(digests.iloc[repeated])[0])
    return [repeated[rows] for rows in sorted(sets, key=lambda rows: int(rows[0]))]


def differing(table: pd.DataFrame, sets: list[np.ndarray], *by: str) -> list[np.ndarray]:
    """Return those sets of copies whose rows differ in a column of `by`."""
    if not sets:
        return []
    # Numbers instead of texts: of an index with millions of rows no texts are copied.
    columns = [pd.factorize(table[name])[0] for name in by]
    return [rows for rows in sets if any((column[rows] != column[rows[0]]).any() for column in columns)]


def join_groups(groups: pd.Series, sets: list[np.ndarray]) -> pd.Series:
    """Return the group of each row after groups that share a copy, directly or through others, became one.

    The joined group has the first name of its groups in sorted order.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    codes, names = pd.factorize(groups, sort=True)
    first_groups = np.concatenate([np.full(len(rows), codes[rows[0]]) for rows in sets])
    all_groups = np.concatenate([codes[rows] for rows in sets])
    weights = np.ones(len(first_groups))
    links = coo_array((weights, (first_groups, all_groups)), shape=(len(names), len(names)))
    component = connected_components(links, directed=False)[1]
    first = pd.Series(np.arange(len(names))).groupby(component).transform("min").to_numpy()
    return pd.Series(names[first[codes]], index=groups.index)


def resolve(
    table: pd.DataFrame, sets: list[np.ndarray], join: bool, join_images: bool = False
) -> list[np.ndarray]:
    """Return the sets of copies whose groups must be joined.

    Args:
        table: columns shown (the image's name in messages), leaf, group and kind (what a group is).
        sets: copies of one picture each.
        join: whether groups may be joined.
        join_images: whether groups of images without a patient or slide may be joined.

    Raises InputError for copies with different leaves, and for copies in different groups that may not be
    joined.
    """
    # The same name may be in several sources.
    source = ["source"] if "source" in table and table["source"].nunique() > 1 else []
    if conflicts := differing(table, sets, "leaf"):
        shown = describe(table, conflicts, "leaf", *source)
        raise InputError(
            f"exact copies of one picture have different leaves: {shown}; "
            "keep the row whose leaf is right, and take the others out of the manifest"
        )
    apart = differing(table, sets, "group")
    refused = [] if join else apart
    if join_images:
        single = (table["kind"] == "image").to_numpy()
        refused = [rows for rows in refused if not single[rows].all()]
    if refused:
        raise InputError(
            "exact copies of one picture are in different groups, which the folds would divide: "
            f"{describe(table, refused, 'group', *source)}; keep them together with --group-duplicates, "
            "or take rows out of the manifest"
        )
    return apart


class Packed(Protocol):
    """What `refuse` reads of a packed data set."""

    @property
    def name(self) -> str: ...

    @property
    def index(self) -> pd.DataFrame: ...

    @property
    def copies(self) -> list[np.ndarray]: ...


def refuse(dataset: Packed) -> None:
    """Raise InputError if an exact copy of an image is in another fold, or in another group.

    Inner folds may divide groups that hold copies of each other.
    """
    index = dataset.index
    apart = differing(index, dataset.copies, "fold", "group")
    if not apart:
        return
    conflicts = differing(index, apart, "leaf")
    text = describe(index.assign(shown=index["image"]), conflicts or apart, "leaf", "fold")
    fix = "take the copies with a wrong leaf out of the manifest, then " if conflicts else ""
    raise InputError(
        f"{dataset.name}: exact copies of one picture in different folds or groups, "
        f"so that a model would be tested on what it was trained on: {text}; "
        f"{fix}pack the manifest into an empty folder with --group-duplicates"
    )


def describe(table: pd.DataFrame, sets: list[np.ndarray], *by: str) -> str:
    """Return a text of the first sets' images with the columns of `by`, and the number of further sets."""

    def describe_image(row: int) -> str:
        sample = table.iloc[row]
        return f"{sample['shown']!r} ({', '.join(f'{name} {sample[name]}' for name in by)})"

    def describe_set(rows: np.ndarray) -> str:
        column = table[by[0]].to_numpy()
        # First one image of each value of the first column, then the others.
        first = [int(rows[column[rows] == value][0]) for value in dict.fromkeys(column[rows])]
        order = list(dict.fromkeys([*first, *(int(row) for row in rows)]))
        more = f" and {len(order) - _NAMED} more" if len(order) > _NAMED else ""
        return " = ".join(describe_image(row) for row in order[:_NAMED]) + more

    rest = f" (and {len(sets) - _NAMED} more pictures)" if len(sets) > _NAMED else ""
    return "; ".join(describe_set(rows) for rows in sets[:_NAMED]) + rest


def repeated_labels(labels: np.ndarray) -> list[np.ndarray]:
    """Return the rows of each label that occurs more than once, ascending."""
    order = np.argsort(labels, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    return [part for part in parts if len(part) > 1]
