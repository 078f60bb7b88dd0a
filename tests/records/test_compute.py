"""The compute of a run is read as it was written; an older run has none."""

from __future__ import annotations

from typing import Any

import pytest

from leukotree.records import compute
from leukotree.records.compute import Compute

FOUND = Compute(models=4, steps=120, parameters=1000, image_flops=50, training_flops=None)


def test_it_is_read_as_it_was_written() -> None:
    assert compute.read({compute.KEY: FOUND.as_dict()}) == FOUND


@pytest.mark.parametrize(
    "status",
    [{}, {"compute": None}, {"compute": [1]}, {"compute": {"steps": 3}}, {"compute": {"models": "4"}}],
)
def test_an_older_or_damaged_record_is_none(status: dict[str, Any]) -> None:
    assert compute.read(status) is None


def test_hours_are_those_of_the_last_epoch_that_has_them() -> None:
    rows: list[dict[str, Any]] = [
        {"gpu_hours": 0.5, "core_hours": 0.0},
        {"gpu_hours": 0.75, "core_hours": 0.0},
        {},
    ]
    assert compute.hours(rows) == 0.75
    assert compute.hours([{"core_hours": 2.0}]) == 2.0
    assert compute.hours([{}, {"gpu_hours": None}]) is None
