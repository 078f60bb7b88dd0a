"""The table of the settings that the paper leaves out: chosen values, borders, what the posterior says,
re-runs."""

import re

import numpy as np
import pandas as pd
import pytest

from leukotree.report import space
from leukotree.report.collect import collect
from leukotree.report.sections import answer, searches
from tests.helpers.study_results import (
    SPACE,
    STUDY,
    completed,
    expected_runs,
    images_of_fold,
    markdown_of,
    table_row,
    write_run,
    write_search,
)

ANSWER = "The answer: what the paper leaves out"
DOMAINS = {**SPACE, "optim.weight_decay": {"uniform": [0.0, 0.3]}}


@pytest.mark.slow("makes a report")
def test_the_report_flags_chosen_values_on_a_border_beside_the_papers_values(pages):
    markdown, *_ = pages
    row = table_row(markdown, ANSWER, "learning rate", "1e-6", "1e-06 to 0.001, log", "chosen")
    assert row[6] == "1.1e-06; lower border"
    region = table_row(markdown, ANSWER, "learning rate", "1e-6", "1e-06 to 0.001, log", answer.QUESTIONS[1])
    assert region[4:] == ["not estimable"] * 3
    row = table_row(markdown, ANSWER, "head learning rate multiplier", "not stated", "not searched", "fixed")
    assert row[4:] == ["1", "1", "1"]
    assert (
        "optim.lr of multilabel, optim.batch_size of multilabel. A better value may lie outside" in markdown
    )
    assert "loss.gamma of base, optim.lr of multilabel" in markdown


class TestTexts:
    @pytest.mark.parametrize(
        ("domain", "values", "text"),
        [
            ({"uniform": [0, 5]}, [2.0, 0.5, 1.0], "0.5 to 2"),
            ({"loguniform": [1e-6, 1e-3]}, [1e-5], "1e-05"),
            ({"choice": [16, 32, 64]}, [64.0, 16.0, 64.0], "16 (1), 64 (2)"),
            ({"uniform": [0, 5]}, [], "–"),
        ],
    )
    def test_a_span_is_the_lowest_to_the_highest(self, domain, values, text):
        assert space.span(domain, values) == text

    @pytest.mark.parametrize(
        ("domain", "values", "text"),
        [
            ({"uniform": [0, 5]}, [2.0, 0.5, 1.0], "1 (0.5 to 2)"),
            ({"uniform": [0, 5]}, [1.5, 1.5], "1.5"),
            (
                {"choice": ["shared", "detached"]},
                ["shared", "detached", "shared"],
                "shared (2), detached (1)",
            ),
        ],
    )
    def test_the_middle_over_folds(self, domain, values, text):
        assert space.middle(domain, values) == text


def planted(n: int = 24, seed: int = 0) -> pd.DataFrame:
    """Trials whose score rises with log10 of the learning rate up to the border of its range. No other key
    matters."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "loss.gamma": rng.uniform(0, 5, n),
            "optim.lr": 10 ** rng.uniform(-6, -3, n),
            "optim.batch_size": rng.choice([16, 32, 64], n),
            "optim.weight_decay": rng.uniform(0, 0.3, n),
        }
    )
    return table.assign(macro_f1=0.9 + 0.1 * np.log10(table["optim.lr"]) + 0.005 * rng.normal(size=n))


@pytest.fixture(scope="module")
def nested(tmp_path_factory) -> str:
    """The report of a nested study whose best learning rate lies on the upper border in two of three
    folds."""
    root = tmp_path_factory.mktemp("nested") / "synthetic"
    expected = expected_runs(seeds=(0,), variants=("flat", "multilabel"))
    for row in expected:
        write_run(root, row, images_of_fold(row["test_fold"]))
    for variant in ("flat", "multilabel"):
        for fold, rate in enumerate([9.9e-4, 1e-4, 9.5e-4]):
            chosen = {
                "optim.lr": rate,
                "loss.gamma": 2.0 + fold,
                "optim.batch_size": 32,
                "optim.weight_decay": 0.1,
            }
            reruns = {
                "search_trial": 3,
                "search_value": 0.85,
                "optimism": 0.021,
                "value": 0.829,
                "trial": 3,
                "rerun_seeds": [7, 8],
                "reruns": [{"trial": 3, "scores": [0.82, 0.838]}, {"trial": 5, "scores": [0.8, None]}],
            }
            write_search(
                root / "search" / variant / f"fold{fold}",
                variant,
                chosen,
                planted(12, fold),
                test_fold=fold,
                **reruns,
            )
    study = {
        **STUDY,
        "variants": ["flat", "multilabel"],
        "seeds": [0],
        "search": {**STUDY["search"], "nested": True, "space": DOMAINS},
    }
    return markdown_of(root, root.parent / "out", study, expected=expected)


@pytest.mark.slow("makes a report")
class TestNested:
    def test_the_table_has_median_range_and_borders_over_folds(self, nested):
        lead = ("learning rate", "1e-6", "1e-06 to 0.001, log")
        chosen = table_row(nested, ANSWER, *lead, "chosen")
        assert chosen[4] == "0.00095 (0.0001 to 0.00099); upper border, 2 of 3"
        low, high = map(float, table_row(nested, ANSWER, *lead, answer.QUESTIONS[1])[4].split(" to "))
        assert 1e-6 <= low < high <= 1e-3
        for question in ("best on the border", "the paper's 1e-06 is good enough"):
            assert 0 <= float(table_row(nested, ANSWER, *lead, question)[4]) <= 1
        shares = re.findall(r"[0-9.]+", table_row(nested, ANSWER, *lead, "importance")[4])
        importance, low, high = map(float, shares)
        assert 0 <= low <= importance <= high <= 100
        assert "optim.lr of flat (fold 0, 2), optim.lr of multilabel (fold 0, 2). A better value" in nested

    def test_every_fold_is_clean(self, nested):
        assert "not nested" not in nested
        assert table_row(nested, "Folds", "2", "flat")[2] == "own search"
        assert table_row(nested, "Search", "flat", "2")[6] == "0"

    def test_the_best_of_the_search_stands_beside_its_reruns(self, nested):
        assert table_row(nested, "Search", "multilabel", "1", "3", "2 × 2")[4:] == ["85.0", "+2.1", "82.9"]

    def test_the_best_trials_stand_with_their_own_scores(self, nested):
        best = planted(12, 0)["macro_f1"]
        row = table_row(nested, "Search", "flat", "0", "1")
        assert row[3:5] == [str(best.idxmax()), f"{100 * best.max():.1f}"]

    def test_a_search_that_has_not_ended_is_named(self, nested, tmp_path):
        for fold in (0, 1):
            write_search(
                tmp_path / "s" / "search" / "flat" / f"fold{fold}",
                "flat",
                {"optim.lr": 1e-4},
                planted(12, fold),
            )
        (tmp_path / "s" / "search" / "flat" / "fold1" / "best.yaml").unlink()
        study = {
            **STUDY,
            "variants": ["flat"],
            "search": {**STUDY["search"], "nested": True, "space": DOMAINS},
        }
        markdown = markdown_of(tmp_path / "s", tmp_path / "out", study, expected=[])
        assert "No search has ended for flat (fold 1, 2)" in markdown


def test_the_top_are_at_most_half_of_the_completed():
    trials = completed(planted(7))
    assert len(searches.top(trials)) == 4
    assert searches.top(trials)["macro_f1"].is_monotonic_decreasing
    assert len(searches.top(completed(planted(24)))) == searches.TOP
    assert searches.top(trials.assign(state="stopped")).empty


def test_many_searches_show_fewer_trials_each(tmp_path):
    for fold in range(12):
        write_search(
            tmp_path / "search" / "flat" / f"fold{fold}", "flat", {"optim.lr": 1e-4}, planted(12, fold)
        )
    study = {
        **STUDY,
        "variants": ["flat"],
        "folds": {"outer": 12, "inner": 2},
        "search": {**STUDY["search"], "nested": True, "space": DOMAINS},
    }
    table = next(
        block
        for block in searches.section(collect(tmp_path, study, [])).blocks
        if getattr(block, "labels", 0) == 4
    )
    assert len(table.rows) == 12 * (searches.MOST_ROWS // 12)
