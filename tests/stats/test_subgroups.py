"""Scores of groups: those of the images of the group alone, with patients drawn for all groups together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, recall_score

from leukotree import stats
from leukotree.stats import GroupFold

L = 3


def images(seed: int, patients: int, groups: int, unknown: float = 0.0, folds: int = 2) -> list[GroupFold]:
    """Folds of patients with one leaf and one group each, five images, and two seeds that are often right."""
    rng = np.random.default_rng(seed)
    parts = []
    for fold in range(folds):
        true, group = (np.repeat(rng.integers(n, size=patients), 5) for n in (L, groups))
        names = np.repeat([f"{fold}-{number}" for number in range(patients)], 5)
        names = np.where(rng.random(len(names)) < unknown, "", names)
        predicted = np.where(rng.random((2, len(true))) < 0.7, true, rng.integers(L, size=(2, len(true))))
        parts.append(GroupFold(names.tolist(), group, true, predicted))
    return parts


@settings(max_examples=40)
@given(st.integers(0, 2**31), st.integers(1, 12), st.integers(1, 4), st.floats(0, 1))
def test_scores_are_those_of_the_images_of_the_group(
    seed: int, patients: int, groups: int, unknown: float
) -> None:
    folds = images(seed, patients, groups, unknown)
    found = stats.in_groups(folds, groups, L, draws=20)
    for number, scores in enumerate(found):
        members = [fold.group == number for fold in folds]
        true = np.concatenate(
            [np.tile(fold.true[rows], 2) for fold, rows in zip(folds, members, strict=True)]
        )
        predicted = np.concatenate(
            [fold.predicted[:, rows].ravel() for fold, rows in zip(folds, members, strict=True)]
        )
        assert scores.images == len(true) // 2
        if not len(true):
            assert np.isnan(scores.accuracy.value)
            continue
        present = np.unique(true)
        assert scores.accuracy.value == pytest.approx(accuracy_score(true, predicted))
        right = f1_score(true, predicted, labels=present, average="macro", zero_division=0)
        assert scores.macro_f1.value == pytest.approx(right)
        for leaf, score in enumerate(scores.sensitivity):
            if leaf in present:
                right = recall_score(true, predicted, labels=[leaf], average="macro", zero_division=0)
                assert score.value == pytest.approx(right)
            else:
                assert np.isnan(score.value)


def test_a_difference_is_over_leaves_with_enough_patients_in_both_groups() -> None:
    """Group 1 has leaf 2 from one patient only, so that it is not compared."""
    rng = np.random.default_rng(1)
    leaf = np.array([0] * 10 + [1] * 10 + [2] * 10 + [0] * 6 + [1] * 6 + [2])
    group = np.array([0] * 30 + [1] * 13)
    true, groups, patient = (np.repeat(values, 4) for values in (leaf, group, np.arange(43)))
    skill = np.where(groups == 0, 0.95, 0.5)
    predicted = np.where(rng.random(len(true)) < skill, true, rng.integers(L, size=len(true)))
    fold = GroupFold([f"p{number}" for number in patient], groups, true, predicted[None])
    large, small = stats.in_groups([fold], 2, L)
    assert large.difference is None
    assert small.difference is not None
    assert small.leaves_compared == 2
    means = [
        recall_score(true[rows], predicted[rows], labels=[0, 1], average="macro")
        for rows in (groups == 1, groups == 0)
    ]
    assert small.difference.value == pytest.approx(means[0] - means[1])
    assert small.difference.interval is not None
    low, high = small.difference.interval
    assert low < small.difference.value < high < 0
    assert small.sensitivity[2].interval is None
    assert small.patients_per_leaf.tolist() == [6, 6, 1]


def test_few_patients_have_scores_and_no_interval() -> None:
    fold = images(3, 4, 1, folds=1)
    (only,) = stats.in_groups(fold, 1, L)
    assert np.isfinite(only.accuracy.value)
    assert only.accuracy.interval is None
    assert only.difference is None


def test_a_patient_in_two_groups_is_drawn_for_both() -> None:
    """The same images under two scanners: the difference is exactly 0 in each draw, so it has no spread."""
    (fold,) = images(4, 30, 1, folds=1)
    both = GroupFold(
        [*fold.patient, *fold.patient],
        np.repeat([0, 1], len(fold.true)),
        np.tile(fold.true, 2),
        np.tile(fold.predicted, 2),
    )
    first, second = stats.in_groups([both], 2, L)
    assert first.accuracy == second.accuracy
    assert second.difference is not None
    assert second.difference.value == 0
    assert second.difference.interval is None


@pytest.mark.slow("simulates 200 studies")
def test_the_interval_of_a_difference_covers() -> None:
    """Both groups are right in 80 % of the cases, with patients that differ: 0 is the true difference."""
    covered = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        leaf, group = np.repeat([0, 1], 40), np.tile([0, 1], 40)
        skill = np.repeat(np.clip(rng.normal(0.8, 0.15, 80), 0, 1), 5)
        true, groups = np.repeat(leaf, 5), np.repeat(group, 5)
        predicted = np.where(rng.random(400) < skill, true, 1 - true)
        fold = GroupFold([f"p{n}" for n in np.repeat(np.arange(80), 5)], groups, true, predicted[None])
        difference = stats.in_groups([fold], 2, 2, draws=500)[1].difference
        assert difference is not None
        low, high = difference.interval or (np.nan, np.nan)
        covered.append(low <= 0 <= high)
    assert 0.9 <= np.mean(covered) <= 0.99
