"""The posterior of the best configuration: regions, borders, defaults, importance and the expected gain."""

import math

import numpy as np
import pytest

from leukotree.stats import optimum
from leukotree.stats.axes import Cube
from leukotree.stats.optimum import Optimum
from leukotree.stats.surrogate import Observations

CUBE = Cube(
    {
        "lr": {"loguniform": [1e-5, 1e-1]},
        "gamma": {"uniform": [0.0, 5.0]},
        "batch": {"choice": [16, 32, 64]},
        "kind": {"choice": ["focal", "hxe"]},
    }
)


def scores(units: np.ndarray) -> np.ndarray:
    """The best is at lr 1e-3 and the upper end of gamma, with a batch of 32 and hxe."""
    away = 1.2 * (units[:, 0] - 0.5) ** 2 + 0.2 * (1 - units[:, 1]) + 0.1 * np.abs(units[:, 2] - 0.5)
    return 0.7 - away + 0.05 * (units[:, 3] == 1)


def found(n: int = 60, noise: float = 0.0, seed: int = 0) -> Optimum:
    rng = np.random.default_rng(1)
    units = CUBE.snapped(rng.random((n, 4)))
    y = scores(units) + noise * rng.normal(size=n)
    return Optimum(CUBE, Observations(CUBE.encoded(units), y, np.zeros(n, int), np.zeros(n)), seed)


@pytest.fixture(scope="module")
def dense() -> Optimum:
    return found()


def test_with_many_scores_without_noise_the_regions_hold_the_best(dense):
    low, high = dense.region(0).values
    assert low < 1e-3 < high
    assert math.log10(high / low) < 1.0
    low, high = dense.region(1).values
    assert high == pytest.approx(5.0)
    assert low > 4.0
    assert dense.region(2).values == (32,)
    assert dense.region(3).values == ("hxe",)
    assert dense.region(3).mass >= optimum.MASS


def test_the_border_is_where_the_best_lies(dense):
    assert dense.border(0) < 0.1
    assert dense.border(1) > 0.8
    assert dense.border(2) < 0.1
    assert math.isnan(dense.border(3))


def test_which_values_are_good_enough(dense):
    assert dense.within(0, 1e-3) > 0.8
    assert dense.within(0, 1e-5) < 0.05
    assert dense.within(3, "hxe") > 0.95
    assert dense.within(3, "focal") < 0.1
    assert dense.within(0, 1e-5, by=1.0) == 1.0
    for k, value in ((0, 1.0), (0, None), (2, 128), (3, "other")):
        assert math.isnan(dense.within(k, value))


def test_importances_are_the_shares_of_the_variance(dense):
    units = CUBE.snapped(np.random.default_rng(0).random((4000, 4)))
    truth = []
    for k in range(4):  # the function is a sum over the keys
        alone = np.zeros_like(units)
        alone[:, k] = units[:, k]
        truth.append(scores(alone).var())
    np.testing.assert_allclose(dense.shares.mean(axis=0), np.array(truth) / sum(truth), atol=0.05)
    for k in range(4):
        low, high = optimum.interval(dense.shares[:, k])
        assert low <= dense.shares[:, k].mean() <= high


def test_the_maximum_of_a_draw_is_on_its_profiles(dense):
    for k, profile in enumerate(dense.profiles):
        np.testing.assert_allclose(profile.max(axis=1), dense.best, atol=1e-4)
        np.testing.assert_array_equal(CUBE.grid(k)[profile.argmax(axis=1)], dense.at[:, k])
    assert (dense.best >= dense.values.max(axis=1) - 1e-5).all()


def test_with_more_trials_less_is_left_to_gain():
    assert found(60).gain() < found(15).gain()


def test_the_same_scores_give_the_same_numbers():
    one, other = found(20, 0.02), found(20, 0.02)
    np.testing.assert_array_equal(one.at, other.at)
    np.testing.assert_array_equal(one.shares, other.shares)
    assert not np.array_equal(one.at, found(20, 0.02, seed=1).at)
