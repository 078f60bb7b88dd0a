"""A study file stands for its runs, and says in one line what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hpc import study
from hpc.study import Study
from leukotree.errors import InputError

FILE: dict[str, Any] = {
    "study": "focal",
    "base": {"optim": {"batch_size": 32, "epochs": 40}},
    "variants": ["flat", "multilabel"],
    "folds": {"outer": 4, "inner": 3},
    "seeds": [3, 5],
    "search": {
        "trials": 8,
        "space": {
            "loss.gamma": {"uniform": [0, 5]},
            "optim.lr": {"loguniform": [1e-6, 1e-3]},
            "optim.batch_size": {"choice": [16, 32]},
        },
    },
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(FILE))
    return file


def test_every_variant_fold_and_seed_is_one_run(path: Path) -> None:
    plan = study.load(path)
    best = {"flat": {"loss.gamma": 1.5}, "multilabel": {"loss.gamma": 0.0, "optim.lr": 1e-4}}
    specs = plan.fold_specs(best)
    assert len({spec.run_name for spec in specs}) == 2 * 4 * 2
    assert {(spec.variant, spec.data.test_fold, spec.seed) for spec in specs} == {
        (variant, fold, seed) for variant in plan.variants for fold in range(4) for seed in (3, 5)
    }
    assert all(spec.data.inner is None and spec.optim.epochs == 40 for spec in specs)
    assert {spec.loss.gamma for spec in specs if spec.variant == "flat"} == {1.5}
    assert plan.expected(best)[0] == {"variant": "flat", "test_fold": 0, "seed": 3, "run_name": specs[0].run_name}
    assert plan.root == Path("results/runs/focal")


def test_a_trial_is_its_inner_folds_and_leaves_the_test_fold_alone(path: Path) -> None:
    plan = study.load(path, ["base.data.test_fold=2"])
    specs = plan.trial_specs("flat", {"optim.lr": 1e-5})
    assert [(spec.data.inner.folds, spec.data.inner.fold) for spec in specs if spec.data.inner] == [(3, 0), (3, 1), (3, 2)]
    assert {(spec.data.test_fold, spec.seed, spec.optim.lr) for spec in specs} == {(2, 3, 1e-5)}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("search.trails=1", "unknown key 'search.trails', did you mean 'trials'?"),
        ("base.optim.lrr=1", "unknown key 'base.optim.lrr', did you mean 'lr'?"),
        ("search.trials=-1", "search.trials: Input should be greater than or equal to 0"),
        ("search.space.optim.lr={uniform: [3, 1]}", "search.space.optim.lr: the lowest value 3 must be below the highest 1"),
        ("search.space.optim.lr={loguniform: [0, 1]}", "search.space.optim.lr: loguniform needs a lowest value above 0"),
        ("search.space.optim.lr={uniform: [0, 1], choice: [1]}", "search.space.optim.lr: give exactly one of"),
        ("search.space.optim.clip={choice: []}", "search.space.optim.clip.choice: List should have at least 1 item"),
        ("search.space.optim.clip={choice: [1, 1]}", "search.space.optim.clip: a value stands twice"),
        ("search.space.optim.lr={uniform: [-1, 1]}", "search.space.optim.lr: Input should be greater than 0"),
        ("search.space.loss.tau={uniform: [0, 2]}", "search.space.loss.tau: Input should be less than or equal to 1"),
        ("search.space.optim.batch_size={uniform: [8, 64]}", "search.space.optim.batch_size: Input should be a valid integer"),
        ("search.space.optim.batchsize={choice: [1]}", "search.space.optim.batchsize: no key of a run spec, did you mean"),
        ("search.space.optim.epochs={choice: [1, 2]}", "search.space.optim.epochs: cannot be varied, all trials get the same"),
        ("search.space.seed={choice: [1, 2]}", "search.space.seed: cannot be varied"),
        ("base.seed=1", "base.seed: the study's `seeds` decides it; leave it out"),
        ("base.variant=flat", "base.variant: the study's `variants` decides it"),
        ("base.data.inner={folds: 3}", "base.data.inner: the study's `folds` decides it"),
        ("base.data.test_fold=4", "base.data.test_fold: 4 does not exist, folds.outer is 4"),
        ("seeds=[1, 1]", "seeds: a value stands twice in [1, 1]"),
        ("variants=[]", "variants: Tuple should have at least 1 item"),
        ("study=../elsewhere", "study: String should match pattern"),
        ("search.space.loss.gamma={choice: [2026-01-01]}", "only texts, numbers, lists and mappings may stand in a study"),
    ],
)
def test_bad_studies_are_refused_in_one_line(path: Path, override: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        study.load(path, [override])
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_overrides_reach_keys_that_have_dots_of_their_own(path: Path) -> None:
    plan = study.load(path, ["search.trials=2", "search.space.loss.tau={choice: [0, 1]}"])
    assert plan.search.trials == 2
    assert plan.search.space["loss.tau"].choice == [0, 1]
    assert plan.search.space.keys() > {"loss.gamma", "optim.lr"}


def test_nothing_to_search(path: Path) -> None:
    with pytest.raises(InputError, match=r"no trials; set search\.trials"):
        study.load(path, ["search={}"]).require_search()
    with pytest.raises(InputError, match=r"search\.space is empty"):
        study.load(path, ["search={trials: 3}"]).require_search()


@given(epochs=st.integers(1, 300), warmup=st.floats(0, 0.9))
def test_asha_waits_for_the_warm_up_and_some_more(epochs: int, warmup: float) -> None:
    plan = Study.model_validate({"study": "s", "base": {"optim": {"epochs": epochs, "warmup": warmup}}})
    assert plan.grace() >= 1
    assert plan.grace() >= warmup * epochs + 0.15 * epochs - 1e-9
    assert plan.grace() <= warmup * epochs + 0.15 * epochs + 2


def _on_disk(path: Path, shards: Path, *overrides: str) -> Study:
    small = ["base.backbone.name=test_vit", f"base.data.shards={shards}", "search.space.optim.batch_size={choice: [12, 16]}"]
    return study.load(path, [*small, *overrides])


def test_a_study_that_fits_its_data_passes(path: Path, shards: Path) -> None:
    study.check(_on_disk(path, shards), ranks=4)


@pytest.mark.parametrize(
    ("override", "ranks", "message"),
    [
        ("folds.outer=5", 1, "packed with 4 folds, but folds.outer is 5"),
        ("folds.inner=3", 8, "batch_size: 12 images do not divide over 8 ranks"),
        ("search.space.backbone.name={choice: [test_vit, no_such_model]}", 1, "no_such_model"),
        ("base.data.shards=nowhere", 1, "nowhere"),
        ("folds.inner=5", 1, "5"),
    ],
)
def test_what_the_data_set_refuses_is_found_before_anything_runs(
    path: Path, shards: Path, override: str, ranks: int, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        study.check(_on_disk(path, shards, override), ranks)
    assert "\n" not in str(caught.value)
