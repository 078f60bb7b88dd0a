"""One field of view: red cells, platelets and one white cell, as ink per dye and pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from leukotree.data.phantom import shapes
from leukotree.data.phantom.cells import Cell, sample
from leukotree.data.phantom.slide import DYES, Slide

DYE = {name: index for index, name in enumerate(DYES)}
FAINTEST = 0.04
"""Coverage below which a pixel gets none of the white cell's ink, so that the mask has an end."""


@dataclass(frozen=True)
class Window:
    """A rectangle of pixels: rows and columns of the field, and micrometre coordinates (x, y) about the field's centre."""

    rows: slice
    columns: slice
    x: np.ndarray
    y: np.ndarray
    pixel: float  # micrometres

    @classmethod
    def around(cls, x: float, y: float, reach: float, field: float, size: int) -> Window:
        """The pixels within `reach` of a point, cut at the field's border; may be empty."""
        pixel = field / size
        low, high = ([int(np.clip(round((at + side * reach) / pixel + size / 2), 0, size)) for at in (x, y)] for side in (-1, 1))
        columns, rows = slice(low[0], high[0]), slice(low[1], high[1])
        centres = (np.arange(size, dtype=np.float32) + 0.5) * pixel - field / 2
        grid_y, grid_x = np.meshgrid(centres[rows], centres[columns], indexing="ij")
        return cls(rows, columns, grid_x, grid_y, pixel)

    @property
    def place(self) -> tuple[slice, slice]:
        """Index of the window in a field."""
        return self.rows, self.columns


def draw(leaf: str, slide: Slide, seed: np.random.SeedSequence, size: int, with_cell: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Draw a field: image (size, size, 3) uint8 and mask (size, size) bool, True where the white cell has ink.

    Without the cell the rest of the image stays the same to the last bit, and the mask is still the cell's.
    """
    cell_rng, field_rng, camera_rng = (np.random.default_rng(child) for child in seed.spawn(3))
    cell = sample(leaf, slide.clone, cell_rng)
    centre = cell_rng.normal(0, 0.045 * slide.field, 2).clip(-0.12 * slide.field, 0.12 * slide.field)
    reds = _place_reds(slide, cell, centre, field_rng)
    ink = np.zeros((len(DYES), size, size), np.float32)
    _paint_background(ink, slide, reds, field_rng)
    window, coverage, cell_ink = paint_cell(cell, centre, reds, slide, size, cell_rng)
    if with_cell:
        ink[:, *window.place] += cell_ink
    mask = np.zeros((size, size), bool)
    mask[window.place] = coverage > 0
    return slide.develop(ink, camera_rng), mask


def _place_reds(slide: Slide, cell: Cell, centre: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n, 3) x, y, radius of the red cells: thrown at random, kept where they neither overlap too much nor sit on the white cell."""
    half = slide.field / 2 + slide.red_radius
    wanted = rng.poisson(slide.red_count * (2 * half) ** 2 / 1000)
    depth = cell.traits["moulding"] * 0.4 * cell.traits["radius"]
    crowd = int(2 + 6 * cell.traits["moulding"])  # a cell that moulds itself to its neighbours has some
    kept: list[tuple[float, float, float]] = []
    for attempt in range(4 * wanted + crowd):
        radius = slide.red_radius * max(0.6, rng.normal(1, slide.red_spread))
        angle, (x, y) = rng.uniform(0, 2 * np.pi), rng.uniform(-half, half, 2)
        nearest = cell.traits["radius"] + radius - depth
        if attempt < crowd:
            away = nearest + rng.exponential(0.6)
            x, y = centre[0] + away * np.cos(angle), centre[1] + away * np.sin(angle)
        free = all(np.hypot(x - a, y - b) > (radius + r) * (1 - slide.red_overlap * rng.random()) for a, b, r in kept)
        if free and np.hypot(x - centre[0], y - centre[1]) >= nearest:
            kept.append((x, y, radius))
        if len(kept) >= wanted:
            break
    return np.array(kept).reshape(-1, 3)


def _paint_background(ink: np.ndarray, slide: Slide, reds: np.ndarray, rng: np.random.Generator) -> None:
    size = ink.shape[1]
    pixel = slide.field / size
    for x, y, radius in reds:
        window = Window.around(x, y, 1.25 * radius, slide.field, size)
        ink[DYE["haemoglobin"], *window.place] += _red_cell(window, x, y, radius, slide, rng)
    for _ in range(rng.poisson(slide.platelets)):
        x, y = rng.uniform(-slide.field / 2, slide.field / 2, 2)
        radius = rng.uniform(0.8, 1.5)
        window = Window.around(x, y, 1.6 * radius, slide.field, size)
        if window.x.size:
            grain = shapes.noise(rng, window.x.shape, 0.3 / pixel)
            inside = _cover(np.hypot(window.x - x, window.y - y) - radius * (1 + 0.12 * grain), max(0.25, pixel))
            ink[DYE["azurophil"], *window.place] += 0.26 * inside * (1 + 0.6 * grain).clip(0.3, 2.2)
            ink[DYE["basophilic"], *window.place] += 0.12 * inside
    ink[DYE["haemoglobin"]] += slide.wash * (1 + 0.35 * shapes.noise(rng, (size, size), 2.5 / pixel))
    for dye in ("haemoglobin", "azurophil", "basophilic"):
        ndimage.gaussian_filter(ink[DYE[dye]], slide.blur / pixel, output=ink[DYE[dye]], truncate=3)


def _red_cell(window: Window, x: float, y: float, radius: float, slide: Slide, rng: np.random.Generator) -> np.ndarray:
    """Haemoglobin of a biconcave disc: an oval plateau with a soft pale centre and a slightly darker rim."""
    stretch, turn = np.exp(rng.normal(0, 0.06)), rng.uniform(0, np.pi)
    pallor = np.clip(slide.red_pallor + rng.normal(0, 0.1), 0, 0.9)
    waves, phase, strength = rng.integers(7, 14), rng.uniform(0, 2 * np.pi), rng.lognormal(0, 0.12)
    dx, dy = window.x - x, window.y - y
    u = (dx * np.cos(turn) + dy * np.sin(turn)) * stretch
    v = (dy * np.cos(turn) - dx * np.sin(turn)) / stretch
    r = np.hypot(u, v) / radius
    if slide.red_crenation:
        r *= 1 + slide.red_crenation * np.cos(waves * np.arctan2(v, u) + phase)
    centre = np.exp(-((r / 0.48) ** 4) * 0.9) * pallor
    rim = 0.18 * np.exp(-(((r - 0.86) / 0.1) ** 2))
    return strength * (1 - centre + rim) * _cover((r - 1) * radius, max(0.18, window.pixel))


def _cover(d: np.ndarray, width: float) -> np.ndarray:
    """Coverage in [0, 1] of a signed distance: a smooth step over `width` on either side of the edge."""
    t = (0.5 - d / (2 * width)).clip(0, 1)
    return t * t * (3 - 2 * t)


def paint_cell(
    cell: Cell, centre: np.ndarray, reds: np.ndarray, slide: Slide, size: int, rng: np.random.Generator
) -> tuple[Window, np.ndarray, np.ndarray]:
    """The white cell in a window of its own: coverage (h, w) and ink (number of DYES, h, w), zero where coverage is."""
    t = cell.traits
    reach = t["radius"] * (1.35 + 0.5 * t["elongation"]) + 2 * t["outline"] + t["fray"]
    window = Window.around(*centre, reach, slide.field, size)
    outline = _outline(window, cell, centre, reds, rng)
    body = _largest(_cover(outline, max(slide.blur, 0.75 * window.pixel) + t["fray"]))
    nucleus, hof = _nucleus(window, cell, centre, outline, rng)
    ink = np.zeros((len(DYES), *outline.shape), np.float32)
    inside_nucleus = _cover(nucleus, max(0.12, window.pixel) + t["fray"])
    _paint_cytoplasm(ink, window, cell, outline, inside_nucleus, hof, rng)
    _paint_nucleus(ink, window, cell, nucleus, inside_nucleus, rng)
    _paint_granules(ink, window, cell, outline, nucleus, rng)
    _paint_rods(ink, window, cell, outline, nucleus, rng)
    for layer in ink:
        if layer.any():
            ndimage.gaussian_filter(layer, slide.blur / window.pixel, output=layer, truncate=3, mode="nearest")
    return window, body, ink.clip(0) * body


def _outline(window: Window, cell: Cell, centre: np.ndarray, reds: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Signed distance to the cell's edge: a wavy oval out of which red cells press their share."""
    t = cell.traits
    oval = shapes.turned(shapes.scaled(shapes.rod(2 * t["elongation"]), np.pi * t["radius"] ** 2), rng.uniform(0, 2 * np.pi))
    x, y = _warped(window, centre, t["outline"], 2.2, rng)
    d = shapes.distance(x, y, oval)
    if t["fray"]:
        d = d + t["fray"] * shapes.noise(rng, d.shape, 0.5 / window.pixel)
    for a, b, radius in reds:
        if np.hypot(a - centre[0], b - centre[1]) < 2 * t["radius"] + radius:
            outside = radius + 0.15 - np.hypot(window.x - a, window.y - b)
            d = -shapes.minimum(-d, -outside, 0.6)
    return d


def _nucleus(window: Window, cell: Cell, centre: np.ndarray, outline: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Signed distance to the nucleus, kept inside the cell, and the strength (0 to 1) of the clearing beside it."""
    t = cell.traits
    area = t["nc"] * np.pi * t["radius"] ** 2
    chain = shapes.turned(shapes.scaled(shapes.NUCLEI[cell.nucleus](rng), area), rng.uniform(0, 2 * np.pi))
    toward = rng.uniform(0, 2 * np.pi)
    shift = t["eccentricity"] * max(t["radius"] - np.sqrt(area / np.pi) - 0.2, 0) * np.array([np.cos(toward), np.sin(toward)])
    x, y = _warped(window, centre + shift, t["fold"], 1.3, rng)
    d = shapes.distance(x, y, chain, smooth=0.12 * np.sqrt(area))
    margin = 0.25 if t["nc"] < 0.95 else 0.0
    d = -shapes.minimum(-d, -(outline + margin), 0.3)
    beside = centre - shift / max(np.hypot(*shift), 1e-6) * 0.45 * t["radius"]
    hof = np.exp(-((window.x - beside[0]) ** 2 + (window.y - beside[1]) ** 2) / (2 * (0.3 * t["radius"]) ** 2))
    return d, t["hof"] * hof


def _warped(window: Window, centre: np.ndarray, amplitude: float, scale: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates about `centre`, bent by smooth noise of a correlation length `scale`."""
    bend = [amplitude * shapes.noise(rng, window.x.shape, scale / window.pixel) for _ in range(2)]
    return window.x - centre[0] + bend[0], window.y - centre[1] + bend[1]


def _largest(coverage: np.ndarray) -> np.ndarray:
    """The largest connected piece of a coverage, with nothing fainter than FAINTEST."""
    pieces, count = ndimage.label(coverage >= FAINTEST)
    if count == 0:
        return np.zeros_like(coverage)
    return np.where(pieces == 1 + np.bincount(pieces.ravel())[1:].argmax(), coverage, 0)


def _paint_cytoplasm(
    ink: np.ndarray, window: Window, cell: Cell, outline: np.ndarray, inside_nucleus: np.ndarray, hof: np.ndarray, rng: np.random.Generator
) -> None:
    t = cell.traits
    mottle = 1 + 0.1 * shapes.noise(rng, outline.shape, 0.5 / window.pixel)
    edge = 1 + t["fringe"] * np.exp(np.minimum(outline, 0) / 1.1) - 0.3 * t["fringe"]
    body = mottle * (1 - hof) * (1 - 0.75 * inside_nucleus)
    for _ in range(round(max(t["vacuoles"], 0))):
        inside = np.argwhere((outline < -0.6) & (inside_nucleus < 0.5))
        if len(inside):
            row, column = inside[rng.integers(len(inside))]
            hole = np.hypot(window.x - window.x[row, column], window.y - window.y[row, column]) - rng.uniform(0.25, 0.6)
            body *= 1 - 0.8 * _cover(hole, 0.2)
    ink[DYE["basophilic"]] += t["blue"] * edge * body
    ink[DYE["azurophil"]] += t["pink"] * body


def _paint_nucleus(ink: np.ndarray, window: Window, cell: Cell, d: np.ndarray, inside: np.ndarray, rng: np.random.Generator) -> None:
    """Chromatin of a given grain, a darker membrane, and nucleoli: pale bluish spots with a condensed rim."""
    t = cell.traits
    grain = shapes.noise(rng, d.shape, 0.5 * t["chromatin_scale"] / window.pixel)
    grain = (1 - t["clumping"]) * grain + t["clumping"] * np.tanh(2.5 * grain)
    cloud = shapes.noise(rng, d.shape, 1.6 / window.pixel)
    membrane = 0.15 * np.exp(-np.abs(d + 0.15) / 0.25) * (t["fray"] == 0)
    chromatin = 1 + t["chromatin_contrast"] * grain + 0.06 * cloud + membrane
    deep = np.argwhere(d < -0.35 * -d.min()) if t["nucleoli"] >= 0.5 else np.empty((0, 2), int)
    for _ in range(round(max(t["nucleoli"], 0)) if len(deep) else 0):
        row, column = deep[rng.integers(len(deep))]
        radius = t["nucleolus_radius"] * rng.uniform(0.75, 1.2)
        away = np.hypot(window.x - window.x[row, column], window.y - window.y[row, column])
        spot = t["nucleolus_contrast"] * _cover(away - radius, 0.3)
        chromatin += 0.35 * t["nucleolus_contrast"] * np.exp(-(((away - radius - 0.25) / 0.2) ** 2)) - spot
        ink[DYE["basophilic"]] += 0.6 * spot * inside
    ink[DYE["nuclear"]] += t["nuclear_ink"] * chromatin.clip(0.15) * inside


def _paint_granules(ink: np.ndarray, window: Window, cell: Cell, outline: np.ndarray, nucleus: np.ndarray, rng: np.random.Generator) -> None:
    """Granules: points scattered over the cytoplasm (and their share of the nucleus), each a small Gaussian spot of ink."""
    t = cell.traits
    weight = np.where(nucleus < 0, t["over_nucleus"], 1.0) * (outline < -0.25)
    count = rng.poisson(max(t["granules"], 0) * weight.sum() * window.pixel**2)
    if count == 0:
        return
    cumulative = np.cumsum(weight.ravel(), dtype=np.float64)
    at = np.searchsorted(cumulative, rng.random(count) * cumulative[-1])
    points = np.zeros(outline.size, np.float32)
    np.add.at(points, at, rng.lognormal(0, 0.35, count))
    sigma = max(t["granule_radius"] / window.pixel, 0.4)
    spots = ndimage.gaussian_filter(points.reshape(outline.shape), sigma, truncate=3) * (2 * np.pi * sigma**2)
    # A granule smaller than a pixel covers only part of it.
    share = min(1.0, (t["granule_radius"] / (0.4 * window.pixel)) ** 2)
    ink[DYE[cell.granule_dye]] += t["granule_ink"] * share * np.tanh(1.3 * spots)


def _paint_rods(ink: np.ndarray, window: Window, cell: Cell, outline: np.ndarray, nucleus: np.ndarray, rng: np.random.Generator) -> None:
    """Auer rods: one or two lie alone, more lie in a bundle (a faggot cell)."""
    count = round(cell.traits["rods"])
    free = np.argwhere((outline < -0.9) & (nucleus > 0.1))
    if count <= 0 or len(free) == 0:
        return
    lying = rng.uniform(0, np.pi)
    row, column = free[rng.integers(len(free))]
    for _ in range(count):
        if count <= 2:
            (row, column), lying = free[rng.integers(len(free))], rng.uniform(0, np.pi)
        scatter = rng.normal(0, 0.45, 2) if count > 2 else np.zeros(2)
        x, y = window.x - window.x[row, column] - scatter[0], window.y - window.y[row, column] - scatter[1]
        needle = shapes.turned(shapes.rod(rng.uniform(2.0, 4.0), rng.uniform(0.1, 0.17)), lying + rng.normal(0, 0.25))
        width = max(0.12, window.pixel)
        ink[DYE["azurophil"]] += 0.75 * min(1.0, 0.3 / window.pixel) * _cover(shapes.distance(x, y, needle), width) * (outline < -0.3)
