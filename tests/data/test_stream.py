"""The training order and the evaluation pass: the same samples whatever the ranks, workers and micro batches."""

import itertools
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leukotree.data.dataset import Dataset
from leukotree.data.stream import TrainOrder, decode, eval_batches, train_batches
from leukotree.errors import InputError


@given(st.integers(1, 60), st.integers(1, 40), st.integers(1, 6), st.integers(0, 2**31))
def test_after_each_epoch_every_row_was_seen_once_more(n: int, batch: int, epochs: int, seed: int) -> None:
    order = TrainOrder(np.arange(n) * 3, batch, seed)
    seen = np.concatenate([order.batch(step)[0] for step in range(order.steps_before(epochs) + 1)])
    for epoch in range(epochs):
        assert sorted(seen[epoch * n : (epoch + 1) * n]) == list(order.rows)
    assert 0 <= order.steps_before(epochs) * batch - epochs * n < batch


@given(st.integers(2, 40), st.integers(1, 20), st.integers(0, 2**31), st.integers(0, 30))
def test_a_batch_is_a_function_of_seed_and_step(n: int, batch: int, seed: int, step: int) -> None:
    """A resume that starts at any step meets what an undisturbed run met there."""
    through = TrainOrder(np.arange(n), batch, seed)
    for earlier in range(step):
        through.batch(earlier)
    for a, b in zip(through.batch(step), TrainOrder(np.arange(n), batch, seed).batch(step), strict=True):
        np.testing.assert_array_equal(a, b)


def test_epochs_and_seeds_differ() -> None:
    order = TrainOrder(np.arange(50), 50, seed=0)
    assert not np.array_equal(order.batch(0)[0], order.batch(1)[0])
    assert not np.array_equal(order.batch(0)[0], TrainOrder(np.arange(50), 50, seed=1).batch(0)[0])


@pytest.mark.parametrize(("world", "micro", "workers"), [(1, None, 0), (1, 4, 2), (2, None, 0), (2, 2, 1), (4, 3, 0)])
def test_ranks_workers_and_micro_batches_share_the_same_global_batches(
    shards, world: int, micro: int | None, workers: int
) -> None:
    dataset = Dataset.open(shards)
    order = TrainOrder(np.arange(0, len(dataset), 2), 12, seed=3)
    steps = range(5, 8)
    plain = list(train_batches(dataset, order, steps))
    shares = [
        list(train_batches(dataset, order, steps, rank=rank, world=world, micro=micro, workers=workers)) for rank in range(world)
    ]
    for step, (rows, [whole]) in enumerate(plain):
        parts = list(itertools.chain.from_iterable(share[step][1] for share in shares))
        assert all(np.array_equal(share[step][0], rows) for share in shares)
        assert np.array_equal(np.concatenate([part.rows for part in parts]), whole.rows)
        assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
        assert torch.equal(torch.cat([part.numbers for part in parts]), whole.numbers)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(1, 64), st.integers(0, 40))
def test_evaluation_gives_each_row_once_also_with_fewer_rows_than_ranks(shards, world: int, batch: int, n: int) -> None:
    dataset = Dataset.open(shards)
    rows = np.random.default_rng(0).permutation(len(dataset))[:n]
    seen = [part.rows for rank in range(world) for part in eval_batches(dataset, rows, batch, rank=rank, world=world)]
    assert sorted(np.concatenate([np.zeros(0, int), *seen])) == sorted(rows)


def test_images_are_channels_last_bytes_of_the_shard(shards) -> None:
    dataset = Dataset.open(shards)
    [batch] = eval_batches(dataset, np.array([7, 3]), 8)
    assert batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert np.array_equal(batch.images[1].permute(1, 2, 0).numpy(), decode(dataset, 3))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_sample_that_does_not_decode_is_named_in_one_line(shards, tmp_path, workers: int) -> None:
    copy = tmp_path / "shards"
    shutil.copytree(shards, copy)
    dataset = Dataset.open(copy)
    torn = dataset.index.iloc[3]
    with open(copy / torn["shard"], "r+b") as shard:
        shard.seek(torn["offset"])
        shard.write(b"no jpeg")
    with pytest.raises(InputError, match=f"sample {torn['key']} does not decode") as error:
        list(eval_batches(dataset, np.arange(8), 2, workers=workers))
    assert "\n" not in str(error.value)
