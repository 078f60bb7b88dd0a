"""Masks come to the geometry of the packed images, and belong to these images."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leukotree.data import masks, pack
from leukotree.data.dataset import Dataset
from leukotree.data.stream import decode
from leukotree.errors import InputError

WIDTH, HEIGHT = 120, 60


def cell(folder: Path, number: int) -> None:
    """A red cell at a place of its own on a white image that is twice as wide as high, and its mask."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    inside = (x - rng.integers(30, 90)) ** 2 + (y - rng.integers(20, 40)) ** 2 < 15**2
    pixels = np.where(inside[..., None], [220, 0, 0], 255).astype(np.uint8)
    Image.fromarray(pixels).save(folder / f"{number}.png")
    Image.fromarray(inside).save(folder / f"{number}-mask.png")


def write(folder: Path, count: int = 8, masked: int = 8) -> Path:
    folder.mkdir(exist_ok=True)
    rows = []
    for number in range(count):
        cell(folder, number)
        mask = f"{number}-mask.png" if number < masked else ""
        leaf = ("AML", "normal")[number % 2]
        rows.append([f"{number}.png", leaf, f"p{number}", "lab", mask])
    path = folder / "manifest.csv"
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([["image", "leaf", "patient", "source", "mask"], *rows])
    return path


def packed(manifest: Path, **options: object) -> Dataset:
    out = manifest.parent.with_name(f"{manifest.parent.name}-shards")
    pack.pack(manifest, out, folds=2, size=48, **options)  # type: ignore[arg-type]
    return Dataset.open(out)


def agreement(dataset: Dataset, found: masks.Masks, row: int) -> float:
    """Intersection over union of a mask with the red pixels of the packed image."""
    pixels, mask = decode(dataset, row).astype(int), found.read(row)
    red = pixels[..., 0] - pixels[..., 1] > 110
    return float((red & mask).sum() / (red | mask).sum())


def test_a_mask_lies_on_the_cell_of_the_packed_image(tmp_path: Path) -> None:
    manifest = write(tmp_path / "my images")
    dataset = packed(manifest)
    found = masks.match(manifest, dataset)
    assert sorted(found.files) == list(range(8))
    assert min(agreement(dataset, found, row) for row in range(8)) > 0.9
    kept, others = masks.verified(found, dataset, range(8))
    assert (kept.files, others) == (found.files, 0)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_turned_image_has_the_mask_of_what_is_shown(orientation: int, tmp_path: Path) -> None:
    manifest = write(tmp_path / "images", count=4)
    for number in range(4):
        path = tmp_path / "images" / f"{number}.png"
        with Image.open(path) as image:
            turn = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}
            stored = image.transpose(turn.get(orientation, Image.Transpose.ROTATE_270))
            exif = Image.Exif()
            exif[0x0112] = orientation
            stored.save(path, exif=exif)
    dataset = packed(manifest)
    found = masks.match(manifest, dataset)
    assert min(agreement(dataset, found, row) for row in range(4)) > 0.9


def test_behind_pseudonyms_the_bytes_find_the_masks(tmp_path: Path) -> None:
    manifest = write(tmp_path / "images", masked=5)
    dataset = packed(manifest, pseudonyms=tmp_path / "secret" / "numbers.csv")
    found = masks.match(manifest, dataset)
    assert len(found.files) == 5
    assert min(agreement(dataset, found, row) for row in found.files) > 0.9


def test_another_picture_of_the_same_name_is_noticed(tmp_path: Path) -> None:
    dataset = packed(write(tmp_path / "images"))
    other = write(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "3.png", tmp_path / "other" / "2.png")
    kept, others = masks.verified(masks.match(other, dataset), dataset, range(8))
    row = dataset.index.index[dataset.index["image"] == "2.png"][0]
    assert others == 1
    assert row not in kept.files


def test_images_without_a_mask_have_none(tmp_path: Path) -> None:
    manifest = write(tmp_path / "images", masked=3)
    dataset = packed(manifest)
    found = masks.match(manifest, dataset)
    assert len(found.files) == 3
    assert sum(found.read(row).any() for row in range(8)) == 3


def test_a_digest_changes_with_a_mask(tmp_path: Path) -> None:
    manifest = write(tmp_path / "images")
    dataset = packed(manifest)
    before = masks.match(manifest, dataset).digest(range(8))
    assert masks.match(manifest, dataset).digest(range(8)) == before
    Image.new("1", (WIDTH, HEIGHT), 1).save(tmp_path / "images" / "4-mask.png")
    assert masks.match(manifest, dataset).digest(range(8)) != before


def test_what_gives_no_mask_is_refused(tmp_path: Path) -> None:
    dataset = packed(write(tmp_path / "images"))
    none = write(tmp_path / "none", masked=0)
    with pytest.raises(InputError, match=r"none/manifest.csv: has no mask"):
        masks.match(none, dataset)
    text = write(tmp_path / "others").read_text().replace("lab", "hospital")
    (tmp_path / "others" / "manifest.csv").write_text(text)
    with pytest.raises(InputError, match=r"none of its 8 images with a mask, such as \(hospital, 0.png\)"):
        masks.match(tmp_path / "others" / "manifest.csv", dataset)
    manifest = tmp_path / "images" / "manifest.csv"
    Image.new("1", (HEIGHT, WIDTH)).save(tmp_path / "images" / "0-mask.png")
    found = masks.match(manifest, dataset)
    row = int(dataset.index.index[dataset.index["image"] == "0.png"][0])
    with pytest.raises(InputError, match=r"0-mask.png: is 60 x 120 pixels, its image .* is 120 x 60"):
        found.read(row)
