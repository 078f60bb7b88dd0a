"""Clinical scores as the report shows them, computed again from the predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from leukotree.errors import InputError
from leukotree.evaluation import clinical, decide, metrics
from leukotree.report import clinical as of_report
from leukotree.report import inner, scores
from leukotree.report.blocks import Figure, Section, Table
from leukotree.report.collect import collect
from leukotree.report.sections import clinical as section_of
from leukotree.report.sections import decisions
from leukotree.report.summary import StudySummary
from tests.helpers.study_results import (
    NESTED,
    STUDY,
    TREE,
    cells,
    expected_runs,
    images_of_fold,
    make_nested,
    texts,
    write_run,
)

ONE = expected_runs(variants=("flat",))
FLAT = {**NESTED, "variants": ["flat"]}
LEAF = TREE.leaves.index


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> StudySummary:
    root = make_nested(tmp_path_factory.mktemp("nested") / "s", variants=("flat",))
    return collect(root, FLAT, ONE)


@pytest.fixture(scope="module")
def page(summary: StudySummary) -> Section:
    return section_of.section(summary)


def value(cell: str) -> float:
    return float(cell.split(" ")[0])


def confusion(summary: StudySummary) -> np.ndarray:
    return np.sum(
        [metrics.confusion(run.true, run.predicted, len(TREE.leaves)) for run in summary.runs], axis=0
    )


def row(page: Section, caption: str, *first: str) -> list[str]:
    """The cells of a row of the table whose caption begins so."""
    (table,) = [
        block for block in page.blocks if isinstance(block, Table) and block.caption.startswith(caption)
    ]
    return cells(Section("", [table]), *first)


class TestRates:
    def test_of_a_leaf_they_are_those_of_the_pooled_confusion(
        self, summary: StudySummary, page: Section
    ) -> None:
        table = confusion(summary)
        shown = row(page, "Each target", "flat", "image", "AML")
        aml = LEAF("AML")
        assert value(shown[3]) == pytest.approx(100 * table[aml, aml] / table[aml].sum(), abs=0.06)
        assert value(shown[5]) == pytest.approx(100 * table[aml, aml] / table[:, aml].sum(), abs=0.06)
        low, high = map(float, shown[3].split("(")[1].rstrip(")").split(" to "))
        assert low < value(shown[3]) < high

    def test_leukemia_is_a_target(self, summary: StudySummary, page: Section) -> None:
        table, leukemic = confusion(summary), [LEAF("AML"), LEAF("APML")]
        shown = row(page, "Each target", "flat", "image", "leukemia")
        share = table[np.ix_(leukemic, leukemic)].sum() / table[leukemic].sum()
        assert value(shown[3]) == pytest.approx(100 * share, abs=0.06)

    def test_those_of_patients_are_decided_by_the_mean_probability(
        self, summary: StudySummary, page: Section
    ) -> None:
        unit = scores.unit(summary.runs)
        assert unit is not None
        right = total = 0
        for run in summary.runs:
            groups = scores.groups(run, "mean_probability", "greedy")
            right += int(((groups.true == LEAF("APML")) & (groups.predicted == LEAF("APML"))).sum())
            total += int((groups.true == LEAF("APML")).sum())
        shown = row(page, "Each target", "flat", unit, "APML")
        assert value(shown[3]) == pytest.approx(100 * right / total, abs=0.06)

    def test_the_mean_is_over_leaves_with_enough_patients(self, tmp_path: Path) -> None:
        """Reactive images come from three patients."""
        for expected in ONE:
            images = images_of_fold(expected["test_fold"])
            keep = (images["leaf"] != "reactive") | images["patient"].str.endswith("-3")
            write_run(tmp_path / "s", expected, images[keep].reset_index(drop=True))
        page = section_of.section(collect(tmp_path / "s", {**FLAT, "search": {"trials": 0}}, ONE))
        assert row(page, "Each target", "flat", "image", "reactive")[3].endswith("(not estimable)")
        assert "not estimable" not in row(page, "Each target", "flat", "image", "reactive")[4]  # specificity
        assert "not estimable" not in row(page, "Each target", "flat", "image", "AML")[3]
        means = [row(page, "Each target", "flat", "image", leaf)[3] for leaf in ("normal", "AML", "APML")]
        shown = row(page, "Each target", "flat", "image", "mean of 3 leaves")
        assert value(shown[3]) == pytest.approx(np.mean([value(cell) for cell in means]), abs=0.1)


class TestOperatingPoint:
    def test_thresholds_come_from_inner_folds_and_are_applied_to_the_test_fold(
        self, summary: StudySummary, page: Section
    ) -> None:
        target = clinical.targets(TREE)[-1]
        validations = inner.by_fold(summary, summary.arms[0])
        assert sorted(validations) == [0, 1, 2]
        counts = np.zeros(4)
        for run in summary.runs:
            of = validations[run.test_fold]
            assert not set(of.images["key"]) & set(run.images["key"])
            odds = clinical.log_odds(decide.leaf_logp(of.logp, TREE), target)
            at = clinical.threshold(odds, target.leaves[of.true], 0.95)
            called = clinical.log_odds(decide.leaf_logp(run.logp, TREE), target) > at
            true = target.leaves[run.true]
            counts += [
                np.sum(called & true),
                np.sum(called & ~true),
                np.sum(~called & true),
                np.sum(~called & ~true),
            ]
        rates = clinical.rates(counts)
        shown = row(page, "At the thresholds", "flat", "image", "leukemia")
        assert [value(cell) for cell in shown[3:5]] == pytest.approx(
            [100 * float(rates.specificity), 100 * float(rates.sensitivity)], abs=0.06
        )
        assert shown[5] == "3 of 3"
        assert abs(value(shown[3]) - 95) < 8

    def test_the_test_fold_itself_decides_no_threshold(self, summary: StudySummary) -> None:
        """Other labels and probabilities in the test folds leave the thresholds as they are."""
        from dataclasses import replace

        arm, targets = summary.arms[0], clinical.targets(TREE)
        before = of_report.cases(summary, arm, targets, of_patients=False)
        other = replace(arm, runs=tuple(replace(run, logp=run.logp[::-1]) for run in arm.runs))
        after = of_report.cases(summary, other, targets, of_patients=False)
        for one, two in zip(before, after, strict=True):
            np.testing.assert_array_equal(one.thresholds, two.thresholds)
            assert not np.array_equal(one.odds, two.odds)

    @pytest.mark.slow("makes a report")
    def test_without_inner_folds_a_sentence_says_why(self, whole: Path) -> None:
        page = section_of.section(collect(whole, STUDY, expected_runs()))
        assert "not estimable for flat, base, multilabel. Its threshold needs" in texts(page)
        assert not [
            b for b in page.blocks if isinstance(b, Table) and b.caption.startswith("At the thresholds")
        ]

    def test_the_study_gives_the_specificity(self, summary: StudySummary) -> None:
        from dataclasses import replace

        lower = replace(summary, study={**summary.study, "operating": {"specificity": 0.8}})
        page = section_of.section(lower)
        assert abs(value(row(page, "At the thresholds", "flat", "image", "leukemia")[3]) - 80) < 10


class TestCosts:
    COSTS: dict[str, dict[str, float]] = {"APML": {"AML": 20.0, "normal": 50.0}}  # noqa: RUF012

    def test_the_mean_cost_is_that_of_the_study(self, summary: StudySummary) -> None:
        root = summary.runs[0].folder.parent
        dear = collect(root, {**FLAT, "costs": self.COSTS}, ONE)
        table = confusion(dear)
        costs = TREE.lca_heights.astype(float)
        costs[LEAF("APML"), [LEAF("AML"), LEAF("normal")]] = 20, 50
        expected = (table * costs).sum() / table.sum()
        page = section_of.section(dear)
        assert value(row(page, "Agreement", "flat", "image")[4]) == pytest.approx(expected, abs=0.006)
        assert row(page, "The study's costs", "APML")[1 + LEAF("AML")] == "20"
        assert "gives no `costs`" not in texts(page)

    def test_the_rule_expected_cost_uses_them(self, summary: StudySummary) -> None:
        root = summary.runs[0].folder.parent
        dear = collect(root, {**FLAT, "costs": self.COSTS, "decision": "expected_cost"}, ONE)
        cheap = collect(root, {**FLAT, "decision": "expected_cost"}, ONE)
        apml = [sum((run.predicted == LEAF("APML")).sum() for run in of.runs) for of in (dear, cheap)]
        assert apml[0] > apml[1]
        rules = decisions.section(dear)
        of_rules = {
            name: float(cells(rules, "flat", name)[5])
            for name in ("greedy", "joint", "expected cost (this study's)")
        }
        assert min(of_rules, key=lambda name: of_rules[name]) == "expected cost (this study's)"

    def test_a_leaf_that_the_data_lack_is_refused(self, summary: StudySummary) -> None:
        root = summary.runs[0].folder.parent
        with pytest.raises(
            InputError, match="study synthetic: costs: 'CLL' is no leaf of the data; use normal, "
        ):
            collect(root, {**FLAT, "costs": {"CLL": {"AML": 3.0}}}, ONE)


def test_agreement_and_calibration_are_those_of_the_pooled_predictions(
    summary: StudySummary, page: Section
) -> None:
    table = confusion(summary)
    shown = row(page, "Agreement", "flat", "image")
    assert value(shown[2]) == pytest.approx(float(clinical.mcc(table)), abs=0.006)
    assert value(shown[3]) == pytest.approx(
        float(clinical.weighted_kappa(table, TREE.lca_heights)), abs=0.006
    )
    target = clinical.targets(TREE)[LEAF("AML")]
    odds = [clinical.log_odds(decide.leaf_logp(run.logp, TREE), target) for run in summary.runs]
    fit = clinical.recalibrate(
        np.concatenate(odds), np.concatenate([target.leaves[run.true] for run in summary.runs])
    )
    assert fit is not None
    fitted = row(page, "Calibration", "flat", "AML")
    assert [value(cell) for cell in fitted[2:]] == pytest.approx([fit.slope, fit.intercept], abs=0.006)


def test_net_benefit_is_that_of_the_patients(summary: StudySummary, page: Section) -> None:
    target, p = clinical.targets(TREE)[-1], 0.2
    true, called = [], []
    for run in summary.runs:
        groups = scores.groups(run, "mean_probability", "greedy")
        true.append(target.leaves[groups.true])
        called.append(np.exp(decide.leaf_logp(groups.logp, TREE))[:, target.leaves].sum(axis=1) >= p)
    is_true, is_called = np.concatenate(true), np.concatenate(called)
    expected = np.mean(is_called & is_true) - np.mean(is_called & ~is_true) * 0.25
    shown = row(page, "Net benefit", "flat", "leukemia")
    assert value(shown[2 + of_report.PROBABILITIES.index(p)]) == pytest.approx(100 * expected, abs=0.06)
    prevalence = is_true.mean()
    everyone = row(page, "Net benefit", "all positive", "leukemia")
    assert float(everyone[4]) == pytest.approx(100 * (prevalence - (1 - prevalence) * 0.25), abs=0.06)
    folds = of_report.cases(summary, summary.arms[0], clinical.targets(TREE), of_patients=True)
    curve = of_report.benefit_curve(folds, len(TREE.leaves), target.leaves, np.array([p]))
    assert curve[0] == pytest.approx(expected, abs=1e-9)
    assert any(isinstance(block, Figure) and block.name == "net_benefit" for block in page.blocks)


def test_without_patients_there_are_values_and_no_intervals(tmp_path: Path) -> None:
    for expected in ONE:
        write_run(tmp_path / "s", expected, images_of_fold(expected["test_fold"], patients=False))
    page = section_of.section(collect(tmp_path / "s", {**FLAT, "search": {"trials": 0}}, ONE))
    shown = row(page, "Each target", "flat", "image", "AML")
    assert shown[3].endswith("(not estimable)")
    assert shown[7] == "unknown"
    assert row(page, "Each target", "flat", "image", "mean of 0 leaves")[3] == "–"


def test_a_missing_fold_and_a_leaf_without_images_are_left_out(tmp_path: Path) -> None:
    rows = [expected for expected in ONE if expected["test_fold"] != 2]
    for expected in rows:
        images = images_of_fold(expected["test_fold"])
        write_run(tmp_path / "s", expected, images[images["leaf"] != "normal"].reset_index(drop=True))
    page = section_of.section(collect(tmp_path / "s", {**FLAT, "search": {"trials": 0}}, ONE))
    shown = row(page, "Each target", "flat", "image", "normal")
    assert shown[3] == "–"  # no true image
    assert row(page, "Calibration", "flat", "normal")[2:] == ["–", "–"]


def test_a_second_repeat_of_the_same_results_changes_no_score(summary: StudySummary, page: Section) -> None:
    """Patients are the units: testing them twice makes no interval narrower."""
    from dataclasses import replace

    arm = summary.arms[0]
    again = [replace(run, repeat=1, test_fold=run.test_fold + 3, name=f"{run.name}-1") for run in arm.runs]
    searches = {"flat": {**summary.searches["flat"]}}
    for fold, search in summary.searches["flat"].items():
        searches["flat"][fold + 3] = replace(search, test_fold=fold + 3)
    study = {**summary.study, "folds": {"outer": 3, "repeats": 2}}
    twice = replace(summary, arms=(replace(arm, runs=(*arm.runs, *again)),), searches=searches, study=study)
    other = section_of.section(twice)
    for first in (("flat", "image", "AML"), ("flat", "image", "leukemia")):
        assert row(other, "Each target", *first) == row(page, "Each target", *first)
        one, two = (row(of, "At the thresholds", *first) for of in (page, other))
        assert one[3:5] == two[3:5]
        assert two[5] == "6 of 6"
    assert row(other, "Agreement", "flat", "image") == row(page, "Agreement", "flat", "image")
