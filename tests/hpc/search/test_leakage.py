"""`folds` and `report` refuse a study whose search could see its test fold. Each leak is planted."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from hpc.search import choice, leakage, sweep
from hpc.studies import study as studies
from hpc.studies.study import SearchId, Study
from leukotree.data import folds
from leukotree.data.dataset import Dataset
from leukotree.data.pack import pack
from leukotree.errors import InputError
from leukotree.spec import RunSpec
from tests.helpers import patients
from tests.helpers.commandline import assert_refused, leukotree

VERBS = [("folds", "--on", "inline", "--device", "cpu"), ("report",)]
FOLD = SearchId("flat", 2)
"""The search that leaks."""


def _write_run(root: Path, spec: RunSpec, dataset: Dataset) -> Path:
    """The files of a trial's run that matter here."""
    folder = root / spec.run_name
    folder.mkdir(parents=True)
    (folder / "spec.yaml").write_text(spec.dump())
    rows = dataset.index.iloc[folds.split(dataset.index, spec.data)[1]]
    rows[["key", "patient", "source", "fold", "leaf"]].to_parquet(folder / "predictions.parquet", index=False)
    return folder


def _write_searches(plan: Study, dataset: Dataset) -> None:
    """Searches of one trial each that have ended."""
    choice.write_settings(plan, plan.search_ids, dataset.fingerprint)
    for search_id in plan.search_ids:
        folder, chosen = plan.search_folder(search_id), {"loss.gamma": 1.0}
        for spec in plan.trial_specs(search_id.variant, chosen, search_id.test_fold):
            _write_run(folder / "runs/00000", spec, dataset)
        best = {
            "variant": search_id.variant,
            "test_fold": search_id.test_fold,
            "trial": 0,
            "value": 0.5,
            "chosen": chosen,
        }
        (folder / "best.yaml").write_text(yaml.safe_dump(best))
        (folder / "trials.csv").write_text(
            "trial,state,epochs,macro_f1,best_macro_f1,seconds,loss.gamma\n0,completed,1,.5,.5,1,1\n"
        )


@pytest.fixture(params=[True, False], ids=["nested", "one search"])
def nested(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def plan(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nested: bool) -> Study:
    """A study whose searches have ended, without a leak; its file is study.yaml."""
    monkeypatch.chdir(tmp_path)
    fields = {
        "study": "leaky",
        "base": {
            "data": {"shards": "shards", "test_fold": FOLD.test_fold},
            "backbone": {"name": "test_vit"},
            "engine": {"precision": "fp32"},
            "optim": {"epochs": 1, "batch_size": 16},
        },
        "variants": ["flat"],
        "folds": {"outer": 4, "inner": 2},
        "search": {"nested": nested, "trials": 1, "space": {"loss.gamma": {"uniform": [0, 5]}}},
    }
    Path("study.yaml").write_text(yaml.safe_dump(fields))
    Path("shards").symlink_to(shards)
    plan = studies.load("study.yaml")
    _write_searches(plan, Dataset.open("shards"))
    return plan


def _some_run(plan: Study) -> Path:
    return sorted((plan.search_folder(FOLD) / "runs/00000").iterdir())[0]


def _refused(*says: str) -> None:
    for verb, *options in VERBS:
        assert_refused(leukotree(verb, "study.yaml", *options, cwd=Path.cwd()), *says)
    assert not Path("results/leaky").exists()


@pytest.mark.slow("writes and reads many runs")
def test_a_search_that_saw_its_training_folds_only_is_trusted(plan: Study) -> None:
    leakage.check(plan)
    Path("shards").unlink()
    leakage.check(plan)  # in a copy of the results, too
    done = leukotree("folds", "study.yaml", "--dry-run", cwd=Path.cwd())
    assert_refused(done, "shards: no such folder")


def test_a_sweep_compares_the_data_of_searches_that_have_settings(plan: Study) -> None:
    (_some_run(plan) / "env.json").write_text(json.dumps({"dataset": "0" * 64}))
    with pytest.raises(InputError, match="other data"):
        sweep.counts(plan)
    (plan.search_folder(FOLD) / "search.yaml").unlink()
    assert sweep.counts(plan)["trainings"]
    _refused("other data")


@pytest.mark.parametrize("name", ["best.yaml", "search.yaml"])
def test_values_chosen_for_another_fold(plan: Study, name: str) -> None:
    path = plan.search_folder(FOLD) / name
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"test_fold": 1}))
    _refused(
        f"{name}: left out fold 1, not fold 2",
        "the search of flat fold 2 could see its test fold",
        "leukotree sweep",
    )


@pytest.mark.parametrize("kind", ["runs", "reruns"])
def test_a_trial_that_left_out_another_fold(plan: Study, kind: str) -> None:
    spec = plan.trial_specs("flat", {"loss.gamma": 2.5}, 0)[1]
    folder = _write_run(plan.search_folder(FOLD) / kind / "00003", spec, Dataset.open("shards"))
    _refused(f"{folder}/spec.yaml: leaves out fold 0, not fold 2")


def test_a_trial_that_scored_the_test_fold(plan: Study) -> None:
    _write_run(
        plan.search_folder(FOLD) / "runs/00000",
        plan.spec("flat", {}, FOLD.test_fold, 0),
        Dataset.open("shards"),
    )
    _refused("spec.yaml: scores fold 2 itself")


def _plant(run: Path, **columns: Any) -> None:
    """A row more in a run's predictions: its last with other values."""
    frame = pd.read_parquet(run / "predictions.parquet")
    pd.concat([frame, frame.tail(1).assign(**columns)]).to_parquet(run / "predictions.parquet", index=False)


def test_an_image_of_the_test_fold_in_a_trials_predictions(plan: Study) -> None:
    index = Dataset.open("shards").index
    leaked = index[index["fold"] == FOLD.test_fold].iloc[3]
    _plant(_some_run(plan), key=leaked["key"])
    _refused("predictions.parquet: holds image", leaked["key"], "of fold 2")


def test_a_patient_of_the_test_fold_in_a_trials_predictions(plan: Study) -> None:
    index = Dataset.open("shards").index
    leaked = index[index["fold"] == FOLD.test_fold].iloc[3]
    _plant(_some_run(plan), key="another-cell", patient=leaked["patient"], source="elsewhere")
    leakage.check(plan)  # the patient of that name in another source is somebody else
    _plant(_some_run(plan), key="another-cell", patient=leaked["patient"], source=leaked["source"])
    _refused("predictions.parquet: holds patient", leaked["patient"])


def test_without_the_shards_an_image_is_known_by_its_fold(plan: Study) -> None:
    _plant(_some_run(plan), fold=FOLD.test_fold)
    Path("shards").unlink()
    assert_refused(
        leukotree("report", "study.yaml", cwd=Path.cwd()), "predictions.parquet: holds image", "of fold 2"
    )


def test_predictions_that_cannot_be_read(plan: Study) -> None:
    (_some_run(plan) / "predictions.parquet").write_text("no parquet")
    _refused("predictions.parquet: cannot be read")


def _spread(shards: Path, columns: tuple[str, ...], **description: str) -> None:
    """A copy of the shards in which the images of fold 1 carry names of fold 0."""
    leaky = Path("leaky")
    shutil.copytree(shards, leaky)
    text = (leaky / "dataset.json").read_text()
    for key, value in description.items():
        assert f'"{key}": "patient"' in text
        text = text.replace(f'"{key}": "patient"', f'"{key}": "{value}"')
    (leaky / "dataset.json").write_text(text)
    index = pd.read_parquet(leaky / "index.parquet")
    for column in columns:
        index.loc[index["fold"] == 1, column] = np.resize(
            index.loc[index["fold"] == 0, column], (index["fold"] == 1).sum()
        )
    index.to_parquet(leaky / "index.parquet")
    Path("shards").unlink()
    Path("shards").symlink_to(leaky)


@pytest.mark.parametrize("columns", [("patient",), ("group",), ("patient", "group")])
def test_a_patient_in_two_folds_of_the_index(plan: Study, shards: Path, columns: tuple[str, ...]) -> None:
    _spread(shards, columns)
    for words in (*VERBS, ("sweep", "--dry-run")):
        done = leukotree(words[0], "study.yaml", *words[1:], cwd=Path.cwd())
        assert_refused(
            done,
            "shards: ",
            columns[-1],
            "is in two folds, so a model would be tested on what it was trained on",
        )


def test_a_patient_may_be_in_two_folds_where_images_were_dealt_one_by_one(plan: Study, shards: Path) -> None:
    _spread(shards, ("patient",), group="image")
    index = Dataset.open("shards").index
    assert (index.groupby("patient")["fold"].nunique() > 1).any()
    leakage.check_index(Dataset.open("shards"))
    with pytest.raises(InputError, match=r"group .* is in two folds"):
        _spread_again(shards)


def _spread_again(shards: Path) -> None:
    shutil.rmtree("leaky")
    _spread(shards, ("group",), group="image")
    leakage.check_index(Dataset.open("shards"))


def test_a_patient_is_the_same_in_every_source_if_the_data_set_says_so(tmp_path: Path) -> None:
    rows = [
        (leaf, f"{leaf}{number}", source, 1)
        for leaf in ("AML", "ALL")
        for number in range(4)
        for source in ("old", "new")
    ]
    dataset = pack(
        patients.manifest(tmp_path, rows),
        tmp_path / "shards",
        folds=2,
        size=8,
        workers=1,
        patients_across_sources=True,
    ).dataset
    leakage.check_index(dataset)
    held = leakage._held_out(dataset, 0)
    patient = dataset.index["patient"][dataset.index["fold"] == 0].iloc[0]
    seen = pd.DataFrame({"key": ["x"], "patient": [patient], "source": ["a third scanner"], "fold": [1]})
    seen.to_parquet(tmp_path / "predictions.parquet")
    assert leakage._seen(tmp_path / "predictions.parquet", held) is not None
    mixed = dataset.index.assign(
        patient=dataset.index["patient"].where(dataset.index["source"] != "new", "AML0")
    )
    with pytest.raises(InputError, match="patient '/AML0' is in two folds"):
        leakage.check_index(replace(dataset, index=mixed))
