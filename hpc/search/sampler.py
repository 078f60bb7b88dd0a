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
from hpc.studies.study import Study
from leukotree import seeds
from leukotree.spec import VARIANTS

STATES = {
    None: TrialState.RUNNING,
    "completed": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,  # its score is that of an earlier epoch, so it is not a final one
    "failed": TrialState.FAIL,
}


def propose(study: Study, variant: str, trials: Sequence[Trial]) -> dict[str, Any]:
    """The values of the next trial of a search. A pure function of the search's seed and the earlier
    trials."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = _space(study, variant)
    optuna_study = optuna.create_study(direction="maximize", sampler=_sampler(study, len(trials)))
    optuna_study.add_trials([_frozen(trial, space) for trial in trials])
    return dict(optuna_study.ask(fixed_distributions=space).params)


def _frozen(trial: Trial, space: Mapping[str, BaseDistribution]) -> FrozenTrial:
    """A trial in the form that Optuna's samplers read."""
    scored = trial.state in ("completed", "stopped") and trial.scores
    return create_trial(
        state=STATES[trial.state],
        params=trial.chosen,
        distributions=dict(space),
        intermediate_values=trial.scores,
        value=trial.scores[trial.last] if scored else None,
    )


def _space(study: Study, variant: str) -> dict[str, BaseDistribution]:
    """The distributions of the searched keys. Keys with an effect in all variants come first, so that all
    variants draw the same values for them."""
    axes = study.space(variant)
    space: dict[str, BaseDistribution] = {}
    for key in sorted(axes, key=lambda key: not all(key in study.space(other) for other in VARIANTS)):
        axis = axes[key]
        if axis.choice is not None:
            space[key] = CategoricalDistribution(axis.choice)
        else:
            low, high = axis.bounds
            space[key] = FloatDistribution(low, high, log=axis.loguniform is not None)
    return space


def _sampler(study: Study, number: int) -> BaseSampler:
    """The sampler of one trial, seeded by the trial's number. All searches draw the same first trials."""
    search = study.search
    seed = seeds.integer(search.seed, "search", number) % 2**32  # numpy's old generator takes no larger seed
    if search.algorithm == "random":
        return RandomSampler(seed=seed)
    return TPESampler(seed=seed, n_startup_trials=search.startup_trials)
