"""The learning rate and the batch size of a trial as one step size, see `SearchSettings.step_size`.

AdamW's updates keep their noise when the learning rate grows with the square root of the batch size (Malladi
et al. 2022). A search that models the rate at one batch size need not learn how both depend on each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hpc.studies.search_settings import BATCH, LR

if TYPE_CHECKING:
    from hpc.studies.study import Study


def factors(study: Study, variant: str) -> list[float]:
    """The factors by which the learning rate of a trial can differ from that of the base's batch size: [1.0]
    where the study does not model a step size."""
    axis = study.space(variant).get(BATCH)
    if not study.search.step_size or axis is None:
        return [1.0]
    return [_factor(study, {BATCH: size}) for size in axis.choice or axis.bounds]


def reference(study: Study, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a trial with the learning rate that it would have at the base's batch size."""
    factor = _factor(study, chosen)
    if factor == 1.0 or not isinstance(chosen.get(LR), int | float):
        return dict(chosen)
    rate = chosen[LR] / factor
    ends = study.search.space[LR].bounds  # the division may miss an end by a rounding
    near = [end for end in ends if math.isclose(rate, end, rel_tol=1e-12)]
    return {**chosen, LR: near[0] if near else rate}


def scaled(study: Study, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a trial, from those with the learning rate at the base's batch size."""
    factor = _factor(study, values)
    return {**values, LR: values[LR] * factor} if LR in values and factor != 1.0 else dict(values)


def _factor(study: Study, values: Mapping[str, Any]) -> float:
    size = values.get(BATCH)
    if not study.search.step_size or isinstance(size, bool) or not isinstance(size, int | float) or size <= 0:
        return 1.0
    return math.sqrt(size / study.base.optim.batch_size)
