"""The axes of a search. The domain of a searched key is {uniform | loguniform: [lowest, highest]} or
{choice: [...]}.

The place of a value is its position on the axis from which the search draws evenly. Its unit is that place as
a share of the axis, from 0 to 1. The units of all keys together are a point of the unit cube.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

Domain = Mapping[str, Any]

BORDER_SHARE = 0.05
"""A value is on the border if it is this close to an end of the range, as a share of the range's width (of
the logarithms for loguniform)."""
GRID = 33
"""Points of a range in the grid of a key."""


def place(domain: Domain, values: Iterable[Any]) -> np.ndarray:
    """The (N,) places of values: the index of a choice (NaN for no option), the decimal logarithm for
    loguniform, else the value itself."""
    if "choice" in domain:
        texts = [plain(option) for option in domain["choice"]]
        return np.array(
            [texts.index(plain(value)) if plain(value) in texts else math.nan for value in values],
            dtype=float,
        )
    numbers = np.array([float(value) for value in values], dtype=float)
    return np.log10(numbers) if "loguniform" in domain else numbers


def bounds(domain: Domain) -> tuple[float, float]:
    """The lowest and the highest place."""
    if "choice" in domain:
        return 0.0, float(len(domain["choice"]) - 1)
    low, high = place(domain, next(iter(domain.values())))
    return float(low), float(high)


def ordered(domain: Domain) -> bool:
    """Whether the values have an order: those of a range, and options that are all numbers."""
    return all(
        isinstance(option, int | float) and not isinstance(option, bool)
        for option in domain.get("choice", ())
    )


def border(domain: Domain, value: Any) -> str:
    """The border that a value lies on: "lower", "upper" or "" for none. A choice has borders if it has at
    least 3 options and all are numbers."""
    if "choice" in domain:
        if not ordered(domain) or len(domain["choice"]) < 3:
            return ""
        lowest, highest = min(domain["choice"]), max(domain["choice"])
        return "lower" if value == lowest else "upper" if value == highest else ""
    low, high = bounds(domain)
    share = (float(place(domain, [value])[0]) - low) / (high - low)
    return "lower" if share <= BORDER_SHARE else "upper" if share >= 1 - BORDER_SHARE else ""


def plain(value: Any) -> str:
    """One text for 16 and 16.0, because a table's column of integers with a gap is read as floats. One text
    for None and NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "None"
    try:
        return repr(float(value))
    except (TypeError, ValueError):
        return str(value)


class Cube:
    """The searched keys as the unit cube.

    The options of an ordered choice have equal distances, so that 16, 32, 64 count as logarithms. The unit of
    an option without an order is its index. NaN stands for a value without effect.
    """

    def __init__(self, domains: Mapping[str, Domain]) -> None:
        self.domains, self.keys = dict(domains), tuple(domains)
        self.sizes = [0 if ordered(domain) else len(domain["choice"]) for domain in domains.values()]
        """The number of options of each key, if they have no order; 0 for an ordered key."""
        self.owner = np.repeat(np.arange(len(self.keys)), [size or 1 for size in self.sizes])
        """(C,) the key that each column of `encoded` belongs to."""

    def units(self, values: Mapping[str, Iterable[Any]]) -> np.ndarray:
        """(N, K) units of N configurations. `values`: key -> its N values."""
        columns = []
        for key, domain in self.domains.items():
            places = place(domain, values[key])
            if "choice" in domain:
                columns.append(
                    np.append(self._options(domain), math.nan)[np.nan_to_num(places, nan=-1).astype(int)]
                )
            else:
                low, high = bounds(domain)
                columns.append((places - low) / (high - low))
        return np.column_stack(columns)

    def encoded(self, units: np.ndarray) -> np.ndarray:
        """(..., K) units -> (..., C) coordinates: an indicator for each option without an order, such that
        two options have the distance 1. A value without effect lies between all others."""
        columns = []
        for k, size in enumerate(self.sizes):
            own = units[..., k, None]
            if size:
                columns.append(np.where(own == np.arange(size), math.sqrt(0.5), 0.0))
            else:
                columns.append(np.where(np.isnan(own), 0.5, own))
        return np.concatenate(columns, axis=-1)

    def grid(self, k: int) -> np.ndarray:
        """(G,) units of the k-th key: all its options, or GRID points from end to end of its range."""
        domain = self.domains[self.keys[k]]
        return np.sort(self._options(domain)) if "choice" in domain else np.linspace(0, 1, GRID)

    def snapped(self, points: np.ndarray) -> np.ndarray:
        """(N, K) points with coordinates from 0 to 1 -> units: those of a choice become those of options."""
        units = points.copy()
        for k, domain in enumerate(self.domains.values()):
            if "choice" in domain:
                options = self._options(domain)
                units[:, k] = options[np.minimum((points[:, k] * len(options)).astype(int), len(options) - 1)]
        return units

    def value(self, k: int, unit: float) -> Any:
        """The value of the k-th key at a unit."""
        domain = self.domains[self.keys[k]]
        if "choice" in domain:
            return domain["choice"][int(np.abs(self._options(domain) - unit).argmin())]
        low, high = bounds(domain)
        at = low + unit * (high - low)
        return 10**at if "loguniform" in domain else at

    @staticmethod
    def _options(domain: Domain) -> np.ndarray:
        """The unit of each option, in the order of the domain."""
        options = domain["choice"]
        if not ordered(domain):
            return np.arange(len(options), dtype=float)
        ranks = np.argsort(np.argsort(np.array(options, dtype=float), kind="stable"), kind="stable")
        return ranks / max(len(options) - 1, 1)
