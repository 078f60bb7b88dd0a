"""The space of a search, as a report shows it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from leukotree.report.summary import StudySummary
from leukotree.spec import RunSpec


def _space(search: dict[str, Any]) -> dict[str, dict[str, Any]]:
    summary: Any = SimpleNamespace(study={"search": search}, base=RunSpec())
    space = StudySummary.space.fget(summary)  # type: ignore[attr-defined]
    assert isinstance(space, dict)
    return space


def test_a_likely_value_is_no_part_of_a_domain() -> None:
    axis = {"around": 3e-5, "uniform": None, "loguniform": [1e-6, 1e-3], "choice": None}
    assert _space({"space": {"optim.lr": axis}}) == {"optim.lr": {"loguniform": [1e-6, 1e-3]}}


def test_a_step_size_widens_the_domain_of_the_learning_rate() -> None:
    space = {"optim.lr": {"loguniform": [1e-6, 1e-3]}, "optim.batch_size": {"choice": [8, 128]}}
    shown = _space({"space": space, "step_size": True})  # the batch size of the base is 32
    assert shown["optim.lr"]["loguniform"] == pytest.approx([5e-7, 2e-3])
    assert shown["optim.batch_size"] == {"choice": [8, 128]}
