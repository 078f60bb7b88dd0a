"""The posterior of the best values of a variant, from the trials and re-runs of all its searches.

The searches of the outer folds are pooled, because one search has few trials. Each fold has a level of its
own, and differences of its own between configurations (see `stats.surrogate`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from leukotree.report import draws
from leukotree.report.summary import Search
from leukotree.stats import fidelity, optimum
from leukotree.stats.axes import Cube, Domain
from leukotree.stats.optimum import Optimum
from leukotree.stats.surrogate import Observations


def posterior(searches: Sequence[Search], domains: Mapping[str, Domain]) -> Optimum | None:
    """The posterior of the best values. None where it is not estimable: with fewer draws than `optimum.floor`
    at one fidelity, or where all scores are equal.

    A draw that several searches tried (see `draws`) is one configuration, with a score for each search. Keys
    that some searches lack are left out.
    """
    tables = [search.trials for search in searches]
    cube = Cube({key: domains[key] for key in domains if all(key in table for table in tables)})
    if not cube.keys or not tables:
        return None
    numbers = draws.numbered(tables, domains)
    parts = [_observed(search, cube, own) for search, own in zip(searches, numbers, strict=True)]
    together = pd.concat([part.assign(group=group) for group, part in enumerate(parts)], ignore_index=True)
    if together["draw"].nunique() < optimum.floor(len(cube.keys)) or together["score"].nunique() < 2:
        return None
    group = pd.factorize(together["group"])[0]
    x = cube.encoded(together[list(cube.keys)].to_numpy(float))
    return Optimum(
        cube, Observations(x, together["score"].to_numpy(), group, together["variance"].to_numpy())
    )


def _observed(search: Search, cube: Cube, numbers: np.ndarray) -> pd.DataFrame:
    """A row per trial and re-run with a score at one fidelity: its draw, units, score and variance."""
    table = search.trials
    curves = dict(list(search.history.groupby(search.history["trial"].astype(str))))
    scores = [
        _curve(curves.get(str(row["trial"])), int(row["epochs"]), row["macro_f1"])
        for row in table.to_dict("records")
    ]
    failed, at = (table["state"] == "failed").tolist(), list(range(len(table)))
    completed = table.loc[table["state"] == "completed", "epochs"]
    last = int((completed if len(completed) else table["epochs"]).max()) if len(table) else 0
    if search.reruns is not None:
        place = {name: i for i, name in enumerate(table["trial"].astype(str))}
        for trial, score in zip(search.reruns["trial"], search.reruns["macro_f1"], strict=True):
            at.append(place[trial])
            scores.append({} if np.isnan(score) else {last: float(score)})
            failed.append(bool(np.isnan(score)))
    final = fidelity.final(scores, failed, last)
    units = cube.units({key: table[key] for key in cube.keys})[at]
    rows = pd.DataFrame(units, columns=list(cube.keys))
    rows = rows.assign(draw=numbers[at], score=final.scores, variance=final.variance)
    return rows[rows["score"].notna()]


def _curve(history: pd.DataFrame | None, last: int, score: float) -> dict[int, float]:
    """Report -> score of a trial. Its row of trials.csv has the last one."""
    curve = (
        {}
        if history is None
        else dict(zip(history["epoch"].astype(int), history["macro_f1"].astype(float), strict=True))
    )
    return curve if last < 1 or np.isnan(score) else {**curve, last: float(score)}
