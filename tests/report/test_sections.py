"""Decision rules, calibration, mixed cells, leaves of few patients, and interference, as the report shows
them."""

import json

import numpy as np
import pandas as pd
import pytest

from leukotree import stats
from leukotree.evaluation import calibration, decide, metrics, tree_scores
from leukotree.records import runfolder
from leukotree.report import scores
from leukotree.report.blocks import Figure, Text
from leukotree.report.collect import collect
from leukotree.report.sections import decisions, interference, overview, patients, searches, tree
from leukotree.report.sections.calibration import LEAVES, calibrated
from leukotree.report.sections.calibration import section as calibration_section
from tests.helpers.study_results import (
    CHOSEN,
    STUDY,
    TREE,
    cells,
    expected_runs,
    images_of_fold,
    log_probabilities,
    section,
    table_row,
    write_predictions,
    write_run,
    write_search,
)


@pytest.fixture(scope="module")
def summary(whole):
    return collect(whole, STUDY, expected_runs())


class TestDecisions:
    @pytest.mark.parametrize("rule", decide.RULES)
    def test_each_rule_is_scored_on_the_same_predictions(self, summary, pages, rule):
        folds: list[list[float]] = [[], [], []]
        heights: list[list[float]] = [[], [], []]
        for run in summary.runs:
            if run.variant == "base":
                predicted = decide.leaves(run.logp, TREE, rule)
                folds[run.test_fold].append(metrics.macro_f1(run.true, predicted, 4))
                counts = metrics.confusion(run.true, predicted, 4)
                heights[run.test_fold].append(float(tree_scores.lca_height(counts, TREE, errors_only=True)))
        own = " (this study's)" if rule == "greedy" else ""
        row = table_row(pages[0], "Decision rules", "base", rule.replace("_", " ") + own)
        means = [np.mean(seeds) for seeds in folds]
        assert row[2] == f"{100 * np.mean(means):.1f} ± {100 * np.std(means, ddof=1):.1f}"
        assert row[4] == f"{np.mean([np.mean(seeds) for seeds in heights]):.2f}"
        assert (row[6] == "–") == (rule != "marginal")

    def test_another_rule_decides_everything(self, whole):
        summary = collect(whole, {**STUDY, "decision": "joint"}, expected_runs())
        by_fold = scores.per_fold(scores.per_run(summary, scores.shown(summary)))
        joint = cells(decisions.section(summary), "flat", "joint (this study's)")
        assert cells(overview.lead(summary, by_fold, Text("")), "flat")[5] == joint[2]

    def test_accuracy_rises_with_the_threshold_of_abstention(self, pages):
        rows = [table_row(pages[0], "Decision rules", "multilabel", at) for at in ("0.5", "0.9")]
        coverage, accuracy = ([float(row[column]) for row in rows] for column in (2, 3))
        assert coverage[0] > coverage[1]
        assert accuracy[0] < accuracy[1]


def test_mixed_cells_have_two_likely_leaves(summary, pages):
    logp = np.concatenate([run.logp for run in summary.runs if run.variant == "flat"])
    second = np.sort(np.exp(decide.leaf_logp(logp, TREE)), axis=1)[:, -2]
    row = table_row(pages[0], "Cells between two leaves", "flat")
    assert row[1:3] == ["raw", f"{100 * (second >= 0.25).mean():.1f}"]
    assert sum(map(float, row[3:-4])) == pytest.approx(float(row[2]), abs=0.3)
    assert float(row[-4]) < float(row[-3])


class TestCalibration:
    @pytest.fixture
    def sharp(self, tmp_path):
        """A study of one fold. Its log-probabilities are three times too large, in test and inner validation
        alike."""
        (row,) = expected_runs(folds=2, seeds=(0,), variants=("flat",))[1:]
        images = images_of_fold(1)
        folder = write_run(tmp_path, row, images)
        write_predictions(folder, images, log_probabilities(images, 1.0, [1], sharpness=3.0))
        search = tmp_path / "search" / "flat"
        values = {
            "loss.gamma": [1.0, 2.0, 2.5],
            "optim.lr": [1e-5, 1e-4, 3e-5],
            "optim.batch_size": 32,
            "macro_f1": [0.3, 0.4, 0.5],
        }
        write_search(search, "flat", CHOSEN["flat"], pd.DataFrame(values))
        for inner, fold in enumerate((0, 2)):
            others = images_of_fold(fold)
            logp = log_probabilities(others, 1.0, [2, inner], sharpness=3.0)
            write_predictions(search / "runs" / "00002" / f"flat-{inner}", others, logp)
        return collect(tmp_path, {**STUDY, "variants": ["flat"]}, [row])

    def test_temperatures_come_from_inner_validation(self, sharp):
        of_arm = calibrated(sharp, sharp.arms[0])
        inner = sharp.searches["flat"][1].validation
        assert len(inner.true) == len(images_of_fold(0)) + len(images_of_fold(2))
        assert of_arm.temperatures == [calibration.fit(inner.true, inner.logp, TREE)]
        assert of_arm.temperatures[0]["root"] == pytest.approx(3, rel=0.4)
        assert calibration.ece(*of_arm.scaled[LEAVES][:3]) < calibration.ece(*of_arm.raw[LEAVES][:3]) - 0.05
        np.testing.assert_allclose(of_arm.scaled[LEAVES][1].sum(axis=1), 1)

    def test_the_best_trials_have_an_interval_where_their_predictions_are(self, sharp):
        table = next(block for block in searches.section(sharp).flat if getattr(block, "labels", 0) == 4)
        row = next(row for row in table.rows if row[3] == "2")
        low, high = map(float, row[6].split(" to "))
        inner = sharp.searches["flat"][1].validation
        pooled = 100 * metrics.macro_f1(inner.true, decide.greedy(inner.logp, TREE), 4)
        assert row[5] == f"{pooled:.1f}"
        assert low < pooled < high
        assert row[4] == "50.0"  # the mean over inner folds is another number
        assert {(row[5], row[6]) for row in table.rows if row[3] != "2"} == {("–", "–")}

    def test_without_inner_validation_it_stays_raw(self, summary, pages):
        of_arm = calibrated(summary, summary.arms[0])
        assert not of_arm.scaled
        assert of_arm.runs == 6
        assert "Raw only: no inner validation for flat, base, multilabel" in pages[0]
        row = table_row(pages[0], "Calibration", "flat", "leaves")
        assert row[2] == f"{calibration.ece(*of_arm.raw[LEAVES][:3]):.3f}"
        assert row[4] == row[5] == row[7] == row[8] == "–"

    def test_each_error_is_pooled_over_folds_and_seeds_and_has_its_own_interval(self, summary, pages):
        """The same number is nowhere else in the page under another name."""
        runs = [run for run in summary.runs if run.variant == "base"]
        patients = np.concatenate([run.images["patient"] for run in runs])
        true, logp = (np.concatenate([getattr(run, name) for run in runs]) for name in ("true", "logp"))
        below = np.isin(true, [TREE.leaves.index(leaf) for leaf in ("AML", "APML")])
        ((_, target, logs),) = [one for one in decide.at_decisions(true, logp, TREE) if one[0] == "acute"]
        cluster = np.unique(patients[below], return_inverse=True)[1]
        assert cluster.max() == 35  # 36 patients, each with AML or APML cells
        error = stats.calibration_error(target, np.exp(logs), cluster)
        low, high = error.interval
        row = table_row(pages[0], "Calibration", "base", "acute")
        assert row[2:4] == [f"{error.value:.3f}", f"{low:.3f} to {high:.3f}"]
        assert low <= error.value <= high
        assert pages[0].count("| ECE |") == 1

    def test_without_patient_ids_an_error_has_no_interval(self, tmp_path):
        expected = expected_runs(folds=2, seeds=(0, 1), variants=("flat",))
        for row in expected:
            write_run(tmp_path, row, images_of_fold(row["test_fold"], patients=False))
        (arm,) = (one := collect(tmp_path, {**STUDY, "variants": ["flat"]}, expected)).arms
        problem = calibrated(one, arm).raw[LEAVES]
        assert (
            problem.cluster.max() + 1 == len(problem.target) / 2
        )  # an image is one cluster, with both seeds
        row = cells(calibration_section(one), "flat", "leaves")
        assert float(row[2]) >= 0
        assert row[3] == "not estimable"


class TestFewPatients:
    def test_a_leaf_of_three_patients_is_not_estimable(self, tmp_path):
        """Reactive images come from three patients, one in each fold. The other leaves have twelve patients
        or more."""
        expected = expected_runs(seeds=(0,), variants=("flat", "multilabel"))
        for row in expected:
            images = images_of_fold(row["test_fold"])
            keep = (images["leaf"] != "reactive") | images["patient"].str.endswith("-3")
            write_run(tmp_path / "s", row, images[keep].reset_index(drop=True))
        summary = collect(tmp_path / "s", {**STUDY, "variants": ["flat", "multilabel"]}, expected)
        leaves = tree.leaves(summary)
        row = cells(leaves, "flat", "reactive")
        assert [row[4], row[6], row[8]] == ["not estimable", "not estimable", "3"]
        assert "not estimable" not in cells(leaves, "flat", "AML")
        by_patient = patients.section(summary, scores.per_fold(scores.per_run(summary, summary.arms)))
        assert cells(by_patient, "flat", "reactive")[4] == "not estimable"
        assert cells(by_patient, "flat", "AML")[4] != "not estimable"


class TestTree:
    def test_hierarchical_scores(self, summary, pages):
        runs = [run for run in summary.runs if run.variant == "multilabel"]
        values = [float(tree_scores.f1(metrics.confusion(run.true, run.predicted, 4), TREE)) for run in runs]
        means = np.array(values).reshape(3, 2).mean(axis=1)
        assert (
            table_row(pages[0], "Tree", "multilabel")[3]
            == f"{100 * means.mean():.1f} ± {100 * means.std(ddof=1):.1f}"
        )

    def test_every_decision_and_depth_is_scored(self, summary, pages):
        accuracy = [
            metrics.decision_accuracy(run.true, run.logp, TREE)["acute"]
            for run in summary.runs
            if run.variant == "flat"
        ]
        row = table_row(pages[0], "Decisions and depths", "flat", "acute: AML / APML")
        assert row[2] == f"{100 * np.mean([share.value for share in accuracy]):.1f}"
        assert row[-1] == str(sum(share.n for share in accuracy))
        depths = [
            line.split(" | ")[1].split(":")[0]
            for line in section(pages[0], "Decisions and depths").splitlines()
            if line.startswith("| base |")
        ]
        assert depths == ["root", "acute", "depth 1", "depth 3"]  # depth 2 has no decision in this tree


class TestInterference:
    @pytest.mark.slow("makes a report")
    def test_the_last_probed_epoch_is_shown(self, copy):
        assert interference.section(collect(copy, STUDY, expected_runs())) is None
        same = {"levels": [1, 2], "norm_ratio": 2.0, "conflict": 0.25, "control": 0.05}
        shift_of = {"blocks.0": -0.1, "rest": 0.1}
        rows = [
            {"epoch": epoch, "block": block, "cosine": 0.4 - 0.1 * epoch + shift_of[block], **same}
            for epoch in (0, 5)
            for block in shift_of
        ]
        for seed, shift in ((0, 0.0), (1, 0.3)):
            lines = [json.dumps({**row, "cosine": row["cosine"] + shift}) for row in rows]
            (copy / f"multilabel-000000{seed:06x}" / runfolder.INTERFERENCE).write_text(
                "\n".join([*lines, '{"epoch": 6'])
            )
        gradients = interference.section(collect(copy, STUDY, expected_runs()))
        assert cells(gradients, "multilabel", "1 and 2")[2:] == [
            "0.05",
            "0.05",
            "0.25",
            "2.00",
            "blocks.0 (-0.05)",
        ]
        drawn = [block for block in gradients.blocks if isinstance(block, Figure)]
        assert [figure.name for figure in drawn] == ["interference", "interference-blocks"]
