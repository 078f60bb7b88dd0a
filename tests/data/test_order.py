"""The training order: a function of the seed and the position, as one table or block by block."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leukotree import seeds
from leukotree.data import augment, geometry
from leukotree.data import order as orders
from leukotree.data.order import TrainOrder, Windows
from leukotree.spec import AugmentSpec

WAYS = [pytest.param(False, id="table"), pytest.param(True, id="blocks")]
WINDOWS = Windows(np.arange(200) // 7, 2)


@pytest.fixture(autouse=True, scope="module")
def few_are_many():
    """Blocks of eleven images, for orders that `order_of` makes in blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(orders, "MANY", 1)
        patch.setattr(orders, "BLOCK", 11)
        yield


def order_of(
    rows: np.ndarray,
    batch: int,
    seed: int,
    many: bool = True,
    windows: Windows | None = None,
    among: np.ndarray | None = None,
) -> TrainOrder:
    """`many`: drawn as the order of many images is."""
    version = seeds.NEWEST if many else seeds.PAIRED
    return TrainOrder(rows, batch, seed, AugmentSpec(), 48, among, version, windows)


@pytest.mark.parametrize("many", WAYS)
@pytest.mark.parametrize("windows", [None, WINDOWS])
@given(st.integers(1, 60), st.integers(1, 40), st.integers(1, 6), st.integers(0, 2**31))
def test_after_each_epoch_every_row_was_seen_once_more(
    many: bool, windows: Windows | None, n: int, batch: int, epochs: int, seed: int
) -> None:
    order = order_of(np.arange(n) * 3, batch, seed, many, windows)
    seen = np.concatenate([order.batch(step).rows for step in range(order.steps_before(epochs) + 1)])
    for epoch in range(epochs):
        assert sorted(seen[epoch * n : (epoch + 1) * n]) == list(order.rows)
    assert 0 <= order.steps_before(epochs) * batch - epochs * n < batch


@pytest.mark.parametrize("many", WAYS)
@pytest.mark.parametrize("windows", [None, WINDOWS])
@given(st.integers(2, 40), st.integers(1, 20), st.integers(0, 2**31), st.integers(0, 30))
def test_a_batch_is_a_function_of_seed_and_step(
    many: bool, windows: Windows | None, n: int, batch: int, seed: int, step: int
) -> None:
    """A resume at any step gives the batches of an undisturbed run."""
    through = order_of(np.arange(n), batch, seed, many, windows)
    for earlier in range(step):
        through.batch(earlier)
    actual, expected = through.batch(step), order_of(np.arange(n), batch, seed, many, windows).batch(step)
    for column in ("rows", "crops", "numbers"):
        np.testing.assert_array_equal(getattr(actual, column), getattr(expected, column))
        assert len(getattr(actual, column)) == batch


@pytest.mark.parametrize("many", WAYS)
@pytest.mark.parametrize("windows", [None, WINDOWS])
@given(st.integers(2, 60), st.integers(1, 20), st.integers(0, 2**31), st.data())
def test_a_part_of_the_images_comes_in_the_order_of_all_and_augmented_alike(
    many: bool, windows: Windows | None, n: int, batch: int, seed: int, data: st.DataObject
) -> None:
    """Arms of a fold are paired, also where a stage trains on fewer images."""
    among = np.arange(n) * 2 + 1
    rows = np.array(sorted(data.draw(st.sets(st.sampled_from(among.tolist()), min_size=1))))
    whole = order_of(among, n, seed, many, windows)
    part = order_of(rows, batch, seed, many, windows, among)
    seen = [part.batch(step) for step in range(part.steps_before(2) + 1)]
    for epoch in range(2):
        expected = whole.batch(epoch)
        mine = np.isin(expected.rows, rows)
        for column in ("rows", "crops", "numbers"):
            drawn = np.concatenate([getattr(samples, column) for samples in seen])
            actual = drawn[epoch * len(rows) : (epoch + 1) * len(rows)]
            np.testing.assert_array_equal(actual, getattr(expected, column)[mine])


def test_an_order_of_the_first_version_augments_by_position() -> None:
    rows = np.arange(0, 40, 2)
    order = TrainOrder(rows, 20, 3, AugmentSpec(), 48, np.arange(40), version=seeds.BY_STAGE).batch(1)
    np.testing.assert_array_equal(order.rows, seeds.generator(3, "order", 1).permutation(rows))
    np.testing.assert_array_equal(order.numbers, augment.draw(3, 1, 20))
    np.testing.assert_array_equal(order.crops, geometry.draw(3, 1, 20, 48, AugmentSpec()))


def test_epochs_and_seeds_differ() -> None:
    order = order_of(np.arange(50), 50, seed=0)
    assert not np.array_equal(order.batch(0).rows, order.batch(1).rows)
    assert not np.array_equal(order.batch(0).rows, order_of(np.arange(50), 50, seed=1).batch(0).rows)


def test_few_images_are_drawn_as_before_blocks_were_there(monkeypatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(orders, "MANY", 51)
    rows = np.arange(50)
    newest, before = (order_of(rows, 50, 1, many).batch(3) for many in (True, False))
    for column in ("rows", "crops", "numbers"):
        np.testing.assert_array_equal(getattr(newest, column), getattr(before, column))


def test_the_rows_of_an_epoch_are_those_of_its_batches() -> None:
    for windows in (None, WINDOWS):
        order = order_of(np.arange(0, 90, 3), 30, 5, windows=windows, among=np.arange(90))
        np.testing.assert_array_equal(order.rows_of(2), order.batch(2).rows)


def test_a_window_holds_the_images_of_its_shards_and_no_others() -> None:
    order = order_of(np.arange(70), 70, 5, windows=WINDOWS)  # ten shards of seven
    for epoch in (0, 1):
        shards = WINDOWS.shard_of[order.batch(epoch).rows].reshape(5, 14)
        assert all(len(set(window.tolist())) == 2 for window in shards)
        assert (np.diff(shards) != 0).sum() > 5, "the images of a window are mixed"
    assert not np.array_equal(order.batch(0).rows, order.batch(1).rows)


def test_shards_in_any_order_of_the_index_make_windows() -> None:
    numbers = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 7))
    rows = order_of(np.arange(70), 70, 5, windows=Windows(numbers, 2)).batch(0).rows
    assert sorted(rows) == list(range(70))
    assert all(len(set(window.tolist())) == 2 for window in numbers[rows].reshape(5, 14))


def test_no_block_but_those_of_a_batch_is_drawn(monkeypatch) -> None:
    drawn: list[int] = []
    plain = augment.draw
    monkeypatch.setattr(augment, "draw", lambda *given: (drawn.append(given[3]), plain(*given))[1])
    order = order_of(np.arange(1000), 10, 0)
    order.batch(50)
    order.batch(51)
    assert drawn == [45, 46, 47], "positions 500 to 519, in blocks of eleven"
