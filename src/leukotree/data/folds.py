"""Assign images to folds, each group (a patient, where known) in one fold: outer folds, and inner ones."""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd

from leukotree.errors import InputError
from leukotree.spec import DataSpec

_ATTEMPTS = 50
"""Divisions that are tried until every fold holds every leaf."""


def assign(frame: pd.DataFrame, folds: int, seed: int) -> np.ndarray:
    """Return the fold of each row, (N,) int64: stratified by `leaf`, and each `group` in one fold.

    The result depends on the arguments alone. Every fold holds every leaf. Raises InputError if that is
    impossible (a leaf with fewer groups than folds), or if no attempt succeeds (few groups with several
    leaves each).
    """
    if folds < 2:
        raise InputError(f"folds {folds}: cross-validation needs at least 2")
    if frame.empty:
        raise InputError("no images: nothing to divide into folds")
    leaf_ids, leaves = pd.factorize(frame["leaf"], sort=True)
    return _assigned(leaf_ids, leaves, pd.factorize(frame["group"], sort=True)[0], folds, seed)


def _assigned(
    leaf_ids: np.ndarray, leaves: pd.Index, groups: np.ndarray, folds: int, seed: int
) -> np.ndarray:
    """As `assign`, from (N,) int64 positions in the sorted leaves, and of the groups in sorted order."""
    cells = np.bincount(groups * len(leaves) + leaf_ids, minlength=(int(groups.max()) + 1) * len(leaves))
    counts = cells.astype(np.int32).reshape(-1, len(leaves))
    support = pd.Series((counts > 0).sum(axis=0), index=leaves).sort_values(kind="stable")
    if support.iloc[0] < folds:
        raise InputError(
            f"leaf {support.index[0]!r} has {support.iloc[0]} group(s) (patients, where known), "
            f"fewer than {folds} folds; use fewer folds, add patients or leave the leaf out "
            f"(groups per leaf: {support.to_dict()})"
        )
    for attempt in range(_ATTEMPTS):
        fold_of_group = _stratified(counts.tobytes(), len(leaves), folds, _random_state(seed, attempt))
        present = np.zeros((folds, len(leaves)), dtype=bool)
        np.logical_or.at(present, fold_of_group, counts > 0)
        if present.all():
            return fold_of_group[groups]
    absent = leaves[int(present.all(axis=0).argmin())]
    raise InputError(
        f"leaf {absent!r}: no division into {folds} folds gives each fold some of its images "
        f"({_ATTEMPTS} tried); use fewer folds or another seed (groups per leaf: {support.to_dict()})"
    )


def split(index: pd.DataFrame, data: DataSpec) -> tuple[np.ndarray, np.ndarray]:
    """Return (train, eval): row positions in `index`, int64, ascending.

    Without `data.inner`, eval is the test fold and train are all others. With `data.inner`, the rows of the
    test fold are in neither, and the others are divided by `assign` with its seed. With `data.all_folds`,
    train are all rows, and eval is empty.

    Raises InputError for a fold that does not exist.
    """
    fold_ids = index["fold"].to_numpy()
    folds = int(fold_ids.max()) + 1 if len(fold_ids) else 0
    if data.test_fold >= folds:
        raise InputError(f"data.test_fold {data.test_fold}: {data.shards} has folds 0 to {folds - 1}")
    if data.all_folds:
        return np.arange(len(fold_ids)), np.arange(0)
    rest = np.flatnonzero(fold_ids != data.test_fold)
    if not len(rest):
        raise InputError(
            f"data.shards {data.shards}: has one fold, so nothing is left to train on; it is an outer test, "
            f"for `leukotree evaluate STUDY {data.shards}`"
        )
    if data.inner is None:
        return rest, np.flatnonzero(fold_ids == data.test_fold)
    try:
        inner_ids = _assign_part(index, rest, data.inner.folds, data.inner.seed)
    except InputError as error:
        raise InputError(f"data.inner.folds, beside test fold {data.test_fold}: {error}") from error
    return rest[inner_ids != data.inner.fold], rest[inner_ids == data.inner.fold]


def _assign_part(index: pd.DataFrame, rows: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """`assign` of some rows. It copies no text, which takes long in an index of millions of rows."""
    (leaf_ids, leaves), (groups, _) = (pd.factorize(index[name], sort=True) for name in ("leaf", "group"))
    present, leaf_ids = _renumbered(leaf_ids[rows])
    return _assigned(leaf_ids, leaves[present], _renumbered(groups[rows])[1], folds, seed)


def _renumbered(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) small numbers -> those that are there, ascending, and (N,) int64 the place of each among them. As
    `np.unique`, without a sort."""
    there = np.zeros(int(numbers.max()) + 1, dtype=bool)
    there[numbers] = True
    return np.flatnonzero(there), (np.cumsum(there) - 1)[numbers]


def _random_state(seed: int, attempt: int) -> int:
    """Return a random state for an attempt. The first is the seed itself."""
    return seed if attempt == 0 else int(np.random.SeedSequence([seed, attempt]).generate_state(1)[0])


@functools.lru_cache(maxsize=32)
def _stratified(content: bytes, n_leaves: int, folds: int, random_state: int) -> np.ndarray:
    """Return the fold of each group, (G,) int64.

    The folds are those of scikit-learn's StratifiedGroupKFold, and its rule chooses the fold of each group.
    Its loops over all samples are not used: they take a minute for ten million. Cached, since thousands of
    groups take seconds, and each trial of a search needs the same folds.

    Args: content: (G, n_leaves) int32 images of each group, as bytes, which a cache can look up.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    counts = np.frombuffer(content, np.int32).reshape(-1, n_leaves).astype(float)
    mixed = np.arange(len(counts))
    np.random.RandomState(random_state).shuffle(mixed)
    counts = counts[mixed]
    totals, in_fold = counts.sum(axis=0).astype(np.int64), np.zeros((folds, n_leaves))
    chooser = StratifiedGroupKFold(n_splits=folds)
    fold_of_group = np.empty(len(counts), dtype=np.int64)
    # Stable, so that groups with equal spreads stay in their mixed order.
    for group in np.argsort(-np.std(counts, axis=1), kind="stable"):
        fold = chooser._find_best_fold(in_fold, totals, counts[group])
        in_fold[fold] += counts[group]
        fold_of_group[mixed[group]] = fold
    return fold_of_group
