"""The axes of a search: places, borders, and the unit cube."""

import math

import numpy as np
import pandas as pd
import pytest

from leukotree.stats import axes
from leukotree.stats.axes import Cube

SPACE = {
    "optim.lr": {"loguniform": [1e-6, 1e-2]},
    "loss.gamma": {"uniform": [0.0, 5.0]},
    "optim.batch_size": {"choice": [64, 16, 32]},
    "loss.isolation": {"choice": ["shared", "detached"]},
}
CUBE = Cube(SPACE)


@pytest.mark.parametrize(
    ("domain", "value", "side"),
    [
        ({"uniform": [0, 5]}, 4.9, "upper"),
        ({"uniform": [0, 5]}, 0.1, "lower"),
        ({"uniform": [0, 5]}, 2.0, ""),
        ({"loguniform": [1e-6, 1e-3]}, 1.1e-6, "lower"),
        ({"loguniform": [1e-6, 1e-3]}, 2e-5, ""),
        ({"choice": [16, 32, 64]}, 64, "upper"),
        ({"choice": [16, 32, 64]}, 32, ""),
        ({"choice": [1, 10]}, 10, ""),
        ({"choice": ["a", "b", "c"]}, "a", ""),
        ({"choice": [None, 1, 2]}, 1, ""),
    ],
)
def test_which_values_lie_on_the_border(domain, value, side):
    assert axes.border(domain, value) == side


def test_values_that_a_table_reads_as_floats_find_their_choice():
    column = pd.Series([16, math.nan, 64], dtype=float)
    np.testing.assert_array_equal(axes.place({"choice": [16, None, 64]}, column), [0, 1, 2])
    assert math.isnan(axes.place({"choice": [16, 64]}, [32])[0])


def test_units_are_shares_of_the_axis_that_is_drawn_from():
    values = {
        "optim.lr": [1e-4, 1e-2],
        "loss.gamma": [5.0, 1.25],
        "optim.batch_size": [16, 32],
        "loss.isolation": ["detached", "shared"],
    }
    units = CUBE.units(values)
    np.testing.assert_allclose(units, [[0.5, 1.0, 0.0, 1.0], [1.0, 0.25, 0.5, 0.0]])
    for row, n in zip(units, range(2), strict=True):
        for k, key in enumerate(CUBE.keys):
            value = CUBE.value(k, row[k])
            assert value == values[key][n] or value == pytest.approx(values[key][n])


def test_two_options_without_an_order_have_the_distance_of_a_range():
    units = CUBE.units({key: [domain.get("choice", [1e-3])[0]] * 3 for key, domain in SPACE.items()})
    units[:, 3] = [0, 1, math.nan]
    one, other, none = CUBE.encoded(units)
    assert CUBE.owner.tolist() == [0, 1, 2, 3, 3]
    assert np.linalg.norm(one - other) == pytest.approx(1.0)
    assert np.linalg.norm(one - none) == pytest.approx(np.linalg.norm(other - none))
    units[0, 0] = math.nan
    assert CUBE.encoded(units)[0, 0] == 0.5


def test_points_become_options_evenly():
    points = np.random.default_rng(0).random((3000, 4))
    units = CUBE.snapped(points)
    np.testing.assert_array_equal(units[:, :2], points[:, :2])
    for k, options in ((2, [0, 0.5, 1]), (3, [0, 1])):
        found, counts = np.unique(units[:, k], return_counts=True)
        assert found.tolist() == options
        assert counts.min() > 0.9 * counts.max()
        assert CUBE.grid(k).tolist() == options
