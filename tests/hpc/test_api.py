"""Studies in Python: read or built, checked, shown on a screen, saved for the commands, and their results."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml

import leukotree
from hpc import study
from hpc.api import OpenStudy
from hpc.studies import study as studies
from leukotree.errors import InputError
from leukotree.records import runfolder
from leukotree.training.run import run
from tests.helpers.commandline import leukotree as command

SWEEPS = sorted((Path(__file__).parents[2] / "sweeps").glob("*.yaml"))


@pytest.mark.parametrize("file", SWEEPS, ids=lambda file: file.stem)
def test_a_study_that_is_saved_is_the_same_study(file: Path, tmp_path: Path) -> None:
    opened = study(file)
    again = study(opened.save(tmp_path / "again.yaml"))
    assert again.plan == opened.plan
    lines = repr(opened).splitlines()
    assert len(lines) <= 10
    assert max(map(len, lines)) <= 90
    assert lines[0] == f"Study {file.stem}: {', '.join(opened.plan.variants)}"


def test_a_study_is_built_from_its_fields() -> None:
    built = study(
        study="mine",
        variants=("flat", "base"),
        base={"data": {"shards": "data/mine"}},
        search={"trials": 2, "space": {"optim.lr": {"uniform": (0.1, 0.2)}}},
        **{"folds.outer": 4, "base.optim.epochs": 3},
    )
    assert built.plan.base.optim.epochs == 3
    assert built.plan.folds.outer == 4
    assert (built.name, built.plan.variants) == ("mine", ("flat", "base"))
    assert yaml.safe_load(built.yaml()) == {
        "study": "mine",
        "base": {"data": {"shards": "data/mine"}, "optim": {"epochs": 3}},
        "variants": ["flat", "base"],
        "folds": {"outer": 4},
        "search": {"trials": 2, "space": {"optim.lr": {"uniform": [0.1, 0.2]}}},
    }


def test_a_spec_may_be_the_base_of_a_study() -> None:
    base = studies.RunSpec(optim={"lr": 0.5})
    assert study(study="mine", base=base).plan.base.optim.lr == 0.5


def test_changes_of_a_file_are_texts_or_fields(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("{study: mine, search: {trials: 9}, seeds: [0, 1]}")
    changed = study(tmp_path / "mine.yaml", "search.trials=4", seeds=[7], **{"base.optim.lr": 0.25})
    plan = changed.plan
    assert (plan.search.trials, plan.seeds, plan.base.optim.lr) == (4, (7,), 0.25)
    assert plan.command("folds").split()[2:] == [
        str(tmp_path / "mine.yaml"),
        "search.trials=4",
        "'seeds=[7]'",
        "base.optim.lr=0.25",
    ]


def test_a_study_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sweeps").mkdir()
    Path("sweeps/mine.yaml").write_text("study: mine")
    assert study("mine").name == "mine"
    with pytest.raises(InputError, match="yours: no study of this name"):
        study("yours")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "study: study: Field required"),
        ({"study": "a/b"}, "study: study: "),
        ({"study": "mine", "variant": ["flat"]}, "unknown key 'variant', did you mean 'variants'"),
        ({"study": "mine", "variants": ["tree"]}, "study: variants.0"),
        ({"study": "mine", "base": object()}, "object is no value of a study"),
        ({"study": "mine", "rope": float("nan")}, "study: rope"),
        ({"study": "mine", "seeds": {0}}, "set is no value of a study"),
    ],
)
def test_bad_fields_are_named_in_one_line(fields: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says) as error:
        study(**fields)
    assert "\n" not in str(error.value)


def test_a_change_without_a_file_is_refused() -> None:
    with pytest.raises(InputError, match="name the file first"):
        study(None, "search.trials=4", study="mine")


def test_a_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("mine")
    with pytest.raises(InputError, match="is there already"):
        study(study="mine").save(tmp_path / "mine.yaml")
    assert (tmp_path / "mine.yaml").read_text() == "mine"


@pytest.fixture
def trained(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OpenStudy:
    """A study whose first two folds are trained."""
    monkeypatch.chdir(tmp_path)
    base = {
        "data": {"shards": str(shards)},
        "backbone": {"name": "test_resnet"},
        "optim": {"batch_size": 24, "epochs": 1, "lr": 1e-3},
        "engine": {"precision": "fp32"},
    }
    opened = study(study="mine", base=base, variants=["flat"], folds={"outer": 4})
    for spec in opened.plan.fold_specs({"flat": {fold: {} for fold in range(4)}})[:2]:
        run(spec, opened.plan.root)
    return opened


@pytest.mark.slow("runs whole commands")
def test_results_are_those_of_the_report_and_never_stale(trained: OpenStudy) -> None:
    frame = leukotree.results(trained)
    assert sorted(frame["fold"].unique()) == [0, 1]
    assert len(frame) == sum(map(_rows, trained.plan.root.glob("flat-*")))
    file = trained.save("mine.yaml")
    assert command("report", file, cwd=Path.cwd()).returncode == 0
    # Another run of the study's folder that the study does not expect.
    other = trained.plan.spec("flat", {"optim.lr": 0.5}, 0, 0)
    folder = run(other, trained.plan.root).folder
    assert folder.name not in set(leukotree.results(trained)["run"])
    # A run of other data.
    stale = trained.plan.root / str(frame["run"].iloc[0])
    environment = json.loads((stale / runfolder.ENVIRONMENT).read_text())
    environment["dataset"] = "0" * 64
    (stale / runfolder.ENVIRONMENT).write_text(json.dumps(environment))
    with pytest.raises(InputError, match=stale.name):
        leukotree.results(trained)


def _rows(folder: Path) -> int:
    return len(pd.read_parquet(folder / runfolder.PREDICTIONS))


def test_results_before_the_first_run_say_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("{study: mine, base: {data: {shards: none}}}")
    with pytest.raises(InputError, match=r"nothing to report yet; run `leukotree folds mine\.yaml`"):
        leukotree.results(study("mine.yaml"))
