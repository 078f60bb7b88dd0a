"""Prediction sets as the report shows them: quantiles of inner folds, coverage of test folds, and the odd
images."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from leukotree.evaluation import decide, prediction_sets
from leukotree.report import coverage, inner
from leukotree.report.collect import collect
from leukotree.report.page import write
from leukotree.report.sections import prediction_sets as section_of
from leukotree.report.summary import StudySummary
from tests.helpers.study_results import NESTED, STUDY, TREE, cells, expected_runs, make_nested, texts

TWO = expected_runs(variants=("flat", "multilabel"))
STUDY_OF_TWO = {**NESTED, "variants": ["flat", "multilabel"]}


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> StudySummary:
    root = make_nested(tmp_path_factory.mktemp("nested") / "s", variants=("flat", "multilabel"))
    return collect(root, STUDY_OF_TWO, TWO)


@pytest.mark.slow("writes and reads many runs")
def test_coverage_is_the_mean_over_patients_at_the_quantiles_of_inner_folds(summary: StudySummary) -> None:
    arm = summary.arms[0]
    validations, shares = inner.by_fold(summary, arm), []
    for run in arm.runs:
        of = validations[run.test_fold]
        true = prediction_sets.leaf_scores(decide.leaf_logp(of.logp, TREE))[np.arange(len(of.true)), of.true]
        at = prediction_sets.quantile(true, of.images["patient"].tolist(), 0.9)
        inside = prediction_sets.leaf_scores(decide.leaf_logp(run.logp, TREE)) <= at
        covered = pd.Series(inside[np.arange(len(run.true)), run.true])
        shares.append(covered.groupby(run.images["patient"].to_numpy()).mean().mean())
    shown = cells(section_of.section(summary), "flat", "all leaves")
    assert float(shown[2].split(" ")[0]) == pytest.approx(100 * np.mean(shares), abs=0.06)
    assert abs(float(shown[2].split(" ")[0]) - 90) < 6
    assert shown[7] == "36"


def test_a_better_model_has_smaller_sets(summary: StudySummary) -> None:
    page = section_of.section(summary)
    sizes = [float(cells(page, arm, "all leaves")[3].split(" ")[0]) for arm in ("flat", "multilabel")]
    assert sizes[1] < sizes[0] < 4
    for leaf in TREE.leaves:
        assert "to" in cells(page, "flat", leaf)[2]


def test_the_study_gives_the_coverage(summary: StudySummary) -> None:
    less = replace(summary, study={**summary.study, "operating": {"coverage": 0.6}})
    at_90, at_60 = (coverage.limits(of, of.arms[0])[0] for of in (summary, less))
    assert at_60.leaf < at_90.leaf
    assert at_60.node < at_90.node
    assert abs(float(cells(section_of.section(less), "flat", "all leaves")[2].split(" ")[0]) - 60) < 10


@pytest.mark.slow("makes a report")
def test_odd_images_are_listed_with_their_keys(summary: StudySummary, tmp_path: Path) -> None:
    write(summary, tmp_path)
    cases = pd.read_csv(tmp_path / section_of.CASES, keep_default_na=False, na_values={"limit": [""]})
    assert list(cases) == list(section_of.COLUMNS)
    run = summary.arms[1].runs[0]
    of_run = cases[
        (cases["variant"] == "multilabel") & (cases["fold"] == run.test_fold) & (cases["seed"] == run.seed)
    ]
    limit = coverage.limits(summary, summary.arms[1])[run.test_fold].odd
    largest = np.exp(decide.leaf_logp(run.logp, TREE).max(axis=1))
    low = of_run[of_run["case"] == section_of.NO_LEAF]
    assert sorted(low["key"]) == sorted(run.images["key"][largest < limit])
    page = section_of.section(summary)
    count = int(((cases["variant"] == "flat") & (cases["case"] == section_of.BRANCHES)).sum())
    assert cells(page, "flat")[0] == "flat"
    table = page.blocks[-2]
    row = next(row for row in table.rows if row[0] == "flat")
    assert row[3].split(" ")[0] == str(count)
    pairs = cases[cases["case"] == section_of.SIBLINGS]
    assert set(pairs["common"]) <= {"acute", "root"}
    assert (pairs["p_second"] >= section_of.SHARE - 1e-4).all()


def test_an_unlike_image_has_a_low_score(summary: StudySummary) -> None:
    """An image that all leaves fit equally badly."""
    arm = summary.arms[1]
    run = arm.runs[0]
    logp = run.logp.copy()
    for columns in TREE.columns.values():
        logp[5, columns] = -np.log(len(columns))
    odd = replace(arm, runs=(replace(run, logp=logp), *arm.runs[1:]))
    page = section_of.section(replace(summary, arms=(odd,)))
    cases = pd.read_csv(io.BytesIO(page.files[section_of.CASES]))
    rows = cases[(cases["key"] == run.images["key"][5]) & (cases["seed"] == run.seed)]
    assert section_of.NO_LEAF in set(rows["case"])


def test_without_inner_folds_a_sentence_says_what_is_needed(whole: Path) -> None:
    page = section_of.section(collect(whole, STUDY, expected_runs()))
    assert "No prediction sets for flat, base, multilabel: not estimable." in texts(page)
    assert "at least 9 patients" in texts(page)
    row = next(row for row in page.blocks[-2].rows if row[0] == "flat")
    assert row[1] == "–"
    assert "%" in row[2]
