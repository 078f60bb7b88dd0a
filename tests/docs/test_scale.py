"""docs/scale.md shows what its model computes, and the model agrees with what was measured."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.scale import model

SETTING = model.Setting()


def test_the_page_shows_what_the_script_prints() -> None:
    text = model.PAGE.read_text(encoding="utf-8")
    assert model.page(text) == text, "python -m tests.scale.model --write"
    tables = model.tables(SETTING).split("\n\n")
    assert [table for table in tables if f"\n\n{table}\n\n" not in text] == []


def test_each_formula_has_measured_points_and_is_close_to_them() -> None:
    rows = model.points()
    for quantity, formula in model.FORMULAS.items():
        values = {float(row["at"]): float(row["value"]) for row in rows if row["quantity"] == quantity}
        assert values, quantity
        assert [formula(at) for at in values] == pytest.approx([*values.values()], rel=0.05)


@given(st.integers(2, 30), st.integers(1, 60), st.integers(0, 2**31))
def test_as_many_shards_are_drawn_as_the_formula_says(shards: int, images: int, seed: int) -> None:
    draws = np.random.default_rng(seed).integers(shards, size=(2000, images))
    counted = np.mean([len(set(row)) for row in draws.tolist()])
    assert counted == pytest.approx(model.distinct(shards, images), rel=0.05)


def test_a_process_that_keeps_some_shards_opens_the_others_again() -> None:
    opened, kept, opens = 40, 10, 0
    cache: OrderedDict[int, None] = OrderedDict()
    for shard in np.random.default_rng(0).integers(opened, size=20_000).tolist():
        opens += shard not in cache
        cache[shard] = None
        cache.move_to_end(shard)
        if len(cache) > kept:
            cache.popitem(last=False)
    assert opens / 20_000 == pytest.approx(model.opens_per_read(opened, kept), abs=0.02)
    assert model.opens_per_read(kept, kept) == 0


def test_a_window_never_needs_more_shards_than_it_has_and_waits_no_longer() -> None:
    for nodes in (1, 8, 64):
        all_shards, window = (
            model.first_fetch(SETTING, nodes, SETTING.batch, windowed) for windowed in (False, True)
        )
        assert window <= all_shards
        most = SETTING.window * SETTING.shard_bytes / model.rate_of_node(SETTING, nodes)
        assert window <= most


def test_what_a_scratch_does_not_hold_is_fetched_again() -> None:
    assert model.later_epochs(SETTING, 1) == 0
    assert model.later_epochs(SETTING, 0) == SETTING.total_bytes == model.network_bytes(SETTING, 1)


def test_the_constants_are_those_of_the_code() -> None:
    from leukotree.data import dataset

    assert dataset._shard.cache_parameters()["maxsize"] == model.OPEN_SHARDS
