"""The training order and the evaluation pass: the same samples for any ranks, workers and micro batches."""

import itertools
import resource
import shutil
import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leukotree.data.cache import open_cache
from leukotree.data.dataset import Dataset
from leukotree.data.order import TrainOrder
from leukotree.data.stream import Loader, decode
from leukotree.errors import InputError
from leukotree.spec import AugmentSpec
from tests.helpers.small_data import bomb, overwrite


def order_of(rows: np.ndarray, batch: int, seed: int, size: int = 48) -> TrainOrder:
    return TrainOrder(rows, batch, seed, AugmentSpec(), size)


@pytest.mark.parametrize(
    ("world", "micro", "workers"), [(1, None, 0), (1, 4, 2), (2, None, 0), (2, 2, 1), (4, 3, 0)]
)
def test_ranks_workers_and_micro_actualshare_the_same_global_batches(
    shards, world: int, micro: int | None, workers: int
) -> None:
    dataset = Dataset.open(shards)
    order = order_of(np.arange(0, len(dataset), 2), 12, seed=3)
    steps = range(5, 8)
    plain = list(Loader(dataset, workers=0).train(order, steps))
    with Loader(dataset, workers=workers) as loader:
        shares = [
            list(loader.train(order, steps, rank=rank, world=world, micro=micro)) for rank in range(world)
        ]
    for step, (rows, [whole]) in enumerate(plain):
        parts = list(itertools.chain.from_iterable(share[step][1] for share in shares))
        assert all(np.array_equal(share[step][0], rows) for share in shares)
        assert np.array_equal(np.concatenate([part.rows for part in parts]), whole.rows)
        assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
        assert torch.equal(torch.cat([part.numbers for part in parts]), whole.numbers)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(1, 64), st.integers(0, 40))
def test_evaluation_gives_each_row_once_also_with_fewer_rows_than_ranks(
    shards, world: int, batch: int, n: int
) -> None:
    dataset = Dataset.open(shards)
    rows = np.random.default_rng(0).permutation(len(dataset))[:n]
    loader = Loader(dataset, workers=0)
    seen = [
        part.rows for rank in range(world) for part in loader.evaluate(rows, batch, rank=rank, world=world)
    ]
    assert sorted(np.concatenate([np.zeros(0, int), *seen])) == sorted(rows)


def test_images_are_channels_last_bytes_of_the_shard(shards) -> None:
    dataset = Dataset.open(shards)
    [batch] = Loader(dataset, workers=0).evaluate(np.array([7, 3]), 8)
    assert batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert np.array_equal(batch.images[1].permute(1, 2, 0).numpy(), decode(dataset, 3))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("write", "indexed", "says"),
    [
        (b"no jpeg", True, "does not decode"),
        (b"no jpeg", False, "its bytes are not those that were packed"),
        (bomb(), True, "is 65000x65000, not 48x48"),
    ],
)
def test_a_sample_that_is_no_image_of_the_set_is_named_in_one_line(
    shards, tmp_path, workers: int, write: bytes, indexed: bool, says: str
) -> None:
    """`indexed`: the wrong bytes were packed so; otherwise the shard was changed later."""
    copy = tmp_path / "shards"
    shutil.copytree(shards, copy)
    key = overwrite(copy, 3, write, indexed)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with (
        Loader(Dataset.open(copy), workers=workers) as loader,
        pytest.raises(InputError, match=f"sample {key}:? {says}") as error,
    ):
        list(loader.evaluate(np.arange(8), 2))
    assert "\n" not in str(error.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 100_000, "the bomb went off"


def test_the_cache_and_the_workers_change_no_bit(shards, tmp_path) -> None:
    """The first epoch fills the cache, the second reads it. Then a cache for only some of the images."""
    dataset = Dataset.open(shards)
    order = order_of(np.arange(len(dataset)), 16, seed=4)
    steps = range(order.steps_before(2))
    expected = [batch for _, batches in Loader(dataset, workers=0).train(order, steps) for batch in batches]
    some = 50 * dataset.size**2 * 3 / 1e9
    for workers, gigabytes in [(0, 1.0), (1, None), (3, 1.0), (3, some)]:
        cache = (
            None if gigabytes is None else open_cache(tmp_path / f"{workers}-{gigabytes}", dataset, gigabytes)
        )
        with Loader(dataset, workers=workers, cache=cache) as loader:
            actual = [batch for _, batches in loader.train(order, steps) for batch in batches]
            assert len(actual) == len(expected)
            assert all(torch.equal(a.images, b.images) for a, b in zip(actual, expected, strict=True))
            for whole in loader.evaluate(np.arange(0, 40), 40):
                assert np.array_equal(whole.images[7].permute(1, 2, 0).numpy(), decode(dataset, 7))


def test_the_first_actualare_decoded_ahead(shards, monkeypatch) -> None:
    """So the next epoch is ready when the evaluation of this one ends; but not all of it is decoded."""
    dataset = Dataset.open(shards)
    read = []
    monkeypatch.setattr(
        Dataset, "read", lambda self, row, original=Dataset.read: (read.append(row), original(self, row))[1]
    )
    with Loader(dataset, workers=2) as loader:
        batches = loader.train(order_of(np.arange(len(dataset)), 8, seed=0), range(1000))
        while len(read) < 16:  # two batches are under way
            time.sleep(0.01)
        next(batches)
    assert 16 <= len(read) <= 24


def test_a_loader_that_is_closed_leaves_no_thread(shards) -> None:
    before = threading.active_count()
    with Loader(Dataset.open(shards), workers=3) as loader:
        iterator = loader.evaluate(np.arange(64), 8)
        next(iterator)
        assert threading.active_count() > before
    assert threading.active_count() == before
