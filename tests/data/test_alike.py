"""Images that look the same are found as by comparing each with each, also among very many."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from leukotree.data import alike
from tests.helpers.small_data import noise


def blobs(n, seed=0):
    """(n, 9, 9, 3) uint8: dark cells of several sizes near the middle, so that many hashes are close."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:9, :9]
    middle, radius = rng.normal(4, 0.5, (2, n, 1, 1)), rng.uniform(1.5, 3.5, (n, 1, 1))
    away = np.sqrt((x - middle[0]) ** 2 + (y - middle[1]) ** 2)
    grey = 220 - 120 / (1 + np.exp(2 * (away - radius)))
    return np.clip(grey[..., None] + rng.normal(0, 1.5, (n, 9, 9, 3)), 0, 255).astype(np.uint8)


def one_by_one(thumbnails):
    codes, flat = alike.hashes(thumbnails), thumbnails.reshape(len(thumbnails), -1).astype(int)
    return [
        (one, other)
        for one in range(len(flat))
        for other in range(one + 1, len(flat))
        if bin(int(codes[one] ^ codes[other])).count("1") <= alike.BITS
        and np.abs(flat[one] - flat[other]).mean() <= alike.LEVELS
    ]


@pytest.mark.parametrize("at_once", [16, 2048])
def test_pairs_are_those_of_comparing_each_with_each(monkeypatch, at_once):
    """Whether the images fit into one bucket, or buckets are divided again and again."""
    monkeypatch.setattr(alike, "_AT_ONCE", at_once)
    images = blobs(120)
    pairs = one_by_one(images)
    assert len(pairs) > 5
    assert alike.alike(images) == pairs


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(2, 5))
def test_among_many_images_with_one_hash_the_groups_stay_the_same(numbers, largest):
    images = np.stack([np.full((9, 9, 3), 40 * number, np.uint8) for number in numbers])
    whole = alike.groups(len(images), one_by_one(images))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alike, "LARGEST_CLASS", largest)
        found = alike.groups(len(images), alike.alike(images))
    assert sorted(map(tuple, found)) == sorted(map(tuple, whole))


@pytest.mark.parametrize("images", [np.zeros((0, 9, 9, 3), np.uint8), np.zeros((1, 9, 9, 3), np.uint8)])
def test_none_or_one_image_has_no_pair(images):
    assert alike.alike(images) == []
    assert alike.groups(len(images), []) == []


def test_a_hash_has_a_bit_for_each_two_neighbours():
    ramp = np.tile(np.arange(9, dtype=np.uint8)[None, :, None] * 20, (9, 1, 3))
    assert int(alike.hashes(ramp[None])[0]) == 2**64 - 1, "every right neighbour is brighter"
    assert int(alike.hashes(ramp[None, :, ::-1])[0]) == 0


def test_a_picture_that_was_saved_again_smaller_and_brighter_looks_the_same(tmp_path):
    picture = noise(3, 300, 360)
    with Image.fromarray(picture) as whole:
        whole.resize((180, 150)).save(tmp_path / "small.jpg", quality=60)
    with Image.open(tmp_path / "small.jpg") as small:
        again = np.clip(np.asarray(small).astype(int) + 3, 0, 255).astype(np.uint8)
    others = [alike.thumbnail(noise(seed, 300, 360)) for seed in range(4, 20)]
    thumbnails = np.stack([alike.thumbnail(picture), *others, alike.thumbnail(again)])
    assert alike.alike(thumbnails) == [(0, len(thumbnails) - 1)]


def test_a_hundred_thousand_images_of_nothing_take_a_moment():
    """Five billion pairs would be compared, or found."""
    began = time.process_time()
    pairs = alike.alike(np.full((100_000, 9, 9, 3), 200, np.uint8))
    assert len(pairs) == 99_999
    assert time.process_time() - began < 20


@pytest.mark.slow("compares a hundred thousand images")
def test_a_hundred_thousand_cells_take_less_than_minutes():
    began = time.process_time()
    alike.alike(blobs(100_000))
    assert time.process_time() - began < 120
