"""What `leukotree report` prints: five lines."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import f1_score

from leukotree.report import page, scores
from leukotree.report.blocks import percent
from leukotree.report.collect import collect
from tests.helpers.study_results import STUDY, expected_runs, table_row


@pytest.mark.slow("makes a report")
def test_a_finished_study_is_five_lines(whole, pages, tmp_path):
    lines = page.render(collect(whole, STUDY, expected_runs()), tmp_path).lines
    assert len(lines) == 5
    assert lines[0].startswith("Study synthetic: patients 36, images ")
    assert lines[1].startswith("multilabel is better than flat by ")
    assert f"flat {table_row(pages[0], '', 'flat')[5]}" in lines[2]
    assert lines[3].startswith("Differences: multilabel − flat +")
    assert lines[4].endswith("warnings in the report")
    assert int(lines[4].split()[0]) == pages[0].count("> **Warning:**")
    assert np.all([len(line) <= 110 for line in lines])


@pytest.mark.slow("makes a report")
def test_without_runs_it_says_what_is_there(copy, tmp_path):
    for row in expected_runs():
        shutil.rmtree(copy / row["run_name"])
    lines = page.render(collect(copy, STUDY, expected_runs()), tmp_path).lines
    assert lines[:2] == [
        "Study synthetic: no run of an outer fold has a result yet",
        "Searches: flat, base, multilabel",
    ]


@pytest.mark.slow("makes a report")
def test_the_table_has_the_arms_beside_answers_without_morphology(whole, pages, tmp_path):
    summary = collect(whole, STUDY, expected_runs())
    table = page.render(summary, tmp_path).table
    cells = {line[:25].strip(): line for line in table}
    assert table[0].split() == ["macro", "F1,", "%"]
    for arm in ("flat", "base", "multilabel"):
        assert table_row(pages[0], "", arm)[5] in next(line for line in table if line.startswith(f"{arm} "))
    assert any(name.startswith("always ") for name in cells)
    guess = percent(scores.guessed(summary.runs))
    assert next(line for line in table if line.startswith("a random guess, 1 of 4")).endswith(guess)
    assert not any("Inconclusive" in line for line in table)  # one verdict is "better"


def test_a_random_guess_is_worse_where_leaves_are_rare(whole):
    """As scikit-learn scores guesses of many images with the leaves of the study."""
    run = collect(whole, STUDY, expected_runs()).runs[0]
    rng = np.random.default_rng(0)
    for shares in ([0.25, 0.25, 0.25, 0.25], [0.85, 0.1, 0.03, 0.02]):
        leaves = np.repeat(np.arange(4), np.multiply(shares, 200_000).astype(int))
        guesses = rng.integers(0, 4, len(leaves))
        measured = f1_score(leaves, guesses, average="macro")
        assert scores.guessed([replace(run, true=leaves)]) == pytest.approx(measured, abs=0.003)
