"""Fixed views: functions of the image and of the number of the view, whatever seed, fold or epoch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leukotree.data import views as module
from leukotree.data.dataset import Dataset
from leukotree.data.order import TrainOrder
from leukotree.data.stream import Loader
from leukotree.data.views import Views
from leukotree.spec import AugmentSpec

AUGMENT = AugmentSpec(views=3)
VIEWS = Views(3, AUGMENT, 48)


@given(st.integers(0, 10), st.integers(0, 50))
def test_epochs_show_the_augmented_views_in_turn(count: int, epoch: int) -> None:
    views = Views(count, AUGMENT, 48)
    if not count:
        assert views.of_epoch(epoch) == 0
    else:
        assert 1 <= views.of_epoch(epoch) <= count
        assert views.of_epoch(epoch + count) == views.of_epoch(epoch)
        assert len({views.of_epoch(epoch + step) for step in range(count)}) == count


def test_view_0_is_the_image_as_it_is() -> None:
    seen = VIEWS.seen(np.arange(5), 0)
    assert seen.crops is None
    assert seen.numbers is None
    assert seen.views is not None
    assert seen.views.tolist() == [0] * 5


@given(st.lists(st.integers(0, 500), min_size=1, max_size=20), st.integers(1, 3))
def test_a_view_belongs_to_the_row_not_to_its_place(rows: list[int], view: int) -> None:
    together = VIEWS.seen(np.array(rows), view)
    for place, row in enumerate(rows):
        alone = VIEWS.seen(np.array([row]), view)
        assert np.array_equal(alone.crops[0], together.crops[place])  # type: ignore[index]
        assert np.array_equal(alone.numbers[0], together.numbers[place])  # type: ignore[index]


def test_views_and_rows_differ() -> None:
    tables = [VIEWS.seen(np.arange(50), view).numbers for view in (1, 2, 3)]
    assert len(np.unique(np.concatenate(tables), axis=0)) == 150  # type: ignore[arg-type]


def test_numbers_do_not_depend_on_the_size_of_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row far up has numbers of its own block, which is drawn alone."""
    far = np.array([3 * module.BLOCK + 5, 5])
    seen = VIEWS.seen(far, 1)
    assert seen.numbers is not None
    assert not np.array_equal(seen.numbers[0], seen.numbers[1])


def test_orders_of_other_seeds_show_the_same_views(shards: Path) -> None:
    dataset = Dataset.open(shards)
    rows = np.arange(len(dataset))
    images: list[dict[int, bytes]] = []
    with Loader(dataset, workers=0) as loader:
        for seed in (1, 2):
            order = TrainOrder(rows, 12, seed, AUGMENT, dataset.size, views=Views(3, AUGMENT, dataset.size))
            steps = range(order.steps_before(1) - 1)  # the last batch shows images of the next epoch
            batches = [batch for _, [batch] in loader.train(order, steps)]
            images.append(
                {
                    row: image.numpy().tobytes()
                    for batch in batches
                    for row, image in zip(batch.rows.tolist(), batch.images, strict=True)
                }
            )
    first, second = images
    both = first.keys() & second.keys()
    assert len(both) > 100
    assert all(first[row] == second[row] for row in both)
    assert list(first) != list(second)


def test_a_pass_decodes_a_view_at_a_time(shards: Path) -> None:
    """A thousand views of 64 large images would fill the memory."""
    dataset = Dataset.open(shards)
    decoded: list[int] = []

    class Counting(Loader):
        def _image(self, row: int, buffer: np.ndarray) -> np.ndarray:
            decoded.append(row)
            return super()._image(row, buffer)

    many = Views(100, AUGMENT, dataset.size)
    with Counting(dataset, workers=0) as loader:
        batches = loader.see([np.arange(4), np.arange(4, 8)], many)
        first = next(batches)
        assert len(decoded) == 4
        assert first.numbers is None
        rest = list(batches)
    assert len(rest) == 2 * 101 - 1
    assert [batch.rows.tolist() for batch in rest[99:101]] == [[0, 1, 2, 3], [4, 5, 6, 7]]
