"""Searches whose truth is known, without training: a surrogate of recorded curves, and synthetic curves.

A problem answers any configuration with a curve: the macro-F1 that a trial reports after each epoch. What is
true of a configuration is the mean of its last report, without the luck of a split or a seed. A configuration
is good if its truth is among the best 2 % of the space.
"""

from __future__ import annotations

import functools
import json
import math
import warnings
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from sklearn.metrics import mean_absolute_error, r2_score
from sklearn.model_selection import KFold

from hpc.studies.search_settings import Axis

Array = NDArray[np.float64]
Configuration = Mapping[str, Any]
GOOD = 0.02
"""The share of the space that is good."""
TABLE = 4000
"""Random configurations, which stand for the space."""
EPOCHS, GRACE = 20, 4
"""Epochs of a trial, and those before its first rung, as `Study.grace` has it."""
SPACE: dict[str, dict[str, Any]] = {
    "loss.gamma": {"uniform": [0, 5]},
    "loss.tau": {"uniform": [0, 1]},
    "optim.lr": {"loguniform": [3.0e-4, 3.0e-2]},
    "optim.batch_size": {"choice": [16, 32, 64, 128]},
    "optim.weight_decay": {"loguniform": [1.0e-3, 1.0]},
}
"""The searched keys, as in the studies of results/curves."""
AXES = {key: Axis(**axis) for key, axis in SPACE.items()}


def encoded(configuration: Configuration) -> Array:
    """A configuration in the unit cube: ranges on their own scale, choices by their rank."""
    values = []
    for key, axis in AXES.items():
        value = configuration[key]
        if axis.choice is not None:
            values.append(axis.choice.index(value) / (len(axis.choice) - 1))
        else:
            scale = math.log if axis.loguniform else float
            low, high = map(scale, axis.bounds)
            values.append((scale(value) - low) / (high - low))
    return np.array(values)


def decoded(point: Array) -> dict[str, Any]:
    """The configuration of a point in the unit cube."""
    configuration: dict[str, Any] = {}
    for u, (key, axis) in zip(point.tolist(), AXES.items(), strict=True):
        if axis.choice is not None:
            configuration[key] = axis.choice[min(int(u * len(axis.choice)), len(axis.choice) - 1)]
        else:
            low, high = axis.bounds
            configuration[key] = low * (high / low) ** u if axis.loguniform else low + (high - low) * u
    return configuration


class Problem(ABC):
    """One search whose truth is known."""

    threshold: float
    """The truth from which on a configuration is good."""

    @abstractmethod
    def mean(self, points: Array) -> Array:
        """The expected curves (n, epochs) of points (n, axes) of the unit cube."""

    @abstractmethod
    def noise(self, point: Array, random: np.random.Generator) -> Array:
        """What a split and a seed add to the curve (epochs) of a point."""

    def curve(self, configuration: Configuration, seed: int) -> Array:
        """What a trial reports after each epoch. Equal arguments give equal curves."""
        text = json.dumps({key: configuration[key] for key in AXES})
        random = np.random.default_rng([seed, zlib.crc32(text.encode())])
        point = encoded(configuration)
        return np.clip(self.mean(point[None])[0] + self.noise(point, random), 0, 1)

    def _best(self, random: np.random.Generator) -> float:
        """The truth that a share of GOOD of TABLE random configurations reach."""
        table = random.uniform(size=(TABLE, len(AXES)))
        return float(np.quantile(self.mean(table)[:, -1], 1 - GOOD))

    def is_good(self, configuration: Configuration) -> bool:
        return bool(self.mean(encoded(configuration)[None])[0, -1] >= self.threshold)


class Synthetic(Problem):
    """A landscape drawn from a seed: a broad hill with an optimum anywhere but at the border, a few keys that
    matter and others that do not, learning rate and batch size tied, and curves that rise at the speed of the
    learning rate. The noise is that of a search on DeepAPL: 1 point per trial and 0.5 per epoch."""

    PER_TRIAL, PER_EPOCH = 0.01, 0.005

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng([2, seed])
        count = len(AXES)
        self._optimum = random.uniform(0.15, 0.85, count)
        self._weights = 0.6 * random.dirichlet(np.full(count, 0.7))
        self._tie = random.uniform(0, 0.5)
        self._names = list(AXES)
        self.threshold = self._best(random)

    def mean(self, points: Array) -> Array:
        rate, batch = (self._names.index(f"optim.{name}") for name in ("lr", "batch_size"))
        away = points - self._optimum
        tied = away.copy()
        tied[:, rate] -= self._tie * away[:, batch]
        best = 0.8 - (self._weights * tied**2).sum(axis=1) / 0.5
        speed = 0.12 * 6 ** points[:, rate]
        epochs = np.arange(1, EPOCHS + 1)
        curves: Array = best[:, None] - 0.4 * np.exp(-speed[:, None] * epochs)
        return curves

    def noise(self, point: Array, random: np.random.Generator) -> Array:
        drawn: Array = random.normal(0, self.PER_TRIAL) + random.normal(0, self.PER_EPOCH, EPOCHS)
        return drawn


class Recorded(Problem):
    """A surrogate of recorded curves: a Gaussian process for each of their first principal components (Matern
    5/2, a length per key, noise), on the mean over the inner folds, each outer fold moved to the mean of all.

    Its mean is taken as the truth. The noise of a trial is the residual curve of one of the recorded
    configurations nearest to it, where the surrogate had not seen that configuration.
    """

    COMPONENTS, NEAREST, PARTS = 4, 10, 10

    def __init__(self, table: pd.DataFrame, restarts: int = 1) -> None:
        """`table`: the rows of one data set and variant in curves.parquet."""
        rows = table.groupby(["outer_fold", "configuration", "epoch"])["macro_f1"].mean().unstack("epoch")
        keys = table.drop_duplicates(["outer_fold", "configuration"])
        keys = keys.set_index(["outer_fold", "configuration"]).loc[rows.index]
        points = np.stack([encoded(decoded_row(row)) for row in keys.to_dict("records")])
        of_fold = rows.groupby("outer_fold").transform("mean")
        curves = (rows - of_fold + rows.mean()).to_numpy(float)
        self._points = points
        self._pca = PCA(self.COMPONENTS, random_state=0).fit(curves)
        parts = self._pca.transform(curves)
        self._processes = [_fitted(points, part, restarts) for part in parts.T]
        held_out = np.zeros_like(curves)
        for train, test in KFold(self.PARTS, shuffle=True, random_state=0).split(points):
            again = [
                _fitted(points[train], part[train], 0, process.kernel_)
                for part, process in zip(parts.T, self._processes, strict=True)
            ]
            held_out[test] = self._curves(again, points[test])
        self.residuals = curves - held_out
        last, predicted = curves[:, -1], held_out[:, -1]
        self.error = {
            "configurations": len(curves),
            "r2": float(r2_score(last, predicted)),
            "mae": float(mean_absolute_error(last, predicted)),
            "sd": float(last.std()),
        }
        """Held-out error at the last epoch, in 10-fold cross-validation."""
        self.threshold = self._best(np.random.default_rng(0))

    def told(self) -> str:
        """The surrogate and its held-out error in words."""
        error = self.error
        return (
            f"Gaussian process, Matern 5/2, on {error['configurations']} curves; held-out error at the last "
            f"epoch (10 parts): MAE {error['mae']:.4f}, R2 {error['r2']:.2f}, spread {error['sd']:.4f}"
        )

    def _curves(self, processes: list[GaussianProcessRegressor], points: Array) -> Array:
        parts = np.stack([process.predict(points) for process in processes], axis=1)
        curves: Array = self._pca.inverse_transform(parts)
        return curves

    def mean(self, points: Array) -> Array:
        return self._curves(self._processes, points)

    def noise(self, point: Array, random: np.random.Generator) -> Array:
        distance = ((self._points - point) ** 2).sum(axis=1)
        drawn: Array = self.residuals[random.choice(np.argsort(distance, kind="stable")[: self.NEAREST])]
        return drawn


def decoded_row(row: Mapping[Any, Any]) -> dict[str, Any]:
    """The configuration of a row of the table, whose float32 are not quite within the space."""
    return decoded(
        np.clip(encoded({key: _nearest(axis, float(row[key])) for key, axis in AXES.items()}), 0, 1)
    )


def _nearest(axis: Axis, value: float) -> Any:
    """The value of a choice that is the nearest to a stored one; one of a range as it is."""
    if axis.choice is None:
        return value
    return axis.choice[int(np.argmin([abs(float(str(one)) - value) for one in axis.choice]))]


def _fitted(points: Array, values: Array, restarts: int, kernel: Any = None) -> GaussianProcessRegressor:
    """A Gaussian process of one component. `kernel`: None fits its lengths, none below a fifth of the range;
    else they are kept."""
    fitted = kernel is not None
    spread = float(values.var())
    if kernel is None:
        lengths = Matern(np.ones(len(AXES)), (0.2, 20), nu=2.5)
        kernel = ConstantKernel(spread, (1e-2 * spread, 1e2 * spread)) * lengths
        kernel += WhiteKernel(0.2 * spread, (1e-2 * spread, spread))
    process = GaussianProcessRegressor(
        kernel,
        optimizer=None if fitted else "fmin_l_bfgs_b",
        n_restarts_optimizer=restarts,
        random_state=0,
    )
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):  # a length at its bound
        return process.fit(points, values)


@functools.cache
def recorded(file: Path, name: str) -> Recorded:
    """The surrogate of a "data set, variant" of a table of recorded curves."""
    table = pd.read_parquet(file)
    return Recorded(table[table["data"] + ", " + table["variant"] == name])
