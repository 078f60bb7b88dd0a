"""Outlines as signed distances. Nuclei and cells are chains of round beads, joined smoothly, warped by noise.

A chain is an array (n, 3) of beads (x, y, radius). Neighbours are connected by a bridge whose width changes
evenly. Distances are negative inside.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from PIL import Image
from scipy import ndimage

Chain = np.ndarray


def noise(rng: np.random.Generator, shape: tuple[int, int], sigma: float) -> np.ndarray:
    """Return smooth Gaussian noise (H, W) of unit variance with correlation length `sigma` in pixels."""
    factor = max(sigma / 1.5, 1.0)  # a coarse grid is blurred and enlarged: the cost does not grow with sigma
    coarse = tuple(int(np.ceil(side / factor)) + 4 for side in shape)
    values = ndimage.gaussian_filter(
        rng.standard_normal(coarse, dtype=np.float32), sigma / factor, mode="wrap"
    )
    values /= values.std() + 1e-6
    if factor == 1.0:
        return values[: shape[0], : shape[1]]
    box = (2.0, 2.0, 2.0 + shape[1] / factor, 2.0 + shape[0] / factor)
    return np.asarray(Image.fromarray(values).resize(shape[::-1], Image.Resampling.BICUBIC, box=box))


def distance(x: np.ndarray, y: np.ndarray, chain: Chain, smooth: float = 0.0) -> np.ndarray:
    """Return the signed distance to a chain; `smooth` is the radius of the fillets between its links."""
    total: np.ndarray | None = None
    beads = chain.tolist()  # plain numbers keep single-precision coordinates single
    for (ax, ay, ar), (bx, by, br) in pairwise(beads if len(beads) > 1 else beads * 2):
        dx, dy = bx - ax, by - ay
        along = np.clip(((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy + 1e-9), 0, 1)
        link = np.hypot(x - ax - along * dx, y - ay - along * dy) - (ar + along * (br - ar))
        total = link if total is None else minimum(total, link, smooth)
    assert total is not None
    return total


def minimum(a: np.ndarray, b: np.ndarray, smooth: float) -> np.ndarray:
    """Return the smooth minimum (union); `-minimum(-a, -b, smooth)` is the smooth intersection."""
    if smooth <= 0:
        return np.minimum(a, b)
    blend = np.maximum(smooth - np.abs(a - b), 0) / smooth
    return np.minimum(a, b) - blend * blend * smooth / 4


def scaled(chain: Chain, area: float) -> Chain:
    """Return the chain, scaled and centred so that it covers `area`."""
    low, high = (chain[:, :2] - chain[:, 2:]).min(0), (chain[:, :2] + chain[:, 2:]).max(0)
    x, y = np.meshgrid(*(np.linspace(a, b, 48) for a, b in zip(low, high, strict=True)))
    inside = distance(x, y, chain) < 0
    covered = inside.mean() * np.prod(high - low)
    centred = chain - np.array([x[inside].mean(), y[inside].mean(), 0])
    return centred * np.sqrt(area / covered)


def turned(chain: Chain, angle: float) -> Chain:
    """Return the chain, rotated about the origin."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.column_stack([chain[:, :2] @ np.array([[cos, sin], [-sin, cos]]), chain[:, 2]])


def rod(length: float, radius: float = 1.0) -> Chain:
    """Return a straight capsule along x, with `length` between the centres of its round ends."""
    return np.array([[-length / 2, 0, radius], [length / 2, 0, radius]])


def _arc(span: float, radii: np.ndarray) -> Chain:
    """Return beads of the given radii on an arc of unit radius that spans `span` radians."""
    angle = np.linspace(-span / 2, span / 2, len(radii))
    return np.column_stack([np.cos(angle), np.sin(angle), radii])


def _round(rng: np.random.Generator) -> Chain:
    return rod(rng.uniform(0.05, 0.5))


def _indented(rng: np.random.Generator) -> Chain:
    return _arc(rng.uniform(1.3, 1.8), rng.uniform(0.7, 0.9) * np.array([1, rng.uniform(0.8, 0.95), 1]))


def _kidney(rng: np.random.Generator) -> Chain:
    return _arc(
        rng.uniform(1.9, 2.9), rng.uniform(0.5, 0.68) * np.array([1, 0.95, 0.9, 0.95, rng.uniform(0.85, 1)])
    )


def _band(rng: np.random.Generator) -> Chain:
    waist = rng.uniform(0.75, 1.0)
    return _arc(
        rng.uniform(3.2, 4.4), rng.uniform(0.3, 0.42) * np.array([1.1, 1, waist, waist, waist, 1, 1.1])
    )


def _bilobed(rng: np.random.Generator) -> Chain:
    gap, bridge = rng.uniform(1.15, 1.7), rng.uniform(0.3, 0.65)
    return np.array(
        [
            [-gap / 2, 0, 1],
            [-gap / 8, 0.35, bridge],
            [gap / 8, 0.35, bridge],
            [gap / 2, 0, rng.uniform(0.75, 1)],
        ]
    )


def _lobed(rng: np.random.Generator) -> Chain:
    lobes = rng.choice([2, 3, 4, 5], p=[0.12, 0.43, 0.35, 0.1])
    angle = np.cumsum(rng.uniform(1.25, 1.75, lobes)) * (1.0 if lobes < 5 else 0.8)
    centres = np.column_stack([np.cos(angle), np.sin(angle)]) * rng.uniform(0.8, 1.15, (lobes, 1))
    beads = []
    for i, centre in enumerate(centres):
        radius = rng.uniform(0.36, 0.5)
        tangent = np.array([-centre[1], centre[0]]) * rng.uniform(0.1, 0.3)
        beads += [[*(centre - tangent), radius], [*(centre + tangent), radius * rng.uniform(0.85, 1)]]
        if i + 1 < lobes:  # a filament of chromatin leads to the next lobe
            after = centres[i + 1]
            beads += [[*(centre + (after - centre) * at), rng.uniform(0.06, 0.13)] for at in (0.4, 0.6)]
    return np.array(beads)


NUCLEI: dict[str, Callable[[np.random.Generator], Chain]] = {
    "round": _round,
    "indented": _indented,
    "kidney": _kidney,
    "band": _band,
    "bilobed": _bilobed,
    "lobed": _lobed,
}
"""Nuclear shape -> a chain in arbitrary units; `scaled` gives it its size."""
