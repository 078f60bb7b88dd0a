"""Trials of several searches that are one draw are recognised, and equal values by chance are not."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from leukotree.report import draws
from tests.helpers.study_results import SPACE, completed

CHOICES = {"optim.batch_size": {"choice": [16, 32, 64]}, "loss.isolation": {"choice": ["shared", "detached"]}}


def drawn(seed: int, n: int = 8) -> pd.DataFrame:
    """The trials of a search that draws by a seed."""
    rng = np.random.default_rng(seed)
    values = {
        "loss.gamma": rng.uniform(0, 5, n),
        "optim.lr": 10 ** rng.uniform(-6, -3, n),
        "optim.batch_size": rng.choice([16, 32, 64], n),
    }
    return completed(pd.DataFrame({**values, "macro_f1": rng.uniform(size=n)}))


def test_the_same_values_under_the_same_number_are_one_draw() -> None:
    one, other = drawn(0), drawn(0).assign(macro_f1=0.5)
    assert [own.tolist() for own in draws.numbered([one, drawn(1), other], SPACE)] == [
        [0, 1, 2, 3, 4, 5, 6, 7],
        [8, 9, 10, 11, 12, 13, 14, 15],
        [0, 1, 2, 3, 4, 5, 6, 7],
    ]
    assert draws.configurations([one, drawn(1), other], SPACE) == 16


def test_trials_after_the_first_that_differs_are_draws_of_their_own() -> None:
    """So begins a sampler that learns from scores, and a search that another version continues."""
    mixed = drawn(0)
    mixed.loc[3:] = drawn(1).loc[3:].assign(trial=range(3, 8))
    first, second = draws.numbered([drawn(0), mixed], SPACE)
    assert second.tolist() == [0, 1, 2, 8, 9, 10, 11, 12]
    assert draws.configurations([drawn(0), mixed], SPACE) == 13
    assert first.tolist() == list(range(8))


def test_a_key_that_one_search_lacks_or_a_value_without_effect_does_not_separate_them() -> None:
    more = drawn(0).assign(**{"loss.isolation": ["shared", None] * 4})
    text = more.to_csv(index=False)
    read = pd.read_csv(io.StringIO(text), dtype={"trial": str})
    gaps = read.astype({"optim.batch_size": float})
    gaps.loc[2, "optim.batch_size"] = np.nan  # 16 becomes 16.0 in the others
    space = {**SPACE, **CHOICES}
    assert len(set(np.concatenate(draws.numbered([drawn(0), read], space)))) == 8
    assert len(set(np.concatenate(draws.numbered([gaps, gaps], space)))) == 8
    assert draws.numbered([drawn(0), gaps], space)[1].tolist()[:3] == [0, 1, 8]


def test_choices_between_few_options_can_be_equal_by_chance() -> None:
    table = completed(
        pd.DataFrame(
            {
                "optim.batch_size": [16, 32, 64, 16] * 3,
                "loss.isolation": ["shared", "shared", "detached", "detached"] * 3,
                "macro_f1": np.linspace(0.2, 0.8, 12),
            }
        )
    )
    few = table.head(4)  # one chance in 6^4
    assert draws.numbered([few, few], CHOICES)[1].tolist() == [4, 5, 6, 7]
    assert draws.configurations([few, few], CHOICES) == 4
    assert draws.numbered([table, table], CHOICES)[1].tolist() == list(range(12))  # one in 6^12


@pytest.mark.slow("makes a report")
@settings(max_examples=50, deadline=None)
@given(some.lists(some.integers(0, 3), min_size=1, max_size=6))
def test_searches_with_equal_seeds_are_grouped(seeds: list[int]) -> None:
    numbers = draws.numbered([drawn(seed) for seed in seeds], SPACE)
    assert [numbers[seeds.index(seed)].tolist() for seed in seeds] == [own.tolist() for own in numbers]
    assert len(set(np.concatenate(numbers))) == 8 * len(set(seeds))
    assert draws.configurations([drawn(seed) for seed in seeds], SPACE) == 8 * len(set(seeds))


def test_nothing_is_counted_where_there_is_nothing() -> None:
    assert draws.numbered([], SPACE) == []
    assert draws.configurations([], SPACE) == 0
    assert draws.configurations([drawn(0)[["trial", "macro_f1"]]], SPACE) == 0
    empty = drawn(0).head(0)
    assert [len(own) for own in draws.numbered([empty, drawn(0), empty], SPACE)] == [0, 8, 0]
