"""Reports of studies that are not finished, or whose images have no patient ids."""

import json
import math
import shutil

import pytest

from leukotree.errors import InputError
from leukotree.report import scores
from leukotree.report.blocks import Figure, Table, Text
from leukotree.report.collect import collect
from leukotree.report.sections import answer, comparison, overview, patients, searches
from tests.helpers.study_results import (
    STUDY,
    cells,
    expected_runs,
    make_study,
    markdown_of,
    random_trials,
    report,
    section,
    table_row,
    texts,
)

pytestmark = pytest.mark.slow("renders many reports")


def test_runs_without_a_result_are_listed_and_left_out(copy, tmp_path):
    names = [row["run_name"] for row in expected_runs()]
    shutil.rmtree(copy / names[0])
    (copy / names[1] / "status.json").write_text(
        json.dumps({"state": "failed", "message": "<b>out of | memory</b>"})
    )
    (copy / names[2] / "predictions.parquet").unlink()
    markdown, html = report(copy, tmp_path / "out")
    assert "3 of 18 expected runs have no result yet" in " ".join(html.split())
    states = (
        "not started",
        "failed: &lt;b>out of \\| memory&lt;/b>",
        "done, but predictions.parquet is missing",
    )
    for name, state in zip(names, states, strict=False):
        assert f"| {name} | {state} |" in markdown
    assert "<b>" not in markdown + html
    assert table_row(markdown, "", "flat")[8] == "2"


def test_a_broken_status_is_no_result(copy):
    (copy / "flat-000000000000" / "status.json").write_text("{")
    assert [run.name for run in collect(copy, STUDY, expected_runs()).missing] == ["flat-000000000000"]


def test_runs_that_the_study_does_not_expect_do_not_count(copy):
    shutil.copytree(copy / "flat-000000000000", copy / "flat-ffffffffffff")
    assert [run.name for run in collect(copy, STUDY, expected_runs()).runs] == [
        row["run_name"] for row in expected_runs()
    ]


def test_search_without_runs(copy, tmp_path):
    for row in expected_runs():
        shutil.rmtree(copy / row["run_name"])
    markdown = markdown_of(copy, tmp_path / "out")
    assert "## The answer" in markdown
    assert "## Search" in markdown
    assert "| accuracy |" not in markdown
    assert markdown.count("not started") == 18


def test_a_search_in_which_every_trial_failed(copy, tmp_path):
    failed = random_trials("flat").assign(state="failed", epochs=0, macro_f1=math.nan, best_macro_f1=math.nan)
    failed.to_csv(copy / "search" / "flat" / "trials.csv", index=False)
    (copy / "search" / "flat" / "best.yaml").unlink()
    summary = collect(copy, STUDY, expected_runs())
    answers = answer.section(summary)
    assert "No search has ended for flat" in texts(answers)
    [values] = [block for block in answers.flat if isinstance(block, Table)]
    flat = {row[3]: row[4] for row in values.rows if row[0] == "focal gamma"}
    assert flat.pop("chosen") == "–"
    assert set(flat.values()) == {"not estimable"}
    assert len(flat) == 4
    assert cells(searches.section(summary), "flat", "1", "–")[3:7] == ["8", "0", "0", "8"]
    assert len([block for block in answers.flat if isinstance(block, Figure)]) == 4


def test_a_search_with_fewer_trials_is_flagged(copy):
    random_trials("base", 3).to_csv(copy / "search" / "base" / "trials.csv", index=False)
    summary = collect(copy, STUDY, expected_runs())
    for part in (searches.section(summary), lead(summary)):
        assert "(flat 8, base 3, multilabel 8). The comparison favours the variant with more trials" in texts(
            part
        )


def test_one_fold_gives_no_verdict_and_no_spread(copy):
    for row in expected_runs():
        if row["test_fold"] != 1:
            shutil.rmtree(copy / row["run_name"])
    summary = collect(copy, STUDY, expected_runs())
    verdicts = comparison.section(summary, comparison.compared(summary))
    row = cells(verdicts, "base − flat", "image")
    assert row[2] == "not estimable"
    assert row[4:7] == ["–"] * 3
    assert "base − flat, image level: not estimable: 1 common fold; a spread needs two." in texts(verdicts)
    assert "±" not in cells(lead(summary), "flat")[1]


def lead(summary):
    by_fold = scores.per_fold(scores.per_run(summary, summary.arms))
    return overview.lead(summary, by_fold, Text(""))


def test_nothing_at_all_says_which_command_to_run(tmp_path):
    with pytest.raises(
        InputError, match=r"yet; run `leukotree sweep STUDY.yaml`, then `leukotree folds STUDY.yaml`"
    ):
        collect(tmp_path, STUDY, expected_runs())


def test_without_patients_and_search_no_claim_is_made(tmp_path):
    markdown = markdown_of(make_study(tmp_path / "s", searches=False, patients=False), tmp_path / "out")
    assert "Not available: the images have no patient ids" in markdown
    assert table_row(markdown, "", "flat")[6:8] == ["–", "–"]
    rows = section(markdown, "Is a hierarchy better?").splitlines()
    levels = [row.split(" | ")[1] for row in rows if row.startswith("| base")]
    assert levels == [
        "image",
        "image",
        "image",
        "greedy − joint",
    ]  # verdict, two kinds of evidence, own rules
    pooled = table_row(markdown.replace("Other patients: evidence", "\n## Pooled\n"), "Pooled", "base − flat")
    assert pooled[3:] == ["not estimable", "–", "unknown"]
    assert table_row(markdown, "Leaves", "flat", "AML")[4] == "not estimable"
    assert "not nested" not in markdown
    assert "## The answer" not in markdown
    assert table_row(markdown, "Folds", "0", "flat")[2] == "no search"


def test_with_one_leaf_per_patient_the_unit_is_the_patient(tmp_path):
    summary = collect(make_study(tmp_path, searches=False, one_leaf=True), STUDY, expected_runs())
    by_fold = scores.per_fold(scores.per_run(summary, summary.arms))
    by_patient = patients.section(summary, by_fold)
    assert "pair of patient and true leaf" not in texts(by_patient)
    assert cells(by_patient, "flat", "mode")[2].endswith(" / 36")
    assert cells(lead(summary), "variant")[6:8] == ["patient accuracy", "patient macro F1"]
    assert comparison.compared(summary).unit == "patient"
