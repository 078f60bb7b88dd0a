"""Boxes of a manifest: the part of an image file that is the image, such as one cell of a field of view.

A box is `x y width height` in pixels of the upright image. (x, y) is its left upper corner, counted from 0.
Fractions of a pixel are allowed.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

NAMED = "#xywh="
"""What a box begins with in the name of an image, as in W3C's Media Fragments URI 1.0, section 4.2.2."""
MAX_MARGIN = 4.0
"""Largest margin. The cell of a crop with more has less than 2 % of its area."""
FAR = 1e7
"""A larger number is no place in an image that is read (`formats.MAX_PIXELS`)."""
_DIGITS = 4
"""Decimals of a pixel that are kept."""
_NEAR = 0.01
"""Fractions of a pixel below this come from rounding, not from a person: YOLO's files have six decimals of a
width that may be 10,000 pixels."""
OUTSIDE = "box outside of its image"
"""Why `leukotree import` leaves such a box out."""


class Box(NamedTuple):
    """A rectangle in pixels."""

    x: float
    y: float
    width: float
    height: float

    def __str__(self) -> str:
        return " ".join(map(_number, self))

    def is_cut(self, width: int, height: int) -> bool:
        """Return whether the box reaches the edge of an image of this size: its cell may be cut off there."""
        right, bottom = self.x + self.width, self.y + self.height
        return min(self.x, self.y, width - right, height - bottom) < _NEAR

    def is_outside(self, width: int, height: int) -> bool:
        """Return whether no part of the box is in an image of this size."""
        right, bottom = self.x + self.width, self.y + self.height
        return min(width - self.x, height - self.y, right, bottom) <= 0


@functools.lru_cache(maxsize=4096)
def parse(text: str) -> Box:
    """Return the box of a text: four numbers with spaces or commas between them.

    Raises ValueError with the reason for another text, and for a box without an area.
    """
    parts = re.sub(r"[\s,;()\[\]]+", " ", text).split()
    try:
        values = [float(part) for part in parts]
    except ValueError:
        values = []
    if len(values) != 4:
        raise ValueError("is not 'x y width height', four numbers of pixels")
    return checked(*values)


def checked(x: float, y: float, width: float, height: float) -> Box:
    """Return the box. Raises ValueError with the reason if it has no area, or is no place in an image."""
    values = (x, y, width, height)
    if not all(math.isfinite(value) and abs(value) < FAR for value in values):
        raise ValueError("is no place in an image")
    box = Box(*(round(value, _DIGITS) for value in values))
    if box.width <= 0 or box.height <= 0:
        raise ValueError("has no area; width and height are above 0")
    return box


def name(image: str, box: str) -> str:
    """Return the name of an image that is a part of a file; `box` is its text, "" for the whole file."""
    return f"{image}{NAMED}{box.replace(' ', ',')}" if box else image


def names(images: Sequence[str], boxes: Sequence[str]) -> list[str]:
    """Return `name` of each image."""
    return [name(image, box) for image, box in zip(images, boxes, strict=True)]


@dataclass(frozen=True)
class Crop:
    """How a box becomes a part of the image."""

    margin: float = 0.0
    """What is added on each side, as a share of the box's width or height."""
    square: bool = False
    """Whether the shorter side is made as long as the longer one, so that a cell keeps its shape."""

    def pixels(self, box: Box, width: int, height: int) -> tuple[int, int, int, int] | None:
        """Return (left, top, right, bottom) of the part in whole pixels, right and bottom excluded.

        The part lies in the image of `width` x `height` pixels: what a box has outside is left out. A square
        is moved inwards instead, as far as the image is large enough. None if the box itself has nothing
        inside.
        """
        if box.is_outside(width, height):
            return None
        grown = 1 + 2 * self.margin
        sides = box.width * grown, box.height * grown
        if self.square:
            sides = max(sides), max(sides)
        starts = box.x + (box.width - sides[0]) / 2, box.y + (box.height - sides[1]) / 2
        if self.square:
            left, right = _moved(starts[0], sides[0], width)
            top, bottom = _moved(starts[1], sides[1], height)
        else:
            left, right = _clipped(starts[0], sides[0], width)
            top, bottom = _clipped(starts[1], sides[1], height)
        return left, top, right, bottom


WHOLE_BOX = Crop()


def _clipped(start: float, side: float, limit: int) -> tuple[int, int]:
    """All pixels that the part touches, at least one."""
    first = min(max(0, math.floor(start + _NEAR)), limit - 1)
    return first, min(limit, max(first + 1, math.ceil(start + side - _NEAR)))


def _moved(start: float, side: float, limit: int) -> tuple[int, int]:
    """As many pixels as the side has, inside of the image."""
    length = min(limit, max(1, round(side)))
    first = min(max(0, round(start)), limit - length)
    return first, first + length


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
