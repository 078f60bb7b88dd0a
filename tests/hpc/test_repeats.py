"""A study with a repeated cross-validation from the shards to the report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from hpc.search import leakage
from hpc.studies import study as studies
from hpc.studies.study import SearchId, Study
from leukotree.data.dataset import Dataset
from leukotree.errors import InputError
from leukotree.records import compared, runfolder
from leukotree.spec import RunSpec
from tests.helpers.commandline import assert_refused, leukotree
from tests.helpers.study_results import table_row

FIELDS = {
    "study": "repeated",
    "base": {
        "data": {"shards": "shards"},
        "backbone": {"name": "test_vit"},
        "optim": {"epochs": 1, "batch_size": 16},
        "engine": {"precision": "fp32"},
    },
    "variants": ["flat", "multilabel"],
    "folds": {"outer": 4, "inner": 2, "repeats": 2},
    "search": {"trials": 0},
}
CPU = ("--on", "inline", "--device", "cpu")


@pytest.fixture
def study(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A study in the current folder, with shards that are dealt twice."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(shards, "shards")
    Dataset.open("shards").deal(2)
    Path("study.yaml").write_text(yaml.safe_dump(FIELDS))
    return studies.load("study.yaml")


def test_a_study_without_its_deals_is_refused_before_anything_runs(study: Study) -> None:
    (Path("shards") / "folds-1.parquet").unlink()
    for verb, *options in (("folds", *CPU), ("folds", "--dry-run"), ("report",)):
        done = leukotree(verb, "study.yaml", *options, cwd=Path.cwd())
        assert_refused(done, "repeat 1 is not dealt; run `leukotree pack shards --repeats 2`")
    assert not study.root.exists()


def test_a_dry_run_counts_the_folds_of_all_repeats(study: Study) -> None:
    done = leukotree("folds", "study.yaml", "--dry-run", "--json", cwd=Path.cwd())
    assert json.loads(done.stdout)["runs"] == 2 * 2 * 4


@pytest.mark.slow("trains 8 runs")
def test_each_repeat_tests_every_image_once(study: Study) -> None:
    words = ("study.yaml", 'variants=["flat"]')
    assert leukotree("folds", *words, *CPU, cwd=Path.cwd()).returncode == 0
    frames = []
    for spec in studies.load(words[0], words[1:]).fold_specs({"flat": {number: {} for number in range(8)}}):
        folder = study.root / spec.run_name
        frame = pd.read_parquet(folder / "predictions.parquet")
        assert set(frame["fold"]) == {spec.data.test_fold}
        dataset = Dataset.open("shards", repeat=spec.data.repeat)
        assert runfolder.read_environment(folder)["dataset"] == dataset.fingerprint
        frames.append(frame.assign(repeat=spec.data.repeat))
    tested = pd.concat(frames)
    keys = set(Dataset.open("shards").index["key"])
    for _, of_repeat in tested.groupby("repeat"):
        assert len(of_repeat) == len(keys)
        assert set(of_repeat["key"]) == keys
    assert leukotree("report", *words, cwd=Path.cwd()).returncode == 0
    report = Path("results/repeated/report.md").read_text()
    assert table_row(report, "Folds", "3 of repeat 1", "flat")
    done = leukotree("folds", *words, "--dry-run", "--json", cwd=Path.cwd())
    assert json.loads(done.stdout)["missing"] == []


def _as_if_run(study: Study, repeat: int, deal: Dataset) -> tuple[Path, RunSpec]:
    """The folder of a run of a repeat that names the data of `deal`."""
    spec = study.spec("flat", {}, 0, 0, repeat=repeat)
    folder = study.root / spec.run_name
    folder.mkdir(parents=True)
    (folder / "spec.yaml").write_text(spec.dump())
    (folder / "env.json").write_text(json.dumps({"dataset": deal.fingerprint}))
    return folder, spec


def test_a_run_belongs_to_the_deal_of_its_repeat(study: Study) -> None:
    first, second = Dataset.open("shards"), Dataset.open("shards", repeat=1)
    for repeat, right, wrong in ((0, first, second), (1, second, first)):
        folder, _ = _as_if_run(study, repeat, right)
        inputs = compared.Inputs.read(folder)
        assert inputs is not None
        assert inputs.repeat == repeat
        assert compared.changed(folder, inputs) is None
        shutil.rmtree(folder)
        folder, _ = _as_if_run(study, repeat, wrong)
        assert "made from other data" in str(compared.changed(folder, inputs))


def test_a_search_that_left_out_the_fold_of_another_repeat_is_refused(study: Study) -> None:
    plan = studies.load("study.yaml", ["search.trials=1", "search.space={loss.gamma: {uniform: [0, 5]}}"])
    search_id = SearchId("flat", 2, 1)
    folder = plan.search_folder(search_id)
    spec = plan.trial_specs("flat", {"loss.gamma": 1.0}, 2, repeat=1)[0]
    run = folder / "runs/00000" / spec.run_name
    run.mkdir(parents=True)
    (run / "spec.yaml").write_text(spec.dump())
    leakage.check(plan)
    (run / "spec.yaml").write_text(spec.override({"data.repeat": 0}).dump())
    with pytest.raises(InputError, match="leaves out fold 2, not fold 2 of repeat 1"):
        leakage.check(plan)
    (run / "spec.yaml").write_text(spec.dump())
    held_out = Dataset.open("shards", repeat=1).index
    seen = held_out[held_out["fold"] == 2][["key", "patient", "source", "fold"]].head(1).assign(fold=0)
    seen.to_parquet(run / "predictions.parquet", index=False)
    with pytest.raises(InputError, match="of fold 2 of repeat 1"):
        leakage.check(plan)
    (run / "predictions.parquet").unlink()
    (folder / "search.yaml").write_text("test_fold: 2\n")
    with pytest.raises(InputError, match="left out fold 2, not fold 2 of repeat 1"):
        leakage.check(plan)


@pytest.mark.slow("searches 16 times")
@pytest.mark.long("tests/hpc/search/test_sweep.py has a search for each fold of one deal")
def test_each_fold_of_each_repeat_has_a_search(study: Study) -> None:
    words = (
        "study.yaml",
        "search.trials=1",
        "search.space={loss.gamma: {uniform: [0, 5]}}",
        'variants=["flat"]',
        "folds.outer=4",
    )
    done = leukotree("sweep", *words, "--concurrency", "1", "--device", "cpu", cwd=Path.cwd())
    assert done.returncode == 0, done.stderr
    assert "flat fold 3 of repeat 1: macro_f1" in done.stdout
    best = yaml.safe_load((study.root / "search/flat/repeat1-fold3/best.yaml").read_text())
    assert (best["test_fold"], best["repeat"]) == (3, 1)
    assert leukotree("folds", *words, "--dry-run", cwd=Path.cwd()).returncode == 0
    listed = leukotree("status", "study.yaml", cwd=Path.cwd()).stdout
    assert all(name in listed for name in ("flat/fold0", "flat/repeat1-fold0"))
