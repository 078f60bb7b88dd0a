"""Scores on another data set, computed again by scikit-learn and by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from leukotree import stats
from leukotree.evaluation import decide
from leukotree.records import external
from leukotree.records.external import About, Stored
from leukotree.report import external as outside_runs
from leukotree.report import external_scores
from leukotree.report.collect import collect
from leukotree.report.external_scores import OUTSIDE, OWN, WHOLE, Compared
from leukotree.report.sections import external as section
from leukotree.report.summary import Arm, StudySummary
from tests.helpers import study_results
from tests.helpers.study_results import SKILL, TREE

LEAVES = np.array(TREE.leaves)


def other_images(leaves: list[str], patients: bool = True, sources: int = 1) -> pd.DataFrame:
    frame = pd.concat([study_results.images_of_fold(fold) for fold in (7, 8, 9)], ignore_index=True)
    frame = frame[frame["leaf"].isin(leaves)].drop(columns="fold").reset_index(drop=True)
    number = frame["patient"].str.split("-").str[1].astype(int) % sources
    return frame.assign(source=[f"site {n}" for n in number], patient=frame["patient"] if patients else "")[
        external.IDENTITY
    ]


def write(study: Path, images: pd.DataFrame, name: str = "other", skill: float = 0.3) -> None:
    """Predictions of each run of `flat` for the images."""
    place = external.folder(study, name)
    about = About("data/other", "f" * 64, len(images), {"images of the study": 2}, [])
    place.mkdir(parents=True)
    external.write_about(place, about)
    for number, row in enumerate(study_results.expected_runs(variants=["flat"])):
        logp = study_results.log_probabilities(images, skill * SKILL["flat"], [77, number])
        external.write(
            place, study / row["run_name"], Stored(images, logp.astype(np.float32)), TREE, about.fingerprint
        )


def summary_of(study: Path) -> StudySummary:
    return collect(study, study_results.STUDY, study_results.expected_runs())


def scored(study: Path, name: str = "other") -> tuple[Arm, list[Compared]]:
    summary = summary_of(study)
    arm = next(arm for arm in summary.arms if arm.name == "flat")
    of = outside_runs.outside(arm, name, summary.decision)
    assert of is not None
    return arm, external_scores.compared(arm, of, {})


def expected(arm: Arm, study: Path, leaves: list[str]) -> dict[str, dict[str, float]]:
    """Side -> score -> value, of one long table of the answers of all runs."""
    own = [(LEAVES[run.true], LEAVES[run.predicted]) for run in arm.runs]
    true, predicted = map(np.concatenate, zip(*own, strict=True))
    same = np.isin(true, leaves)
    out_true, out_predicted = [], []
    for run in arm.runs:
        frame = pd.read_parquet(study / "external/other" / f"{run.name}.parquet")
        logp = frame[[f"logp:{edge}" for edge in TREE.edges]].to_numpy()
        out_true.append(frame["leaf"].to_numpy())
        out_predicted.append(LEAVES[decide.greedy(logp, TREE)])
    sides = {
        WHOLE: (true, predicted, list(LEAVES)),
        OWN: (true[same], predicted[same], leaves),
        OUTSIDE: (np.concatenate(out_true), np.concatenate(out_predicted), leaves),
    }
    values: dict[str, dict[str, float]] = {}
    for side, (right, given, counted) in sides.items():
        values[side] = {"accuracy": sk.accuracy_score(right, given)}
        values[side]["macro F1"] = sk.f1_score(right, given, labels=counted, average="macro", zero_division=0)
        for leaf in leaves:
            values[side][f"sensitivity of {leaf}"] = sk.recall_score(right == leaf, given == leaf)
        for leaf in LEAVES:
            if (right != leaf).any():
                values[side][f"specificity of {leaf}"] = sk.recall_score(right != leaf, given != leaf)
        leukemia = np.isin(right, ["AML", "APML"]), np.isin(given, ["AML", "APML"])
        values[side]["specificity of leukemia"] = sk.recall_score(~leukemia[0], ~leukemia[1])
    return values


@pytest.mark.parametrize("leaves", [["normal", "AML", "APML"], ["normal"]])
def test_scores_of_each_side_are_those_of_scikit_learn(leaves: list[str], copy: Path) -> None:
    write(copy, other_images(leaves))
    arm, [of] = scored(copy)
    values = expected(arm, copy, leaves)
    rows = {row.name: row for row in of.rows}
    assert ("macro F1" in rows) == (len(leaves) > 1)
    for name in set(rows) & set(values[OUTSIDE]):
        row = rows[name]
        assert row.whole.value == pytest.approx(values[WHOLE][name]), name
        assert row.own.value == pytest.approx(values[OWN][name]), name
        assert row.outside.value == pytest.approx(values[OUTSIDE][name]), name
        assert row.difference.value == pytest.approx(row.outside.value - row.own.value), name
    assert len(set(rows) & set(values[OUTSIDE])) >= 5
    assert of.leaves == [leaf for leaf in LEAVES if leaf in leaves]


def test_a_loss_is_seen_with_an_interval_and_none_is_not(copy: Path) -> None:
    write(copy, other_images(list(LEAVES)))
    _, [of] = scored(copy)
    accuracy = next(row for row in of.rows if row.name == "accuracy")
    assert accuracy.difference.interval is not None
    assert accuracy.difference.interval[1] < 0
    for score in (accuracy.whole, accuracy.own, accuracy.outside):
        assert score.interval is not None
        assert score.interval[0] < score.value < score.interval[1]
    write(copy, other_images(list(LEAVES)), "same", skill=1.0)
    _, [of] = scored(copy, "same")
    low, high = next(row for row in of.rows if row.name == "accuracy").difference.interval or (1, -1)
    assert low < 0 < high


def test_the_intervals_of_the_own_side_do_not_depend_on_the_other(copy: Path) -> None:
    """They are those of the report's own bootstrap of the same clusters, up to its draws."""
    write(copy, other_images(list(LEAVES)))
    _, [of] = scored(copy)
    accuracy = next(row for row in of.rows if row.name == "accuracy")
    assert accuracy.own.interval == pytest.approx(accuracy.whole.interval, abs=0.02)


def test_calibration_errors_are_those_of_the_pooled_answers(copy: Path) -> None:
    images = other_images(list(LEAVES))
    write(copy, images)
    arm, [of] = scored(copy)
    parts = []
    for run in arm.runs:
        frame = pd.read_parquet(copy / "external/other" / f"{run.name}.parquet")
        logp = frame[[f"logp:{edge}" for edge in TREE.edges]].to_numpy()
        parts.append(np.exp(decide.leaf_logp(logp, TREE)))
    target = np.tile([TREE.leaves.index(leaf) for leaf in images["leaf"]], len(parts))
    cluster = np.tile(pd.factorize(images["patient"], sort=True)[0], len(parts))
    again = stats.calibration_error(target, np.concatenate(parts), cluster)
    assert of.raw[OUTSIDE].value == pytest.approx(again.value)
    assert of.scaled == {}
    gap = next(row for row in of.rows if row.name == external_scores.GAP)
    right = np.concatenate(parts).argmax(axis=1) == target
    assert gap.outside.value == pytest.approx(np.concatenate(parts).max(axis=1).mean() - right.mean())


def test_each_source_is_also_scored_by_itself(copy: Path) -> None:
    images = other_images(list(LEAVES), sources=2)
    write(copy, images)
    _, compared = scored(copy)
    assert [of.source for of in compared] == ["all", *images["source"].value_counts().index]
    assert sum(of.images for of in compared[1:]) == compared[0].images


def test_without_patients_each_image_counts_and_the_section_warns(copy: Path) -> None:
    write(copy, other_images(["normal"], patients=False))
    _, [of] = scored(copy)
    assert of.by_image
    assert of.patients == 0
    assert next(row for row in of.rows if row.name == "accuracy").outside.interval is not None
    text = study_results.texts(section.section(summary_of(copy)))  # type: ignore[arg-type]
    assert "no patient ids" in text
    assert "too narrow" in text
    assert "Left out of `other`: 2 images of the study." in text


@pytest.mark.slow("makes a report")
def test_few_patients_have_no_interval_and_leave_the_other_side_its_own(copy: Path) -> None:
    images = other_images(["normal", "AML"])
    for count in (1, 3):
        few = images[images["patient"].isin(images["patient"].unique()[:count])].reset_index(drop=True)
        write(copy, few, f"few{count}")
        _, [of] = scored(copy, f"few{count}")
        accuracy = next(row for row in of.rows if row.name == "accuracy")
        assert accuracy.outside.interval is None
        assert accuracy.difference.interval is None
        assert accuracy.own.interval is not None


def test_runs_with_other_weights_are_left_out_and_named(copy: Path) -> None:
    write(copy, other_images(["normal", "AML"]))
    row = study_results.expected_runs(variants=["flat"])[0]
    images = study_results.images_of_fold(row["test_fold"])
    logp = study_results.log_probabilities(images, 1.0, [5])
    study_results.write_predictions(copy / row["run_name"], images, logp)
    part = section.section(summary_of(copy))
    assert part is not None
    assert "1 of 6 runs of `flat` were not evaluated" in study_results.texts(part)


@pytest.mark.slow("makes a report")
def test_the_report_has_the_section_only_where_something_was_evaluated(copy: Path, tmp_path: Path) -> None:
    assert section.section(summary_of(copy)) is None
    write(copy, other_images(["normal", "AML"]))
    markdown, html = study_results.report(copy, tmp_path / "out")
    cells = study_results.table_row(markdown, "Other data sets", "flat", "all", "accuracy")
    _, [of] = scored(copy)
    accuracy = next(row for row in of.rows if row.name == "accuracy")
    assert cells[5].startswith(f"{100 * accuracy.outside.value:.1f} (")
    assert cells[6] == f"{100 * accuracy.difference.value:+.1f}"
    assert "Other data sets" in html
