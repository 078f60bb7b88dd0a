"""Inner validation comes from the chosen trial of a search, or from `leukotree folds --inner`, and never has
an image of the test fold."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leukotree.errors import InputError
from leukotree.report import inner
from leukotree.report.blocks import Section
from leukotree.report.collect import collect
from leukotree.report.sections import clinical, prediction_sets
from leukotree.report.summary import StudySummary
from tests.helpers.study_results import (
    STUDY,
    TREE,
    cells,
    expected_runs,
    images_of_fold,
    log_probabilities,
    write_predictions,
    write_run,
)

RUNS = expected_runs(seeds=(0,), variants=("flat",))
NO_SEARCH: dict[str, Any] = {**STUDY, "variants": ["flat"], "search": {"trials": 0}}
INNER = [
    {"variant": "flat", "test_fold": fold, "run_name": f"flat-{fold}{other}0000000000", "other": other}
    for fold in range(3)
    for other in {0, 1, 2} - {fold}
]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Three folds of flat without a search, and the runs of their inner folds."""
    root = tmp_path / "s"
    for row in RUNS:
        write_run(root, row, images_of_fold(row["test_fold"]))
    for row in INNER:
        images = images_of_fold(row["other"])
        folder = write_run(root, {**row, "seed": 0}, images)
        write_predictions(folder, images, log_probabilities(images, 1.0, [8, row["test_fold"], row["other"]]))
    return root


def summary(root: Path) -> StudySummary:
    return collect(root, NO_SEARCH, RUNS, inner=INNER)


@pytest.mark.slow("makes a report")
def test_runs_of_inner_folds_give_thresholds_and_sets(study: Path) -> None:
    of = summary(study)
    validations = inner.by_fold(of, of.arms[0])
    assert sorted(validations) == [0, 1, 2]
    others = np.concatenate([images_of_fold(fold)["key"] for fold in (0, 2)])
    assert sorted(validations[1].images["key"]) == sorted(others)
    assert cells(clinical.section(of), "variant", "unit", "target", "specificity reached")
    assert "to" in cells(prediction_sets.section(of), "flat", "all leaves")[2]


def test_they_are_no_results_of_their_own(study: Path) -> None:
    of = summary(study)
    assert len(of.runs) == 3
    assert of.missing == []


@pytest.mark.slow("makes a report")
def test_a_fold_whose_inner_folds_are_not_all_done_has_none(study: Path) -> None:
    shutil.rmtree(study / INNER[0]["run_name"])
    of = summary(study)
    assert sorted(inner.by_fold(of, of.arms[0])) == [1, 2]
    page: Section = clinical.section(of)
    row = next(
        row
        for block in page.blocks
        for row in getattr(block, "rows", ())
        if row[:3] == ["flat", "image", "leukemia"] and row[-1].endswith("of 3")
    )
    assert row[-1] == "2 of 3"


def test_an_image_of_the_test_fold_is_refused(study: Path) -> None:
    row = INNER[0]
    images = images_of_fold(row["test_fold"])
    logp = np.tile(np.log([0.25, 0.25, 0.5, 1.0, 0.5, 0.5]), (len(images), 1))
    assert logp.shape[1] == len(TREE.edges)
    write_predictions(study / row["run_name"], images, logp)
    of = summary(study)
    with pytest.raises(InputError, match="of test fold 0 is in its inner folds"):
        inner.by_fold(of, of.arms[0])
