"""The debiased calibration error where the truth is known: simulated patients, and the formula of Kumar et
al."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leukotree import stats
from leukotree.evaluation import calibration

STUDIES = 300


def study(
    rng: np.random.Generator, shift: float, spread: float, patients: int = 60
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n,) true classes, (n, 2) probabilities and (n,) patients of 5 to 15 images each.

    The chance that class 0, the most probable one, is true is its probability minus `shift` on average: so
    the true calibration error is `shift`. A patient's chances lie `spread` above or below that.
    """
    cluster = np.repeat(np.arange(patients), rng.integers(5, 16, patients))
    confidence = rng.uniform(0.6, 0.85, len(cluster))
    chance = confidence - shift + rng.choice([-spread, spread], patients)[cluster]
    target = (rng.random(len(cluster)) >= chance).astype(np.int64)
    return target, np.column_stack([confidence, 1 - confidence]), cluster


def squared(target: np.ndarray, probability: np.ndarray, cluster: np.ndarray | None = None) -> float:
    of = calibration.gaps(target, probability, cluster)
    return float(calibration.squared_error(*calibration.sums(of)))


def plug_in(target: np.ndarray, probability: np.ndarray) -> float:
    """The usual ECE with 15 bins of equal width (Guo et al. 2017)."""
    confidence, correct = probability.max(axis=1), probability.argmax(axis=1) == target
    at = np.minimum((confidence * 15).astype(int), 14)
    gap = np.bincount(at, correct - confidence, minlength=15)
    return float(np.abs(gap).sum() / len(target))


@pytest.mark.parametrize("spread", [0.0, 0.15])
@pytest.mark.parametrize("shift", [0.0, 0.05, 0.15])
def test_the_mean_estimate_is_the_known_error(shift, spread):
    """Independent images, and images whose patients differ. The usual ECE of calibrated probabilities is far
    above 0."""
    rng = np.random.default_rng(1)
    studies = [study(rng, shift, spread) for _ in range(STUDIES)]
    estimates = np.array([squared(*one) for one in studies])
    noise = estimates.std(ddof=1) / STUDIES**0.5
    usual = np.mean([plug_in(*one[:2]) for one in studies])
    print(
        f"error {shift}, spread {spread}: mean square {estimates.mean():.5f} ± {noise:.5f}, usual {usual:.3f}"
    )
    assert abs(estimates.mean() - shift**2) < 3.5 * noise
    if shift == 0:
        assert usual > 0.025
        assert 0.3 < (estimates < 0).mean() < 0.8


def test_images_instead_of_patients_leave_a_bias():
    """Why the patient is the unit: the pairs of images of one patient are alike."""
    rng = np.random.default_rng(2)
    studies = [study(rng, 0.0, 0.15) for _ in range(STUDIES)]
    of_images = np.array([squared(*one[:2]) for one in studies])
    assert of_images.mean() > 3 * of_images.std(ddof=1) / STUDIES**0.5


@pytest.mark.slow("draws hundreds of studies")
@pytest.mark.parametrize("shift", [0.0, 0.05, 0.15])
def test_the_interval_covers_the_known_error(shift):
    rng, hits = np.random.default_rng(3), 0
    for number in range(STUDIES):
        error = stats.calibration_error(*study(rng, shift, 0.15), draws=400, seed=number)
        low, high = error.interval
        assert low <= error.value <= high
        hits += low <= shift <= high
    print(f"error {shift}: the 95 % interval covers it in {100 * hits / STUDIES:.1f} % of {STUDIES} studies")
    assert hits / STUDIES >= 0.925  # 95 % minus two standard errors of 300 studies


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(2, 12))
def test_single_images_and_constant_bins_give_the_formula_of_kumar(seed, bins):
    """Sum over bins of (n_b / n) ((accuracy - confidence)^2 - accuracy (1 - accuracy) / (n_b - 1)), section
    5 of the paper; the same as the bias-corrected reliability of Ferro and Fricker (2012)."""
    rng = np.random.default_rng(seed)
    levels = 0.5 + rng.permutation(40)[:bins] / 100
    confidence = np.repeat(levels, 30)
    target = (rng.random(len(confidence)) >= confidence).astype(np.int64)
    expected = 0.0
    for level in levels:
        accuracy = (target[confidence == level] == 0).mean()
        expected += ((accuracy - level) ** 2 - accuracy * (1 - accuracy) / 29) / bins
    assert squared(target, np.column_stack([confidence, 1 - confidence])) == pytest.approx(expected)


@given(st.integers(0, 10_000), st.integers(1, 200), st.integers(1, 30))
def test_bins_have_about_equal_mass_and_enough_patients(seed, n, patients):
    rng = np.random.default_rng(seed)
    confidence, cluster = rng.random(n).round(2), np.sort(rng.integers(0, patients, n))
    cluster = np.unique(cluster, return_inverse=True)[1]
    at = calibration.bins_of(confidence, cluster)
    order = np.argsort(confidence, kind="stable")
    assert (np.diff(at[order]) >= 0).all()  # intervals of the confidence
    assert len(np.unique(at)) == at.max() + 1 <= calibration.BINS
    inside = [len(np.unique(cluster[at == one])) for one in range(at.max() + 1)]
    assert min(inside) >= 5 or len(inside) == 1
    for value in np.unique(confidence):
        assert len(np.unique(at[confidence == value])) == 1


def test_a_loop_over_pairs_of_patients_gives_the_same():
    target, probability, cluster = study(np.random.default_rng(4), 0.1, 0.1, patients=12)
    at = calibration.bins_of(probability[:, 0], cluster)
    residual, total = (target == 0) - probability[:, 0], 0.0
    for one in np.unique(at):
        pairs = [
            (i, j)
            for i in np.flatnonzero(at == one)
            for j in np.flatnonzero(at == one)
            if cluster[i] != cluster[j]
        ]
        total += (at == one).mean() * np.mean([residual[i] * residual[j] for i, j in pairs])
    assert squared(target, probability, cluster) == pytest.approx(total)


def test_the_order_of_images_and_the_names_of_patients_do_not_matter():
    rng = np.random.default_rng(5)
    target, probability, cluster = study(rng, 0.1, 0.1)
    order, names = rng.permutation(len(target)), rng.permutation(60)
    first = stats.calibration_error(target, probability, cluster)
    again = stats.calibration_error(target[order], probability[order], names[cluster[order]])
    assert again.value == pytest.approx(first.value)
    assert again.interval == pytest.approx(first.interval, abs=0.02)


def test_more_seeds_of_the_same_images_do_not_narrow_the_interval():
    one = study(np.random.default_rng(6), 0.1, 0.1)
    twice = tuple(np.concatenate([part, part]) for part in one)
    first, again = stats.calibration_error(*one), stats.calibration_error(*twice)
    assert again.value == pytest.approx(first.value)
    assert again.interval == pytest.approx(first.interval)


class TestNotEstimable:
    @pytest.mark.parametrize("patients", [0, 1, 4])
    def test_with_fewer_than_five_patients(self, patients):
        target, probability, cluster = study(np.random.default_rng(7), 0.1, 0.1, patients)
        error = stats.calibration_error(target, probability, cluster)
        assert np.isnan(error.value)
        assert error.interval is None

    def test_perfect_predictions_have_no_error_and_no_spread(self):
        target, cluster = np.tile([0, 1], 20), np.repeat(np.arange(10), 4)
        assert stats.calibration_error(target, np.eye(2)[target], cluster) == (0.0, None)

    def test_five_patients_of_one_image_each_are_one_bin(self):
        target, probability = np.array([0, 0, 1, 0, 1]), np.tile([0.7, 0.3], (5, 1))
        error = stats.calibration_error(target, probability, np.arange(5))
        assert np.isfinite(error.value)
        assert len(calibration.reliability(target, probability).count) == 1
