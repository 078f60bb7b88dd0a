"""Masks are read in the forms that tools save them in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leukotree.data.images import maskfile
from leukotree.errors import InputError

CELL = np.zeros((20, 30), bool)
CELL[5:12, 8:20] = True


def black_and_white(path: Path) -> None:
    Image.fromarray(CELL).save(path)


def grey(path: Path) -> None:
    Image.fromarray(CELL.astype(np.uint8) * 255).save(path)


def colour(path: Path) -> None:
    Image.fromarray(CELL.astype(np.uint8) * 255).convert("RGB").save(path)


def zero_and_one(path: Path) -> None:
    Image.fromarray(CELL.astype(np.uint8)).save(path)


def regions(path: Path) -> None:
    labels = CELL.astype(np.uint8) * 2
    labels[7:9, 10:14] = 1  # the nucleus is a part of the cell
    Image.fromarray(labels).save(path)


def palette(path: Path) -> None:
    image = Image.fromarray(CELL.astype(np.uint8)).convert("P")
    image.putpalette([0, 0, 0, 128, 0, 0])
    image.save(path)


def white_first(path: Path) -> None:
    image = Image.fromarray((~CELL).astype(np.uint8)).convert("P")
    image.putpalette([255, 255, 255, 0, 0, 0])
    image.save(path)


def sixteen_bits(path: Path) -> None:
    Image.fromarray(CELL.astype(np.uint16) * 65535).save(path)


@pytest.mark.parametrize(
    "save", [black_and_white, grey, colour, zero_and_one, regions, palette, white_first, sixteen_bits]
)
def test_a_mask_is_read(save, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    save(tmp_path / "mask.png")
    np.testing.assert_array_equal(maskfile.read(tmp_path / "mask.png"), CELL)


def test_a_lossy_mask_is_cut_at_half_of_white(tmp_path: Path) -> None:
    Image.fromarray(CELL.astype(np.uint8) * 255).save(tmp_path / "mask.jpg", quality=60)
    assert (maskfile.read(tmp_path / "mask.jpg") != CELL).mean() < 0.02


@pytest.mark.parametrize("size", [10, 20, 96])
def test_a_square_mask_keeps_the_area(size: int, tmp_path: Path) -> None:
    black_and_white(tmp_path / "mask.png")
    Image.new("RGB", (60, 40)).save(tmp_path / "image.png")  # twice as large as its mask, of the same shape
    found = maskfile.square(tmp_path / "mask.png", tmp_path / "image.png", size)
    assert found.shape == (size, size)
    assert found.mean() == pytest.approx(CELL.mean(), abs=0.05)
    rows, columns = np.nonzero(found)
    assert (rows.mean() + 0.5) / size == pytest.approx(8.5 / 20, abs=0.05)
    assert (columns.mean() + 0.5) / size == pytest.approx(14 / 30, abs=0.05)


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n damaged"])
def test_a_file_that_is_no_image_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=str(path)):
        maskfile.read(path)


def test_a_mask_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone.png: cannot be read: .*No such file"):
        maskfile.read(tmp_path / "gone.png")


def test_a_mask_that_was_cut_short_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    noise = np.random.default_rng(0).integers(0, 256, (80, 80), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match=str(path)):
        maskfile.read(path)
