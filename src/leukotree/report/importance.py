"""The importance of each searched key: the share of the score's variance that the key explains by itself
(fANOVA)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from leukotree.report import draws
from leukotree.report.space import Domain, bounds, place

FLOOR = 10
"""With fewer draws in the completed trials of all searches together, importance is not estimable."""


def importance(searches: Iterable[pd.DataFrame], space: Mapping[str, Domain]) -> dict[str, float] | None:
    """Key -> importance, 0 to 1. The rest up to 1 are interactions of keys.

    Only completed trials count: a trial that was stopped early has the score of a shorter training. Keys that
    some trials lack are left out, because they had no effect there.

    The trials of all searches of a variant are pooled, because one search has few completed trials. The mean
    of each search is subtracted from its scores, because some outer folds are harder than others. A draw that
    several searches tried (see `draws`) is one row, with the mean of its scores.

    Importances are the main effects of a random forest's prediction (Hutter, Hoos and Leyton-Brown 2014), by
    Optuna, with a fixed seed. None for fewer than FLOOR draws with a completed trial, and where all have the
    same score.
    """
    tables = list(searches)
    parts = [
        table.assign(draw=numbers)[(table["state"] == "completed") & table["macro_f1"].notna()]
        for table, numbers in zip(tables, draws.numbered(tables, space), strict=True)
    ]
    done = pd.concat(
        [part.assign(macro_f1=part["macro_f1"] - part["macro_f1"].mean()) for part in parts],
        ignore_index=True,
    )
    means = done.groupby("draw")["macro_f1"].transform("mean")
    done = done.assign(macro_f1=means).drop_duplicates("draw").reset_index(drop=True)
    keys = [key for key in space if key in done]
    # Optuna averages evenly over the values that it gets. It gets places, so that a logarithmic range counts
    # evenly in its logarithm.
    places = pd.DataFrame({key: place(space[key], done[key]) for key in keys}, index=done.index)
    places = places.dropna(axis="columns")
    scores = done["macro_f1"].to_numpy(float)
    if places.empty or len(scores) < FLOOR or np.ptp(scores) == 0:
        return None
    return _fanova(places, scores, space)


def _fanova(places: pd.DataFrame, scores: np.ndarray, space: Mapping[str, Domain]) -> dict[str, float]:
    """Key -> importance. places: a column per key, a row per trial."""
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
    from optuna.trial import create_trial

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions: dict[str, BaseDistribution] = {}
    params: dict[str, list[int] | list[float]] = {}
    for key in map(str, places):
        low, high = bounds(space[key])
        if "choice" in space[key]:
            distributions[key] = CategoricalDistribution(list(range(int(high) + 1)))
            params[key] = places[key].astype(int).tolist()
        else:
            distributions[key] = FloatDistribution(low, high)
            params[key] = (
                places[key].clip(low, high).tolist()
            )  # a rounded value in the table may lie just outside
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    for score, *row in zip(scores, *params.values(), strict=True):
        values = dict(zip(params, row, strict=True))
        study.add_trial(create_trial(params=values, distributions=distributions, value=float(score)))
    importances = optuna.importance.FanovaImportanceEvaluator(seed=0).evaluate(study)
    return {key: float(importances[key]) for key in params}
