"""A permutation that is computed: each number once, in no order that a test of randomness sees."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from leukotree import seeds
from leukotree.data.permutation import Permutation


def permutation(n: int, seed: int = 0) -> Permutation:
    return Permutation(n, seeds.generator(seed, "order"))


@given(st.integers(1, 3000), st.integers(0, 2**31))
def test_each_number_is_there_once(n: int, seed: int) -> None:
    assert sorted(permutation(n, seed).at(np.arange(n))) == list(range(n))


@given(st.integers(1, 10**12), st.integers(0, 2**31), st.data())
def test_a_position_has_the_same_number_however_it_is_asked_for(
    n: int, seed: int, data: st.DataObject
) -> None:
    positions = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=20)))
    values = permutation(n, seed).at(positions)
    assert ((values >= 0) & (values < n)).all()
    one_by_one = [int(permutation(n, seed).at(positions[[place]])[0]) for place in range(len(positions))]
    assert values.tolist() == one_by_one


def test_other_keys_give_another_permutation() -> None:
    numbers = np.arange(1000)
    assert (permutation(1000, 0).at(numbers) == permutation(1000, 1).at(numbers)).mean() < 0.01


@pytest.mark.parametrize("n", [1025, 5000, 2**16])
def test_it_looks_random(n: int) -> None:
    """Places and numbers, and numbers of neighbours, are independent: chi-squared over 16 x 16 cells, and
    Spearman's correlation."""
    values = permutation(n).at(np.arange(n))
    for first, second in ((np.arange(n), values), (values[:-1], values[1:])):
        table = np.histogram2d(first, second, bins=16)[0]
        assert stats.chi2_contingency(table).pvalue > 1e-3
        assert stats.spearmanr(first, second).pvalue > 1e-3


def test_the_first_number_is_each_number_equally_often() -> None:
    first = [int(permutation(1100, seed).at(np.array([0]))[0]) for seed in range(4400)]
    counts = np.bincount(np.array(first) // 100, minlength=11)
    assert stats.chisquare(counts).pvalue > 1e-3
