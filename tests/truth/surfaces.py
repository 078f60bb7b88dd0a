"""Made-up scores whose best configuration is known: surfaces over the unit cube of a search's keys.

None of them is a draw of a Gaussian process, so that the posterior of the optimum is not tested on its own
assumptions. The optimum lies at `Surface.best`. Each key has another weight.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from leukotree.stats.axes import Cube, Domain

SPACE: dict[str, Domain] = {
    "optim.lr": {"loguniform": [1.0e-5, 1.0e-2]},
    "loss.gamma": {"uniform": [0.0, 5.0]},
    "optim.weight_decay": {"loguniform": [1.0e-3, 0.3]},
    "optim.batch_size": {"choice": [16, 32, 64, 128]},
}
CUBE = Cube(SPACE)
WEIGHTS = (1.0, 0.5, 0.25, 0.12)
"""How much the keys matter, in a random order."""
TOP, FALL = 0.7, 0.3
"""The best score, and by how much bad configurations are below it."""
MARGIN = 0.15
"""How far outside of the range the best place of a key can lie. The best value is then on the border."""


class Surface:
    """The true score of each configuration after full training."""

    def __init__(self, shape: str, number: int) -> None:
        rng = np.random.default_rng((number, sorted(SHAPES).index(shape)))
        keys = len(CUBE.keys)
        self._weights = rng.permutation(WEIGHTS)[:keys]
        centre = rng.uniform(-MARGIN, 1 + MARGIN, keys)
        if "ridge" in shape:  # the keys depend on each other, so its best place is inside
            centre = rng.uniform(0.1, 0.9, keys)
        self._score = SHAPES[shape](centre, self._weights, rng)
        self.best = self._best(np.clip(centre, 0, 1))
        """(K,) units of the best configuration."""

    def __call__(self, units: np.ndarray) -> np.ndarray:
        """(N,) scores at (N, K) units."""
        return TOP - FALL * self._score(units)

    def _best(self, centre: np.ndarray) -> np.ndarray:
        """The best units, with the options of a choice: from the centre and from the best of many, one key at
        a time on a fine grid."""
        many = CUBE.snapped(np.random.default_rng(0).random((4096, len(centre))))
        found = [self._climbed(start, centre) for start in (centre, many[self(many).argmax()])]
        return max(found, key=lambda units: float(self(units[None])[0]))

    def _climbed(self, start: np.ndarray, centre: np.ndarray) -> np.ndarray:
        at = start.copy()
        for _ in range(8):
            for k, key in enumerate(CUBE.keys):
                grid = (
                    CUBE.grid(k) if "choice" in SPACE[key] else np.append(np.linspace(0, 1, 2001), centre[k])
                )
                points = np.repeat(at[None], len(grid), axis=0)
                points[:, k] = grid
                at[k] = grid[self(points).argmax()]
        return at

    def shares(self) -> np.ndarray:
        """(K,) the share of the variance over the space that each key explains by itself."""
        rng = np.random.default_rng(0)
        units = CUBE.snapped(rng.random((2**17, len(CUBE.keys))))
        scores = self(units)
        shares = []
        for k, key in enumerate(CUBE.keys):
            bins = 4 if "choice" in SPACE[key] else 40
            at = np.minimum((units[:, k] * (3 if bins == 4 else 40)).round(6).astype(int), bins - 1)
            means = np.bincount(at, scores) / np.bincount(at)
            shares.append(means[at].var() / scores.var())
        return np.array(shares)


Loss = Callable[[np.ndarray], np.ndarray]
"""From (N, K) units to (N,) losses: 0 at the best place, about 1 at bad ones."""


def _bowl(centre: np.ndarray, weights: np.ndarray, rng: Any) -> Loss:
    """A quadratic function."""
    return lambda units: ((units - centre) ** 2 @ weights) * 2


def _peak(centre: np.ndarray, weights: np.ndarray, rng: Any) -> Loss:
    """A narrow maximum in a plain."""
    return lambda units: 1 - np.exp(-4 * np.abs(units - centre) ** 1.5 @ weights)


def _cliff(centre: np.ndarray, weights: np.ndarray, rng: Any) -> Loss:
    """A slow rise up to the best place of each key, and a steep fall behind it, as training that diverges."""

    def loss(units: np.ndarray) -> np.ndarray:
        away = units - centre
        return np.minimum(np.where(away > 0, 4 * away**2, 0.5 * np.abs(away)) @ weights, 1.2)

    return loss


def _ridge(centre: np.ndarray, weights: np.ndarray, rng: Any) -> Loss:
    """A quadratic function in which two keys depend on each other, as learning rate and batch size."""
    one, other = rng.permutation(3)[:2]

    def loss(units: np.ndarray) -> np.ndarray:
        away = units - centre
        cross = np.sqrt(weights[one] * weights[other]) * away[:, one] * away[:, other]
        return 2 * (away**2 @ weights + 1.2 * cross)

    return loss


def _hills(centre: np.ndarray, weights: np.ndarray, rng: Any) -> Loss:
    """Two maxima, of which one is 3 points lower."""
    other = rng.uniform(0, 1, len(centre))

    def loss(units: np.ndarray) -> np.ndarray:
        highest = np.exp(-5 * (units - np.clip(centre, 0, 1)) ** 2 @ weights)
        return 1 - np.maximum(highest, np.exp(-8 * (units - other) ** 2 @ weights) - 0.1)

    return loss


SHAPES: dict[str, Callable[[np.ndarray, np.ndarray, Any], Loss]] = {
    "bowl": _bowl,
    "peak": _peak,
    "cliff": _cliff,
    "ridge": _ridge,
    "hills": _hills,
}
