"""The card and the key tables of the page: their numbers are those of the stored predictions."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats
from sklearn.metrics import f1_score

from leukotree.report.collect import collect
from leukotree.report.sections import card, comparison
from tests.helpers.study_results import NESTED, STUDY, TREE, expected_runs, table_row


def macro(whole: Path, variant: str, fold: int) -> float:
    """Macro F1 of a fold, mean over seeds, read from the files by walking the pruned tree."""
    scores = []
    for seed in (0, 1):
        frame = pd.read_parquet(whole / f"{variant}-{fold:06x}{seed:06x}" / "predictions.parquet")
        top = frame[["logp:normal", "logp:reactive", "logp:leukemia"]].to_numpy().argmax(axis=1)
        sub = frame[["logp:AML", "logp:APML"]].to_numpy().argmax(axis=1)
        predicted = [["normal", "reactive", ["AML", "APML"][s]][t] for t, s in zip(top, sub, strict=True)]
        scores.append(
            f1_score(frame["leaf"], predicted, labels=list(TREE.leaves), average="macro", zero_division=0)
        )
    return float(np.mean(scores))


@pytest.fixture(scope="module")
def summary(whole):
    return collect(whole, STUDY, expected_runs())


@pytest.fixture(scope="module")
def shown(summary):
    return card.card(summary, comparison.compared(summary))


@pytest.mark.parametrize("variant", ["base", "multilabel"])
def test_the_difference_and_its_interval_are_those_of_the_predictions(whole, shown, pages, variant):
    differences = np.array([macro(whole, variant, fold) - macro(whole, "flat", fold) for fold in range(3)])
    mean = differences.mean()
    # Nadeau and Bengio (2003): three folds, a test fold of half the training images.
    width = scipy_stats.t.ppf(0.975, 2) * math.sqrt(differences.var(ddof=1) * (1 / 3 + 1 / 2))
    row = next(row for row in shown.rows if row.name == f"{variant} − flat")
    assert row.difference == f"{100 * mean:+.1f}"
    assert row.interval == f"{100 * (mean - width):.1f} to {100 * (mean + width):.1f}"
    assert table_row(pages[0], "", f"{variant} − flat")[1:3] == [row.difference, row.interval]
    assert f'<span class="difference">{row.difference}</span>' in pages[1]


def test_the_headline_is_the_verdict_on_these_numbers(whole, shown):
    first = shown.rows[0]
    assert (first.name, first.verdict) == ("multilabel − flat", "better")
    gain = np.mean([macro(whole, "multilabel", fold) - macro(whole, "flat", fold) for fold in range(3)])
    assert shown.headline.startswith(
        f"`multilabel` is better than `flat` by {100 * gain:.1f} points of macro F1 (95 % "
    )


def test_the_facts_are_counted_in_the_files(whole, shown):
    frames = [pd.read_parquet(whole / f"flat-{fold:06x}000000" / "predictions.parquet") for fold in range(3)]
    facts = dict(shown.facts)
    assert facts["Images"] == f"{sum(map(len, frames)):,}"
    assert facts["Patients"] == str(sum(frame["patient"].nunique() for frame in frames))
    assert facts["Tested in"] == "3 folds, 2 seeds"
    assert facts["Data"] == "lab `dddddddddddd`"
    assert facts["Code"] == "`commit cccccccccccc`"
    assert "Last result" not in facts  # these runs did not note it


def test_the_date_is_that_of_the_last_result(copy):
    for number, status in enumerate(sorted(copy.glob("*/status.json"))):
        noted = json.loads(status.read_text()) | {"heartbeat": 1.7e9 + number}
        status.write_text(json.dumps(noted))
    summary = collect(copy, STUDY, expected_runs())
    facts = dict(card.card(summary, comparison.compared(summary)).facts)
    assert facts["Last result"] == "2023-11-14"


def test_the_files_of_the_key_tables_have_the_numbers_of_the_predictions(whole, pages):
    rows = {row["variant"]: row for row in csv.DictReader((pages[2] / "tables/scores.csv").open())}
    for variant in ("flat", "base", "multilabel"):
        folds = [macro(whole, variant, fold) for fold in range(3)]
        assert rows[variant]["macro F1"] == f"{100 * np.mean(folds):.1f}"
        assert rows[variant]["macro F1 sd"] == f"{100 * np.std(folds, ddof=1):.1f}"
    nodes = {row["node"]: row for row in csv.DictReader((pages[2] / "tables/nodes.csv").open())}
    runs = [
        pd.read_parquet(whole / f"base-{fold:06x}{seed:06x}" / "predictions.parquet")
        for fold in range(3)
        for seed in (0, 1)
    ]
    frame = pd.concat(runs)
    decided = frame[["logp:normal", "logp:reactive", "logp:leukemia"]].to_numpy().argmax(axis=1) == 2
    truly = frame["leaf"].isin(["AML", "APML"]).to_numpy()
    assert nodes["leukemia"]["images"] == str(truly.sum() // 2)
    assert nodes["leukemia"]["base: found"] == f"{100 * decided[truly].mean():.1f}"
    low, high = (float(nodes["leukemia"][f"base: found {end}"]) for end in ("low", "high"))
    assert low < 100 * decided[truly].mean() < high


def test_while_runs_are_missing_the_card_says_so(summary, whole):
    missing = collect(whole, NESTED | {"folds": {"outer": 4, "inner": 2}}, expected_runs(folds=4))
    shown = card.card(missing, comparison.compared(missing))
    assert shown.early == "Preliminary: 18 of 24 runs have a result."
    assert card.card(summary, comparison.compared(summary)).early == ""


def test_one_arm_has_no_verdict(whole):
    alone = collect(whole, STUDY | {"variants": ["flat"]}, expected_runs(variants=("flat",)))
    shown = card.card(alone, comparison.compared(alone))
    assert shown.headline == "No comparison is declared, so there is no verdict."
    assert not shown.rows
    assert [figure.name for figure in shown.figures] == ["scores"]
