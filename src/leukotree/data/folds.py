"""Folds that keep a group (a patient, where one is known) together: the outer ones of `pack`, and inner ones
within them."""

from __future__ import annotations

import functools
import warnings

import numpy as np
import pandas as pd

from leukotree.errors import InputError
from leukotree.spec import DataSpec

_ATTEMPTS = 50


def assign(frame: pd.DataFrame, folds: int, seed: int) -> np.ndarray:
    """(N,) int64 fold of each row: stratified by `leaf`, and no `group` in two folds. A pure function of its
    arguments.

    Every fold holds every leaf. Raises InputError when that is impossible (a leaf with fewer groups than
    folds) or was not found (few groups that hold several leaves each).
    """
    if folds < 2:
        raise InputError(f"folds {folds}: cross-validation needs at least 2")
    if frame.empty:
        raise InputError("no images: nothing to divide into folds")
    leaf_ids, leaves = pd.factorize(frame["leaf"], sort=True)
    groups = pd.factorize(frame["group"], sort=True)[0]
    support = frame.groupby("leaf")["group"].nunique().sort_values(kind="stable")
    if support.iloc[0] < folds:
        raise InputError(
            f"leaf {support.index[0]!r} has {support.iloc[0]} group(s) (patients, where known), fewer than {folds} folds; "
            f"use fewer folds, add patients or leave the leaf out (groups per leaf: {support.to_dict()})"
        )
    for attempt in range(_ATTEMPTS):
        fold_ids = _stratified(leaf_ids.tobytes(), groups.tobytes(), folds, _derived(seed, attempt))
        present = np.zeros((folds, len(leaves)), dtype=bool)
        present[fold_ids, leaf_ids] = True
        if present.all():
            return fold_ids
    raise InputError(
        f"leaf {leaves[int(present.all(axis=0).argmin())]!r}: no division into {folds} folds gives each fold some of its images "
        f"({_ATTEMPTS} tried); use fewer folds or another seed (groups per leaf: {support.to_dict()})"
    )


def split(index: pd.DataFrame, data: DataSpec, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(train, eval) int64 row positions in `index`, ascending.

    Outer: eval is the test fold, train all others. Inner (`data.inner`): the rows of the test fold are in
    neither, the others are divided by `assign` with `seed`. Raises InputError for a fold that does not exist.
    """
    fold_ids = index["fold"].to_numpy()
    folds = int(fold_ids.max()) + 1 if len(fold_ids) else 0
    if data.test_fold >= folds:
        raise InputError(f"data.test_fold {data.test_fold}: {data.shards} has folds 0 to {folds - 1}")
    rest = np.flatnonzero(fold_ids != data.test_fold)
    if data.inner is None:
        return rest, np.flatnonzero(fold_ids == data.test_fold)
    try:
        inner_ids = assign(index.iloc[rest], data.inner.folds, seed)
    except InputError as error:
        raise InputError(f"data.inner.folds, beside test fold {data.test_fold}: {error}") from error
    return rest[inner_ids != data.inner.fold], rest[inner_ids == data.inner.fold]


def _derived(seed: int, attempt: int) -> int:
    """A random state of its own for each attempt; the first is the seed itself."""
    return seed if attempt == 0 else int(np.random.SeedSequence([seed, attempt]).generate_state(1)[0])


@functools.lru_cache(maxsize=32)
def _stratified(leaves: bytes, group_ids: bytes, folds: int, random_state: int) -> np.ndarray:
    """Read-only. Kept, as with thousands of groups it takes seconds, and each trial of a search asks for the
    same; from bytes, which can be looked up."""
    from sklearn.model_selection import StratifiedGroupKFold

    leaf_ids, groups = np.frombuffer(leaves, np.int64), np.frombuffer(group_ids, np.int64)
    fold_ids = np.full(len(leaf_ids), -1, dtype=np.int64)
    divider = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=random_state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # rare leaves are checked, and refused, by the caller
        for fold, (_, rows) in enumerate(divider.split(np.zeros(len(leaf_ids)), leaf_ids, groups)):
            fold_ids[rows] = fold
    fold_ids.flags.writeable = False
    return fold_ids
