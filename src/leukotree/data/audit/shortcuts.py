"""What an image's source, site, scanner or colours give away: scores of answers that need no morphology.

Each is learnt on the other folds and scored on the held-out one, as the models of a study are. A network can
learn what such an answer uses, so its own score says little where a shortcut is nearly as good.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from leukotree.data import described

COMMONEST, COLOUR = "commonest leaf", "colour only"
COMMONEST_SOURCE = "commonest source"
COLUMNS = ("source", *described.PLACES)
"""Columns of an index that say where an image comes from."""
MOST_VALUES = 1000
"""A column with more values names single images, and no places."""
PARTS = 5
"""Parts of the cross-validation in which the source is guessed. The folds may be single sources."""

SHUFFLES = 19
"""Shuffles of a column. If it has no information, it scores more than all of them once in 20 times."""

Guess = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(training rows, held-out rows) -> the guessed classes of the held-out rows."""


@dataclass(frozen=True)
class Score:
    """How well a shortcut guesses L leaves."""

    macro_f1: float
    """Over all leaves, mean over folds, as the macro F1 of a study. NaN without a score."""
    per_leaf: np.ndarray
    """(L,) F1 of each leaf, mean over the folds that have images of it; NaN for a leaf of no such fold."""


def columns(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Name of a shortcut -> a code for each row, (N,) int64, for those of `COLUMNS` that have two values or
    more. Columns that divide the images in the same way are one shortcut: "source and scanner only"."""
    named: dict[bytes, list[str]] = {}
    codes: dict[bytes, np.ndarray] = {}
    for column in COLUMNS:
        if column in table and 2 <= table[column].nunique() <= MOST_VALUES:
            of_column = pd.factorize(table[column])[0].astype(np.int64)
            named.setdefault(of_column.tobytes(), []).append(column)
            codes[of_column.tobytes()] = of_column
    return {f"{' and '.join(names)} only": codes[key] for key, names in named.items()}


def commonest(classes: np.ndarray) -> Guess:
    """The class with most training rows."""
    return lambda train, held_out: np.full(len(held_out), np.bincount(classes[train]).argmax())


def by_value(codes: np.ndarray, classes: np.ndarray) -> Guess:
    """The class of whose training rows the largest share has the same code; the commonest class for a code
    without training rows.

    Args: codes, classes: (N,) int64 from 0.
    """
    n_codes, n_classes = int(codes.max(initial=0)) + 1, int(classes.max(initial=0)) + 1

    def guess(train: np.ndarray, held_out: np.ndarray) -> np.ndarray:
        pairs = codes[train] * n_classes + classes[train]
        counts = np.bincount(pairs, minlength=n_codes * n_classes).reshape(n_codes, n_classes)
        of_class = counts.sum(axis=0)
        answers = (counts / np.maximum(of_class, 1)).argmax(axis=1)
        answers[counts.sum(axis=1) == 0] = of_class.argmax()
        return np.asarray(answers[codes[held_out]])

    return guess


def linear(features: np.ndarray, classes: np.ndarray) -> Guess:
    """Logistic regression with balanced classes on (N, F) features."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=2000))

    def guess(train: np.ndarray, held_out: np.ndarray) -> np.ndarray:
        return np.asarray(model.fit(features[train], classes[train]).predict(features[held_out]))

    return guess


def score(guess: Guess, leaf_ids: np.ndarray, fold_ids: np.ndarray, n_leaves: int) -> Score:
    """How well a shortcut guesses the leaf of each fold from the others.

    A fold whose others have fewer than two leaves has no score.

    Args: leaf_ids, fold_ids: (N,) int64.
    """
    rows = []
    for fold in np.unique(fold_ids):
        train, held_out = np.flatnonzero(fold_ids != fold), np.flatnonzero(fold_ids == fold)
        if len(np.unique(leaf_ids[train])) > 1:
            rows.append(_f1(leaf_ids[held_out], guess(train, held_out), n_leaves))
    if not rows:
        return Score(float("nan"), np.full(n_leaves, np.nan))
    table = np.stack(rows)
    return Score(float(np.nan_to_num(table).mean()), mean_of_known(table))


def by_chance(
    codes: np.ndarray, groups: Sequence[str], leaf_ids: np.ndarray, fold_ids: np.ndarray, n_leaves: int
) -> float:
    """The largest macro F1 of `SHUFFLES` columns that say nothing: the codes are shuffled over the groups.

    Such a column scores more than the commonest leaf, since it answers several leaves, and a macro F1 counts
    each of them. 0 without a score.

    Args:
        codes, leaf_ids, fold_ids: (N,) int64 from 0.
        groups: (N,) texts. The rows of a group keep one code, so images of a patient count once.
    """
    group_ids, _ = pd.factorize(np.asarray(groups, dtype=object))
    of_group = np.zeros(group_ids.max(initial=-1) + 1, dtype=np.int64)
    of_group[group_ids] = codes
    rng = np.random.default_rng(0)
    shuffled = (rng.permutation(of_group)[group_ids] for _ in range(SHUFFLES))
    scores = [score(by_value(one, leaf_ids), leaf_ids, fold_ids, n_leaves).macro_f1 for one in shuffled]
    return float(np.nan_to_num(scores).max(initial=0.0))


def mean_of_known(table: np.ndarray) -> np.ndarray:
    """(L,) the mean of each column of (K, L) numbers without its NaN; NaN for a column of these alone."""
    known = ~np.isnan(table)
    return np.where(known.any(axis=0), np.nansum(table, axis=0) / np.maximum(known.sum(axis=0), 1), np.nan)


def of_source(
    sources: Sequence[str], groups: Sequence[str], features: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Name -> the macro F1 over sources with which a shortcut guesses the source of images of other groups,
    the most frequent source first. Empty for one source, and for one group.

    A source of one group alone is never guessed right.

    Args:
        sources, groups: (N,) texts. The images of a group are held out together.
        features: name -> (N, F) features, or (N,) codes.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    ids, names = pd.factorize(np.asarray(sources, dtype=object), sort=True)
    group_ids = pd.factorize(np.asarray(groups, dtype=object))[0]
    parts = min(PARTS, len(np.unique(group_ids)))
    if len(names) < 2 or parts < 2:
        return {}
    part_ids = np.zeros(len(ids), dtype=np.int64)
    splitter = StratifiedGroupKFold(parts, shuffle=True, random_state=0)
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # about sources with few groups
        for part, (_, rows) in enumerate(splitter.split(ids, ids, group_ids)):
            part_ids[rows] = part
    ids = ids.astype(np.int64)
    guesses = {COMMONEST_SOURCE: commonest(ids)}
    for name, values in features.items():
        guesses[name] = by_value(values, ids) if values.ndim == 1 else linear(values, ids)
    return {name: _pooled(guess, ids, part_ids) for name, guess in guesses.items()}


def _pooled(guess: Guess, ids: np.ndarray, part_ids: np.ndarray) -> float:
    answers = np.full(len(ids), -1)
    for part in np.unique(part_ids):
        train, held_out = np.flatnonzero(part_ids != part), np.flatnonzero(part_ids == part)
        if len(np.unique(ids[train])) > 1:
            answers[held_out] = guess(train, held_out)
    return float(np.nan_to_num(_f1(ids, answers, int(ids.max()) + 1)).mean())


def _f1(true: np.ndarray, guess: np.ndarray, classes: int) -> np.ndarray:
    """(classes,) F1 of each class; NaN for a class without images."""
    names = np.arange(classes)
    right = np.array([((true == name) & (guess == name)).sum() for name in names])
    of_true = np.array([(true == name).sum() for name in names])
    of_guess = np.array([(guess == name).sum() for name in names])
    return np.where(of_true > 0, 2 * right / np.maximum(of_true + of_guess, 1), np.nan)
