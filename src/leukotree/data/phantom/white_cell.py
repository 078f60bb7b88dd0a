"""The white cell: outline and nucleus as distances, then ink of cytoplasm, chromatin, granules, rods."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from leukotree.data.phantom import shapes
from leukotree.data.phantom.cells import Cell
from leukotree.data.phantom.field import Window, cover
from leukotree.data.phantom.slide import DYE, DYES, Slide

FAINTEST = 0.04
"""A pixel with less coverage gets none of the cell's ink, so that the mask has a clear edge."""


@dataclass(frozen=True)
class _Canvas:
    """A cell that is painted. Arrays have the window's shape (h, w), the ink has (number of DYES, h, w)."""

    cell: Cell
    window: Window
    outline: np.ndarray  # signed distance to the cell's edge
    nucleus: np.ndarray  # signed distance to the nucleus
    in_nucleus: np.ndarray  # coverage of the nucleus
    hof: np.ndarray  # strength of the clearing beside the nucleus
    ink: np.ndarray
    rng: np.random.Generator

    def any_point(self, where: np.ndarray) -> tuple[float, float] | None:
        """Return the coordinates of a random pixel of those marked; None if there is none."""
        points = np.flatnonzero(where)
        if not len(points):
            return None
        at = points[self.rng.integers(len(points))]
        return float(self.window.x.flat[at]), float(self.window.y.flat[at])

    def away(self, point: tuple[float, float]) -> np.ndarray:
        """Return the distance of every pixel from a point."""
        return np.hypot(self.window.x - point[0], self.window.y - point[1])


def paint(
    cell: Cell, centre: np.ndarray, reds: np.ndarray, slide: Slide, size: int, rng: np.random.Generator
) -> tuple[Window, np.ndarray, np.ndarray]:
    """Return the cell's window, coverage (h, w), and ink (number of DYES, h, w).

    The ink is zero where the coverage is.
    """
    t = cell.traits
    reach = t["radius"] * (1.35 + 0.5 * t["elongation"]) + 2 * t["outline"] + t["fray"]
    window = Window.around(float(centre[0]), float(centre[1]), reach, slide.field, size)
    outline = _outline(window, cell, centre, reds, rng)
    body = _largest(cover(outline, max(slide.blur, 0.75 * window.pixel) + t["fray"]))
    nucleus, hof = _nucleus(window, cell, centre, outline, rng)
    in_nucleus = cover(nucleus, max(0.12, window.pixel) + t["fray"])
    ink = np.zeros((len(DYES), *outline.shape), np.float32)
    canvas = _Canvas(cell, window, outline, nucleus, in_nucleus, hof, ink, rng)
    for layer in (_cytoplasm, _chromatin, _granules, _rods):
        layer(canvas)
    for plane in ink:
        if plane.any():
            ndimage.gaussian_filter(
                plane, slide.blur / window.pixel, output=plane, truncate=3, mode="nearest"
            )
    return window, body, ink.clip(0) * body


def _outline(
    window: Window, cell: Cell, centre: np.ndarray, reds: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return the signed distance to the cell's edge: a wavy oval into which red cells press."""
    t = cell.traits
    oval = shapes.turned(
        shapes.scaled(shapes.rod(2 * t["elongation"]), np.pi * t["radius"] ** 2), rng.uniform(0, 2 * np.pi)
    )
    x, y = _warped(window, centre, t["outline"], 2.2, rng)
    d = shapes.distance(x, y, oval)
    if t["fray"]:
        d = d + t["fray"] * shapes.noise(rng, d.shape, 0.5 / window.pixel)
    blend = 0.6
    gaps = shapes.distance(reds[:, 0] - centre[0], reds[:, 1] - centre[1], oval) - reds[:, 2]
    for a, b, radius in reds[gaps < blend + 3 * (t["outline"] + t["fray"])].tolist():
        pressed = radius + 0.15 - np.hypot(window.x - a, window.y - b)
        d = -shapes.minimum(-d, -pressed, blend)
    return d


def _nucleus(
    window: Window, cell: Cell, centre: np.ndarray, outline: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the signed distance to the nucleus, and the strength of the clearing (Golgi zone) beside it.

    The nucleus stays inside of the cell.
    """
    t = cell.traits
    area = t["nc"] * np.pi * t["radius"] ** 2
    chain = shapes.turned(shapes.scaled(shapes.NUCLEI[cell.nucleus](rng), area), rng.uniform(0, 2 * np.pi))
    toward = rng.uniform(0, 2 * np.pi)
    direction = np.array([np.cos(toward), np.sin(toward)])
    shift = t["eccentricity"] * max(t["radius"] - np.sqrt(area / np.pi) - 0.2, 0) * direction
    x, y = _warped(window, centre + shift, t["fold"], 1.3, rng)
    fillet = 0.04 if cell.nucleus == "lobed" else 0.12  # filaments between lobes stay thin
    d = shapes.distance(x, y, chain, smooth=fillet * float(np.sqrt(area)))
    rim_of_cytoplasm = 0.25 if t["nc"] < 0.95 else 0.0
    d = -shapes.minimum(-d, -(outline + rim_of_cytoplasm), 0.3)
    x, y = _warped(window, centre - 0.45 * t["radius"] * direction, 0.0, 1.0, rng)
    return d, t["hof"] * np.exp(-(x * x + y * y) / (2 * (0.3 * t["radius"]) ** 2))


def _warped(
    window: Window, centre: np.ndarray, amplitude: float, scale: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return coordinates from `centre`, bent by smooth noise of a correlation length `scale`."""
    x, y = window.x - float(centre[0]), window.y - float(centre[1])
    if amplitude == 0:
        return x, y
    bend_x, bend_y = (amplitude * shapes.noise(rng, x.shape, scale / window.pixel) for _ in range(2))
    return x + bend_x, y + bend_y


def _largest(coverage: np.ndarray) -> np.ndarray:
    """Return the largest connected piece of a coverage, without pixels below FAINTEST."""
    pieces, count = ndimage.label(coverage >= FAINTEST)
    if count == 0:
        return np.zeros_like(coverage)
    return np.where(pieces == 1 + np.bincount(pieces.ravel())[1:].argmax(), coverage, 0)


def _cytoplasm(canvas: _Canvas) -> None:
    """Add basophilia (darker at the cell's edge, paler at the nucleus), a pink background, and vacuoles."""
    t, window, rng = canvas.cell.traits, canvas.window, canvas.rng
    mottle = 1 + 0.16 * shapes.noise(rng, canvas.outline.shape, 0.4 / window.pixel)
    fringe = 1 + t["fringe"] * (np.exp(np.minimum(canvas.outline, 0) / 1.1) - 0.3)
    body = mottle * (1 - canvas.hof) * (1 - 0.75 * canvas.in_nucleus)
    for _ in range(round(t["vacuoles"])):
        if point := canvas.any_point((canvas.outline < -0.6) & (canvas.nucleus > 0)):
            body *= 1 - 0.8 * cover(canvas.away(point) - rng.uniform(0.25, 0.6), max(0.2, window.pixel))
    canvas.ink[DYE["basophilic"]] += t["blue"] * fringe * body
    canvas.ink[DYE["azurophil"]] += t["pink"] * body


def _chromatin(canvas: _Canvas) -> None:
    """Add chromatin of a given grain, a darker membrane, and nucleoli: pale bluish spots with a dense rim."""
    t, d, window, rng = canvas.cell.traits, canvas.nucleus, canvas.window, canvas.rng
    grain = shapes.noise(rng, d.shape, 0.5 * t["chromatin_scale"] / window.pixel)
    grain = (1 - t["clumping"]) * grain + t["clumping"] * np.tanh(2.5 * grain)
    cloud = shapes.noise(rng, d.shape, 1.6 / window.pixel)
    membrane = 0.0 if t["fray"] else 0.22 * np.exp(-np.abs(d + 0.15) / 0.2)
    chromatin = 1 + t["chromatin_contrast"] * grain + 0.06 * cloud + membrane
    for _ in range(round(t["nucleoli"])):
        if point := canvas.any_point(d < 0.35 * d.min()):
            beyond = canvas.away(point) - t["nucleolus_radius"] * rng.uniform(0.75, 1.2)
            spot = t["nucleolus_contrast"] * cover(beyond, max(0.3, window.pixel))
            chromatin += 0.35 * t["nucleolus_contrast"] * np.exp(-np.square((beyond - 0.25) / 0.2)) - spot
            canvas.ink[DYE["basophilic"]] += 0.6 * spot * canvas.in_nucleus
    canvas.ink[DYE["nuclear"]] += t["nuclear_ink"] * chromatin.clip(0.15) * canvas.in_nucleus


def _granules(canvas: _Canvas) -> None:
    """Add granules: small Gaussian spots of ink at random points of the cytoplasm and partly the nucleus."""
    t, pixel, rng = canvas.cell.traits, canvas.window.pixel, canvas.rng
    weight = np.where(canvas.nucleus < 0, t["over_nucleus"], 1.0) * (canvas.outline < -0.25)
    cumulative = np.cumsum(weight, dtype=np.float64)
    count = rng.poisson(t["granules"] * cumulative[-1] * pixel**2)
    if count == 0:
        return
    points = np.zeros(weight.size, np.float32)
    at = np.searchsorted(cumulative, rng.random(count) * cumulative[-1], side="right")
    np.add.at(points, at, rng.lognormal(0, 0.35, count))
    sigma = max(t["granule_radius"] / pixel, 0.4)
    spots = ndimage.gaussian_filter(points.reshape(weight.shape), sigma, truncate=3) * (2 * np.pi * sigma**2)
    # A granule that is smaller than a pixel covers a part of it.
    share = min(1.0, (t["granule_radius"] / (0.4 * pixel)) ** 2)
    canvas.ink[DYE[canvas.cell.granule_dye]] += t["granule_ink"] * share * np.tanh(1.3 * spots)


def _rods(canvas: _Canvas) -> None:
    """Add Auer rods: one or two lie alone, more lie in a bundle (faggot cell)."""
    rng, pixel = canvas.rng, canvas.window.pixel
    count = round(canvas.cell.traits["rods"])
    free = (canvas.outline < -0.9) & (canvas.nucleus > 0.1)
    bundle, lying = canvas.any_point(free) if count > 2 else None, rng.uniform(0, np.pi)
    for _ in range(count):
        point = bundle or canvas.any_point(free)
        if point is None:
            return
        dx, dy = rng.normal(0, 0.45 if bundle else 0.0, 2).tolist()
        turn = rng.normal(lying, 0.25) if bundle else rng.uniform(0, np.pi)
        needle = shapes.turned(shapes.rod(rng.uniform(2.0, 4.0), rng.uniform(0.1, 0.17)), turn)
        d = shapes.distance(canvas.window.x - point[0] - dx, canvas.window.y - point[1] - dy, needle)
        share = min(1.0, 0.3 / pixel)  # thinner than a pixel, it covers a part of it
        canvas.ink[DYE["azurophil"]] += 0.75 * share * cover(d, max(0.12, pixel)) * (canvas.outline < -0.3)
