"""Likely values of an axis, and the step size."""

from __future__ import annotations

import math
from typing import Any

import pytest

from hpc.studies import step_size
from hpc.studies.study import Study
from leukotree.errors import InputError


def study(space: dict[str, Any], **search: Any) -> Study:
    return Study.model_validate({"study": "s", "search": {"trials": 3, "space": space, **search}})


RATE = {"loguniform": [1e-6, 1e-3]}
SIZE = {"choice": [8, 32, 128]}


@pytest.mark.parametrize(
    ("axis", "says"),
    [
        ({**RATE, "around": 0.1}, r"around: 0.1 is no number in \[1e-06, 0.001\]"),
        ({**RATE, "around": True}, "around: True is no number"),
        ({**RATE, "around": "much"}, "around: 'much' is no number"),
        ({"choice": [8, 16], "around": 12}, r"around: 12 is none of \[8, 16\]"),
    ],
)
def test_a_likely_value_that_cannot_be_drawn_is_refused(axis: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        study({"optim.lr": axis} if "loguniform" in axis else {"optim.batch_size": axis})


def test_a_step_size_needs_a_range_of_rates_and_batch_sizes() -> None:
    with pytest.raises(ValueError, match=r"step_size: needs both optim.lr and optim.batch_size"):
        study({"optim.lr": RATE}, step_size=True)
    with pytest.raises(ValueError, match=r"step_size: optim.lr needs a range"):
        study({"optim.lr": {"choice": [1e-4]}, "optim.batch_size": SIZE}, step_size=True)
    with pytest.raises(InputError, match=r"search.step_size: needs optim.lr and optim.batch_size"):
        study({"loss.gamma": {"uniform": [0, 1]}}, step_size=True).require_search()


def test_a_rate_and_its_reference_are_each_others_inverse() -> None:
    plan = study({"optim.lr": RATE, "optim.batch_size": SIZE}, step_size=True)
    assert step_size.factors(plan, "flat") == [0.5, 1.0, 2.0]
    assert step_size.factors(study({"optim.batch_size": SIZE}), "flat") == [1.0]
    for rate in (1e-6, 3.3e-5, 1e-3):
        for size in (8, 32, 128):
            values = {"optim.lr": rate, "optim.batch_size": size}
            trial = step_size.scaled(plan, values)
            assert trial["optim.lr"] == pytest.approx(rate * math.sqrt(size / 32))
            assert 1e-6 <= step_size.reference(plan, trial)["optim.lr"] <= 1e-3
            assert step_size.reference(plan, trial)["optim.lr"] == pytest.approx(rate)
