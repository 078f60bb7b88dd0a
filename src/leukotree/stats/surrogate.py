"""A Gaussian process on the scores of trials: which functions of the configuration they are compatible with.

The score of a trial is a smooth function of its configuration (Matern 5/2 with a length for each key), plus a
level of its group, a smooth function of its group alone, and noise. A group is an outer fold: its search has
other images, and its own luck with them.

Nothing is fitted to one value: lengths, sizes and noise are drawn from their posterior (elliptical slice
sampling, Murray, Adams and MacKay 2010). For each of them functions are drawn by Matheron's rule: a draw of
the prior from random cosines (Rahimi and Recht 2007), corrected by the data (Wilson et al. 2020). Such a
draw is a function, which can be evaluated anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

BURN_IN, THIN = 30, 3
"""Steps of the sampler before the first drawn parameters, and between two of them."""
COSINES = 384
"""Random cosines of a prior draw."""
LENGTH, SIZE, NOISE, OWN = (math.log(1.5), 0.8), (0.0, 0.6), (math.log(0.3), 0.9), (math.log(0.3), 0.8)
"""Mean and deviation of the logarithm of each parameter, before the trials are known: the length of a key, as
a share of its range; the deviation of the function, of the noise and of a group's own function, in standard
deviations of the scores."""
LEVEL = 1.0
"""Variance of a group's level beside the mean of its scores, in the same unit."""


@dataclass(frozen=True)
class Observations:
    """What is known of N trials."""

    x: np.ndarray
    """(N, C) their configurations, see `axes.Cube.encoded`."""
    y: np.ndarray
    """(N,) their scores."""
    group: np.ndarray
    """(N,) int64 from 0: the outer fold of the search."""
    variance: np.ndarray
    """(N,) what is known of the variance of a score beyond the noise of all."""


class Surrogate:
    """Draws of the function and of the parameters, given the trials."""

    def __init__(
        self,
        seen: Observations,
        owner: np.ndarray,
        rng: np.random.Generator,
        parameters: int = 16,
        functions: int = 16,
    ) -> None:
        """`owner`: (C,) int, the key of each coordinate: its coordinates share a length. There are
        `parameters` x `functions` draws of the function."""
        self._seen, self._owner, self._per = seen, owner, functions
        groups = int(seen.group.max()) + 1
        self._of_group = seen.group[:, None] == np.arange(groups)
        means = (seen.y @ self._of_group) / self._of_group.sum(axis=0)
        centred = seen.y - means[seen.group]
        self._scale = float(centred.std()) or 0.01
        self._centre = float(means.mean())
        self._y, self._variance = centred / self._scale, seen.variance / self._scale**2
        self._same = self._of_group @ self._of_group.T.astype(float)
        of_keys = [seen.x[:, owner == k] for k in range(owner.max() + 1)]
        self._squares = [((own[:, None] - own) ** 2).sum(axis=-1) for own in of_keys]
        """(N, N) squared distances of the trials in each key."""
        self._drawn = [self._condition(theta, rng) for theta in self._parameters(parameters, rng)]

    @property
    def noise(self) -> float:
        """The standard deviation of a trial's score when it is trained again, mean over the draws."""
        return self._scale * float(np.mean([one.noise for one in self._drawn]))

    def mean(self, x: np.ndarray) -> np.ndarray:
        """(M,) posterior mean of the function at (M, C) coordinates."""
        means = [one.mean(x) for one in self._drawn]
        return self._centre + self._scale * np.mean(means, axis=0)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """(S, M) each draw of the function at (M, C) coordinates."""
        values = np.concatenate([one.functions(x) for one in self._drawn])
        return self._centre + self._scale * values

    def each(self, x: np.ndarray) -> np.ndarray:
        """(S, M) each draw of the function at its own (S, M, C) coordinates."""
        parts = np.split(x, len(self._drawn))
        values = np.concatenate([one.each(part) for one, part in zip(self._drawn, parts, strict=True)])
        return self._centre + self._scale * values

    def _parameters(self, count: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Draws of (P,) log parameters: a length per key, size, noise, and size of a group's own function."""
        priors = [LENGTH] * len(self._squares) + [SIZE, NOISE] + [OWN] * (self._of_group.shape[1] > 1)
        mean, sd = np.array(priors).T

        def likelihood(z: np.ndarray) -> float:
            return self._likelihood(mean + sd * z)

        starts = [np.zeros(len(mean)), *0.7 * rng.normal(size=(15, len(mean)))]
        z = max(starts, key=likelihood)
        drawn = []
        for step in range(BURN_IN + THIN * count):
            z = _slice(z, likelihood, rng)
            if step >= BURN_IN and (step - BURN_IN) % THIN == THIN - 1:
                drawn.append(mean + sd * z)
        return drawn

    def _covariance(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, N) covariance of the scores, and that of the part that is not the function: the group's own
        function and the noise. The level of the group is in the first one only."""
        lengths, size, noise, own = _read(theta, len(self._squares))
        distance = np.zeros_like(self._same)
        for square, length in zip(self._squares, lengths, strict=True):
            distance += square / length**2
        correlation = _matern(np.sqrt(distance))
        rest = own**2 * correlation * self._same
        rest[np.diag_indices_from(rest)] += noise**2 + self._variance + 1e-6
        return size**2 * correlation + LEVEL * self._same + rest, rest

    def _likelihood(self, theta: np.ndarray) -> float:
        covariance, _ = self._covariance(theta)
        try:
            factor = np.linalg.cholesky(covariance)
        except np.linalg.LinAlgError:
            return -math.inf
        solved = _forward(factor, self._y)
        return float(-0.5 * solved @ solved - np.log(np.diag(factor)).sum())

    def _condition(self, theta: np.ndarray, rng: np.random.Generator) -> _Draws:
        """Draws of the function for these parameters."""
        lengths, size, noise, _ = _read(theta, len(self._squares))
        covariance, rest = self._covariance(theta)
        scaled = 1 / lengths[self._owner]
        # The spectrum of a Matern 5/2 kernel is Student's t with 5 degrees of freedom.
        stretch = np.sqrt(5 / rng.chisquare(5, COSINES))
        slopes = rng.normal(size=(len(self._owner), COSINES)) * scaled[:, None] * stretch
        phases = rng.uniform(0, 2 * np.pi, COSINES)
        weights = size * math.sqrt(2 / COSINES) * rng.normal(size=(COSINES, self._per))
        prior = np.cos(self._seen.x @ slopes + phases) @ weights
        prior += np.linalg.cholesky(rest) @ rng.normal(size=(len(prior), self._per))
        level = math.sqrt(LEVEL) * rng.normal(size=(self._of_group.shape[1], self._per))
        prior += self._of_group @ level
        inverse = np.linalg.inv(covariance)
        correction, exact = inverse @ (self._y[:, None] - prior), inverse @ self._y
        return _Draws(
            self._seen.x * scaled,
            scaled,
            size**2,
            noise,
            slopes.astype(np.float32),
            phases.astype(np.float32),
            weights.astype(np.float32),
            (level + LEVEL * self._of_group.T @ correction).mean(axis=0),
            float((LEVEL * self._of_group.T @ exact).mean()),
            correction,
            exact,
        )


@dataclass(frozen=True)
class _Draws:
    """J functions with the same parameters, in standard deviations of the scores."""

    x: np.ndarray
    """(N, C) coordinates of the trials, over their lengths."""
    scaled: np.ndarray
    """(C,) one over the length of each coordinate."""
    variance: float
    noise: float
    slopes: np.ndarray
    phases: np.ndarray
    weights: np.ndarray
    """(COSINES, J)."""
    level: np.ndarray
    """(J,) the mean level of the groups."""
    mean_level: float
    correction: np.ndarray
    """(N, J)."""
    exact: np.ndarray
    """(N,) that of the mean."""

    def mean(self, x: np.ndarray) -> np.ndarray:
        values: np.ndarray = self._kernel(x) @ self.exact + self.mean_level
        return values

    def functions(self, x: np.ndarray) -> np.ndarray:
        """(J, M) values at (M, C) coordinates."""
        return (self._cosines(x) @ self.weights + self._kernel(x) @ self.correction + self.level).T

    def each(self, x: np.ndarray) -> np.ndarray:
        """(J, M) values at (J, M, C) coordinates."""
        flat, (own, count, _) = x.reshape(-1, x.shape[-1]), x.shape
        prior = np.einsum("jmf,fj->jm", self._cosines(flat).reshape(own, count, -1), self.weights)
        kernel = self._kernel(flat).reshape(own, count, -1)
        values: np.ndarray = prior + np.einsum("jmn,nj->jm", kernel, self.correction) + self.level[:, None]
        return values

    def _cosines(self, x: np.ndarray) -> np.ndarray:
        values: np.ndarray = np.cos(x.astype(np.float32) @ self.slopes + self.phases)
        return values

    def _kernel(self, x: np.ndarray) -> np.ndarray:
        """(M, N) covariances of the function with that of the trials."""
        own = x * self.scaled
        square = (own**2).sum(axis=1)[:, None] + (self.x**2).sum(axis=1) - 2 * own @ self.x.T
        return self.variance * _matern(np.sqrt(np.maximum(square, 0)))


def _read(theta: np.ndarray, keys: int) -> tuple[np.ndarray, float, float, float]:
    """Lengths, size, noise and size of a group's own function, from their logarithms."""
    values = np.exp(theta)
    return values[:keys], values[keys], values[keys + 1], values[keys + 2] if len(values) > keys + 2 else 0.0


def _matern(distance: np.ndarray) -> np.ndarray:
    """The Matern 5/2 correlation at a distance in lengths."""
    r = math.sqrt(5) * distance
    values: np.ndarray = (1 + r + r**2 / 3) * np.exp(-r)
    return values


def _forward(factor: np.ndarray, y: np.ndarray) -> np.ndarray:
    from scipy.linalg import solve_triangular

    solved: np.ndarray = solve_triangular(factor, y, lower=True, check_finite=False)
    return solved


def _slice(z: np.ndarray, likelihood: Callable[[np.ndarray], float], rng: np.random.Generator) -> np.ndarray:
    """One step of elliptical slice sampling. z: standard normal before the data."""
    floor = likelihood(z) + math.log(1 - rng.random())
    other, angle = rng.normal(size=len(z)), rng.uniform(0, 2 * math.pi)
    low, high = angle - 2 * math.pi, angle
    while True:
        moved = z * math.cos(angle) + other * math.sin(angle)
        if likelihood(moved) > floor or high - low < 1e-6:
            return moved
        low, high = (angle, high) if angle < 0 else (low, angle)
        angle = rng.uniform(low, high)
