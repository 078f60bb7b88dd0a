"""The compute of the arms, and whether they are paired, as the report shows them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from leukotree.records.compute import Compute
from leukotree.report.collect import collect
from leukotree.report.sections import budget
from leukotree.report.summary import StudySummary
from tests.helpers.study_results import STUDY, cells, expected_runs, images_of_fold, texts, write_run

pytestmark = pytest.mark.usefixtures("elsewhere")

BASE = Compute(models=4, steps=480, parameters=4000, image_flops=4 * 10**9, training_flops=10**15)
FLAT = Compute(models=1, steps=120, parameters=1000, image_flops=10**9, training_flops=10**14)


def write(
    root: Path, record: Mapping[str, Compute], changes: Mapping[str, Any] | None = None
) -> StudySummary:
    """A study of two folds whose runs have recorded their compute, and half an hour of cores."""
    rows = expected_runs(folds=2, seeds=(0,), variants=("flat", "base", "multilabel"))
    for row in rows:
        folder = write_run(root, row, images_of_fold(row["test_fold"]))
        if found := record.get(row["variant"]):
            status = {"state": "done", "compute": found.as_dict()}
            (folder / "status.json").write_text(json.dumps(status))
            with open(folder / "metrics.jsonl", "a") as file:
                file.write(
                    json.dumps({"kind": "epoch", "epoch": 6, "seconds": 1.0, "core_hours": 0.5}) + "\n"
                )
    study = {**STUDY, "search": {"trials": 0}, **(changes or {})}
    return collect(root, study, rows)


def test_a_row_has_the_compute_of_an_arm(tmp_path: Path) -> None:
    part = budget.section(write(tmp_path, {"flat": FLAT, "base": BASE}))
    assert part is not None
    epochs = STUDY.get("base", {}).get("optim", {}).get("epochs", 80)
    assert cells(part, "base") == ["base", "4", "480", "4000", "1e+15", "4e+09", "0.5", f"{epochs} epochs"]
    assert cells(part, "flat")[1:3] == ["1", "120"]
    assert cells(part, "multilabel")[1:7] == [*["not recorded"] * 5, "–"]
    assert "One learning rate, one weight decay and one batch size serve all models of `base`" in texts(part)


def test_a_budget_of_steps_is_named(tmp_path: Path) -> None:
    part = budget.section(write(tmp_path, {"flat": FLAT}, {"base": {"optim": {"steps": 500}}}))
    assert part is not None
    assert cells(part, "flat")[-1] == "500 steps"


@pytest.mark.parametrize(
    ("base", "cell", "stored"),
    [
        ("head", {}, True),
        ("head", {"backbone.train": "all", "augment.views": None}, False),
        ("all", {"backbone.train": "head", "augment.views": 2}, True),
        ("all", {"backbone.train": "head"}, False),
    ],
)
def test_stored_features_are_named_where_an_arm_trains_on_them(
    tmp_path: Path, base: str, cell: dict[str, Any], stored: bool
) -> None:
    views = {"augment": {"views": 2}} if base == "head" else {}
    summary = write(tmp_path, {}, {"base": {"backbone": {"train": base}, **views}})
    arms = tuple(replace(arm, values=cell) for arm in summary.arms)
    part = budget.section(replace(summary, arms=arms))
    assert part is not None
    assert ("The features of the frozen backbone are computed once" in texts(part)) == stored


def test_an_ensemble_is_compared_with_base(tmp_path: Path) -> None:
    summary = write(tmp_path, {"flat": FLAT, "base": BASE})
    flat, base, tree = summary.arms
    runs = tuple(
        replace(run, arm="ensemble", compute=replace(BASE, parameters=4100, steps=470)) for run in flat.runs
    )
    ensemble = replace(flat, name="ensemble", variant="ensemble", runs=runs)
    part = budget.section(replace(summary, arms=(flat, base, tree, ensemble)))
    assert part is not None
    expected = "`ensemble` against `base`: steps -2.1 %, parameters +2.5 %, training FLOPs +0.0 %, "
    assert f"{expected}FLOPs per image +0.0 %." in texts(part)


def test_arms_are_paired_unless_a_run_began_with_an_older_version(tmp_path: Path) -> None:
    summary = write(tmp_path, {})
    assert budget.paired(summary.runs).tone == "plain"
    old = summary.runs[0]
    environment = json.loads((old.folder / "env.json").read_text())
    del environment["streams"]
    (old.folder / "env.json").write_text(json.dumps(environment))
    warning = budget.paired(write_again(summary, tmp_path).runs)
    assert warning.tone == "warning"
    assert warning.text.startswith(
        f"1 of 6 runs began before initial weights and order were paired across arms (`{old.name}`)"
    )


def write_again(summary: StudySummary, root: Path) -> StudySummary:
    return collect(
        root, summary.study, expected_runs(folds=2, seeds=(0,), variants=("flat", "base", "multilabel"))
    )


@pytest.mark.parametrize("value", [0.0, 99_999.0])
def test_small_counts_are_whole(value: float) -> None:
    assert budget._large(value) == f"{value:.0f}"
