"""What source, site, scanner and colour give away stands beside the arms."""

import json
import math
from dataclasses import replace

import pandas as pd
import pytest

from leukotree.records import audited
from leukotree.records.audited import Audited
from leukotree.report import scores
from leukotree.report.blocks import Table, Text
from leukotree.report.collect import collect
from leukotree.report.sections import shortcuts
from tests.helpers import study_results
from tests.helpers.study_results import STUDY, expected_runs


@pytest.fixture(scope="module")
def summary(whole):
    return collect(whole, STUDY, expected_runs())


def beside(summary, folder):
    """The same study with shards in a folder."""
    data = summary.base.data.model_copy(update={"shards": str(folder)})
    return replace(summary, base=summary.base.model_copy(update={"data": data}))


@pytest.fixture
def joined(copy):
    """A study over two sources: those of AML and APML are the same as the leaf, the others are mixed."""
    for path in copy.glob("*/predictions.parquet"):
        frame = pd.read_parquet(path)
        mixed = pd.Series([["delhi", "lyon"][number % 2] for number in range(len(frame))])
        own = frame["leaf"].map({"AML": "delhi", "APML": "lyon"})
        frame.assign(source=own.fillna(mixed)).to_parquet(path)
    return copy


def by_fold(summary):
    return scores.per_fold(scores.per_run(summary, scores.shown(summary)))


def test_without_an_audit_one_source_has_the_most_common_leaf_alone(summary):
    reached = shortcuts.reached(summary)
    assert list(reached) == ["always reactive"]
    assert reached["always reactive"] < 0.25
    assert shortcuts.section(summary) is None
    assert shortcuts.warning(summary, by_fold(summary)) == []


def test_the_audit_of_these_data_stands_beside_the_models(summary, tmp_path):
    here = beside(summary, tmp_path)
    found = {"colour only": 0.73, "commonest leaf": 0.2, "source only": math.nan}
    audited.keep(tmp_path, "d" * 64, Audited(found, {"colour only": {"AML": 0.6}}, {"colour only": 0.9}))
    assert shortcuts.reached(here)["colour only"] == 0.73
    assert len(shortcuts.reached(here)) == 2
    first, second = (block for block in shortcuts.section(here).blocks if isinstance(block, Table))
    assert first.header == ["answer", "macro F1", "normal", "reactive", "AML", "APML"]
    assert [row[0] for row in first.rows] == ["flat", "base", "multilabel", "colour only", "commonest leaf"]
    assert first.rows[3] == ["colour only", "73.0", "–", "–", "60.0", "–"]
    assert second.rows == [["colour only", "90.0"]]
    audited.keep(tmp_path, "e" * 64, Audited({"colour only": 0.73}))  # of other data
    assert len(shortcuts.reached(here)) == 1


def test_the_first_warning_says_how_far_the_source_alone_gets(joined, tmp_path):
    summary = collect(joined, STUDY, expected_runs())
    markdown = study_results.markdown_of(joined, tmp_path / "out")
    reached = shortcuts.reached(summary)
    assert reached["source only"] > reached["always reactive"] + 0.1
    warning = next(line for line in markdown.splitlines() if "arning" in line)
    assert f"The source alone reaches a macro F1 of {100 * reached['source only']:.1f} %" in warning
    assert "Of one source alone: AML (delhi), APML (lyon)." in warning
    assert "multilabel" in warning


def test_the_arms_have_their_own_f1_of_each_leaf(joined):
    summary = collect(joined, STUDY, expected_runs())
    section = shortcuts.section(summary)
    rows = {row[0]: row for row in section.blocks[0].rows}
    means = by_fold(summary).groupby("arm")["macro_f1"].mean()
    assert rows["flat"][1] == f"{100 * means['flat']:.1f}"
    of_leaves = [float(cell) for cell in rows["flat"][2:]]
    assert sum(of_leaves) / 4 == pytest.approx(100 * means["flat"], abs=0.1), "every fold has every leaf"
    assert any("leukotree audit" in block.text for block in section.blocks if isinstance(block, Text))


def test_a_source_that_is_independent_of_the_leaf_is_a_note(copy):
    """It answers two leaves and scores more than the most common one, but no more than a shuffled source."""
    for path in copy.glob("*/predictions.parquet"):
        frame = pd.read_parquet(path)
        number = frame["patient"].str.split("-").str[1].astype(int)  # even ones have AML, odd ones APML
        frame.assign(source=(number // 2 % 2).map({0: "delhi", 1: "lyon"})).to_parquet(path)
    summary = collect(copy, STUDY, expected_runs())
    reached = shortcuts.reached(summary)
    assert reached["source only"] > reached["always reactive"] + shortcuts.CLOSE
    (said,) = shortcuts.warning(summary, by_fold(summary))
    assert said.tone == "note"
    assert f"The source alone reaches a macro F1 of {100 * reached['source only']:.1f} %." in said.text
    assert "the source gives no leaf away" in said.text


def test_folds_of_sources_say_nothing_about_the_leaf(copy):
    """The source of a held-out fold was never seen, so the answer is always the most common leaf."""
    for path in copy.glob("*/predictions.parquet"):
        frame = pd.read_parquet(path)
        frame.assign(source=f"site {frame['key'].iloc[0][1]}").to_parquet(path)
    summary = collect(copy, STUDY, expected_runs())
    (said,) = shortcuts.warning(summary, by_fold(summary))
    assert said.tone == "note"


def test_one_finished_fold_leaves_it_open(joined):
    for path in joined.glob("*/status.json"):
        if not path.parent.name.split("-")[1].startswith("000000"):
            path.write_text(json.dumps({"state": "running"}))
    summary = collect(joined, STUDY, expected_runs())
    (said,) = shortcuts.warning(summary, by_fold(summary))
    assert said.tone == "warning"
    assert "not known yet" in said.text
