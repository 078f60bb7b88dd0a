"""The one run of a study that a person names. None is chosen by its score: that would select on test data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from leukotree.errors import InputError
from leukotree.report.summary import Run, StudySummary

KEYS = ("arm", "variant", "fold", "repeat", "seed")
"""What names a run."""


def choose(summary: StudySummary, wanted: Mapping[str, Any]) -> Run:
    """The finished run of a study with the wanted values of KEYS. None as a value takes any.

    Raises InputError unless exactly one run is left.
    """
    given = {key: value for key, value in wanted.items() if value is not None}
    runs = [run for run in summary.runs if all(_place(summary, run)[key] == given[key] for key in given)]
    if len(runs) == 1:
        return runs[0]
    what = ", ".join(f"{key} {value}" for key, value in given.items())
    if not runs:
        problem = f"no finished run with {what}" if what else "no finished run"
        raise InputError(f"study {summary.name}: {problem}; `leukotree status {summary.name}` lists the runs")
    options = _options([_place(summary, run) for run in runs])
    counted = f"{len(runs)} finished runs{f' with {what}' if what else ''}"
    raise InputError(f"study {summary.name}: {counted}; choose one by {options}")


def _place(summary: StudySummary, run: Run) -> dict[str, Any]:
    fold = run.test_fold - run.repeat * summary.outer
    places = {"variant": run.variant, "fold": fold, "repeat": run.repeat, "seed": run.seed}
    return {"arm": run.arm, **places}


def _options(places: Sequence[Mapping[str, Any]]) -> str:
    """The options that would tell the runs apart, with their values."""
    texts = []
    for key in KEYS[1:]:
        values = sorted({place[key] for place in places}, key=str)
        if len(values) > 1:
            texts.append(f"--{key} ({', '.join(map(str, values))})")
    return ", ".join(texts) or "naming its folder in the place of the study"
