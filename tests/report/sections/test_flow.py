"""The flow of images and patients: from what an import left out to the test folds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from leukotree.records import made
from leukotree.report import flowchart
from leukotree.report.blocks import Figure
from leukotree.report.collect import collect
from leukotree.report.sections import flow
from tests.helpers.study_results import (
    STUDY,
    cells,
    expected_runs,
    images_of_fold,
    texts,
    write_run,
)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[flowchart.Step]:
    """The boxes of the figure that is drawn."""
    drawn: list[flowchart.Step] = []
    real = flowchart.draw
    monkeypatch.setattr(flowchart, "draw", lambda steps: drawn.extend(steps) or real(steps))
    return drawn


def test_every_image_is_in_the_manifest_dropped_packed_or_tested(
    tmp_path: Path, steps: list[flowchart.Step]
) -> None:
    images = {row["test_fold"]: images_of_fold(row["test_fold"]) for row in expected_runs()}
    for row in expected_runs(folds=2, variants=["flat"]):
        write_run(tmp_path / "runs", row, images[row["test_fold"]])
    packed, done = (sum(len(images[fold]) for fold in folds) for folds in ((0, 1, 2), (0, 1)))
    shards = tmp_path / "shards"
    shards.mkdir()
    dataset = {
        "counts": {"AML": packed},
        "patients": 36,
        "dropped": [{"image": "x.png", "reason": "cut short"}] * 2,
        "folds": 3,
    }
    (shards / "dataset.json").write_text(json.dumps(dataset))
    note = {"commands": [], "imported": [{"images": packed + 2, "skipped": {"Thumbs.db": 1, "no label": 3}}]}
    (shards / made.FILE).write_text(json.dumps(note))
    study = {**STUDY, "base": {"data": {"shards": str(shards), "test_fold": 1}}}
    part = flow.section(collect(tmp_path / "runs", study, expected_runs()))
    assert [step.text for step in steps] == [
        f"{packed + 6} files in the folders of the data",
        f"{packed + 2} images in the manifest",
        f"{packed} images packed, 36 patients",
        f"{done} images tested in 2 folds, 24 patients\n{packed - done} images in folds without a result",
    ]
    assert list(steps[0].left_out) == ["4 files not imported:", "3: no label", "1: Thumbs.db"]
    assert list(steps[1].left_out) == ["2 files not packed, broken:", "2: cut short"]
    assert "Not recorded" not in texts(part)
    (figure,) = (block for block in part.blocks if isinstance(block, Figure))
    assert figure.png.startswith(b"\x89PNG")
    assert cells(part, "0")[1] == f"{len(images[0])} / 12"
    assert cells(part, "all")[1] == f"{done} / 24"
    apml = images[1][images[1]["leaf"] == "APML"]
    assert cells(part, "1")[5] == f"{len(apml)} / {apml['patient'].nunique()}"


def test_what_is_not_recorded_is_said(whole: Path, steps: list[flowchart.Step]) -> None:
    part = flow.section(collect(whole, STUDY, expected_runs()))
    assert len(steps) == 1
    assert "Not recorded: what an import left out and what was packed." in texts(part)


def test_many_reasons_are_shortened_and_odd_texts_are_drawn() -> None:
    reasons = {f"cell type {number} has $no$ leaf " + "x" * 90: number + 1 for number in range(12)}
    lines = flow._reasons(flow.Counter(reasons), "not imported")
    assert lines[0] == "78 files not imported:"
    assert lines[-1] == "10: 4 other reasons"
    assert flowchart.draw([flowchart.Step("a\nb", lines), flowchart.Step("c")]).png.startswith(b"\x89PNG")
