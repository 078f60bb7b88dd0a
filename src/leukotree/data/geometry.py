"""Random resized crop, flips and right-angle turns of one uint8 image, in OpenCV's vector code.

The random numbers of a sample are a function of (seed, epoch, its image). They are drawn as one table per
epoch, so they do not depend on ranks, workers or micro batches. The crops have the distribution
of torchvision's RandomResizedCrop.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from leukotree import seeds
from leukotree.spec import AugmentSpec

COLUMNS = ("top", "left", "height", "width", "symmetry")
RATIO = 4 / 3
"""Aspect ratios of the crop lie in [3/4, 4/3], log-uniform."""
ATTEMPTS = 10
"""Windows that are drawn until one fits into the image; after that the whole image is used."""
HFLIP, VFLIP, TRANSPOSE = 1, 2, 4
"""Bits of a symmetry. All eight symmetries of the square are an optional transposition, then flips."""
_FLIP_CODES = {HFLIP: 1, VFLIP: 0, HFLIP | VFLIP: -1}  # codes of cv2.flip

# The workers are threads already; OpenCV's threads would compete with them.
cv2.setNumThreads(0)


def draw(seed: int, epoch: int, samples: int, size: int, spec: AugmentSpec, *block: int) -> np.ndarray:
    """Return the table of one epoch, or of one block of it: (samples, 5) int32, a column per name in COLUMNS.

    Windows are in pixels of a size x size image.
    """
    generator = seeds.generator(seed, "crop", epoch, *block)
    place, symmetry = generator.random((samples, 2)), generator.integers(0, 8, samples)
    sides = np.full((samples, 2), size)
    pending = np.arange(samples)
    for _ in range(ATTEMPTS):
        if not len(pending):
            break
        sides[pending], fits = _windows(generator.random((len(pending), 2)), size, spec.crop_scale)
        pending = pending[~fits]
    sides[pending] = size
    corner = np.floor(place * (size - sides + 1))
    flips = HFLIP | VFLIP if spec.flips else 0
    turns = TRANSPOSE if spec.flips and spec.turns else 0
    return np.column_stack([corner, sides, symmetry & (flips | turns)]).astype(np.int32)


def _windows(uniform: np.ndarray, size: int, scale: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return (n, 2) heights and widths from (n, 2) uniform numbers, and (n,) whether each fits the image."""
    area = size * size * (scale[0] + (scale[1] - scale[0]) * uniform[:, 0])
    ratio = np.exp((2 * uniform[:, 1] - 1) * math.log(RATIO))
    sides = np.column_stack([np.rint(np.sqrt(area / ratio)), np.rint(np.sqrt(area * ratio))])
    return sides, np.all((sides > 0) & (sides <= size), axis=1)


def apply(image: np.ndarray, crop: np.ndarray, out: np.ndarray, scratch: np.ndarray) -> None:
    """Crop, resize (bilinear) and turn `image` into `out`.

    Args:
        image: (size, size, 3) uint8, may be read-only.
        crop: (5,) row of `draw`.
        out: (size, size, 3) uint8, contiguous; is filled.
        scratch: like `out`; is overwritten. Neither may overlap with `image`.
    """
    top, left, height, width, symmetry = crop.tolist()
    resized = scratch if symmetry & TRANSPOSE else out
    window = image[top : top + height, left : left + width]
    cv2.resize(window, (out.shape[1], out.shape[0]), dst=resized, interpolation=cv2.INTER_LINEAR)
    if symmetry & TRANSPOSE:
        cv2.transpose(resized, dst=out)
    if (code := _FLIP_CODES.get(symmetry & (HFLIP | VFLIP))) is not None:
        cv2.flip(out, code, dst=out)
