"""The values of the next trial of a search.

They follow from the search's settings and its record only. A sweep that was killed continues as if it had not
been.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpc.search.record import Trial
from hpc.studies.study import SearchId, Study
from leukotree import seeds
from leukotree.spec import TRAINED

STATES = {
    None: TrialState.RUNNING,
    "completed": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,  # its score is that of an earlier epoch, so it is not a final one
    "failed": TrialState.FAIL,
}


def propose(study: Study, search_id: SearchId, trials: Sequence[Trial]) -> dict[str, Any]:
    """The values of the next trial of a search. A pure function of the study's search seed, the outer fold
    and the earlier trials of this search.

    All variants of an outer fold draw the same first values, so that they are compared in pairs. Each outer
    fold draws its own. With the same draws in all folds, the luck of a draw would be in the difference of
    every fold: the spread between folds would not show it, and a comparison of the folds would be too sure.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = space_of(study, search_id.variant)
    sampler = _sampler(study, study.outer_number(search_id), len(trials))
    optuna_study = optuna.create_study(direction="maximize", sampler=sampler)
    optuna_study.add_trials([_frozen(trial, space) for trial in trials])
    return dict(optuna_study.ask(fixed_distributions=space).params)


def _frozen(trial: Trial, space: Mapping[str, BaseDistribution]) -> FrozenTrial:
    """A trial in the form that Optuna's samplers read. One that reached a rung counts as stopped there, also
    while it waits or goes on. One that failed counts as stopped before any report, which TPE ranks last."""
    halted = trial.state == "failed" or (trial.state is None and trial.halted)
    state = TrialState.PRUNED if halted else STATES[trial.state]
    scores = {} if trial.state == "failed" else trial.scores
    return create_trial(
        state=state,
        params=trial.chosen,
        distributions=dict(space),
        intermediate_values=scores,
        value=trial.score if scores and state is not TrialState.RUNNING else None,
    )


def space_of(study: Study, variant: str) -> dict[str, BaseDistribution]:
    """The distributions of the searched keys. Keys with an effect in all variants that are trained come
    first, so that those draw the same values for them."""
    axes = study.space(variant)
    space: dict[str, BaseDistribution] = {}
    for key in sorted(axes, key=lambda key: not all(key in study.space(other) for other in TRAINED)):
        axis = axes[key]
        if axis.choice is not None:
            space[key] = CategoricalDistribution(axis.choice)
        else:
            low, high = axis.bounds
            space[key] = FloatDistribution(low, high, log=axis.loguniform is not None)
    return space


def _sampler(study: Study, outer: int, number: int) -> BaseSampler:
    """The sampler of one trial, seeded by the number of the outer fold (see `Study.outer_folds`) and the
    trial's number."""
    search = study.search
    # numpy's old generator takes no larger seed
    seed = seeds.integer(search.seed, "draw", outer, number) % 2**32
    if search.algorithm == "random":
        return RandomSampler(seed=seed)
    return TPESampler(seed=seed, n_startup_trials=search.startup_trials)
