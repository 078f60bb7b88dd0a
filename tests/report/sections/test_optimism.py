"""Inner scores against outer scores: the difference with its spread, whatever its sign."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from leukotree.evaluation import decide, metrics
from leukotree.report.collect import collect
from leukotree.report.prose import search as prose
from leukotree.report.sections import optimism
from leukotree.report.sections.searches import section
from leukotree.report.summary import StudySummary
from tests.helpers.study_results import (
    STUDY,
    cells,
    expected_runs,
    images_of_fold,
    random_trials,
    write_run,
    write_search,
)

NESTED = {**STUDY, "variants": ["flat", "base"], "search": {**STUDY["search"], "nested": True}}


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> StudySummary:
    """Runs of all folds of flat, and of fold 0 of base. The searches of base have re-runs."""
    root = tmp_path_factory.mktemp("optimism")
    expected = expected_runs(variants=("flat", "base"))
    for row in expected:
        if row["variant"] == "flat" or row["test_fold"] == 0:
            write_run(root, row, images_of_fold(row["test_fold"]))
    for variant in ("flat", "base"):
        for fold in range(3):
            best = {"trial": fold, "test_fold": fold}
            again = {
                "value": 0.4 + fold / 10,
                "search_trial": fold,
                "search_value": 0.5,
                "optimism": -0.1,
                "rerun_seeds": [7],
                "reruns": [{"trial": fold, "scores": [0.4 + fold / 10]}],
            }
            folder = root / "search" / variant / f"fold{fold}"
            trials = random_trials(variant)[["macro_f1", *STUDY["search"]["space"]]]
            extra = again if variant == "base" else {}
            write_search(folder, variant, {"loss.gamma": 1.0}, trials, **{**best, **extra})
    return collect(root, NESTED, expected)


def outer(summary: StudySummary, variant: str, fold: int) -> float:
    runs = [run for run in summary.runs if (run.variant, run.test_fold) == (variant, fold)]
    decided = [decide.greedy(run.logp, run.taxonomy) for run in runs]
    return float(
        np.mean([metrics.macro_f1(run.true, one, 4) for run, one in zip(runs, decided, strict=True)])
    )


@pytest.mark.slow("makes a report")
def test_the_difference_and_its_spread_are_those_of_the_folds(summary: StudySummary) -> None:
    inner = random_trials("flat")["macro_f1"]
    differences = [inner[fold] - outer(summary, "flat", fold) for fold in range(3)]
    part = section(summary)
    assert part is not None
    assert cells(part, "`flat`", optimism.SEARCH)[2:] == [
        f"{100 * np.mean(differences):+.1f}",
        f"{100 * np.std(differences, ddof=1):.1f}",
        f"{100 * min(differences):+.1f}",
        f"{100 * max(differences):+.1f}",
        "3",
    ]


def test_one_fold_has_no_spread_and_reruns_have_their_own_row(summary: StudySummary) -> None:
    part = section(summary)
    assert part is not None
    expected = outer(summary, "base", 0)
    searched = random_trials("base")["macro_f1"][0] - expected
    assert cells(part, "`base`", optimism.SEARCH)[2:] == [f"{100 * searched:+.1f}", "–", "–", "–", "1"]
    assert cells(part, "`base`", optimism.AGAIN)[2:] == [
        f"{100 * (0.4 - expected):+.1f}",
        "–",
        "–",
        "–",
        "1",
    ]


def test_both_signs_occur(summary: StudySummary) -> None:
    """Neither the numbers nor the text know the sign before."""
    inner = random_trials("flat")["macro_f1"]
    signs = {math.copysign(1, inner[fold] - outer(summary, "flat", fold)) for fold in range(3)}
    assert signs == {-1.0, 1.0}
    text = " ".join(prose.OPTIMISM.split())
    assert "too low" in text
    assert "too high" in text
    assert "therefore optimistic" not in text


def test_without_runs_there_is_no_difference(tmp_path: Path) -> None:
    write_search(tmp_path / "search" / "flat" / "fold0", "flat", {"loss.gamma": 1.0})
    alone = collect(tmp_path, {**NESTED, "variants": ["flat"]}, [])
    assert [block.kind for block in optimism.blocks(alone)] == ["text"]
