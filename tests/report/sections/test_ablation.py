"""The report of a grid: each cell against the first cell of its variant, and the sections of learning
rates."""

import re

import pytest

from leukotree import stats
from leukotree.report import scores
from leukotree.report.collect import collect
from leukotree.report.sections import ablation, comparison, learning_rate
from tests.helpers.study_results import (
    STUDY,
    expected_runs,
    images_of_fold,
    markdown_of,
    section,
    table_row,
    write_run,
)

pytestmark = pytest.mark.slow("renders many reports")

RATES = (1e-6, 1e-4, 1e-3)
SKILLS = (0.0, 1.0, 5.0)
VARIANTS = ("flat", "multilabel")
GRID = {
    **STUDY,
    "variants": list(VARIANTS),
    "seeds": [0],
    "search": {"trials": 0},
    "folds": {"outer": 5, "inner": 2},
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> tuple:
    """A grid of three learning rates. The score rises with the rate."""
    root = tmp_path_factory.mktemp("grid") / "synthetic"
    cells = []
    for number, (rate, skill) in enumerate(zip(RATES, SKILLS, strict=True)):
        for row in expected_runs(folds=5, seeds=(0,), variants=VARIANTS):
            name = f"{row['run_name']}-{number}"
            write_run(root, {**row, "run_name": name}, images_of_fold(row["test_fold"]), skill=skill)
            cells.append({**row, "run_name": name, "cell": number, "optim.lr": rate})
    return root, cells


@pytest.fixture(scope="module")
def markdown(rows, tmp_path_factory) -> str:
    root, cells = rows
    return markdown_of(root, tmp_path_factory.mktemp("out"), GRID, expected=[], cells=cells)


def test_cells_are_compared_with_the_first_of_their_variant(rows, markdown):
    root, cells = rows
    summary = collect(root, GRID, [], cells)
    arms = {arm.name: comparison.of_arm(arm.runs) for arm in summary.arms}
    pairs = [(arm.name, f"{arm.variant} lr=1e-06") for arm in summary.arms if arm.cell]
    assert len(pairs) == 4
    for difference in stats.compare(arms, pairs, scores.ratio(summary), 0.01):
        variant, rate = difference.challenger.split(" lr=")
        row = table_row(markdown, "Ablation", variant, str(RATES.index(float(rate))))
        low, high = difference.interval
        assert row[4:7] == [f"{100 * difference.mean:+.1f}", f"{100 * low:.1f} to {100 * high:.1f}", row[6]]
        assert row[7:] == [difference.verdict, "5"]
    assert table_row(markdown, "Ablation", "flat", "0")[4] == "reference"
    assert table_row(markdown, "Ablation", "flat", "2")[7] == "better"


def test_reference_and_family_do_not_depend_on_which_runs_have_ended(rows, tmp_path):
    """The first cell of flat has no run yet."""
    root, cells = rows
    cells = [
        row | {"run_name": "absent"} if (row["variant"], row["cell"]) == ("flat", 0) else row for row in cells
    ]
    markdown = markdown_of(root, tmp_path, GRID, expected=[], cells=cells)
    assert "The 4 comparisons are one family" in section(markdown, "Ablation").replace("\n", " ")
    assert table_row(markdown, "Ablation", "flat", "0")[3:] == ["–", "reference", "–", "–", "–", "0"]
    assert table_row(markdown, "Ablation", "flat", "1")[4:] == [
        "–",
        "not estimable",
        "–",
        "not estimable",
        "5",
    ]
    assert table_row(markdown, "Ablation", "multilabel", "2")[7] == "better"


def test_the_papers_rate_is_compared_with_the_best_rate_and_with_the_most_common_leaf(rows, markdown):
    title = "What a learning rate can learn"
    text = section(markdown, title)
    assert text.count("At the paper's 1e-6") == 2
    worst, best = (table_row(markdown, title, "flat", "–", rate) for rate in ("1e-06", "0.001"))
    assert float(worst[5]) == pytest.approx(float(worst[3]) - float(best[3]), abs=0.11)
    assert best[5] == "+0.0"
    assert worst[6:] == ["2 to 1", "0.0006"]
    root, cells = rows
    common, _ = scores.most_common(collect(root, GRID, [], cells).runs)
    above = f"flat scores {worst[4]} points above always answering {common}"
    assert f"{above} and {worst[5]} points from its best rate, 0.001" in text


def test_the_declared_comparisons_of_a_grid_are_those_of_equal_cells(markdown):
    row = table_row(markdown, "Is a hierarchy better?", "multilabel lr=0.001 − flat lr=0.001", "image")
    assert row[2] in ("better", "worse", "equivalent", "inconclusive")
    assert re.search(r"^leukotree grid study\.yaml$", markdown, re.MULTILINE)
    assert "leukotree sweep" not in markdown


def test_a_study_without_a_grid_has_no_ablation(whole):
    summary = collect(whole, STUDY, expected_runs())
    assert ablation.section(summary) is None
    assert learning_rate.section(summary) is None


def test_many_arms_are_not_all_shown_in_detail(rows, tmp_path):
    root, cells = rows
    markdown = markdown_of(
        root,
        tmp_path,
        {**GRID, "primary": [["multilabel lr=0.001", "flat lr=0.001"]]},
        expected=[],
        cells=cells,
    )
    assert "2 of 6 arms are shown in detail. All arms are under Ablation." in markdown
    assert table_row(markdown, "Ablation", "flat", "0")
    with pytest.raises(StopIteration):
        table_row(markdown, "Tree", "flat lr=1e-06")
