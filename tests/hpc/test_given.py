"""What the options of a command, its site and its study mean together."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest
import yaml

from hpc.cli import parser
from hpc.studies import study
from hpc.studies.study import Study
from hpc.verbs import given
from leukotree.errors import InputError
from leukotree.runtime import Runtime
from tests.helpers.commandline import assert_refused, leukotree

FIELDS = {"study": "s", "variants": ["flat"], "folds": {"outer": 4, "inner": 2}}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def arguments(*words: str) -> Namespace:
    return parser().parse_args(["folds", "study.yaml", *words])


def plan(**fields: object) -> Study:
    Path("study.yaml").write_text(yaml.safe_dump({**FIELDS, **fields}))
    return study.load("study.yaml")


def site(**fields: object) -> tuple[str, str]:
    Path("site.yaml").write_text(yaml.safe_dump(fields))
    return "--site", "site.yaml"


def test_runs_have_no_tracker_by_default() -> None:
    own = given.runtime(arguments())
    assert given.runtime(arguments(), plan()) == Runtime(deepspeed=own.deepspeed, features=own.features)


def test_the_trackers_are_those_of_the_study_else_of_the_site() -> None:
    words = site(trackers=["tensorboard", "mlflow"], mlflow_uri="http://server:5000")
    of_site = given.runtime(arguments(*words), plan())
    assert (of_site.trackers, of_site.mlflow_uri) == (("tensorboard", "mlflow"), "http://server:5000")
    of_study = given.runtime(arguments(*words), plan(trackers=["mlflow"], mlflow_uri="sqlite:///mine.db"))
    assert (of_study.trackers, of_study.mlflow_uri) == (("mlflow",), "sqlite:///mine.db")
    assert given.runtime(arguments(*words), plan(trackers=[])).trackers == ()
    assert given.runtime(arguments(*words), plan(trackers=[])).mlflow_uri is None


def test_trackers_rename_no_run() -> None:
    best = {"flat": {fold: {} for fold in range(4)}}
    names = {spec.run_name for spec in plan().fold_specs(best)}
    assert {spec.run_name for spec in plan(trackers=["tensorboard"]).fold_specs(best)} == names


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"trackers": ["wandb"]}, ["study.yaml", "trackers", "wandb"]),
        ({"trackers": ["mlflow"], "mlflow_uri": "mlruns"}, ["study.yaml", "mlflow_uri", "sqlite:///FILE.db"]),
    ],
)
def test_a_bad_tracker_names_file_key_and_value(fields: dict[str, object], words: list[str]) -> None:
    Path("study.yaml").write_text(yaml.safe_dump({**FIELDS, **fields}))
    assert_refused(leukotree("status", "study.yaml", cwd=Path.cwd()), *words)


def test_mlflow_without_its_address_is_refused() -> None:
    with pytest.raises(InputError, match="mlflow needs `mlflow_uri`"):
        given.runtime(arguments(*site(trackers=["mlflow"])), plan())
