"""Values of a searched key as text, by the key's domain (see `leukotree.stats.axes`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from leukotree.report.blocks import number
from leukotree.stats.axes import BORDER_SHARE as BORDER_SHARE
from leukotree.stats.axes import Domain as Domain
from leukotree.stats.axes import border as border
from leukotree.stats.axes import bounds as bounds
from leukotree.stats.axes import place as place
from leukotree.stats.axes import plain


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
    if len({plain(value) for value in values}) == 1:
        return number(values[0])
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
        return span(domain, values)
    ordered = sorted(values)
    return f"{number(ordered[(len(ordered) - 1) // 2])} ({number(ordered[0])} to {number(ordered[-1])})"
