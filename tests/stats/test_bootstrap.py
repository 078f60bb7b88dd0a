"""The vectorised bootstrap against loops over the same draws, and its properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leukotree import seeds, stats

L = 3


def clusters(
    seed: int, patients: int = 12, arms: int = 2, skill: float = 0.6, known: bool = True
) -> list[stats.Clusters]:
    """Arms tested on the same patients of 1 to 5 images; every third has a second leaf."""
    rng = np.random.default_rng(seed)
    rows = [
        (f"p{p:02}", (p + extra) % L)
        for p in range(patients)
        for extra in range(1 + (p % 3 == 0))
        for _ in range(rng.integers(1, 6))
    ]
    names, true = [name if known else "" for name, _ in rows], np.array([leaf for _, leaf in rows])
    guesses = [
        np.where(rng.random(len(true)) < skill, true, rng.integers(0, L, len(true))) for _ in range(arms)
    ]
    return [stats.patient_counts(names, true, guess, L) for guess in guesses]


def stacked(arms: list[stats.Clusters]) -> tuple[np.ndarray, np.ndarray]:
    return np.stack([arm.counts for arm in arms]), arms[0].strata


@settings(max_examples=25)
@given(st.integers(0, 1000))
def test_a_draw_keeps_the_patients_of_each_stratum(seed):
    strata = np.random.default_rng(seed).permutation(np.repeat([0, 1, 2], [2, 5, 9]))
    weights = stats.resample(strata, 20, np.random.default_rng(seed))
    for stratum, size in enumerate([2, 5, 9]):
        inside = weights[:, strata == stratum]
        np.testing.assert_allclose(inside.sum(axis=1), size)
        times = inside * (size - 1) / size
        np.testing.assert_allclose(times, np.round(times), atol=1e-9)


def test_the_variance_of_a_mean_is_the_unbiased_one():
    """Of a stratified mean: sum over strata of n s^2, over the square of the whole; in strata of 2 as in
    large ones."""
    rng = np.random.default_rng(0)
    strata, values = np.repeat([0, 1, 2], [2, 3, 20]), rng.normal(size=25)
    weights = stats.resample(strata, 40_000, rng)
    expected = sum(np.sum(strata == s) * values[strata == s].var(ddof=1) for s in range(3)) / 25**2
    assert (weights @ values / 25).var() == pytest.approx(expected, rel=0.03)


def test_a_stratum_of_one_is_refused():
    with pytest.raises(ValueError, match="no spread"):
        stats.resample(np.array([0, 0, 1]), 5, np.random.default_rng(0))


@pytest.mark.parametrize("statistic", [stats.accuracy, stats.macro_f1])
def test_equals_a_loop_over_the_same_draws(statistic):
    counts, strata = stacked(clusters(1))
    samples = stats.bootstrap(counts, strata, statistic, draws=40, seed=7)
    weights = stats.resample(strata, 40, seeds.generator(7, "bootstrap"))
    for draw, row in enumerate(weights):
        for arm in range(2):
            table = sum(
                (weight * square for weight, square in zip(row, counts[arm], strict=True)),
                start=np.zeros((L, L)),
            )
            assert samples[arm, draw] == pytest.approx(float(statistic(table)))


def test_chunks_do_not_change_the_draws(monkeypatch):
    counts, strata = stacked(clusters(2))
    whole = stats.bootstrap(counts, strata, stats.macro_f1, draws=50, seed=3)
    monkeypatch.setattr("leukotree.stats.resampling.CELLS", 7 * len(strata))
    np.testing.assert_allclose(stats.bootstrap(counts, strata, stats.macro_f1, draws=50, seed=3), whole)


def test_kept_draws_are_those_of_the_generator_and_cannot_be_changed():
    strata = stacked(clusters(2))[1]
    for _ in range(2):
        (kept,) = stats.weights(strata, 50, 3)
        expected = stats.resample(strata, 50, seeds.generator(3, "bootstrap"))
        np.testing.assert_array_equal(kept, expected)
        with pytest.raises(ValueError, match="read-only"):
            kept[0, 0] = 1.0


def test_draws_are_paired():
    one, other = clusters(3)
    both = stats.bootstrap(
        np.stack([one.counts, other.counts, one.counts]), one.strata, stats.macro_f1, draws=100
    )
    np.testing.assert_array_equal(both[0], both[2])
    alone = stats.bootstrap(other.counts[None], one.strata, stats.macro_f1, draws=100)
    np.testing.assert_allclose(alone[0], both[1])
    assert (
        stats.difference_interval(one, one, stats.macro_f1) is None
    )  # no spread: the same draws, the same scores


def test_jackknife_equals_a_loop():
    counts, strata = stacked(clusters(4))
    scores = stats.jackknife(counts, strata, stats.macro_f1)
    for patient in range(len(strata)):
        inside = strata == strata[patient]
        weights = np.where(inside, inside.sum() / (inside.sum() - 1), 1.0)
        weights[patient] = 0
        for arm in range(2):
            assert scores[arm, patient] == pytest.approx(
                float(stats.macro_f1(np.tensordot(weights, counts[arm], axes=1)))
            )


class TestInterval:
    def test_it_contains_the_estimate_and_is_narrower_with_more_patients(self):
        widths = []
        for patients in (15, 150):
            arms = clusters(5, patients=patients)
            for arm, interval in zip(arms, stats.intervals(arms, stats.macro_f1), strict=True):
                assert interval is not None
                assert 0 <= interval[0] < stats.macro_f1(arm.counts.sum(axis=0)) < interval[1] <= 1
            widths.append(interval[1] - interval[0])
        assert widths[1] < widths[0] / 2

    def test_a_difference_is_narrower_than_that_of_unpaired_arms_that_agree_mostly(self):
        one, other = clusters(6, patients=60)
        mixed = one.counts.copy()
        mixed[:10] = other.counts[:10]
        low, high = stats.difference_interval(one, one._replace(counts=mixed), stats.accuracy)
        alone = [
            high - low for low, high in stats.intervals([one, one._replace(counts=mixed)], stats.accuracy)
        ]
        assert high - low < min(alone)

    def test_swapping_the_arms_changes_the_sign(self):
        one, other = clusters(7, patients=60)
        low, high = stats.difference_interval(one, other, stats.accuracy)
        swapped = stats.difference_interval(other, one, stats.accuracy)
        assert swapped == pytest.approx((-high, -low), abs=1e-3)

    def test_below_five_patients_it_is_not_estimable(self):
        for patients, estimable in [(4, False), (6, True)]:
            arms = clusters(8, patients=patients)
            assert [interval is not None for interval in stats.intervals(arms, stats.accuracy)] == [
                estimable
            ] * 2
            assert (stats.difference_interval(*arms, stats.accuracy) is not None) == estimable

    def test_without_any_error_there_is_no_spread(self):
        assert stats.intervals(clusters(9, skill=1.0), stats.accuracy) == [None, None]

    def test_images_without_patients_are_clusters_of_their_own(self):
        arms = clusters(10, patients=40, known=False)
        assert arms[0].alone == len(arms[0].names) == arms[0].counts.sum()
        assert all(interval is not None for interval in stats.intervals(arms, stats.macro_f1))

    def test_arms_on_different_images_are_refused(self):
        with pytest.raises(ValueError, match="different images"):
            stats.intervals([clusters(1)[0], clusters(2)[0]], stats.accuracy)
