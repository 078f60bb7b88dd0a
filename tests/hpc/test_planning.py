"""`leukotree plan`: a table of designs with their power, the smallest one, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpc import planning
from hpc.studies import study as studies
from leukotree.records import planned
from leukotree.stats import power
from tests.helpers import study_results
from tests.helpers.commandline import assert_refused, leukotree

FIELDS = {"study": "planned", "variants": ["flat", "multilabel"], "folds": {"outer": 5}, "seeds": [0, 1]}
PATIENTS = ("--patients", "84,336")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(FIELDS))
    return tmp_path


def _plan(work: Path, *words: object) -> dict[str, Any]:
    done = leukotree("plan", "study.yaml", "--effect", "0.05", *PATIENTS, "--json", *words, cwd=work)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_the_answer_names_the_assumptions_and_the_smallest_design(work: Path) -> None:
    done = leukotree("plan", "study.yaml", "--effect", "0.05", *PATIENTS, cwd=work)
    assert done.returncode == 0, done.stderr
    assert "multilabel against flat, a true difference of +5 points of macro F1" in done.stdout
    assert "assumed: 7 leaves with equally many patients" in done.stdout
    assert "correlation within a patient 0.3" in done.stdout
    assert "smallest with 80 %" in done.stdout
    assert f"written to results/runs/planned/{planned.FILE}" in done.stdout


def test_the_smallest_design_is_the_first_with_the_power(work: Path) -> None:
    plan = _plan(work)
    enough = [row for row in plan["designs"] if planning.enough(row, 0.8)]
    assert plan["smallest"] == min(enough, key=lambda row: (row["patients"], row["runs"]))
    own = {key: plan["study"][key] for key in planned.DESIGN}
    assert own == {"folds": 5, "repeats": 1, "seeds": 2, "patients": 84}
    assert plan["planned"] == (plan["study"] if plan["study"] in enough else plan["smallest"])
    assert planned.read(work / "results/runs/planned") is not None


def test_the_same_plan_twice_gives_the_same_numbers(work: Path) -> None:
    assert _plan(work) == _plan(work)


def test_the_numbers_to_try_can_be_given(work: Path) -> None:
    plan = _plan(work, "--folds", "4", "--repeats", "1,2", "--seeds", "3", "folds.outer=4", "seeds=[1,2,3]")
    designs = {tuple(row[key] for key in planned.DESIGN) for row in plan["designs"]}
    assert designs == {(4, r, 3, n) for r in (1, 2) for n in (84, 336)}


def test_noise_that_no_design_removes_has_no_smallest_design(work: Path) -> None:
    words = ("--method-sd", "0.3")
    assert _plan(work, *words)["planned"] is None
    done = leukotree("plan", "study.yaml", "--effect", "0.05", *PATIENTS, *words, cwd=work)
    assert "no design of the table has 80 %" in done.stdout


def test_the_patients_of_the_shards_are_counted(work: Path, shards: Path) -> None:
    done = leukotree(
        "plan", "study.yaml", f"base.data.shards={shards}", "--effect", "0.05", "--json", cwd=work
    )
    study = studies.load(work / "study.yaml", [f"base.data.shards={shards}"])
    assert json.loads(done.stdout)["study"]["patients"] == planning.patients(study, None).total > 0


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--effect", "0.05"], "no packed data set, so its patients are not known; give --patients N"),
        (["--effect", "0.05", *PATIENTS, "--folds", "1"], "--folds 1: cross-validation needs at least 2"),
        (["--effect", "0.05", *PATIENTS, 'variants=["base"]'], "no flat arm to compare with; give `primary`"),
        (["--effect", "0.05", *PATIENTS, "--from", "none.yaml"], "none.yaml: cannot be read"),
        (
            ["--effect", "0.05", *PATIENTS, "--seeds", ",".join(map(str, range(1, 300)))],
            "a table has at most 400",
        ),
        (["--effect", "0.05", *PATIENTS, "--from", "study.yaml"], "nothing to report yet"),
    ],
)
def test_bad_input_is_refused_in_one_line(work: Path, words: list[str], problem: str) -> None:
    assert_refused(leukotree("plan", "study.yaml", *words, cwd=work), problem)
    assert not (work / "results").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["--effect", "0"],
        ["--effect", "5"],
        [],
        ["--effect", ".1", "--icc", "1"],
        ["--effect", ".1", "--seeds", "0"],
    ],
)
def test_bad_numbers_are_refused_by_the_parser(work: Path, words: list[str]) -> None:
    assert leukotree("plan", "study.yaml", *words, cwd=work).returncode == 2


@pytest.mark.slow("simulates")
def test_a_pilot_gives_the_spread(work: Path) -> None:
    """A study of 3 folds x 2 seeds that has ended; its numbers are those of `report.pilot`."""
    names = {"search": {"trials": 0}, "seeds": [0, 1], "folds": {"outer": 3}}
    pilot = {**study_results.STUDY, **names, "study": "pilot"}
    (work / "pilot.yaml").write_text(yaml.safe_dump(pilot))
    study = studies.load(work / "pilot.yaml")
    runs = study.expected({variant: {fold: {} for fold in range(3)} for variant in study.variants})
    for row in runs:
        folder = study_results.write_run(
            work / "results/runs/pilot", row, study_results.images_of_fold(row["test_fold"])
        )
        assert folder.is_dir()
    plan = _plan(work, "--from", "pilot.yaml")
    assert plan["df"] == 2
    assert (
        "the pilot pilot (multilabel − flat on 3 folds x 2 seed(s), 12 test patients in each)"
        in plan["source"]
    )
    row = plan["study"]
    assert row["power_cautious"][0] <= row["power"][0]
    spread = power.Spread(**plan["spread"])
    assert spread.patients > 0 < spread.training
    text = leukotree(
        "plan", "study.yaml", "--effect", "0.05", *PATIENTS, "--from", "pilot.yaml", cwd=work
    ).stdout
    assert "must not decide when it stops" in text
