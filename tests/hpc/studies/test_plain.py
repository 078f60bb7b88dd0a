"""`logistic` and `neighbours` as variants of a study: their keys, and how many trials they need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpc.search import sampler
from hpc.search.record import Record
from hpc.search.sweep import counts
from hpc.studies import cells
from hpc.studies.study import SearchId, Study
from leukotree.report import arms
from leukotree.report.summary import Arm
from leukotree.spec import PLAIN, RunSpec

BASE = {
    "backbone": {"name": "test_resnet", "train": "head"},
    "augment": {"views": 2},
    "optim": {"lr": 1e-3, "epochs": 7, "batch_size": 24},
    "loss": {"gamma": 1.0, "tau": 0.3},
    "plain": {"c": 0.5, "k": 7},
    "engine": {"micro_batch": 12, "precision": "fp32"},
}


def study(space: dict[str, Any] | None = None, trials: int = 5, **fields: Any) -> Study:
    search = {"trials": trials, "scheduler": "none"} if trials else {"trials": 0}
    return Study.model_validate(
        {
            "study": "s",
            "base": BASE,
            "variants": ["flat", "logistic", "neighbours"],
            "search": {**search, "space": space or {}},
            **fields,
        }
    )


def test_a_run_keeps_the_keys_of_the_base_that_are_its_own() -> None:
    plan = study()
    flat, logistic, neighbours = (plan.spec(variant, {}, 0, 0) for variant in plan.variants)
    assert (flat.optim.lr, flat.loss.gamma, flat.epochs) == (1e-3, 1.0, 7)
    assert flat.plain == RunSpec().plain
    assert (logistic.plain.c, logistic.plain.k, neighbours.plain.c, neighbours.plain.k) == (0.5, 20, 1.0, 7)
    for spec in (logistic, neighbours):
        assert spec.optim == RunSpec().optim
        assert (spec.loss.gamma, spec.loss.tau, spec.epochs) == (RunSpec().loss.gamma, 0.3, 1)
        assert (spec.engine.micro_batch, spec.engine.precision) == (None, "fp32")
        assert spec.plain != RunSpec().plain
        assert spec.backbone == flat.backbone
        assert spec.augment == flat.augment


def test_a_search_draws_only_its_own_keys_and_once_where_there_is_none(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    space = {"optim.lr": {"loguniform": [1e-5, 1e-2]}, "plain.c": {"loguniform": [1e-3, 1e3]}}
    plan = study(space, base={**BASE, "data": {"shards": str(shards)}}, folds={"outer": 4})
    plan.require_search()
    drawn = {variant: set(sampler.propose(plan, SearchId(variant, 0), [])) for variant in plan.variants}
    assert drawn == {"flat": {"optim.lr"}, "logistic": {"plain.c"}, "neighbours": set()}
    assert [plan.trials(variant) for variant in plan.variants] == [5, 5, 1]
    assert [Record(plan, SearchId(variant, 0)).open_trials() for variant in plan.variants] == [5, 5, 1]
    numbers, inner = counts(plan), plan.folds.inner
    searches = len(plan.search_ids) // 3
    assert numbers["trainings"] == searches * inner * 11
    assert numbers["epochs"] == searches * inner * (5 * 7 + 5 + 1)


def test_a_grid_varies_each_variant_in_its_own_keys() -> None:
    grid = {"plain.c": [0.1, 1.0], "plain.k": [5, 20], "loss.tau": [0.0, 1.0], "optim.lr": [1e-3, 1e-2]}
    plan = study(trials=0, grid=grid, folds={"outer": 2})
    found = cells.expand(plan)
    runs = {variant: sum(cell.spec.variant == variant for cell in found) for variant in plan.variants}
    assert runs == {"flat": 2 * 4, "logistic": 2 * 4, "neighbours": 2 * 4}


@pytest.mark.parametrize(
    "changes", [{"backbone": {"train": "all"}, "augment": {}}, {"augment": {"views": None}}]
)
def test_a_study_without_stored_features_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"variant: (logistic|neighbours) is fitted to stored features"):
        study(base={**BASE, **changes})


def test_a_key_of_theirs_needs_them() -> None:
    with pytest.raises(ValueError, match=r"plain\.k: has no effect in flat"):
        study({"plain.k": {"choice": [5, 20]}}, variants=["flat"])


def test_they_are_compared_only_where_that_is_declared() -> None:
    found = [Arm(name, name, None, {}, ()) for name in ("flat", "base", *PLAIN)]
    names = [arm.name for arm in found]
    assert arms.primary({}, names, found) == (("base", "flat"),)
    assert arms.primary({"primary": [["flat", "logistic"]]}, names, found) == (("flat", "logistic"),)
