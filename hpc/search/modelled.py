"""The values of a trial as a sampler models them.

A range with a likely value (`Axis.around`) is modelled by the share of its prior below a value, so that
even draws from 0 to 1 have this prior. The learning rate is the one at the base's batch size where the study
models a step size. Every other key is modelled as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from scipy.special import ndtr, ndtri

from hpc.studies import step_size
from hpc.studies.search_settings import LR, Axis
from hpc.studies.study import Study
from leukotree.spec import TRAINED

SHARE = 0.25
"""Standard deviation of a prior around a likely value, as a share of the range."""


def ordered(study: Study, variant: str) -> dict[str, Axis]:
    """The searched keys. Those with an effect in all variants that are trained come first, so that these draw
    the same values for them."""
    axes = study.space(variant)
    shared = {key for key in axes if all(key in study.space(other) for other in TRAINED)}
    return {key: axes[key] for key in sorted(axes, key=lambda key: key not in shared)}


def space(study: Study, variant: str) -> dict[str, BaseDistribution]:
    """The distributions of the modelled values."""
    even = FloatDistribution(0.0, 1.0)
    return {
        key: even if _has_prior(axis) else distribution(axis) for key, axis in ordered(study, variant).items()
    }


def distribution(axis: Axis, factors: tuple[float, float] = (1.0, 1.0)) -> BaseDistribution:
    """The distribution of an axis without its likely value. `factors`: of its ends."""
    if axis.choice is not None:
        return CategoricalDistribution(axis.choice)
    low, high = (end * factor for end, factor in zip(axis.bounds, factors, strict=True))
    return FloatDistribution(low, high, log=axis.loguniform is not None)


def true_space(study: Study, variant: str) -> dict[str, BaseDistribution]:
    """The distributions of the values that trials have."""
    factors = step_size.factors(study, variant)
    wider = min(factors), max(factors)
    return {
        key: distribution(axis, wider) if key == LR and axis.choice is None else distribution(axis)
        for key, axis in ordered(study, variant).items()
    }


def modelled(study: Study, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a trial, as a sampler models them."""
    values = step_size.reference(study, chosen)
    axes = {key: study.search.space[key] for key in values}
    return {
        key: _share(axes[key], value) if _has_prior(axes[key]) else value for key, value in values.items()
    }


def chosen(study: Study, values: Mapping[str, Any], first: bool) -> dict[str, Any]:
    """The values of a trial, from those that a sampler drew. `first`: the first trial of a search has the
    likely values."""
    axes = {key: study.search.space[key] for key in values}
    drawn = {
        key: _value(axes[key], value) if _has_prior(axes[key]) else value for key, value in values.items()
    }
    if first:
        likely = {key: axis.around for key, axis in axes.items() if axis.around is not None}
        drawn |= {key: float(value) if _has_prior(axes[key]) else value for key, value in likely.items()}
    return step_size.scaled(study, drawn)


def _has_prior(axis: Axis) -> bool:
    return axis.around is not None and axis.choice is None


def _scale(axis: Axis) -> tuple[float, float, float, float]:
    """Mean and standard deviation of the prior, on the scale of the axis, and its shares below both ends."""
    on_scale = math.log if axis.loguniform else float
    low, high, mean = map(on_scale, (*axis.bounds, axis.around))  # type: ignore[arg-type]
    deviation = SHARE * (high - low)
    below = (float(ndtr((end - mean) / deviation)) for end in (low, high))
    return mean, deviation, *below  # type: ignore[return-value]


def _share(axis: Axis, value: float) -> float:
    """The share of an axis' prior below a value."""
    mean, deviation, first, last = _scale(axis)
    place = math.log(value) if axis.loguniform else value
    share = (float(ndtr((place - mean) / deviation)) - first) / (last - first)
    return min(1.0, max(0.0, share))


def _value(axis: Axis, share: float) -> float:
    """The value with this share of an axis' prior below it."""
    mean, deviation, first, last = _scale(axis)
    place = mean + deviation * float(ndtri(first + share * (last - first)))
    low, high = axis.bounds
    return min(high, max(low, math.exp(place) if axis.loguniform else place))
