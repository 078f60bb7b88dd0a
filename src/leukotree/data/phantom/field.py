"""The field of view around the white cell: red cells, platelets, plasma film, as ink per dye and pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from leukotree.data.phantom import shapes
from leukotree.data.phantom.cells import Cell
from leukotree.data.phantom.slide import DYE, Slide


@dataclass(frozen=True)
class Window:
    """A rectangle of pixels: rows and columns of the field, and coordinates from the field's centre.

    The coordinates x and y are in micrometres.
    """

    rows: slice
    columns: slice
    x: np.ndarray
    y: np.ndarray
    pixel: float  # micrometres

    @classmethod
    def around(cls, x: float, y: float, reach: float, field: float, size: int) -> Window:
        """Return the pixels within `reach` of a point, cut at the field's border; it may be empty."""
        pixel = field / size

        def span(at: float) -> slice:
            low, high = (
                int(np.clip(round((at + side * reach) / pixel + size / 2), 0, size)) for side in (-1, 1)
            )
            return slice(low, high)

        rows, columns = span(y), span(x)
        centres = (np.arange(size, dtype=np.float32) + 0.5) * pixel - field / 2
        grid_y, grid_x = np.meshgrid(centres[rows], centres[columns], indexing="ij")
        return cls(rows, columns, grid_x, grid_y, pixel)

    @property
    def place(self) -> tuple[slice, slice]:
        """The index of the window in an array of the field."""
        return self.rows, self.columns


def cover(d: np.ndarray, width: float) -> np.ndarray:
    """Return the coverage in [0, 1] of a signed distance: a smooth step, `width` on each side of the edge."""
    t = (0.5 - d / (2 * width)).clip(0, 1)
    return t * t * (3 - 2 * t)


def place_reds(slide: Slide, cell: Cell, centre: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return x, y and radius of the red cells, (n, 3).

    Their places are random. A cell is kept if it overlaps little with others, and not with the white cell.
    """
    half = slide.field / 2 + slide.red_radius
    wanted = rng.poisson(slide.red_count * (2 * half) ** 2 / 1000)
    depth = cell.traits["moulding"] * 0.4 * cell.traits["radius"]
    crowd = int(2 + 6 * cell.traits["moulding"])  # red cells that press into the white cell are close to it
    kept = np.empty((0, 3))
    for attempt in range(4 * wanted + crowd):
        radius = slide.red_radius * max(0.6, rng.normal(1, slide.red_spread))
        angle, (x, y) = rng.uniform(0, 2 * np.pi), rng.uniform(-half, half, 2)
        nearest = cell.traits["radius"] + radius - depth
        if attempt < crowd:
            away = nearest + rng.exponential(0.6)
            x, y = centre[0] + away * np.cos(angle), centre[1] + away * np.sin(angle)
        overlap = 1 - slide.red_overlap * rng.random()
        free = np.all(np.hypot(kept[:, 0] - x, kept[:, 1] - y) > (kept[:, 2] + radius) * overlap)
        if free and np.hypot(x - centre[0], y - centre[1]) >= nearest:
            kept = np.vstack([kept, (x, y, radius)])
        if len(kept) >= wanted:
            break
    return kept


def paint_background(ink: np.ndarray, slide: Slide, reds: np.ndarray, rng: np.random.Generator) -> None:
    """Add everything except the white cell to the ink of a field, (number of DYES, size, size)."""
    size = ink.shape[1]
    pixel = slide.field / size
    for x, y, radius in reds.tolist():
        window = Window.around(x, y, 1.25 * radius, slide.field, size)
        ink[DYE["haemoglobin"], *window.place] += _red_cell(window, x, y, radius, slide, rng)
    for _ in range(rng.poisson(slide.platelets)):
        _paint_platelet(ink, slide, rng)
    ink[DYE["haemoglobin"]] += slide.wash * (1 + 0.35 * shapes.noise(rng, (size, size), 2.5 / pixel))
    for dye in ("haemoglobin", "azurophil", "basophilic"):
        if ink[DYE[dye]].any():
            ndimage.gaussian_filter(ink[DYE[dye]], slide.blur / pixel, output=ink[DYE[dye]], truncate=3)


def _red_cell(
    window: Window, x: float, y: float, radius: float, slide: Slide, rng: np.random.Generator
) -> np.ndarray:
    """Return the haemoglobin of a biconcave disc: an oval with a soft pale centre and a darker rim."""
    stretch, turn = float(np.exp(rng.normal(0, 0.06))), rng.uniform(0, np.pi)
    pallor = min(max(slide.red_pallor + rng.normal(0, 0.1), 0), 0.9)
    waves, phase, strength = int(rng.integers(7, 14)), rng.uniform(0, 2 * np.pi), rng.lognormal(0, 0.12)
    dx, dy = window.x - x, window.y - y
    cos, sin = float(np.cos(turn)), float(np.sin(turn))
    u, v = (dx * cos + dy * sin) * stretch, (dy * cos - dx * sin) / stretch
    r = np.hypot(u, v) / radius
    if slide.red_crenation:
        angle = np.arctan2(v, u)
        r *= 1 + slide.red_crenation * (
            np.cos(waves * angle + phase) + 0.7 * np.cos((waves - 4) * angle - 2 * phase)
        )
    pale = pallor * np.exp(-0.9 * np.square(np.square(r / 0.48)))
    rim = 0.18 * np.exp(-np.square((r - 0.86) / 0.1))
    return strength * (1 - pale + rim) * cover((r - 1) * radius, max(0.18, window.pixel))


def _paint_platelet(ink: np.ndarray, slide: Slide, rng: np.random.Generator) -> None:
    size = ink.shape[1]
    x, y = rng.uniform(-slide.field / 2, slide.field / 2, 2).tolist()
    radius = rng.uniform(0.8, 1.5)
    window = Window.around(x, y, 1.6 * radius, slide.field, size)
    if window.x.size:
        grain = shapes.noise(rng, window.x.shape, 0.3 / window.pixel)
        inside = cover(
            np.hypot(window.x - x, window.y - y) - radius * (1 + 0.12 * grain), max(0.25, window.pixel)
        )
        ink[DYE["azurophil"], *window.place] += 0.26 * inside * (1 + 0.6 * grain).clip(0.3, 2.2)
        ink[DYE["basophilic"], *window.place] += 0.12 * inside
