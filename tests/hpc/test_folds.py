"""Outer folds: what is missing is done, what is done stays, what fails is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from hpc import folds, store
from hpc.study import Study
from leukotree import predictions
from leukotree.errors import InputError
from leukotree.spec import parse
from leukotree.train import Runtime

QUIET = Runtime(device="cpu", threads=1, quiet=True)


@pytest.fixture
def plan(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """One variant, four outer folds, and a search that has ended."""
    monkeypatch.chdir(tmp_path)
    fields = {
        "study": "folds",
        "base": {
            "data": {"shards": str(shards)},
            "backbone": {"name": "test_vit"},
            "optim": {"epochs": 1, "batch_size": 16},
        },
        "variants": ["flat"],
        "folds": {"outer": 4, "inner": 2},
        "search": {"trials": 1, "space": {"loss.gamma": {"uniform": [0, 5]}}},
    }
    plan = parse(Study, fields, "test")
    plan.search_folder("flat").mkdir(parents=True)
    (plan.search_folder("flat") / "best.yaml").write_text(yaml.safe_dump({"chosen": {"loss.gamma": 1.25}}))
    return plan


def test_without_a_search_there_is_nothing_to_launch(plan: Study) -> None:
    (plan.search_folder("flat") / "best.yaml").unlink()
    with pytest.raises(InputError, match=r"best\.yaml: missing; run `leukotree sweep`"):
        folds.launch(plan, runtime=QUIET)


def test_local_jobs_do_every_fold_once(plan: Study) -> None:
    first = folds.launch(plan, on="local", parallel=2, runtime=QUIET)
    assert (len(first.submitted), len(first.done), first.failed, first.waiting) == (2, 4, {}, {})
    keys = []
    for spec in plan.fold_specs({"flat": {"loss.gamma": 1.25}}):
        frame, _, _ = predictions.read(plan.root / spec.run_name)
        assert set(frame["fold"]) == {spec.data.test_fold}
        keys += list(frame["key"])
    assert len(keys) == len(set(keys)) == 28 * 6  # every image is scored once, by a model that never saw its patient

    again = folds.launch(plan, on="local", runtime=QUIET)
    assert (again.submitted, sorted(again.done)) == ([], sorted(first.done))
    assert again.lines() == ["4 runs done, 0 failed, 0 queued or at work"]


def test_a_failed_fold_stops_no_other_and_is_done_again(plan: Study) -> None:
    broken, *others = plan.fold_specs({"flat": {"loss.gamma": 1.25}})
    folder = plan.root / broken.run_name
    folder.mkdir(parents=True)
    (folder / "spec.yaml").write_text("variant: flat\n")  # of another version of the defaults
    result = folds.launch(plan, on="local", parallel=1, runtime=QUIET)
    assert sorted(result.done) == sorted(spec.run_name for spec in others)
    assert "made by another version of the defaults" in result.failed[broken.run_name]
    assert "\n" not in result.failed[broken.run_name]

    (folder / "spec.yaml").unlink()
    assert [spec.run_name for spec in folds.missing(plan)] == [broken.run_name]
    mended = folds.launch(plan, on="inline", runtime=QUIET)
    assert (len(mended.done), mended.failed) == (4, {})


def test_inline_failures_are_told_too(plan: Study) -> None:
    for spec in plan.fold_specs({"flat": {"loss.gamma": 1.25}}):
        folder = plan.root / spec.run_name
        folder.mkdir(parents=True)
        (folder / "spec.yaml").write_text("variant: flat\n")
    result = folds.launch(plan, on="inline", runtime=QUIET)
    assert len(result.failed) == 4
    assert all("another version of the defaults" in line for line in result.lines()[1:])
    assert json.loads(json.dumps(result.as_dict()))["done"] == []


def test_submitted_folds_are_not_submitted_twice(plan: Study) -> None:
    first = folds.launch(plan, on="local", parallel=1, wait=False, runtime=QUIET)
    assert len(first.waiting) == 4
    assert folds.missing(plan) == []
    second = folds.launch(plan, on="local", runtime=QUIET)  # waits for the jobs of the first
    assert second.submitted == []
    assert len(second.done) == 4
    assert store.queued(plan.root) == {}
