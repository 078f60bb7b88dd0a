"""The domain of a searched key, {uniform | loguniform: [lowest, highest]} or {choice: [...]}.

The place of a value is its position on the axis from which the search draws evenly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from leukotree.report.blocks import number

Domain = Mapping[str, Any]

BORDER_SHARE = 0.05
"""A value is on the border if it is this close to an end of the range, as a share of the range's width (of
the logarithms for loguniform)."""


def place(domain: Domain, values: Iterable[Any]) -> np.ndarray:
    """The (N,) places of values: the index of a choice (NaN for no option), the decimal logarithm for
    loguniform, else the value itself."""
    if "choice" in domain:
        texts = [_plain(option) for option in domain["choice"]]
        return np.array(
            [texts.index(_plain(value)) if _plain(value) in texts else math.nan for value in values],
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


def border(domain: Domain, value: Any) -> str:
    """The border that a value lies on: "lower", "upper" or "" for none. A choice has borders if it has at
    least 3 options and all are numbers."""
    if "choice" in domain:
        options = sorted(
            {
                float(option)
                for option in domain["choice"]
                if isinstance(option, int | float) and not isinstance(option, bool)
            }
        )
        if len(options) < max(3, len(set(map(str, domain["choice"])))):
            return ""
        return "lower" if value == options[0] else "upper" if value == options[-1] else ""
    low, high = bounds(domain)
    share = (float(place(domain, [value])[0]) - low) / (high - low)
    return "lower" if share <= BORDER_SHARE else "upper" if share >= 1 - BORDER_SHARE else ""


def as_text(domain: Domain) -> str:
    """The domain as text."""
    kind, values = next(iter(domain.items()))
    if kind == "choice":
        return ", ".join(number(value) for value in values)
    return f"{number(values[0])} to {number(values[1])}{', log' if kind == 'loguniform' else ''}"


def span(domain: Domain, values: Iterable[Any]) -> str:
    """The lowest to the highest of the values as text. For a choice, each option that occurs, with its
    number."""
    places = place(domain, values := list(values))
    known = places[~np.isnan(places)]
    if not len(known):
        return "–"
    if "choice" in domain:
        counts = np.bincount(known.astype(int), minlength=len(domain["choice"]))
        return ", ".join(
            f"{number(option)} ({n})" for option, n in zip(domain["choice"], counts, strict=True) if n
        )
    low, high = (
        number(float(values[int(np.nanargmin(places))])),
        number(float(values[int(np.nanargmax(places))])),
    )
    return low if low == high else f"{low} to {high}"


def middle(domain: Domain, values: Iterable[Any]) -> str:
    """The median of the values as text, with the lowest and the highest where they differ. For a choice of
    texts, each option with its number. The values are one per search."""
    values = list(values)
    if len({_plain(value) for value in values}) == 1:
        return number(values[0])
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
        return span(domain, values)
    ordered = sorted(values)
    return f"{number(ordered[(len(ordered) - 1) // 2])} ({number(ordered[0])} to {number(ordered[-1])})"


def _plain(value: Any) -> str:
    """One text for 16 and 16.0, because a table's column of integers with a gap is read as floats. One text
    for None and NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "None"
    try:
        return repr(float(value))
    except (TypeError, ValueError):
        return str(value)
