"""The Gaussian process: its mean, its draws, its noise, and the levels of groups."""

import numpy as np
import pytest

from leukotree.stats.surrogate import Observations, Surrogate

OWNER = np.arange(2)


def truth(x: np.ndarray) -> np.ndarray:
    return 0.6 - (x[:, 0] - 0.3) ** 2 + 0.1 * x[:, 1]


def fitted(noise: float, levels: tuple[float, ...] = (0.0,), seed: int = 0) -> Surrogate:
    """On 40 scores of `truth`. `levels`: what a group's scores are higher by."""
    rng = np.random.default_rng(seed)
    x, group = rng.random((40, 2)), np.arange(40) % len(levels)
    y = truth(x) + np.array(levels)[group] + noise * rng.normal(size=40)
    return Surrogate(Observations(x, y, group, np.zeros(40)), OWNER, np.random.default_rng(seed))


POINTS = np.random.default_rng(9).uniform(0.1, 0.9, (20, 2))


def test_without_noise_mean_and_draws_are_the_function():
    found = fitted(0.0)
    np.testing.assert_allclose(found.mean(POINTS), truth(POINTS), atol=0.01)
    draws = found(POINTS)
    assert draws.shape == (256, 20)
    np.testing.assert_allclose(draws.mean(axis=0), truth(POINTS), atol=0.01)
    np.testing.assert_allclose(found.each(np.repeat(POINTS[None], 256, axis=0)), draws, atol=1e-5)


def test_the_noise_is_found_and_the_truth_lies_in_the_draws():
    found = fitted(0.03)
    assert 0.02 < found.noise < 0.045
    low, high = np.quantile(found(POINTS), [0.01, 0.99], axis=0)
    assert ((low < truth(POINTS)) & (truth(POINTS) < high)).mean() > 0.8


def test_a_group_of_easier_images_changes_nothing():
    levels = (0.0, 0.2, -0.3)
    found, alone = fitted(0.005, levels), fitted(0.005)
    moved = found.mean(POINTS) - np.mean(levels)
    np.testing.assert_allclose(
        moved - moved.mean(), alone.mean(POINTS) - alone.mean(POINTS).mean(), atol=0.02
    )


def test_the_same_generator_gives_the_same_draws():
    np.testing.assert_array_equal(fitted(0.01)(POINTS), fitted(0.01)(POINTS))


def test_a_score_with_a_variance_of_its_own_says_less():
    rng = np.random.default_rng(0)
    x = rng.random((40, 2))
    y = truth(x)
    y[0] += 0.5
    plain, told = (
        Surrogate(
            Observations(x, y, np.zeros(40, int), variance * (np.arange(40) == 0)),
            OWNER,
            np.random.default_rng(0),
        )
        for variance in (0.0, 0.5**2)
    )
    away = [abs(one.mean(x[:1])[0] - truth(x[:1])[0]) for one in (plain, told)]
    assert away[1] < 0.05
    assert away[1] < away[0]


def test_equal_scores_are_no_error():
    x = np.random.default_rng(0).random((12, 2))
    same = Observations(x, np.full(12, 0.5), np.zeros(12, int), np.zeros(12))
    found = Surrogate(same, OWNER, np.random.default_rng(0))
    assert found.mean(x) == pytest.approx(0.5, abs=0.01)
