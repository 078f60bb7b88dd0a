"""Draw one image: the field, the white cell on it, and the photograph."""

from __future__ import annotations

import numpy as np

from leukotree.data.phantom import white_cell
from leukotree.data.phantom.cells import sample
from leukotree.data.phantom.field import paint_background, place_reds
from leukotree.data.phantom.slide import DYES, Slide


def draw(
    leaf: str, slide: Slide, seed: np.random.SeedSequence, size: int, with_cell: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Return an image (size, size, 3) uint8 and its mask (size, size) bool, True where the cell has ink.

    Without the cell the rest of the image is the same, bit for bit, and the mask is still that of the cell.
    """
    cell_rng, field_rng, camera_rng = (np.random.default_rng(child) for child in seed.spawn(3))
    cell = sample(leaf, slide.clone, cell_rng)
    centre = cell_rng.normal(0, 0.045 * slide.field, 2).clip(-0.12 * slide.field, 0.12 * slide.field)
    reds = place_reds(slide, cell, centre, field_rng)
    ink = np.zeros((len(DYES), size, size), np.float32)
    paint_background(ink, slide, reds, field_rng)
    window, coverage, cell_ink = white_cell.paint(cell, centre, reds, slide, size, cell_rng)
    if with_cell:
        ink[:, *window.place] += cell_ink
    mask = np.zeros((size, size), bool)
    mask[window.place] = coverage > 0
    return slide.develop(ink, camera_rng), mask
