"""What a joined data set does with its sources: each is a fold, one is a test, all have the same leaves.

* `--folds-by source`: the folds are the sources, in sorted order. Each is tested by models that were trained
  on the others (leave one source out).
* `--test-source NAME`: the images of this source are in no fold. They are packed into a folder of their own
  (`test_folder`), for `leukotree evaluate`.
* `--match leaf`: every source gives the same number of images of each leaf. Source and leaf are then
  independent in the data set: the source has no information about the leaf.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from leukotree.data import folds
from leukotree.data.pack_options import BY_SOURCE, MATCH_LEAF, Options
from leukotree.errors import InputError

_NAMED = 3
"""Largest number of leaves or groups in a message."""


def test_folder(out: Path) -> Path:
    """Return the folder of the outer test of a packed folder."""
    return out.with_name(f"{out.name}-test")


def arranged(table: pd.DataFrame, options: Options) -> pd.DataFrame:
    """Return the rows that are packed, with a new index from 0 and the column `fold`.

    Args:
        table: columns key, leaf, source and group.

    Raises InputError where the folds are impossible.
    """
    if options.outer_test:
        return table.reset_index(drop=True).assign(fold=np.zeros(len(table), dtype=np.int64))
    alone = options.test_sources and table["source"].nunique() == 1  # nothing to match but the outer test
    if options.match == MATCH_LEAF and not alone:
        table = matched(table, options.seed)
    table = table.reset_index(drop=True)
    if options.folds_by == BY_SOURCE:
        return table.assign(fold=source_folds(table))
    return table.assign(fold=folds.assign(table, options.folds, options.seed))


def source_folds(table: pd.DataFrame) -> np.ndarray:
    """Return the fold of each row, (N,) int64: the position of its source among the sorted sources.

    Raises InputError for fewer than two sources, for a leaf of one source alone, which no model could learn
    while this source is tested, and for a group in two sources.
    """
    ids, sources = pd.factorize(table["source"], sort=True)
    if len(sources) < 2:
        raise InputError(
            f"--folds-by source: all images are of source {sources[0]!r}; join manifests of two or more"
        )
    per_leaf = table.groupby("leaf")["source"].unique()
    if alone := [f"{leaf} ({names[0]})" for leaf, names in per_leaf.items() if len(names) < 2]:
        listed = ", ".join(alone[:_NAMED])
        raise InputError(
            f"--folds-by source: {len(alone)} leaf or leaves are in one source alone, which no model learns "
            f"while this source is tested: {listed}; leave such leaves out with --match leaf"
        )
    several = table.groupby("group")["source"].nunique()
    if len(names := several.index[several > 1]):
        raise InputError(
            f"--folds-by source: {len(names)} group(s) are in several sources, by a patient or by exact "
            f"copies of an image, e.g. {names[0]!r}; take their rows out of all manifests but one"
        )
    return ids.astype(np.int64)


def missing_leaves(table: pd.DataFrame) -> list[str]:
    """Return a line for each fold of a source that lacks a leaf of the others."""
    present = pd.crosstab(table["source"], table["leaf"]) > 0
    return [
        f"fold {number} (source {source!r}) has no image of {', '.join(row.index[~row])}: its macro F1 "
        "counts such a leaf as 0; --match leaf leaves such leaves out"
        for number, (source, row) in enumerate(present.iterrows())
        if not row.all()
    ]


def matched(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return the rows of a part in which every source has the same number of images of each leaf.

    Leaves that a source lacks are left out. Of each other leaf every source gives as many images as the
    source with the fewest. They are taken from its groups in turn, so that as many patients as possible stay:
    the first image of each group in a random order that follows from `seed`, then the second, and so on.

    Raises InputError for fewer than two sources, or two leaves that all sources have.
    """
    counts = pd.crosstab(table["source"], table["leaf"])
    if len(counts) < 2:
        raise InputError("--match leaf: all images are of one source; join the manifests of two or more")
    common = counts.loc[:, (counts > 0).all(axis=0)].min(axis=0)
    if len(common) < 2:
        shared = ", ".join(map(str, common.index)) or "no leaf"
        raise InputError(
            f"--match leaf: the sources {', '.join(map(repr, counts.index))} have {shared} in common, and a "
            "study needs at least two leaves that every source has; leave a source out, or use --test-source"
        )
    kept = []
    for source, of_source in table.groupby("source", sort=True):
        for leaf, rows in of_source.groupby("leaf", sort=True):
            if leaf in common.index:
                kept.append(_in_turn(rows, int(common[leaf]), seed, f"{source}/{leaf}"))
    return table.loc[np.sort(np.concatenate(kept))]


def _in_turn(rows: pd.DataFrame, count: int, seed: int, name: str) -> np.ndarray:
    """Return the labels of `count` rows, taken from the groups in turn."""
    rng = np.random.default_rng([seed, *name.encode()])
    mixed = rows.iloc[rng.permutation(len(rows))]
    turn = mixed.groupby("group").cumcount()
    return np.asarray(mixed.index[np.argsort(turn.to_numpy(), kind="stable")][:count])


def apart(table: pd.DataFrame, sources: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return (rows to train on, rows of the outer test).

    Args:
        sources: the names of the sources of the outer test.

    Raises InputError for a name that is no source, if no other source is left, and for a group in both.
    """
    known = sorted(table["source"].unique())
    if wrong := [name for name in sources if name not in known]:
        raise InputError(f"--test-source {wrong[0]!r}: no such source; the manifests have {', '.join(known)}")
    tested = table["source"].isin(sources)
    if tested.all():
        raise InputError(f"--test-source {', '.join(sources)}: no other source is left to train on")
    both = set(table.loc[tested, "group"]) & set(table.loc[~tested, "group"])
    if both:
        raise InputError(
            f"--test-source {', '.join(sources)}: {len(both)} group(s) are also in another source, by a "
            f"patient or by exact copies of an image, e.g. {min(both)!r}; take their rows out of one manifest"
        )
    return table[~tested].reset_index(drop=True), table[tested].reset_index(drop=True)


def known_leaves(test: pd.DataFrame, leaves: Sequence[str], match: str | None) -> pd.DataFrame:
    """Return the rows of the outer test whose leaf is one of `leaves`, which the models learn.

    Raises InputError for other leaves without --match leaf, and if no row is left.
    """
    unknown = ~test["leaf"].isin(leaves)
    if unknown.any() and match != MATCH_LEAF:
        names = ", ".join(sorted(test.loc[unknown, "leaf"].unique()))
        raise InputError(
            f"--test-source: {int(unknown.sum())} of its images are of leaves that no other source has "
            f"({names}), so no model learns them; leave them out with --match leaf"
        )
    if unknown.all():
        raise InputError(
            f"--test-source: none of its images is of a leaf of the others ({', '.join(leaves)})"
        )
    return test[~unknown].reset_index(drop=True)


def left_out(before: pd.DataFrame, after: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Return source -> leaf -> number of images that matching left out; only numbers above 0."""
    gone = before[~before["key"].isin(after["key"])]
    counts: dict[str, dict[str, int]] = {}
    for source, rows in gone.groupby("source"):
        counts[str(source)] = {str(leaf): len(part) for leaf, part in rows.groupby("leaf")}
    return counts
