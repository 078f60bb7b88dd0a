"""The scores of an arm on a model card are those of the study's report."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from leukotree.errors import InputError
from leukotree.records import runfolder
from leukotree.report import scorecard
from leukotree.report.collect import collect
from leukotree.report.summary import StudySummary
from tests.helpers import study_results


@pytest.fixture(scope="module")
def summary(whole: Path) -> StudySummary:
    return collect(whole, study_results.STUDY, study_results.expected_runs())


@pytest.mark.parametrize("variant", study_results.VARIANTS)
def test_each_number_of_a_card_stands_in_the_report(
    variant: str, summary: StudySummary, pages: tuple[str, str, Path]
) -> None:
    arm = next(arm for arm in summary.arms if arm.name == variant)
    of_folds, pooled, *others = scorecard.tables(summary, arm)
    lines = [line for line in pages[0].splitlines() if line.startswith(f"| {variant} |")]
    shown = {cell.strip() for line in lines for cell in line.strip("|").split("|")}
    numbers = {
        cell for table in (of_folds, *others) for row in table.rows for cell in row if re.search(r"\d", cell)
    }
    assert len(numbers) > 30
    assert numbers <= shown
    assert len(others) == 3  # patients, leaves, calibration
    assert all(len(row) == len(table.header) for table in (of_folds, pooled, *others) for row in table.rows)


def test_the_pooled_score_counts_each_image_once_and_its_interval_resamples_patients(
    summary: StudySummary,
) -> None:
    """Computed again from the runs, without the functions of the report."""
    arm = next(arm for arm in summary.arms if arm.name == "multilabel")
    rows = {}
    for run in arm.runs:
        for key, patient, true, predicted in zip(
            run.images["key"], run.images["patient"], run.true, run.predicted, strict=True
        ):
            rows.setdefault((key, patient, true), []).append(predicted)
    right = sum(sum(one == true for one in answers) / len(answers) for (_, _, true), answers in rows.items())
    [[accuracy, f1, images, patients]] = scorecard._pooled(arm).rows
    assert int(images) == len(rows)
    assert int(patients) == len({patient for _, patient, _ in rows}) == 36
    assert accuracy.startswith(f"{100 * right / len(rows):.1f} (")
    low, high = map(float, re.findall(r"[\d.]+", accuracy)[1:])
    assert low < 100 * right / len(rows) < high
    assert " to " in f1


def test_an_arm_that_the_report_does_not_show_in_detail_has_scores_too(tmp_path: Path) -> None:
    place = {"variant": "flat", "repeat": 0, "test_fold": 1, "seed": 0}
    cells = [{**place, "run_name": f"flat-{gamma}", "cell": gamma, "loss.gamma": gamma} for gamma in range(8)]
    for row in cells:
        study_results.write_run(tmp_path, row, study_results.images_of_fold(1))
    of_grid = collect(tmp_path, study_results.STUDY, [], cells)
    arm = scorecard.arm_of(of_grid, "flat-7")
    assert arm is not None
    assert arm.name == "flat gamma=7"
    assert len(scorecard.tables(of_grid, arm)) == 5
    assert scorecard.arm_of(of_grid, "flat-8") is None


def test_without_patients_no_interval_is_estimable(tmp_path: Path) -> None:
    rows = study_results.expected_runs(folds=2, seeds=(0,), variants=("flat",))
    for row in rows:
        study_results.write_run(tmp_path, row, study_results.images_of_fold(row["test_fold"], patients=False))
    of = collect(tmp_path, {**study_results.STUDY, "variants": ["flat"]}, rows)
    arm = of.arms[0]
    [[accuracy, f1, _, patients]] = scorecard._pooled(arm).rows
    assert patients == "unknown"
    assert "not estimable" in accuracy
    assert "not estimable" in f1
    assert any("no patient ids" in warning for warning in scorecard.warnings(of))


def test_a_run_alone_is_a_study_of_one_run(
    whole: Path, summary: StudySummary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the default data set may be in the repository
    folder = summary.runs[0].folder
    of = scorecard.of_run(folder, runfolder.read_spec(folder))
    assert [run.name for run in of.runs] == [folder.name]
    assert len(scorecard.tables(of, of.arms[0])) == 5


def test_a_run_that_is_damaged_is_named(copy: Path) -> None:
    folder = next(copy.glob("flat-*"))
    (folder / "predictions.parquet").write_bytes(b"torn")
    with pytest.raises(InputError, match=folder.name):
        scorecard.of_run(folder, runfolder.read_spec(folder))


def test_what_limits_the_scores_is_said(summary: StudySummary) -> None:
    assert any("optimistic" in warning for warning in scorecard.warnings(summary))
    nested = dataclasses.replace(summary, nested=True)
    assert not any("optimistic" in warning for warning in scorecard.warnings(nested))
