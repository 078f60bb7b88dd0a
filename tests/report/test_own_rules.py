"""The secondary comparison: each arm by the rule of its own method, beside the one rule of the report."""

import dataclasses

import numpy as np
import pytest

from leukotree import spec, stats
from leukotree.evaluation import decide, metrics
from leukotree.report import own_rules, scores
from leukotree.report.blocks import Table
from leukotree.report.collect import collect
from leukotree.report.sections import comparison
from tests.helpers.study_results import STUDY, TREE, expected_runs, section, table_row, texts

TITLE = "Is a hierarchy better?"
SECONDARY = "Secondary: each arm by its own rule."


@pytest.fixture(scope="module")
def summary(whole):
    return collect(whole, STUDY, expected_runs())


@pytest.mark.parametrize(
    ("variant", "loss", "rule"),
    [
        ("flat", "focal", "joint"),
        ("flat", "soft", "joint"),
        ("ensemble", "conditional", "joint"),
        ("base", "focal", "greedy"),
        ("base", "conditional", "greedy"),
        ("multilabel", "focal", "greedy"),
        ("multilabel", "conditional", "greedy"),
        ("multilabel", "soft", "joint"),
        ("multilabel", "marginal", "joint"),
    ],
)
def test_the_rule_of_each_method(variant, loss, rule):
    assert own_rules.own_rule(variant, loss) == rule


def test_every_variant_has_a_rule_of_the_table():
    for variant in spec.VARIANTS:
        assert own_rules.own_rule(variant, "focal") in decide.RULES


def test_it_compares_joint_leaves_of_flat_with_greedy_leaves_of_the_others(summary, pages):
    table = section(pages[0], TITLE).split(SECONDARY)[1]
    for challenger in ("base", "multilabel"):
        folds = []
        for fold in range(3):
            by_arm = {}
            for variant, rule in ((challenger, "greedy"), ("flat", "joint")):
                runs = [run for run in summary.runs if (run.variant, run.test_fold) == (variant, fold)]
                by_arm[variant] = np.mean(
                    [metrics.macro_f1(run.true, decide.leaves(run.logp, TREE, rule), 4) for run in runs]
                )
            folds.append(by_arm[challenger] - by_arm["flat"])
        test = stats.nadeau_bengio(folds, scores.ratio(summary))
        line = next(line for line in table.splitlines() if line.startswith(f"| {challenger} − flat |"))
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[1] == "greedy − joint"
        assert cells[2:4] == [f"{100 * test.mean:+.1f}", f"{100 * test.low:.1f} to {100 * test.high:.1f}"]


def test_it_has_no_verdict_and_leaves_the_primary_family_as_it_is(summary, pages):
    table = section(pages[0], TITLE).split(SECONDARY)[1].split("\n\n")[1]
    assert "Holm" not in table
    assert not any(verdict in table for verdict in ("better", "worse", "equivalent", "inconclusive"))
    first = comparison.compare(summary)[0]
    assert table_row(pages[0], TITLE, "base − flat", "image")[2:4] == [
        first.verdict,
        f"{100 * first.mean:+.1f}",
    ]


def test_where_all_own_rules_are_the_common_rule_a_sentence_says_so(whole):
    study = {**STUDY, "primary": [["multilabel", "base"]]}
    part = comparison.section(one := collect(whole, study, expected_runs()), comparison.compared(one))
    assert "Secondary: the own rule of each of these arms is `greedy`, too." in texts(part)
    assert not any(SECONDARY in block.caption for block in part.flat if isinstance(block, Table))


def test_an_arm_whose_searches_chose_two_losses_has_both_rules(summary):
    """Its runs are decided one by one."""
    arms = {arm.name: arm for arm in summary.arms}
    mixed = [
        dataclasses.replace(run, loss="soft" if run.test_fold == 0 else "focal")
        for run in arms["multilabel"].runs
    ]
    rules = [
        np.array_equal(own_rules.decided(run).predicted, decide.joint(run.logp, TREE))
        for run in mixed
        if run.test_fold == 0
    ]
    assert all(rules)
    arms["multilabel"] = dataclasses.replace(arms["multilabel"], runs=tuple(mixed))
    one = dataclasses.replace(summary, arms=tuple(arms.values()))
    table, _ = own_rules.blocks(one, comparison.compare(one))
    assert table.rows[1][:2] == ["multilabel − flat", "greedy or joint − joint"]


def test_without_a_common_fold_there_is_no_table(whole):
    expected = [row for row in expected_runs() if row["variant"] == "flat"]
    one = collect(whole, STUDY, expected)
    part = comparison.section(one, comparison.compared(one))
    assert "Secondary" not in texts(part)
