"""Assign images to folds, each group (a patient, where known) in one fold: outer folds, and inner ones."""

from __future__ import annotations

import functools
import warnings

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
    groups = pd.factorize(frame["group"], sort=True)[0]
    support = frame.groupby("leaf")["group"].nunique().sort_values(kind="stable")
    if support.iloc[0] < folds:
        raise InputError(
            f"leaf {support.index[0]!r} has {support.iloc[0]} group(s) (patients, where known), "
            f"fewer than {folds} folds; use fewer folds, add patients or leave the leaf out "
            f"(groups per leaf: {support.to_dict()})"
        )
    for attempt in range(_ATTEMPTS):
        random_state = _random_state(seed, attempt)
        fold_ids = _stratified(leaf_ids.tobytes(), groups.tobytes(), folds, random_state)
        present = np.zeros((folds, len(leaves)), dtype=bool)
        present[fold_ids, leaf_ids] = True
        if present.all():
            return fold_ids
    absent = leaves[int(present.all(axis=0).argmin())]
    raise InputError(
        f"leaf {absent!r}: no division into {folds} folds gives each fold some of its images "
        f"({_ATTEMPTS} tried); use fewer folds or another seed (groups per leaf: {support.to_dict()})"
    )


def split(index: pd.DataFrame, data: DataSpec, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return (train, eval): row positions in `index`, int64, ascending.

    Without `data.inner`, eval is the test fold and train are all others. With `data.inner`, the rows of the
    test fold are in neither, and the others are divided by `assign` with `seed`. With `data.all_folds`, train
    are all rows, and eval is empty.

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
        inner_ids = assign(index.iloc[rest], data.inner.folds, seed)
    except InputError as error:
        raise InputError(f"data.inner.folds, beside test fold {data.test_fold}: {error}") from error
    return rest[inner_ids != data.inner.fold], rest[inner_ids == data.inner.fold]


def _random_state(seed: int, attempt: int) -> int:
    """Return a random state for an attempt. The first is the seed itself."""
    return seed if attempt == 0 else int(np.random.SeedSequence([seed, attempt]).generate_state(1)[0])


@functools.lru_cache(maxsize=32)
def _stratified(leaves: bytes, group_ids: bytes, folds: int, random_state: int) -> np.ndarray:
    """Return the fold of each row, read-only. The ids are given as bytes, which a cache can look up.

    Cached, since it takes seconds with thousands of groups, and each trial of a search needs the same folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    leaf_ids, groups = np.frombuffer(leaves, np.int64), np.frombuffer(group_ids, np.int64)
    fold_ids = np.full(len(leaf_ids), -1, dtype=np.int64)
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=random_state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about rare leaves, which the caller checks
        for fold, (_, rows) in enumerate(splitter.split(np.zeros(len(leaf_ids)), leaf_ids, groups)):
            fold_ids[rows] = fold
    fold_ids.flags.writeable = False
    return fold_ids
