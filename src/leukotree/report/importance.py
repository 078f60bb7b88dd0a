"""How much each searched key matters: the share of the score's variance that it explains by itself
(fANOVA)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from leukotree.report.space import Domain, bounds, place

FLOOR = 10
"""With fewer completed trials in all importances are `not estimable`."""


def importance(searches: Iterable[pd.DataFrame], space: Mapping[str, Domain]) -> dict[str, float] | None:
    """Key -> importance in 0..1 (what is left of 1 is interactions); of the completed trials alone, since the
    score of one that was stopped early is of another length. Keys that some of them lack, having said nothing
    beside the others, are left out.

    The trials of all searches of a variant are taken together, each search's scores about their own mean: a
    scheduler leaves few completed trials in one, and that one outer fold is harder than another is nobody's
    hyperparameter.

    Main effects of a random forest's prediction (Hutter, Hoos and Leyton-Brown 2014), by Optuna, with a fixed
    seed. None for fewer than FLOOR completed trials, or where all have the same score.
    """
    parts = [trials[(trials["state"] == "completed") & trials["macro_f1"].notna()] for trials in searches]
    done = pd.concat(
        [part.assign(macro_f1=part["macro_f1"] - part["macro_f1"].mean()) for part in parts],
        ignore_index=True,
    )
    keys = [key for key in space if key in done]
    # Optuna's evaluator averages over the values themselves; on the axis they were drawn from, a logarithmic
    # key counts evenly.
    places = pd.DataFrame({key: place(space[key], done[key]) for key in keys}, index=done.index)
    places = places.dropna(axis="columns")
    scores = done["macro_f1"].to_numpy(float)
    if places.empty or len(scores) < FLOOR or np.ptp(scores) == 0:
        return None
    return _fanova(places, scores, space)


def _fanova(places: pd.DataFrame, scores: np.ndarray, space: Mapping[str, Domain]) -> dict[str, float]:
    """places: a column per key, a row per trial."""
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
            params[key] = places[key].clip(low, high).tolist()  # as printed, a value may lie just outside
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    for score, *row in zip(scores, *params.values(), strict=True):
        values = dict(zip(params, row, strict=True))
        study.add_trial(create_trial(params=values, distributions=distributions, value=float(score)))
    found = optuna.importance.FanovaImportanceEvaluator(seed=0).evaluate(study)
    return {key: float(found[key]) for key in params}
