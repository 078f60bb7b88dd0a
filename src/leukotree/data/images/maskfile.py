"""A mask of the white cell in a file: read, and brought to the square of its packed image."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from leukotree.data import boxes
from leukotree.data.boxes import WHOLE_BOX, Crop
from leukotree.data.images import codec, formats
from leukotree.errors import InputError, one_line

LABELS = 32
"""A mask whose values are all below this numbers regions (0 background, 1 nucleus, ...). Others are black and
white, and a value above half of white is in the cell."""
SHAPE = 0.02
"""Largest relative difference between the shapes (width / height) of a mask and its image."""


def square(
    path: str | Path, image: str | Path, size: int, box: str = "", crop: Crop = WHOLE_BOX
) -> np.ndarray:
    """(size, size) bool: the mask in the geometry that `codec.square` gives its image.

    `pack` keeps the whole image and changes its shape to a square, so the mask is resized in the same way. A
    pixel is in the mask if half of its area is.

    Args:
        path: the mask's file. Its size may differ from the image's, its shape may not.
        image: the image's file. Only its header is read.
        box: the part of the image, "" for the whole. In the mask it is at the same place.
        crop: how a box becomes a part.

    Raises InputError naming the mask, if one of the two cannot be read or their shapes differ.
    """
    mask = read(path)
    width, height = _upright_size(image)
    if abs(mask.shape[1] * height / (mask.shape[0] * width) - 1) > SHAPE:
        raise InputError(
            f"{path}: is {mask.shape[1]} x {mask.shape[0]} pixels, its image {image} is {width} x {height}; "
            "make the mask as large as the image"
        )
    if box:
        mask = _part(path, mask, (width, height), box, crop)
    larger = min(mask.shape) >= size
    resized = cv2.resize(
        mask.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA if larger else cv2.INTER_LINEAR
    )
    return resized >= 0.5


def _part(path: str | Path, mask: np.ndarray, image: tuple[int, int], box: str, crop: Crop) -> np.ndarray:
    """The part of a mask that lies where the box lies in its image, whose size may be another one."""
    if (inside := crop.pixels(boxes.parse(box), *image)) is None:
        raise InputError(f"{path}: box {box!r} lies outside of its image of {image[0]} x {image[1]} pixels")
    left, top, right, bottom = inside
    across, down = mask.shape[1] / image[0], mask.shape[0] / image[1]
    rows = slice(round(top * down), max(round(bottom * down), round(top * down) + 1))
    columns = slice(round(left * across), max(round(right * across), round(left * across) + 1))
    return np.ascontiguousarray(mask[rows, columns])


def read(path: str | Path) -> np.ndarray:
    """(H, W) bool: whether a pixel is in the cell. Raises InputError naming the file if it is no image."""
    with _opened(path) as image:
        image.load()
        upright = ImageOps.exif_transpose(image)
        if upright.mode == "P":
            values = np.asarray(upright)
            return values != _background(upright)
        wide = upright.mode.startswith("I") or upright.mode == "F"
        values = np.asarray(upright if wide else upright.convert("L")).astype(np.float64)
    top = float(values.max(initial=0))
    white = 255.0 if not wide else top
    return values > 0 if top < LABELS else values > white / 2


def _background(image: Image.Image) -> int:
    """The index of black in the palette of an image; 0 without one."""
    palette = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    black = np.flatnonzero((palette == 0).all(axis=1))
    return int(black[0]) if len(black) else 0


def _upright_size(path: str | Path) -> tuple[int, int]:
    """Width and height of an image as it is shown."""
    with _opened(path) as image:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
        return (image.height, image.width) if turned else image.size


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    """An image file, opened by Pillow with the formats and limits of `pack`. Raises InputError naming it,
    also for what is wrong with it inside of the context."""
    try:
        with open(path, "rb") as file:
            data = file.read(codec.MAX_BYTES + 1)
        if len(data) > codec.MAX_BYTES:
            raise formats.BrokenImage(f"over {codec.MAX_BYTES} bytes")
        with Image.open(io.BytesIO(data), formats=tuple(formats.FORMATS)) as image:
            formats.check_size(image.width, image.height)
            yield image
    except UnidentifiedImageError as error:
        raise InputError(f"{path}: is no image of a format that is read; save the mask as PNG") from error
    except Exception as error:  # for a damaged file decoders raise nearly any exception
        raise InputError(f"{path}: cannot be read: {one_line(error)[:200]}") from error
