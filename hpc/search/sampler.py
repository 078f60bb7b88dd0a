"""The values of the next trial of a search.

They follow from the search's settings and its record only. A sweep that was killed continues as if it had not
been.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpc.search import modelled
from hpc.search.record import Trial
from hpc.studies.study import SearchId, Study
from leukotree import seeds

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
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it warns of packages that would save milliseconds
    space, outer = modelled.space(study, search_id.variant), study.outer_number(search_id)
    earlier = [_frozen(study, trial, space) for trial in trials]
    if study.search.algorithm == "gp":
        _complete(earlier)
    if space and _is_quasi_random(study, earlier):
        values = _quasi_random(study, outer, len(trials), space)
    else:
        optuna_study = optuna.create_study(direction="maximize", sampler=_sampler(study, outer, len(trials)))
        optuna_study.add_trials(earlier)
        values = dict(optuna_study.ask(fixed_distributions=space).params)
    return modelled.chosen(study, values, first=not trials)


def _frozen(study: Study, trial: Trial, space: Mapping[str, BaseDistribution]) -> FrozenTrial:
    """A trial in the form that Optuna's samplers read. One that reached a rung counts as stopped there, also
    while it waits or goes on. One that failed counts as stopped before any report, which TPE ranks last."""
    halted = trial.state == "failed" or (trial.state is None and trial.halted)
    state = TrialState.PRUNED if halted else STATES[trial.state]
    scores = {} if trial.state == "failed" else trial.scores
    return create_trial(
        state=state,
        params=modelled.modelled(study, trial.chosen),
        distributions=dict(space),
        intermediate_values=scores,
        value=trial.score if scores and state is not TrialState.RUNNING else None,
    )


def _complete(trials: Sequence[FrozenTrial]) -> None:
    """Let trials that were stopped or failed count as complete: a Gaussian process knows no others, and would
    try the same again. Stopped ones have their last score, failed ones the worst of all."""
    worst = min((trial.value for trial in trials if trial.value is not None), default=0.0)
    for trial in trials:
        if trial.state in (TrialState.PRUNED, TrialState.FAIL):
            trial.state, trial.value = TrialState.COMPLETE, worst if trial.value is None else trial.value


def space_of(study: Study, variant: str) -> dict[str, BaseDistribution]:
    """The distributions of the values that trials of a variant have."""
    return modelled.true_space(study, variant)


def _is_quasi_random(study: Study, earlier: Sequence[FrozenTrial]) -> bool:
    """Whether the next trial is a point of the quasi-random sequence."""
    search = study.search
    known = sum(trial.state is TrialState.COMPLETE for trial in earlier)
    return search.algorithm == "qmc" or (search.algorithm == "gp" and known < search.startup_trials)


def _quasi_random(
    study: Study, outer: int, number: int, space: Mapping[str, BaseDistribution]
) -> dict[str, Any]:
    """The point of a trial's number in a scrambled Halton sequence, with a dimension for each key.

    The sequence is that of Optuna's QMCSampler, which however counts its points in a storage. The first
    dimensions are the same for any number of them, so variants with more keys draw the same for the common
    ones.
    """
    from scipy.stats import qmc

    sequence = qmc.Halton(len(space), scramble=True, rng=seeds.integer(study.search.seed, "quasi", outer))
    sequence.fast_forward(number)
    shares = sequence.random(1)[0]
    return {key: _at(space[key], float(share)) for key, share in zip(space, shares, strict=True)}


def _at(distribution: BaseDistribution, share: float) -> Any:
    """The value below which a share of the draws from a distribution lies. `share`: in [0, 1)."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(share * len(distribution.choices))]
    assert isinstance(distribution, FloatDistribution)
    low, high = distribution.low, distribution.high
    if not distribution.log:
        return low + share * (high - low)
    return min(high, max(low, low * (high / low) ** share))


def _sampler(study: Study, outer: int, number: int) -> BaseSampler:
    """The sampler of one trial, seeded by the number of the outer fold (see `Study.outer_folds`) and the
    trial's number. It has no memory, so that a proposal follows from the record alone."""
    search = study.search
    # numpy's old generator takes no larger seed
    seed = seeds.integer(search.seed, "draw", outer, number) % 2**32
    if search.algorithm == "random":
        return RandomSampler(seed=seed)
    if search.algorithm == "gp":
        return GPSampler(seed=seed, n_startup_trials=1, warn_independent_sampling=False)
    return TPESampler(seed=seed, n_startup_trials=search.startup_trials)
