"""What the trials of a search say of the best configuration: the distribution of the place of the maximum.

Functions are drawn from the posterior of `surrogate`. Each has its maximum somewhere: the places of these
maxima are the distribution of the best value of each key. The maximum of a draw is found among a Sobol set,
then by moving one key at a time over its grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from leukotree import seeds
from leukotree.stats.axes import BORDER_SHARE, Cube
from leukotree.stats.surrogate import Observations, Surrogate

MASS = 0.8
"""The probability of a credible region."""
POINT = 0.01
"""What counts as equally good: one point of the score."""
CANDIDATES = 1024
"""Points of the Sobol set, a power of 2."""
SWEEPS = 3
"""How often each key is moved."""
DEGREE = 6
"""Cosines of a range, in its main effect."""


def floor(keys: int) -> int:
    """With fewer configurations nothing is said of the optimum, nor of importance: "not estimable"."""
    return max(10, 3 * keys)


@dataclass(frozen=True)
class Region:
    """The smallest region of a key with a probability of at least MASS."""

    values: tuple[Any, ...]
    """(lowest, highest) of a range; the options of a choice, the most probable first."""
    mass: float
    """The probability of the options; MASS for a range."""


class Optimum:
    """The distribution of the best configuration, as S draws of it."""

    def __init__(self, cube: Cube, seen: Observations, seed: int = 0) -> None:
        """`seed`: names the draws. The same observations and seed give the same numbers."""
        rng = seeds.generator(seed, "optimum")
        self.cube, self._seen = cube, seen
        self.surrogate = Surrogate(seen, cube.owner, rng)
        self.candidates = cube.snapped(_sobol(len(cube.keys), rng))
        """(M, K) units of the Sobol set."""
        self.at = self._maxima()
        """(S, K) units of the maximum of each draw."""
        self.profiles = [self._along(self.at, k) for k in range(len(cube.keys))]
        """For each key the (S, G) scores over its grid, the other keys at the maximum of the draw."""
        self.best = self.profiles[0].max(axis=1)
        """(S,) the score at the maximum of each draw."""

    def _maxima(self) -> np.ndarray:
        at = self.candidates[self.values.argmax(axis=1)]
        for _ in range(SWEEPS):
            for k in range(len(self.cube.keys)):
                at[:, k] = self.cube.grid(k)[self._along(at, k).argmax(axis=1)]
        return at

    def _along(self, at: np.ndarray, k: int) -> np.ndarray:
        """(S, G) scores of each draw over the grid of a key, from its own (S, K) point."""
        grid = self.cube.grid(k)
        points = np.repeat(at[:, None], len(grid), axis=1)
        points[:, :, k] = grid
        return self.surrogate.each(self.cube.encoded(points))

    @cached_property
    def values(self) -> np.ndarray:
        """(S, M) each draw at the candidates."""
        return self.surrogate(self.cube.encoded(self.candidates))

    def region(self, k: int) -> Region:
        """The shortest interval of a range, or the fewest options, with at least MASS of the draws. The width
        of a range counts on the axis from which it is drawn."""
        key = self.cube.keys[k]
        if "choice" in self.cube.domains[key]:
            units, counts = np.unique(self.at[:, k], return_counts=True)
            order = np.argsort(-counts, kind="stable")
            mass = counts[order].cumsum() / counts.sum()
            needed = int((mass < MASS - 1e-9).sum()) + 1
            options = tuple(self.cube.value(k, unit) for unit in units[order][:needed])
            return Region(options, float(mass[needed - 1]))
        places = np.sort(self.at[:, k])
        n = int(np.ceil(MASS * len(places)))
        widths = places[n - 1 :] - places[: len(places) - n + 1]
        first = int(widths.argmin())
        step = 0.5 / (len(self.cube.grid(k)) - 1)  # a draw stands for the values up to the next of the grid
        ends = np.clip([places[first] - step, places[first + n - 1] + step], 0, 1)
        return Region(tuple(self.cube.value(k, end) for end in ends), MASS)

    def border(self, k: int) -> float:
        """The probability that the best value of a range, or of an ordered choice with at least 3 options, is
        on one of its two borders. NaN for others."""
        domain = self.cube.domains[self.cube.keys[k]]
        if self.cube.sizes[k] or len(domain.get("choice", (1, 2, 3))) < 3:
            return float("nan")
        share = 0.0 if "choice" in domain else BORDER_SHARE
        near = (self.at[:, k] <= share + 1e-9) | (self.at[:, k] >= 1 - share - 1e-9)
        return float(near.mean())

    def within(self, k: int, value: Any, by: float = POINT) -> float:
        """The probability that a value of the k-th key loses at most `by`, the other keys at their best. NaN
        for a value outside of the space."""
        grid, profile = self.cube.grid(k), self.profiles[k]
        domain = self.cube.domains[self.cube.keys[k]]
        if value is None and "choice" not in domain:
            return float("nan")
        unit = float(Cube({"": domain}).units({"": [value]})[0, 0])
        if not (0 <= unit <= grid[-1]):
            return float("nan")
        if "choice" in domain:
            scores = profile[:, int(np.abs(grid - unit).argmin())]
        else:
            scores = np.array([np.interp(unit, grid, row) for row in profile])
        return float((scores >= self.best - by).mean())

    @cached_property
    def shares(self) -> np.ndarray:
        """(S, K) importance: the share of the variance over the space that each key explains by itself, in
        each draw (functional ANOVA). The rest up to 1 are interactions.

        Main effects are least squares on cosines of a range, and on the options of a choice."""
        basis = [self._basis(k) for k in range(len(self.cube.keys))]
        columns = np.column_stack([np.ones(len(self.candidates)), *basis])
        weights = self.values @ np.linalg.pinv(columns).T
        total = self.values.var(axis=1)
        ends = np.cumsum([1, *(part.shape[1] for part in basis)])
        effects = [
            (weights[:, start:end] @ part.T).var(axis=1)
            for part, start, end in zip(basis, ends[:-1], ends[1:], strict=True)
        ]
        return np.column_stack(effects) / np.maximum(total, 1e-18)[:, None]

    def _basis(self, k: int) -> np.ndarray:
        """(M, B) functions of a key at the candidates, each of mean 0."""
        units = self.candidates[:, k]
        if "choice" in self.cube.domains[self.cube.keys[k]]:
            part = (units[:, None] == self.cube.grid(k)[1:]).astype(float)
        else:
            part = np.cos(np.pi * units[:, None] * np.arange(1, DEGREE + 1))
        return part - part.mean(axis=0)

    def gain(self) -> float:
        """What further trials can be expected to gain: the mean of the maximum, less the score of the tried
        configuration with the highest posterior mean."""
        tried = self.surrogate(self._seen.x).mean(axis=0)
        return float(self.best.mean() - tried.max())


def interval(values: Sequence[float] | np.ndarray, mass: float = 0.9) -> tuple[float, float]:
    """The central interval of draws with a probability."""
    low, high = np.quantile(values, [(1 - mass) / 2, (1 + mass) / 2])
    return float(low), float(high)


def _sobol(keys: int, rng: np.random.Generator) -> np.ndarray:
    from scipy.stats import qmc

    points: np.ndarray = qmc.Sobol(keys, rng=rng).random(CANDIDATES)
    return points
