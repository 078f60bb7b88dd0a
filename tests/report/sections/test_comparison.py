"""The verdicts of a report are those of `stats`, called directly on the stored predictions."""

import dataclasses
import math

import numpy as np
import pytest

from leukotree import stats
from leukotree.evaluation import metrics
from leukotree.report import evidence, scores
from leukotree.report.collect import collect
from leukotree.report.sections import comparison
from tests.helpers.study_results import (
    STUDY,
    TREE,
    cells,
    expected_runs,
    images_of_fold,
    table_row,
    texts,
    write_run,
)

TITLE = "Is a hierarchy better?"


@pytest.fixture(scope="module")
def summary(whole):
    return collect(whole, STUDY, expected_runs())


def folds_of(summary, variant: str) -> dict[int, stats.Fold]:
    """Fold -> macro-F1 of the images, mean over seeds, and their confusions by patient."""
    folds = {}
    for fold in range(3):
        runs = [run for run in summary.runs if run.variant == variant and run.test_fold == fold]
        score = np.mean([metrics.macro_f1(run.true, run.predicted, 4) for run in runs])
        predicted = np.stack([run.predicted for run in runs])
        folds[fold] = stats.Fold(
            score, stats.patient_counts(runs[0].images["patient"].tolist(), runs[0].true, predicted, 4)
        )
    return folds


def test_images_agree_with_stats(summary, pages):
    arms = {variant: folds_of(summary, variant) for variant in ("flat", "base", "multilabel")}
    pairs = [("base", "flat"), ("multilabel", "flat")]
    expected = stats.compare(arms, pairs, ratio=1 / 2, rope=0.01)  # 3 folds: n_test / n_train = 1 / 2
    assert comparison.compare(summary) == expected
    for row in expected:
        name = f"{row.challenger} − flat"
        shown = table_row(pages[0], TITLE, name, "image")
        assert shown[2:4] == [row.verdict, f"{100 * row.mean:+.1f}"]
        assert shown[4:7] == [f"{part:.2f}" for part in row.probabilities]
        again, others = (
            next(line for line in part.splitlines() if line.startswith(f"| {name} | image |"))
            for part in (
                pages[0].split(f"{title}: evidence")[1] for title in ("Trained again", "Other patients")
            )
        )
        for line, estimate, (low, high) in (
            (again, row.mean, row.interval),
            (others, row.pooled, row.bootstrap),
        ):
            assert f"| {100 * estimate:+.1f} | {100 * low:.1f} to {100 * high:.1f} |" in line
        low, high = row.detectable_range
        assert low < row.detectable < 1 < high
        assert f"| {100 * row.detectable:.1f} ({100 * low:.1f} to over 100) |" in again
        assert others.rstrip(" |").endswith(str(row.clusters))
        assert row.reason in pages[0].split(f"## {TITLE}")[0]


def test_each_interval_of_the_figure_holds_its_own_estimate(summary):
    bars = [bar for bar in evidence.bars(comparison.compared(summary).levels) if not math.isnan(bar.low)]
    assert {bar.kind for bar in bars} == {
        f"{level}, {estimate}"
        for level in ("image", "patient x leaf")
        for estimate in ("mean over folds", "pooled")
    }
    assert all(bar.low < bar.estimate < bar.high for bar in bars)


def test_the_text_says_how_well_three_folds_know_the_detectable_difference(pages):
    """sqrt(2 / 7.378) and sqrt(2 / 0.05064) of the chi-square distribution with 2 degrees of freedom."""
    assert "with 3 folds 0.5 to 6.3 times the estimate" in pages[0]


def test_patients_are_groups_by_the_mode(summary, pages):
    compared = comparison.compared(summary)
    assert compared.unit == "patient x leaf"
    run = summary.runs[0]
    groups = metrics.by_patient(run.images["patient"].tolist(), run.true, run.logp, TREE, "mode")
    clusters = scores.group_clusters([run], "greedy")
    assert clusters.counts.sum() == len(groups.true)
    assert len(clusters.names) == 12
    shown = table_row(pages[0], TITLE, "multilabel − flat", "patient x leaf")
    assert shown[2:4] == [compared.patients[1].verdict, f"{100 * compared.patients[1].mean:+.1f}"]


def test_a_clear_difference_is_better(tmp_path):
    """The scores differ much in every fold: multilabel is better, and the first lines of the report say
    so."""
    expected = expected_runs(folds=5, seeds=(0,), variants=("flat", "multilabel"))
    for row in expected:
        write_run(
            tmp_path,
            row,
            images_of_fold(row["test_fold"]),
            skill={"flat": 0.5, "multilabel": 6.0}[row["variant"]],
        )
    study = {
        **STUDY,
        "variants": ["flat", "multilabel"],
        "folds": {"outer": 5, "inner": 2},
        "search": {"trials": 0},
    }
    summary = collect(tmp_path, study, expected)
    compared = comparison.compared(summary)
    assert (
        "`multilabel` against `flat` is better (P(better) 1.000, Holm-adjusted p"
        in comparison.headline(summary, compared).text
    )
    row = cells(comparison.section(summary, compared), "multilabel − flat", "image")
    assert row[2] == "better"
    assert float(row[6]) > 0.95


def test_the_declared_comparisons_are_made_and_no_others(whole):
    summary = collect(whole, {**STUDY, "primary": [["multilabel", "base"]], "rope": 0.03}, expected_runs())
    section = comparison.section(summary, comparison.compared(summary))
    assert section.title == "The declared comparisons"
    assert cells(section, "difference")[4:7] == ["P(worse)", "P(within ±3.0)", "P(better)"]
    assert cells(section, "multilabel − base", "image")[2] == comparison.compare(summary)[0].verdict
    with pytest.raises(StopIteration):
        cells(section, "base − flat")


def test_without_a_declared_comparison_there_is_no_verdict(whole):
    summary = collect(whole, {**STUDY, "primary": []}, expected_runs())
    compared = comparison.compared(summary)
    assert comparison.headline(summary, compared).text.startswith(
        "No verdict: the study declares no comparison"
    )
    assert texts(comparison.section(summary, compared)).startswith(
        "Not estimable: this needs results of `flat`"
    )


def test_a_verdict_on_some_of_the_runs_is_preliminary(whole):
    expected = expected_runs(folds=4)  # the fourth fold is still to come
    summary = collect(whole, {**STUDY, "primary": [["multilabel", "flat"]]}, expected)
    headline = comparison.headline(summary, comparison.compared(summary)).text
    assert headline.startswith(
        "Preliminary, 12 of 16 runs: by the macro F1 of images, `multilabel` against `flat`"
    )
    done = collect(whole, STUDY, expected_runs())
    assert comparison.headline(done, comparison.compared(done)).text.startswith("By the macro F1")


def test_the_ratio_is_that_of_the_runs_and_not_of_todays_data_set(summary):
    """Older runs did not record how many images they were trained on. The ratio is then that of K folds."""
    assert scores.ratio(summary) == 1 / 2
    images = sum(len(run.true) for run in scores.one_per_fold(summary.runs))
    assert scores.ratio(dataclasses.replace(summary, dataset={"counts": {"AML": 4 * images}})) == 1 / 2
    noted = [dataclasses.replace(run, trained=4 * images - len(run.true)) for run in summary.arms[0].runs]
    arms = (dataclasses.replace(summary.arms[0], runs=tuple(noted)), *summary.arms[1:])
    assert math.isclose(
        scores.ratio(dataclasses.replace(summary, arms=arms)), (images / 3) / (4 * images - images / 3)
    )
