"""The table of all predictions has a row for each run and image."""

from __future__ import annotations

from pathlib import Path

import pytest

from leukotree.report import tidy
from leukotree.report.collect import collect
from tests.helpers import study_results


def test_a_fold_of_a_later_repeat_has_its_own_number(tmp_path: Path) -> None:
    rows = [
        {"variant": "flat", "repeat": repeat, "test_fold": 1, "seed": 0, "run_name": f"flat-{repeat}"}
        for repeat in (0, 1)
    ]
    for row in rows:
        study_results.write_run(tmp_path, row, study_results.images_of_fold(1))
    study = {**study_results.STUDY, "folds": {"outer": 3, "inner": 2, "repeats": 2}, "variants": ["flat"]}
    frame = tidy.predictions(collect(tmp_path, study, rows))
    assert set(zip(frame["repeat"], frame["fold"], strict=True)) == {(0, 1), (1, 1)}


def test_a_cell_of_a_grid_is_an_arm(tmp_path: Path) -> None:
    place = {"variant": "flat", "repeat": 0, "test_fold": 1, "seed": 0}
    cells = [{**place, "run_name": f"flat-{gamma}", "cell": gamma, "loss.gamma": gamma} for gamma in (0, 1)]
    for row in cells:
        study_results.write_run(tmp_path, row, study_results.images_of_fold(1))
    frame = tidy.predictions(collect(tmp_path, study_results.STUDY, [], cells))
    assert sorted(set(frame["arm"])) == ["flat gamma=0", "flat gamma=1"]
    assert set(frame["variant"]) == {"flat"}


@pytest.mark.parametrize("patients", [True, False])
def test_an_unknown_patient_is_an_empty_text(patients: bool, tmp_path: Path) -> None:
    row = study_results.expected_runs(folds=1, seeds=(0,), variants=("flat",))[0]
    study_results.write_run(tmp_path, row, study_results.images_of_fold(0, patients=patients))
    frame = tidy.predictions(collect(tmp_path, study_results.STUDY, [row]))
    assert frame["patient"].str.startswith("lab/").all() == patients
    assert (frame["patient"] == "").all() != patients
