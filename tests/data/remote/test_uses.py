"""When each shard is needed next, compared with a search by hand; and what processes tell each other."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leukotree.data.order import TrainOrder, Windows
from leukotree.data.remote import uses
from leukotree.spec import AugmentSpec


@given(st.integers(1, 6), st.integers(1, 30), st.integers(0, 10**6), st.integers(0, 80), st.integers(1, 90))
def test_the_next_use_is_the_first_one_of_this_epoch_and_the_next(
    shards: int, images: int, seed: int, begin: int, steps: int
) -> None:
    random = np.random.default_rng(seed)
    shard_of = random.integers(0, shards, 40)
    rows = random.permutation(40)[:images]
    epochs = [random.permutation(rows) for _ in range(2 + (begin + steps) // images)]
    later = uses.Training(epochs.__getitem__, images, shard_of, shards, begin, begin + steps)
    sequence = shard_of[np.concatenate(epochs)]
    for position in range(begin, begin + steps, 1 + steps // 5):
        later.position = position
        end = min(begin + steps, (position // images + 2) * images)
        rest = sequence[position:end]
        expected = [np.argmax(rest == shard) if shard in rest else np.inf for shard in range(shards)]
        assert later.next_uses().tolist() == expected


def test_a_pass_begins_after_the_epoch() -> None:
    later = uses.Pass(np.array([2, 2, 0, 2]), 4, lambda: 100)
    assert later.next_uses().tolist() == [102, np.inf, 100, np.inf]
    later.position = 2
    assert later.next_uses().tolist() == [0, np.inf, 1, np.inf]


def _publish(folder: Path, numbers: list[float], ready, go) -> None:
    published = uses.Published(folder, ["a", "b", "c"])
    published.write(np.array(numbers))
    ready.set()
    go.wait()
    os._exit(0)  # as a kill: it removes nothing


def test_what_two_processes_need_counts_until_they_end(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    assert uses.of_all(tmp_path) == {}
    go = context.Event()
    processes = []
    for numbers in ([5.0, np.inf, np.inf], [7.0, 3.0, np.inf]):
        ready = context.Event()
        processes.append(context.Process(target=_publish, args=(tmp_path, numbers, ready, go)))
        processes[-1].start()
        ready.wait()
    assert uses.of_all(tmp_path) == {"a": 5.0, "b": 3.0}
    go.set()
    for process in processes:
        process.join()
    assert uses.of_all(tmp_path) == {}
    assert not list(tmp_path.glob(".uses/*.uses"))


def order(rows: np.ndarray, among: np.ndarray, width: int | None, seed: int = 3) -> TrainOrder:
    windows = None if width is None else Windows(SHARD_OF, width)
    return TrainOrder(rows, 10, seed, AugmentSpec(), 16, among, windows=windows)


SHARD_OF = np.repeat(np.arange(12), 10)
AMONG = np.arange(20, 120)
"""Rows of the shards 2 to 11."""


def test_a_window_has_all_samples_of_its_shards_and_no_others() -> None:
    orders = [order(AMONG, AMONG, 4).rows_of(epoch) for epoch in range(3)]
    for rows in orders:
        assert sorted(rows) == AMONG.tolist()
        groups = [set(SHARD_OF[rows[start : start + 40]]) for start in (0, 40, 80)]
        assert [len(group) for group in groups] == [4, 4, 2]
        assert len(set.union(*groups)) == 10
        assert len(set(SHARD_OF[rows[:15]])) > 1  # they are mixed
    assert orders[0].tolist() != orders[1].tolist()


def test_the_order_of_windows_is_a_function_of_seed_and_position() -> None:
    whole = order(AMONG, AMONG, 4)
    steps = [whole.batch(step).rows for step in range(25)]
    assert np.array_equal(np.concatenate(steps)[:200], np.concatenate([whole.rows_of(e) for e in (0, 1)]))
    again = order(AMONG, AMONG, 4)
    assert all(np.array_equal(again.batch(step).rows, steps[step]) for step in (20, 3, 11))
    part = order(AMONG[::3], AMONG, 4)  # a stage that trains on some of them
    expected = [row for row in whole.rows_of(1).tolist() if row in set(AMONG[::3].tolist())]
    assert part.rows_of(1).tolist() == expected


@pytest.mark.parametrize("width", [1, 100])
def test_the_least_and_the_largest_window(width: int) -> None:
    rows = order(AMONG, AMONG, width).rows_of(0)
    changes = int((np.diff(SHARD_OF[rows]) != 0).sum())
    assert sorted(rows) == AMONG.tolist()
    assert changes == 9 if width == 1 else changes > 50


def test_the_old_order_is_as_it_was() -> None:
    """A permutation by the stream `order` of the seed and the epoch."""
    from leukotree import seeds

    expected = AMONG[seeds.generator(3, "order", 1).permutation(len(AMONG))]
    assert np.array_equal(order(AMONG, AMONG, None).rows_of(1), expected)
