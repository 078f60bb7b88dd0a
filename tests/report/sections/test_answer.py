"""The table of the settings that the paper leaves out: borders, importance, interval over the top trials,
re-runs."""

import math

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
    report,
    section,
    table_row,
    write_run,
    write_search,
)

ANSWER = "The answer: what the paper leaves out"
DOMAINS = {**SPACE, "optim.weight_decay": {"uniform": [0.0, 0.3]}}


class TestBorder:
    @pytest.mark.parametrize(
        ("domain", "value", "side"),
        [
            ({"uniform": [0, 5]}, 4.9, "upper"),
            ({"uniform": [0, 5]}, 0.1, "lower"),
            ({"uniform": [0, 5]}, 2.0, ""),
            ({"loguniform": [1e-6, 1e-3]}, 1.1e-6, "lower"),
            ({"loguniform": [1e-6, 1e-3]}, 2e-5, ""),
            ({"choice": [16, 32, 64]}, 64, "upper"),
            ({"choice": [16, 32, 64]}, 32, ""),
            ({"choice": [1, 10]}, 10, ""),
            ({"choice": ["a", "b", "c"]}, "a", ""),
            ({"choice": [None, 1, 2]}, 1, ""),
        ],
    )
    def test_which_values_lie_on_it(self, domain, value, side):
        assert space.border(domain, value) == side

    @pytest.mark.slow("makes a report")
    def test_the_report_flags_them_beside_the_papers_values(self, pages):
        markdown, *_ = pages
        flat, _, multilabel = markdown.split("`flat`: of one search.")[1].split(": of one search.")
        rate = next(line for line in multilabel.splitlines() if line.startswith("| learning rate |"))
        cells = [cell.strip() for cell in rate.strip("|").split(" | ")]
        assert cells[:4] == ["learning rate", "1e-6", "1e-06 to 0.001, log", "1.1e-06"]
        assert cells[5:] == ["not estimable", "lower border"]
        assert "| head learning rate multiplier | not stated | not searched | 1 | – | – | – |" in flat
        assert (
            "optim.lr of multilabel, optim.batch_size of multilabel. A better value may lie outside"
            in markdown
        )
        assert "loss.gamma of base, optim.lr of multilabel" in markdown


class TestPlaces:
    def test_values_that_a_table_reads_as_floats_find_their_choice(self):
        column = pd.Series([16, math.nan, 64], dtype=float)
        np.testing.assert_array_equal(space.place({"choice": [16, None, 64]}, column), [0, 1, 2])
        assert math.isnan(space.place({"choice": [16, 64]}, [32])[0])

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


class TestImportance:
    def test_finds_the_key_that_matters(self):
        importances = importance([completed(planted())], DOMAINS)
        assert set(importances) == set(DOMAINS)
        assert importances["optim.lr"] > 0.8
        assert importances == importance([completed(planted())], DOMAINS)

    def test_a_range_counts_as_it_was_drawn(self):
        """The score differs only below 1e-5. That is a third of the logarithmic range and 1 % of the linear
        one."""
        trials = planted(40)
        trials["macro_f1"] = np.where(trials["optim.lr"] < 1e-5, 0.2, 0.8)
        assert importance([completed(trials)], DOMAINS)["optim.lr"] > 0.9

    def test_is_not_estimable_from_few_trials_or_without_spread(self):
        trials = completed(planted(10))
        assert importance([trials], DOMAINS) is not None
        assert importance([trials.assign(state=["stopped"] + ["completed"] * 9)], DOMAINS) is None
        assert importance([trials.assign(macro_f1=0.5)], DOMAINS) is None

    def test_a_key_that_some_trials_lack_is_left_out(self):
        trials = completed(planted(20))
        trials.loc[trials.index[::2], "loss.gamma"] = np.nan
        importances = importance([trials], DOMAINS)
        assert set(importances) == set(DOMAINS) - {"loss.gamma"}
        assert importances["optim.lr"] > 0.6

    def test_searches_of_few_trials_are_pooled_and_a_harder_fold_has_no_effect(self):
        """Four searches of six trials each. One alone has too few. The folds differ by more than any key
        explains."""
        searches = [
            completed(planted(6, seed)).assign(macro_f1=lambda t, f=seed: t["macro_f1"] / 4 - 0.2 * f)
            for seed in range(4)
        ]
        assert importance(searches[:1], DOMAINS) is None
        assert importance(searches, DOMAINS)["optim.lr"] > 0.6


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
    return report(root, root.parent / "out", study, expected=expected)[0]


@pytest.mark.slow("makes a report")
class TestNested:
    def test_the_table_has_median_range_and_borders_over_folds(self, nested):
        together = table_row(nested, ANSWER, "learning rate")
        own = section(nested, ANSWER).split("`flat`: ")[1]
        row = table_row(f"\n## flat\n{own}", "flat", "learning rate")
        assert row[3] == "0.00095 (0.0001 to 0.00099)"
        assert together[3] == f"{row[3]}; top: {row[4]}; {row[6]}"
        assert row[6] == "upper border, 2 of 3"
        low, high = (float(value) for value in row[4].split(" to "))
        assert 1e-5 < low < high <= 1e-3
        assert float(row[5].split(" %")[0]) > 60
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
        markdown, _ = report(tmp_path / "s", tmp_path / "out", study, expected=[])
        assert "No search has ended for flat (fold 1, 2)" in markdown


def test_the_top_are_at_most_half_of_the_completed():
    trials = completed(planted(7))
    assert len(answer.top(trials)) == 4
    assert answer.top(trials)["macro_f1"].is_monotonic_decreasing
    assert len(answer.top(completed(planted(24)))) == answer.TOP
    assert answer.top(trials.assign(state="stopped")).empty


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
