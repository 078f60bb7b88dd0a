"""A study whose cross-validation is repeated: what is averaged, what is counted once, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from leukotree import stats
from leukotree.errors import InputError
from leukotree.evaluation import metrics
from leukotree.records import declared, planned, predictions
from leukotree.report import scores
from leukotree.report.collect import collect
from leukotree.report.sections import comparison, overview
from leukotree.report.sections import planned as planned_section
from leukotree.report.summary import StudySummary
from tests.helpers import study_results
from tests.helpers.study_results import VARIANTS, cells, texts

REPEATS, FOLDS = 2, 3
STUDY = {
    **study_results.STUDY,
    "folds": {"outer": FOLDS, "inner": 2, "repeats": REPEATS},
    "search": {"trials": 0},
}


def _images(repeat: int, fold: int, patients: bool = True) -> pd.DataFrame:
    """The images of a fold. In repeat 1 every patient is in another fold than in repeat 0."""
    every = pd.concat([study_results.images_of_fold(number) for number in range(FOLDS)], ignore_index=True)
    number = every["patient"].str.rpartition("-")[2].astype(int)
    dealt = every["fold"] if repeat == 0 else (every["fold"] + 1 + number % 2) % FOLDS
    images = every.assign(fold=dealt)[dealt == fold].reset_index(drop=True)
    return images if patients else images.assign(patient="")


def _rows() -> list[dict[str, Any]]:
    return [
        {
            "variant": variant,
            "repeat": repeat,
            "test_fold": fold,
            "seed": seed,
            "run_name": f"{variant}-{repeat:04x}{fold:04x}{seed:04x}",
        }
        for variant in VARIANTS
        for repeat in range(REPEATS)
        for fold in range(FOLDS)
        for seed in (0, 1)
    ]


def _make(root: Path, patients: bool = True) -> Path:
    for row in _rows():
        study_results.write_run(root, row, _images(row["repeat"], row["test_fold"], patients))
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _make(tmp_path_factory.mktemp("repeats") / "synthetic")


def _collect(root: Path, study: Mapping[str, Any] = STUDY) -> StudySummary:
    return collect(root, study, _rows())


@pytest.fixture(scope="module")
def summary(root: Path) -> StudySummary:
    return _collect(root)


def test_the_folds_of_all_repeats_are_numbered_through(summary: StudySummary) -> None:
    assert {(run.repeat, run.test_fold) for run in summary.runs} == {
        (0, 0), (0, 1), (0, 2), (1, 3), (1, 4), (1, 5)
    }  # fmt: skip
    assert [summary.fold_name(number) for number in (0, 2, 3, 5)] == [
        "0",
        "2",
        "0 of repeat 1",
        "2 of repeat 1",
    ]


def test_an_image_is_counted_once(summary: StudySummary) -> None:
    keys = pd.concat([run.images["key"] for run in scores.one_per_fold(summary.runs)])
    assert not keys.duplicated().any()
    n, patients = len(keys), 36
    assert cells(overview.data(summary), "all")[1:4] == [str(n), "100.0 %", str(patients)]
    clusters = scores.pooled_clusters(summary.arms[0].runs, scores.image_clusters)
    assert len(clusters.names) == len(set(clusters.names)) == patients
    assert clusters.counts.sum() == pytest.approx(n)
    assert scores.ratio(summary) == pytest.approx(1 / (FOLDS - 1))


def test_the_clusters_of_a_patient_are_means_over_the_repeats(summary: StudySummary) -> None:
    runs = summary.arms[0].runs
    clusters = scores.pooled_clusters(runs, scores.image_clusters)
    leaves = len(runs[0].taxonomy.leaves)
    for place, patient in list(enumerate(clusters.names))[:5]:
        tables = []
        for run in runs:
            rows = (run.images["patient"] == patient).to_numpy()
            tables.append(metrics.confusion(run.true[rows], run.predicted[rows], leaves))
        assert clusters.counts[place] == pytest.approx(np.sum(tables, axis=0) / (REPEATS * 2))


@pytest.mark.parametrize("level", ["images", "patients"])
def test_the_verdict_uses_all_folds_and_the_interval_all_patients_once(
    summary: StudySummary, level: str
) -> None:
    row = getattr(comparison.compared(summary), level)[1]
    assert (row.challenger, row.reference, row.folds, row.clusters) == ("multilabel", "flat", 6, 36)
    if level == "patients":
        return
    by_arm = {}
    for arm in summary.arms:
        of_runs = pd.Series(
            {
                (run.test_fold, run.seed): metrics.macro_f1(run.true, run.predicted, len(run.taxonomy.leaves))
                for run in arm.runs
            }
        )
        by_arm[arm.name] = of_runs.groupby(level=0).mean()
    differences = (by_arm["multilabel"] - by_arm["flat"]).to_numpy()
    test = stats.nadeau_bengio(differences, 1 / (FOLDS - 1))
    assert test is not None
    assert (row.mean, row.p) == pytest.approx((test.mean, test.p))
    assert test.df == REPEATS * FOLDS - 1
    assert "was repeated 2 times" in texts(comparison.section(summary, comparison.compared(summary)))


def test_images_without_a_patient_are_found_again_by_their_keys(tmp_path: Path) -> None:
    summary = _collect(_make(tmp_path / "synthetic", patients=False))
    clusters = scores.pooled_clusters(summary.arms[0].runs, scores.image_clusters)
    images = sum(len(run.images) for run in scores.one_per_fold(summary.runs))
    assert clusters.alone == len(clusters.names) == images
    assert clusters.counts.sum(axis=(1, 2)) == pytest.approx(np.ones(images))


def test_a_repeat_that_is_not_complete_weighs_each_patient_as_before(summary: StudySummary) -> None:
    arm = summary.arms[0]
    partial = replace(arm, runs=tuple(run for run in arm.runs if run.test_fold != 4))
    clusters = scores.pooled_clusters(partial.runs, scores.image_clusters)
    whole = scores.pooled_clusters(arm.runs, scores.image_clusters)
    assert clusters.counts.sum(axis=(1, 2)) == pytest.approx(whole.counts.sum(axis=(1, 2)))


def test_the_tables_count_each_group_once(summary: StudySummary) -> None:
    by_fold = scores.per_fold(scores.per_run(summary, summary.arms))
    once = scores.per_fold(
        scores.per_run(
            replace(
                summary,
                arms=tuple(
                    replace(arm, runs=tuple(run for run in arm.runs if run.repeat == 0))
                    for arm in summary.arms
                ),
            ),
            summary.arms[:1],
        )
    )
    pooled = scores.pooled(by_fold, "flat", "mode")
    assert pooled.n == sum(once[(once["arm"] == "flat") & (once["repeat"] == 0)]["groups"])
    rows = by_fold[by_fold["arm"] == "flat"]
    assert pooled.right == pytest.approx(rows["mode:right"].sum() / REPEATS)
    assert len(overview.folds(summary, by_fold).blocks[0].rows) == 3 * REPEATS * FOLDS  # type: ignore[union-attr]


@pytest.mark.slow("makes a report")
def test_the_report_names_folds_by_their_repeat(root: Path, tmp_path: Path) -> None:
    markdown = study_results.markdown_of(root, tmp_path, STUDY, _rows())
    assert study_results.table_row(markdown, "Folds", "1 of repeat 1", "flat")[3] == "2"
    assert study_results.table_row(markdown, "Runs", "flat", "2 of repeat 1")
    assert "3 folds, dealt 2 times" in markdown


def _predictions(root: Path, repeat: int, fold: int) -> Path:
    return root / f"flat-{repeat:04x}{fold:04x}{0:04x}" / "predictions.parquet"


@pytest.mark.slow("makes a report")
def test_a_patient_in_two_folds_of_one_repeat_is_refused(root: Path, tmp_path: Path) -> None:
    """In two repeats it is right: every patient of this study is in another fold there."""
    moved = tmp_path / "synthetic"
    _make(moved)
    patient = _images(1, 0)["patient"].iloc[0]
    for row in _rows():
        if (row["repeat"], row["test_fold"]) == (1, 1):
            path = moved / row["run_name"] / "predictions.parquet"
            frame = pd.read_parquet(path)
            frame.assign(patient=frame["patient"].where(frame.index != 0, patient)).to_parquet(path)
    with pytest.raises(InputError, match="has another leaf, patient or source in another repeat"):
        _collect(moved)
    parts = [scores.image_clusters([run]) for run in _collect(root).arms[0].runs if run.seed == 0]
    with pytest.raises(InputError, match="is in two test folds"):
        stats.pool(parts, [0] * len(parts))


def test_a_run_of_another_repeat_is_refused(root: Path, tmp_path: Path) -> None:
    other = _make(tmp_path / "synthetic")
    spec = (other / "flat-000000000000" / "spec.yaml").read_text()
    (other / "flat-000100000000" / "spec.yaml").write_text(spec)
    with pytest.raises(InputError, match="repeat is 0, the study expects 1"):
        _collect(other)


def test_a_run_on_another_deal_of_its_repeat_is_refused(tmp_path: Path) -> None:
    other = _make(tmp_path / "synthetic")
    (other / "flat-000100010000" / "env.json").write_text(json.dumps({"dataset": "a" * 64}))
    with pytest.raises(InputError, match="made from other shards"):
        _collect(other)


def test_more_repeats_than_were_declared_make_a_verdict_exploratory(root: Path, tmp_path: Path) -> None:
    before = {**STUDY, "folds": {"outer": FOLDS, "inner": 2}}
    declared.keep(tmp_path, before)
    assert declared.changes(tmp_path, before) == []
    assert declared.changes(tmp_path, STUDY) == ["`repeats` was 1 and is 2"]
    file = tmp_path / declared.FILE
    file.write_text(file.read_text().replace("repeats: 1\n", ""))  # as an older version wrote it
    assert declared.changes(tmp_path, before) == []
    assert declared.changes(tmp_path, STUDY) == ["`repeats` was 1 and is 2"]


def _plan(**design: int) -> dict[str, Any]:
    row = {"folds": 3, "repeats": 2, "seeds": 2, "patients": 36, **design, "power": [0.83, 0.82, 0.84]}
    return {
        "challenger": "multilabel", "reference": "flat", "effect": 0.05, "wanted": 0.8, "rope": 0.01,
        "pairs": 2, "source": "assumptions", "study": row, "smallest": row, "planned": row,
    }  # fmt: skip


def test_the_report_of_a_planned_study_names_its_plan(summary: StudySummary, tmp_path: Path) -> None:
    assert planned_section.section(summary) is None
    assert planned.keep(tmp_path, _plan()) == tmp_path / planned.FILE
    section = planned_section.section(replace(summary, planned=planned.read(tmp_path)))
    assert section is not None
    design = "3 folds x 2 repeats x 2 seeds x 36 patients"
    assert f"Planned: 83.0 (82.0 to 84.0) % power for +5.0 points with {design}." in texts(section)
    assert "The study as run has these numbers." in texts(section)
    assert cells(section, "as run")[1:5] == cells(section, "planned")[1:5] == ["3", "2", "2", "36"]


def test_a_study_that_was_run_differently_is_told_so(summary: StudySummary) -> None:
    plan = _plan(seeds=5, patients=84) | {planned.FINISHED: 0}
    section = planned_section.section(replace(summary, planned=plan))
    assert section is not None
    assert "differs from the plan: seeds 2 instead of 5, patients 36 instead of 84" in texts(section)
    late = planned_section.section(replace(summary, planned=plan | {planned.FINISHED: 3, "planned": None}))
    assert late is not None
    assert "when 3 runs of the study had finished" in texts(late)
    assert "No design of the plan's table has the wanted power of 80.0 %" in texts(late)


def test_a_plan_from_before_the_first_run_stays(root: Path, tmp_path: Path) -> None:
    study = _make(tmp_path / "synthetic")
    assert planned.keep(study, _plan(seeds=1)) == study / planned.FILE
    assert planned.keep(study, _plan(seeds=9)) is None
    kept = planned.read(study)
    assert kept is not None
    assert (kept["study"]["seeds"], kept[planned.FINISHED]) == (1, len(_rows()))
    for text, problem in (("{", "cannot be read"), ("[]", "has no plan"), ("{}", "has no challenger")):
        (study / planned.FILE).write_text(text)
        with pytest.raises(InputError, match=problem):
            planned.read(study)


def test_the_predictions_of_a_repeat_name_its_folds(root: Path) -> None:
    frame, _, _ = predictions.read(_predictions(root, 1, 2).parent)
    assert set(frame["fold"]) == {2}
