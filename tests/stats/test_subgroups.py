"""Scores of groups: those of the images of the group alone, with patients drawn for all groups together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, recall_score

from leukotree import stats

L = 3


def images(seed: int, patients: int, groups: int, unknown: float = 0.0):
    """Patient names, groups, leaves and answers: one leaf and one group for a patient, five images, and two
    seeds that are often right."""
    rng = np.random.default_rng(seed)
    true, group = (np.repeat(rng.integers(n, size=patients), 5) for n in (L, groups))
    names = np.repeat([f"p{number}" for number in range(patients)], 5)
    names = np.where(rng.random(len(names)) < unknown, "", names)
    predicted = np.where(rng.random((2, len(true))) < 0.7, true, rng.integers(L, size=(2, len(true))))
    image = np.tile(np.arange(len(true)), 2)
    return names.tolist(), group, true, stats.Answers(image, predicted.ravel(), np.full(len(image), 0.5))


@settings(max_examples=30)
@given(st.integers(0, 2**31), st.integers(1, 20), st.integers(1, 4), st.floats(0, 1))
def test_scores_are_those_of_the_images_of_the_group(
    seed: int, patients: int, groups: int, unknown: float
) -> None:
    names, group, leaf, answers = images(seed, patients, groups, unknown)
    for number, scores in enumerate(stats.in_groups(names, group, leaf, answers, groups, L, draws=20)):
        members = group[answers.image] == number
        true, predicted = leaf[answers.image][members], answers.code[members]
        assert scores.images == len(true) // 2
        if not len(true):
            assert np.isnan(scores.accuracy.value)
            continue
        present = np.unique(true)
        assert scores.accuracy.value == pytest.approx(accuracy_score(true, predicted))
        right = f1_score(true, predicted, labels=present, average="macro", zero_division=0)
        assert scores.macro_f1.value == pytest.approx(right)
        for leaf_number, score in enumerate(scores.sensitivity):
            if leaf_number in present:
                right = recall_score(true, predicted, labels=[leaf_number], average="macro", zero_division=0)
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
    names = [f"p{number}" for number in patient]
    large, small = stats.in_groups(names, groups, true, stats.Answers.once(predicted), 2, L)
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
    (only,) = stats.in_groups(*images(3, 4, 1), 1, L)
    assert np.isfinite(only.accuracy.value)
    assert only.accuracy.interval is None
    assert only.difference is None


def test_a_patient_in_two_groups_is_drawn_for_both() -> None:
    """The same images under two scanners: the difference is exactly 0 in each draw, so it has no spread."""
    names, _, true, answers = images(4, 30, 1)
    code = answers.code[: len(true)]
    groups, both = np.repeat([0, 1], len(true)), stats.Answers.once(np.tile(code, 2))
    first, second = stats.in_groups([*names, *names], groups, np.tile(true, 2), both, 2, L)
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
        names = [f"p{n}" for n in np.repeat(np.arange(80), 5)]
        answers = stats.Answers.once(predicted)
        difference = stats.in_groups(names, groups, true, answers, 2, 2, draws=500)[1].difference
        assert difference is not None
        low, high = difference.interval or (np.nan, np.nan)
        covered.append(low <= 0 <= high)
    assert 0.9 <= np.mean(covered) <= 0.99
