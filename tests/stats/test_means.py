"""Means over images with intervals over patients."""

from __future__ import annotations

import numpy as np
import pytest

from leukotree import stats
from leukotree.stats import resampling


def images(
    rng: np.random.Generator, patients: int, spread: float
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """(names, leaves, values) of patients with 1 to 9 images, whose mean is 0."""
    sizes = rng.integers(1, 10, patients)
    names = np.repeat([f"p{number}" for number in range(patients)], sizes)
    leaves = np.repeat(np.arange(patients) % 3, sizes)
    values = np.repeat(rng.normal(0, spread, patients), sizes) + rng.normal(0, 0.1, sizes.sum())
    return names.tolist(), leaves, values


def test_the_mean_is_over_images_and_the_interval_over_patients() -> None:
    rng = np.random.default_rng(0)
    names, leaves, values = images(rng, 40, 1.0)
    (found,) = stats.means(names, leaves, values[:, None], 3)
    assert found.value == pytest.approx(values.mean())
    assert (found.images, found.clusters) == (len(values), 40)
    alone = stats.means([""] * len(names), leaves, values[:, None], 3)[0]
    assert alone.clusters == len(values)
    assert found.interval is not None
    assert alone.interval is not None
    # Images of a patient are alike, so they are worth less than as many patients.
    assert np.ptp(found.interval) > 1.5 * np.ptp(alone.interval)


def test_it_is_the_bootstrap_of_weighted_sums() -> None:
    """A second computation with the same draws."""
    names, leaves, values = images(np.random.default_rng(1), 30, 1.0)
    patients = sorted(set(names))
    of = np.array([patients.index(name) for name in names])
    sums, counts = np.bincount(of, weights=values), np.bincount(of)
    strata = 2 - np.array([leaves[of == number][0] for number in range(len(patients))])  # as they are sorted
    drawn = np.concatenate(list(resampling.weights(strata, 2000, 0)))
    samples = drawn @ sums / (drawn @ counts)
    left_out = resampling.without_each(sums, strata) / resampling.without_each(counts.astype(float), strata)
    expected = resampling.interval(samples, left_out, strata)
    assert stats.means(names, leaves, values[:, None], 3)[0].interval == pytest.approx(expected)


@pytest.mark.slow("simulates studies")
def test_intervals_cover_the_mean() -> None:
    rng, covered = np.random.default_rng(2), 0
    for _ in range(200):
        names, leaves, values = images(rng, 30, 1.0)
        interval = stats.means(names, leaves, values[:, None], 3)[0].interval
        assert interval is not None
        covered += interval[0] <= 0 <= interval[1]
    assert 0.9 <= covered / 200 <= 0.99


def test_missing_values_count_neither_as_images_nor_as_patients() -> None:
    names, leaves, values = images(np.random.default_rng(3), 20, 1.0)
    table = np.column_stack([values, np.where(np.array(names) == "p3", np.nan, values), values * np.nan])
    whole, part, none = stats.means(names, leaves, table, 3)
    assert (whole.clusters, part.clusters, none.clusters) == (20, 19, 0)
    assert part.value == pytest.approx(values[np.array(names) != "p3"].mean())
    assert part.interval is not None
    assert np.isnan(none.value)
    assert none.interval is None


def test_four_patients_have_no_interval() -> None:
    names, leaves, values = images(np.random.default_rng(4), 4, 1.0)
    assert stats.means(names, leaves, values[:, None], 3)[0].interval is None
    assert stats.means([], np.zeros(0, int), np.zeros((0, 1)), 3)[0].images == 0
