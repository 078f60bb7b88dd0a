"""Agreement over patients: pooled counts, intervals that cover, and a model beside other readers."""

from __future__ import annotations

import numpy as np
import pytest

from leukotree import stats
from leukotree.evaluation import readers
from leukotree.evaluation.readers import UNREAD

K = 3
once = stats.Answers.once


def study(seed: int, patients: int, images: int, skill: list[float], spread: float = 0.0):
    """(patient names, (N,) labels, (N, R) readings): a reader is right with its skill, up to a patient's
    difficulty."""
    rng = np.random.default_rng(seed)
    name = np.repeat(np.arange(patients), images)
    true = np.repeat(rng.integers(K, size=patients), images)
    hard = rng.normal(0, spread, patients)[name]
    codes = np.stack(
        [np.where(rng.random(len(name)) < p + hard, true, rng.integers(K, size=len(name))) for p in skill],
        axis=1,
    )
    return [f"p{number}" for number in name], true, codes


def test_a_pair_is_judged_on_the_images_that_both_read() -> None:
    patient, label, codes = study(0, 20, 4, [0.8, 0.7])
    codes[::3, 0], codes[1::5, 1] = UNREAD, UNREAD
    both = (codes != UNREAD).all(axis=1)
    found = stats.agreement(stats.pair(patient, label, codes[:, 0], once(codes[:, 1]), K))
    assert found.images == both.sum()
    assert found.share == pytest.approx((codes[both, 0] == codes[both, 1]).mean())
    assert found.patients == len({name for name, read in zip(patient, both, strict=True) if read})
    assert found.interval is not None
    assert found.interval[0] < found.kappa < found.interval[1]


def test_a_model_is_judged_on_the_mean_of_its_seeds_and_repeats() -> None:
    """An image counts once, also where only some of its answers are there."""
    patient, label, codes = study(1, 30, 3, [0.8, 0.7, 0.6])
    image = np.concatenate([np.arange(len(codes)), np.arange(len(codes))[::2]])
    given = np.concatenate([codes[:, 1], codes[::2, 2]])
    rated = stats.pair(
        patient, label, codes[:, 0], stats.Answers(image, given, 1 / np.bincount(image)[image]), K
    )
    table = np.zeros((K, K))
    for row, (first, second, third) in enumerate(codes):
        for code in [second, third] if row % 2 == 0 else [second]:
            table[first, code] += 0.5 if row % 2 == 0 else 1
    np.testing.assert_allclose(rated.counts.sum(axis=0), table)
    assert stats.agreement(rated).images == len(patient)
    assert stats.agreement(rated).kappa == pytest.approx(float(readers.cohen(table)))


def test_nothing_read_is_not_estimable() -> None:
    unread = np.full(4, UNREAD)
    found = stats.agreement(stats.pair(["a", "b", "", ""], np.zeros(4, int), unread, once(unread), K))
    assert (found.images, found.patients, found.interval) == (0, 0, None)
    assert np.isnan(found.kappa)
    assert (
        stats.alpha_interval(["a", "b", "", ""], np.zeros(4, int), np.stack([unread, unread], axis=1), K)
        is None
    )
    zeros, one = np.zeros(4, int), np.stack([unread], axis=1)
    assert stats.closeness(["a", "b", "", ""], zeros, unread, one, once(zeros), K) is None


def test_four_patients_have_a_kappa_and_no_interval() -> None:
    patient, label, codes = study(2, 4, 10, [0.8, 0.7])
    found = stats.agreement(stats.pair(patient, label, codes[:, 0], once(codes[:, 1]), K))
    assert np.isfinite(found.kappa)
    assert found.interval is None
    assert stats.alpha_interval(patient, label, codes, K) is None


def test_a_model_that_is_one_of_the_readers_is_as_close_as_that_reader() -> None:
    patient, label, codes = study(3, 25, 4, [0.8, 0.6, 0.6])
    codes[::4, 2] = UNREAD
    first = (patient, label, codes[:, 0])
    same = stats.closeness(*first, codes[:, 1:2], once(codes[:, 1]), K)
    assert same is not None
    assert same.model == same.others
    assert same.interval is None, "there is no spread"
    better = stats.closeness(*first, codes[:, 1:], once(codes[:, 0]), K)
    assert better is not None
    assert better.model == pytest.approx(1)
    mean = np.mean(
        [stats.agreement(stats.pair(patient, label, codes[:, 0], once(codes[:, o]), K)).kappa for o in (1, 2)]
    )
    assert better.others == pytest.approx(mean)
    assert better.interval is not None
    assert better.interval[0] > 0


@pytest.mark.slow("simulates 100 studies")
def test_the_interval_of_alpha_covers_where_images_of_a_patient_are_alike() -> None:
    large = study(10, 20_000, 6, [0.75, 0.7, 0.65], spread=0.2)[2]
    true = float(readers.krippendorff(readers.coincidences(large, K).sum(axis=0)))
    covered = []
    for seed in range(100):
        patient, label, codes = study(1000 + seed, 40, 6, [0.75, 0.7, 0.65], spread=0.2)
        low, high = stats.alpha_interval(patient, label, codes, K) or (np.nan, np.nan)
        covered.append(low <= true <= high)
    assert 0.89 <= np.mean(covered) <= 0.99
