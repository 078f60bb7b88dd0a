"""Which trials of several searches are one draw.

All variants of an outer fold draw the same first values, so that they are compared in pairs. In version 0.1.0
all outer folds drew the same ones too. A draw that several searches tried tells as much about the space as
one configuration, so it is counted once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from leukotree.report.space import Domain, place
from leukotree.report.summary import Search

CHANCE = 1e-6
"""Searches share their first draws if independent draws would be equal with a lower probability than this.
One value of a range is enough. A choice between few options can be equal by chance."""


def numbered(tables: Sequence[pd.DataFrame], space: Mapping[str, Domain]) -> list[np.ndarray]:
    """For each table of trials, the (N,) int64 numbers of their draws, from 0. Trials with equal numbers are
    one draw.

    Two searches share the trials from the first on that have the same number and the same values, in the keys
    that both have. They share none where so few equal trials can be chance, see CHANCE.
    """
    places = [_places(table, space) for table in tables]
    numbers: list[np.ndarray] = []
    used = 0
    for index, table in enumerate(tables):
        own = np.arange(used, used + len(table))
        for earlier in reversed(range(index)):  # the first search with a draw gives its number
            shared = _shared(places[earlier], places[index], space)
            own[:shared] = numbers[earlier][:shared]
        used += len(table)
        numbers.append(own)
    known: dict[int, int] = {}
    return [
        np.array([known.setdefault(int(number), len(known)) for number in own], dtype=np.int64)
        for own in numbers
    ]


def configurations(tables: Sequence[pd.DataFrame], space: Mapping[str, Domain]) -> int:
    """The number of different sets of values, in the keys that all tables have."""
    keys = [key for key in space if all(key in table for table in tables)]
    if not keys or not tables:
        return 0
    rows = [np.column_stack([_places(table, space)[key] for key in keys]) for table in tables]
    return len(np.unique(np.nan_to_num(np.concatenate(rows), nan=np.inf), axis=0))


def chosen(searches: Iterable[Search], space: Mapping[str, Domain]) -> list[tuple[Search, int]]:
    """The searches that have ended, each with the number of the draw that it chose."""
    listed = list(searches)
    ended: list[tuple[Search, int]] = []
    for search, numbers in zip(listed, numbered([one.trials for one in listed], space), strict=True):
        if search.best is not None:
            at = (search.trials["trial"].astype(str) == str(search.best.get("trial"))).to_numpy()
            ended.append((search, int(numbers[at][0]) if at.any() else -1 - len(ended)))
    return ended


def chosen_first(searches: Mapping[int, Search], space: Mapping[str, Domain]) -> dict[int, Search]:
    """Outer fold -> search, of the searches that have ended. Of those that chose the same draw, the first."""
    first: dict[int, Search] = {}
    for search, number in chosen(searches.values(), space):
        first.setdefault(number, search)
    return {search.test_fold: search for search in first.values()}


def _places(table: pd.DataFrame, space: Mapping[str, Domain]) -> pd.DataFrame:
    """A row per trial: its number, and the place of each value, NaN for a key without effect. A value that is
    read as 16 in one table and as 16.0 in another has one place."""
    columns = {key: place(domain, table[key]) for key, domain in space.items() if key in table}
    return pd.DataFrame({"trial": table["trial"].astype(int).to_numpy(), **columns})


def _shared(one: pd.DataFrame, other: pd.DataFrame, space: Mapping[str, Domain]) -> int:
    """How many trials, from the first on, are one draw in both tables of places."""
    keys = [key for key in space if key in one and key in other]
    n = min(len(one), len(other)) if keys else 0
    left, right = (table[["trial", *keys]].to_numpy(float)[:n] for table in (one, other))
    equal = ((left == right) | (np.isnan(left) & np.isnan(right))).all(axis=1)
    shared = n if equal.all() else int(equal.argmin())
    chances = [_chance(row[1:], keys, space) for row in left[:shared]]
    return shared if np.prod(chances) < CHANCE else 0


def _chance(places: np.ndarray, keys: Sequence[str], space: Mapping[str, Domain]) -> float:
    """The probability that an independent draw has the values of a trial."""
    known = [key for key, value in zip(keys, places, strict=True) if not np.isnan(value)]
    options = [len(space[key].get("choice", ())) for key in known]
    return 0.0 if 0 in options else float(1 / np.prod(options or [1]))
