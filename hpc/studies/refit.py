"""The specs of `leukotree refit`: each variant once more, on the images of all folds, with the chosen values.

Where each outer fold has a search of its own, each has chosen its own values, and no search has seen all
images. Then the values of the fold whose choice is closest to those of the others are taken (the medoid). No
score of a test fold takes part, so the scores of the study stay those of its method.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hpc.studies import cells
from hpc.studies.search_settings import Axis
from hpc.studies.study import Study
from leukotree.errors import InputError
from leukotree.spec import RunSpec


class Refit(NamedTuple):
    """A run on all folds."""

    spec: RunSpec
    fold: int
    """The number of the outer fold whose values it has, see `Study.outer_folds`."""
    same: int
    """How many of the outer folds have chosen the same values."""
    folds: int
    """How many of them have chosen any."""

    def line(self, study: Study) -> str:
        """Where its values come from."""
        if self.same == self.folds:
            return f"{self.spec.variant}: the values of all outer folds"
        repeat, fold = study.outer_folds[self.fold]
        of_repeat = f" of repeat {repeat}" if repeat else ""
        return (
            f"{self.spec.variant}: the values of fold {fold}{of_repeat}, which are closest to those of the "
            f"others ({self.same} of {self.folds} folds have them)"
        )


def refits(
    study: Study, chosen: Mapping[str, Mapping[int, Mapping[str, Any]]], variants: Sequence[str]
) -> list[Refit]:
    """A run for each of the variants, on the first seed. `chosen`: variant -> number of the outer fold ->
    values. Raises InputError for a variant that the study does not have."""
    if unknown := [variant for variant in variants if variant not in study.variants]:
        raise InputError(f"--variant {unknown[0]}: the study has {', '.join(study.variants)}")
    rows = []
    for variant in variants:
        fold = medoid(study.space(variant), chosen[variant])
        values = chosen[variant][fold]
        same = sum(other == values for other in chosen[variant].values())
        spec = study.spec(variant, values, 0, study.seeds[0]).override({"data.all_folds": True})
        rows.append(Refit(spec, fold, same, len(chosen[variant])))
    return rows


def require_cells(study: Study, refits: Sequence[Refit]) -> None:
    """Raises InputError for a run of a grid study with values that no cell has: the study has no score of
    them. A search chooses values of its own."""
    if not study.has_grid or study.search.trials:
        return
    known = cells.expand(study)
    names = {cell.run_name for cell in known}
    (repeat, fold), *_ = study.outer_folds.values()
    for variant in (one.spec.variant for one in refits):
        if study.spec(variant, {}, fold, study.seeds[0], repeat=repeat).run_name in names:
            continue
        values = next((cell.values for cell in known if cell.spec.variant == variant), {})
        cell = " ".join(f"base.{key}={json.dumps(value)}" for key, value in values.items())
        fix = f"give it those of a cell, such as {shlex.quote(cell)}" if cell else "name another --variant"
        raise InputError(
            f"study {study.study!r}: {variant} would have the values of `base`, and no cell of the grid has "
            f"them; {fix}"
        )


def medoid(space: Mapping[str, Axis], chosen: Mapping[int, Mapping[str, Any]]) -> int:
    """The fold whose values have the smallest sum of distances to those of the others; of equal ones the
    first. The distance of a number is that on its axis, of which the whole has length 1 (in logarithms for
    `loguniform`). Choices are equal, or at the distance 1."""
    total = {
        fold: sum(_distance(space, values, other) for other in chosen.values())
        for fold, values in chosen.items()
    }
    return min(total, key=lambda fold: (round(total[fold], 12), fold))


def _distance(space: Mapping[str, Axis], one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    keys = dict.fromkeys([*one, *other])
    return sum(_apart(space.get(key), one.get(key), other.get(key)) for key in keys)


def _apart(axis: Axis | None, one: Any, other: Any) -> float:
    if one == other:
        return 0.0
    bounds = axis and (axis.uniform or axis.loguniform)
    if not axis or not bounds or one is None or other is None:
        return 1.0
    scale = math.log if axis.loguniform else float
    low, high = map(scale, bounds)
    return abs(scale(one) - scale(other)) / (high - low)
