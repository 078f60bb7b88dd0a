"""The file of features: whole, damaged, of another shape, on a full disk."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from leukotree.data import featurefile
from leukotree.data.featurefile import CHUNK, FeatureFile, Shape

SHAPE = Shape(images=2 * CHUNK + 10, views=3, width=5)
VALUES = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


def fill(file: FeatureFile, *chunks: int) -> None:
    with file.writing() as writer:
        for chunk in chunks:
            writer.put(chunk, VALUES[SHAPE.rows(chunk)])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "some.features"


def test_what_is_written_is_read(path: Path) -> None:
    file = featurefile.made(path, SHAPE)
    assert file.missing() == [0, 1, 2]
    fill(file, 2, 0)
    assert file.missing() == [1]
    assert not file.complete
    fill(file, 1)
    assert file.complete
    again = featurefile.opened(path, SHAPE.images, SHAPE.views)
    assert again is not None
    assert again.shape == SHAPE
    assert again.missing() == []
    rows, views = np.array([0, 137, 64, 64]), np.array([2, 0, 1, 1])
    assert np.array_equal(again.take(rows, views), VALUES[rows, views])
    assert np.array_equal(again.take(rows, None), VALUES[rows, 0])


def test_a_flipped_bit_makes_its_chunk_missing(path: Path) -> None:
    file = featurefile.made(path, SHAPE)
    fill(file, 0, 1, 2)
    with open(path, "r+b") as raw:
        raw.seek(SHAPE.start + 4 * SHAPE.views * SHAPE.width * CHUNK + 7)
        byte = raw.read(1)
        raw.seek(-1, os.SEEK_CUR)
        raw.write(bytes([byte[0] ^ 1]))
    assert FeatureFile(path, SHAPE).missing() == [1]


@pytest.mark.parametrize("damage", ["short", "long", "empty", "other", "absent"])
def test_a_file_that_is_not_of_this_shape_is_none(path: Path, damage: str) -> None:
    featurefile.made(path, SHAPE)
    length = path.stat().st_size
    if damage == "absent":
        path.unlink()
    elif damage == "other":
        path.write_bytes(b"x" * length)
    else:
        os.truncate(path, {"short": length - 1, "long": length + 1, "empty": 0}[damage])
    assert featurefile.opened(path, SHAPE.images, SHAPE.views) is None


def test_another_number_of_images_or_views_is_another_file(path: Path) -> None:
    featurefile.made(path, SHAPE)
    assert featurefile.opened(path, SHAPE.images + 1, SHAPE.views) is None
    assert featurefile.opened(path, SHAPE.images, SHAPE.views + 1) is None
    assert featurefile.opened(path, SHAPE.images, SHAPE.views) is not None


def test_a_disk_without_room_leaves_no_file(path: Path) -> None:
    with pytest.raises(OSError, match=r"."):
        featurefile.made(path, Shape(2**40, 2**10, 2**10))
    assert list(path.parent.iterdir()) == []
