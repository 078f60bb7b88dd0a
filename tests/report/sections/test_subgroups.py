"""The section about subgroups: which groups it has, and that its numbers are those of their images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score

from leukotree.report.blocks import Table
from leukotree.report.collect import collect
from leukotree.report.sections import subgroups
from leukotree.report.summary import StudySummary
from tests.helpers.study_results import STUDY, cells, expected_runs, images_of_fold, texts, write_run


def study(root: Path, **columns: str) -> StudySummary:
    """A study of `flat` whose images have columns by their patient's number: two halves, or one each."""
    for row in expected_runs(variants=["flat"]):
        images = images_of_fold(row["test_fold"])
        number = images["patient"].str.extract(r"-(\d+)")[0].astype(int)
        for name, kind in columns.items():
            images[name] = {"halves": number.map(lambda n: "AB"[n % 2]), "many": "s" + number.astype(str)}[
                kind
            ]
        write_run(root, row, images)
    return collect(root, STUDY, expected_runs())


def scored_images(summary: StudySummary) -> pd.DataFrame:
    return pd.concat([run.images.assign(true=run.true, predicted=run.predicted) for run in summary.runs])


def test_sites_are_scored_on_their_images(tmp_path: Path) -> None:
    summary = study(tmp_path, site="halves")
    part = subgroups.section(summary)
    images = scored_images(summary)
    images = images[images["site"] == "B"]
    row = cells(part, "site", "B", "flat")
    assert row[3:5] == [str(len(images) // 2), str(images["patient"].nunique())]
    assert row[5] == f"{100 * accuracy_score(images['true'], images['predicted']):.1f}"
    low, high = map(float, row[6].split(" to "))
    assert low < float(row[5]) < high
    assert "These scores describe 2 groups. None of them is tested" in texts(part)
    largest, other = sorted("AB", key=lambda site: -(scored_images(summary)["site"] == site).sum())
    assert cells(part, "site", largest, "flat")[-3:] == ["–", "–", "–"]
    assert " to " in cells(part, "site", other, "flat")[-2]


def test_leaves_of_few_patients_are_not_estimable(tmp_path: Path) -> None:
    """A patient has AML or APML, by the parity of its number, as the sites do."""
    part = subgroups.section(study(tmp_path, site="halves"))
    (leaves,) = (block for block in part.blocks if isinstance(block, Table) and "normal" in block.header)
    row = next(row for row in leaves.rows if row[1] == "A")
    cell = dict(zip(leaves.header, row, strict=True))
    assert " to " in cell["AML"]
    assert cell["APML"] == "–", "site A has no such patient"
    few = subgroups.section(study(tmp_path / "many", scanner="many"))
    (leaves,) = (block for block in few.blocks if isinstance(block, Table) and "normal" in block.header)
    assert {cell for row in leaves.rows for cell in row[3:] if "not estimable (" in cell} == {
        "not estimable (3 patients)"
    }


def test_fields_with_the_same_groups_are_one_and_many_groups_become_few(tmp_path: Path) -> None:
    same = subgroups.section(study(tmp_path / "same", site="halves", scanner="halves"))
    assert cells(same, "site = scanner", "A", "flat")
    many = subgroups.section(study(tmp_path / "many", scanner="many"))
    (table, _) = (block for block in many.blocks if isinstance(block, Table))
    names = [row[1] for row in table.rows]
    assert len(names) == subgroups.MOST
    assert f"({12 - subgroups.MOST + 1} others)" in names
    assert (
        sum(int(row[3]) for row in table.rows)
        == len(scored_images(study(tmp_path / "many", scanner="many"))) // 2
    )


def test_one_source_has_no_groups(whole: Path) -> None:
    part = subgroups.section(collect(whole, STUDY, expected_runs()))
    assert texts(part) == (
        "The tested images have one source, no site recorded, no scanner recorded, so there are no groups to "
        "compare."
    )


def test_predictions_without_a_value_are_a_group(tmp_path: Path) -> None:
    for row in expected_runs(variants=["flat"]):
        images = images_of_fold(row["test_fold"])
        if row["test_fold"]:
            images["scanner"] = np.where(np.arange(len(images)) % 2, "x", "")
        write_run(tmp_path, row, images)
    part = subgroups.section(collect(tmp_path, STUDY, expected_runs()))
    assert int(cells(part, "scanner", "(not recorded)", "flat")[3]) > int(
        cells(part, "scanner", "x", "flat")[3]
    )
