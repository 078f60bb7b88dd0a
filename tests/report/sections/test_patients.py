"""Results by patient: by rule, decision and leaf. Images without a patient id, and patients in several
folds."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from leukotree import stats
from leukotree.errors import InputError
from leukotree.evaluation import decision_scores, metrics, tree_scores
from leukotree.report import scores
from leukotree.report.blocks import Text
from leukotree.report.collect import collect
from leukotree.report.page import write
from leukotree.report.sections import comparison, overview, patients, tree
from leukotree.report.summary import StudySummary
from tests.helpers.study_results import STUDY, TREE, cells, expected_runs, images_of_fold, texts, write_run

TWO = {**STUDY, "variants": ["flat", "multilabel"], "search": {"trials": 0}}
RUNS = expected_runs(seeds=(0,), variants=("flat", "multilabel"))


def study(root: Path, **skill: float) -> StudySummary:
    """Three folds of two variants in which normal images have no patient."""
    for row in RUNS:
        images = images_of_fold(row["test_fold"])
        images["patient"] = images["patient"].where(images["leaf"] != "normal", "")
        write_run(root, row, images, **skill)
    return collect(root, TWO, RUNS)


def lead(summary: StudySummary) -> str:
    return texts(overview.lead(summary, scores.per_fold(scores.per_run(summary, summary.arms)), Text("")))


@pytest.fixture(scope="module")
def partial(tmp_path_factory: pytest.TempPathFactory) -> StudySummary:
    return study(tmp_path_factory.mktemp("partial") / "s")


class TestImagesWithoutPatient:
    def test_a_leaf_without_patient_ids_has_no_interval(self, partial: StudySummary) -> None:
        row = cells(tree.leaves(partial), "flat", "normal")
        assert [row[4], row[6], row[8]] == ["not estimable", "not estimable", "unknown"]
        assert cells(tree.leaves(partial), "flat", "AML")[8] == "18"

    def test_they_do_not_count_as_patients_in_the_evidence(self, partial: StudySummary) -> None:
        alone = sum(int((run.images["patient"] == "").sum()) for run in scores.one_per_fold(partial.runs))
        section = comparison.section(partial, comparison.compared(partial))
        header = cells(section, "difference", "level", "pooled over folds")
        table = next(block for block in section.flat if getattr(block, "header", None) == header)
        assert table.rows[0][0] == "multilabel − flat"
        assert table.rows[0][-1] == f"36 and {alone} images without one"

    def test_the_first_section_warns(self, partial: StudySummary) -> None:
        assert (
            "images have no patient id. Each of them counts as one patient in intervals by patient"
            in lead(partial)
        )
        assert "leaves that have no other images: normal." in lead(partial)

    def test_macro_averages_of_patients_leave_their_leaf_out(self, tmp_path: Path) -> None:
        """Predictions without an error have the score 1, not 3/4."""
        summary = study(tmp_path / "s", skill=60.0)
        assert scores.leaves_of_patients(summary.runs).tolist() == [1, 2, 3]
        table = scores.per_run(summary, summary.arms)
        assert table["mode:macro_f1"].tolist() == [1.0] * len(RUNS)
        assert table["macro_f1"].tolist() == [1.0] * len(RUNS)

    def test_both_arms_and_all_folds_are_averaged_over_the_same_leaves(self, partial: StudySummary) -> None:
        run = next(run for run in partial.runs if run.variant == "flat" and run.test_fold == 0)
        groups = scores.groups(run, "mode", "greedy")
        f1 = metrics.per_leaf(groups.true, groups.predicted, 4).f1
        row = scores.per_run(partial, partial.arms).query("arm == 'flat' and fold == 0").iloc[0]
        assert row["mode:macro_f1"] == pytest.approx(f1[1:].mean())
        [other] = comparison.compared(partial).patients
        arms = scores.per_run(partial, partial.arms).set_index(["arm", "fold"])["mode:macro_f1"]
        assert other.mean == pytest.approx((arms["multilabel"] - arms["flat"]).mean())


class TestFoldWithoutPatients:
    @pytest.mark.slow("makes a report")
    def test_patients_are_compared_over_the_other_folds(self, tmp_path: Path) -> None:
        for row in RUNS:
            write_run(tmp_path / "s", row, images_of_fold(row["test_fold"], patients=row["test_fold"] != 2))
        summary = collect(tmp_path / "s", TWO, RUNS)
        compared = comparison.compared(summary)
        assert ([row.folds for row in compared.images], [row.folds for row in compared.patients]) == (
            [3],
            [2],
        )
        markdown, _ = write(summary, tmp_path / "out")
        assert "Is a hierarchy better?" in markdown.read_text()


class TestScores:
    def test_the_tree_is_scored_by_patient_too(self, whole: Path) -> None:
        summary = collect(whole, STUDY, expected_runs())
        by_fold = scores.per_fold(scores.per_run(summary, summary.arms))
        row = cells(patients.section(summary, by_fold), "base", "mean probability")
        runs = [run for run in summary.runs if run.variant == "base"]
        groups = [scores.groups(run, "mean_probability", "greedy") for run in runs]
        heights = [
            tree_scores.lca_height(metrics.confusion(one.true, one.predicted, 4), TREE) for one in groups
        ]
        assert row[9] == f"{np.mean(heights):.2f}"
        right = np.mean([[(one.true == one.predicted).sum(), len(one.true)] for one in groups], axis=0)
        assert row[3] == f"{100 * right[0] / right[1]:.1f}"  # pooled, beside its interval
        low, high = map(float, row[4].split(" to "))
        assert low < float(row[3]) < high
        depths = [
            [share.value for share in metrics.level_accuracy(one.true, one.predicted, TREE)] for one in groups
        ]
        assert [cell.split(" ± ")[0] for cell in row[10:]] == [
            f"{100 * mean:.1f}" for mean in np.mean(depths, axis=0)
        ]

    def test_every_decision_is_scored_by_the_mean_probability(self, whole: Path) -> None:
        summary = collect(whole, STUDY, expected_runs())
        by_fold = scores.per_fold(scores.per_run(summary, summary.arms))
        row = cells(patients.section(summary, by_fold), "flat", "acute: AML / APML")
        runs = [run for run in summary.runs if run.variant == "flat"]
        groups = [scores.groups(run, "mean_probability", "greedy") for run in runs]
        acute = [decision_scores.per_decision(one.true, one.logp, TREE)["acute"] for one in groups]
        assert row[2] == f"{100 * np.mean([one.accuracy for one in acute]):.1f}"
        assert row[-1] == str(sum(int(one.support.sum()) for one in acute))

    def test_patients_with_only_right_predictions_have_no_spread(self, tmp_path: Path) -> None:
        for row in RUNS:
            write_run(tmp_path / "s", row, images_of_fold(row["test_fold"]), skill=60.0)
        row = cells(tree.leaves(collect(tmp_path / "s", TWO, RUNS)), "flat", "AML")
        assert [row[3], row[4]] == ["100.0", "no spread"]


class TestDealtByImage:
    @pytest.fixture(scope="class")
    def root(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Patients 0 to 3 have images in every fold."""
        root = tmp_path_factory.mktemp("straddling") / "s"
        for row in RUNS:
            images = images_of_fold(row["test_fold"])
            number = images["patient"].str.split("-").str[1].astype(int)
            images["patient"] = images["patient"].where(number > 3, "p-" + number.astype(str))
            write_run(root, row, images)
        return root

    def test_patients_in_several_test_folds_are_refused(self, root: Path) -> None:
        with pytest.raises(InputError, match="is in two test folds"):
            comparison.compared(collect(root, TWO, RUNS))

    def test_a_data_set_split_by_image_has_a_warning(
        self, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shards = tmp_path / "shards"
        shards.mkdir()
        (shards / "dataset.json").write_text('{"group": "image"}')
        summary = collect(root, {**TWO, "base": {"data": {"shards": str(shards)}}}, RUNS)
        assert summary.straddling == 4
        named = pd.concat([run.images for run in scores.one_per_fold(summary.runs)])["patient"]
        assert not named.isin([f"lab/p-{number}" for number in range(4)]).any()
        assert "4 patients have images in several test folds" in lead(summary)
        [row] = comparison.compared(summary).images
        assert row.clusters - row.alone == 3 * 8

    def test_a_data_set_of_slides_has_a_warning(self, whole: Path) -> None:
        summary = dataclasses.replace(collect(whole, STUDY, expected_runs()), dataset={"group": "slide"})
        assert "In this report, patient therefore means slide" in lead(summary)

    def test_slides_of_some_sources_have_a_warning(self, whole: Path) -> None:
        described = {"group": "image", "slides": {"Lahore": 26, "Delhi": 4}}
        summary = dataclasses.replace(collect(whole, STUDY, expected_runs()), dataset=described)
        assert "30 of the patients in this report are slides" in lead(summary)
        assert "Lahore (26), Delhi (4)" in lead(summary)


def test_an_image_without_a_patient_id_is_no_patient() -> None:
    clusters = stats.patient_counts(["a", "a", "", ""], np.array([0, 0, 0, 1]), np.array([0, 1, 0, 1]), 2)
    assert stats.patients_per_leaf(clusters).tolist() == [1, 0]
