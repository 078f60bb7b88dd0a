"""The section about readers: numbers of pairs, of models and of the label, from the stored predictions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score

from leukotree.report.collect import collect
from leukotree.report.sections import readers, subgroups
from leukotree.report.summary import StudySummary
from tests.helpers.study_results import (
    STUDY,
    TREE,
    cells,
    expected_runs,
    images_of_fold,
    report,
    section,
    texts,
    write_run,
)


def with_readers(fold: int, columns: int = 2) -> pd.DataFrame:
    """The images of a fold with readers. A is right in 4 of 5 and sometimes stops at an inner node.

    B is right in 3 of 5 and reads every second image.
    """
    images = images_of_fold(fold)
    rng = np.random.default_rng(fold)
    for name, skill in (("A", 0.8), ("B", 0.6))[:columns]:
        other = rng.choice(TREE.leaves, len(images))
        images[f"reader:{name}"] = np.where(rng.random(len(images)) < skill, images["leaf"], other)
    images.loc[::7, "reader:A"] = "leukemia"
    if columns > 1:
        images.loc[1::2, "reader:B"] = ""
    return images


def study(root: Path, columns: int = 2) -> StudySummary:
    for row in expected_runs(variants=["flat", "base"]):
        write_run(root, row, with_readers(row["test_fold"], columns))
    return collect(root, STUDY, expected_runs())


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> StudySummary:
    return study(tmp_path_factory.mktemp("study"))


def all_images(summary: StudySummary, variant: str) -> pd.DataFrame:
    """Images of all folds and seeds of a variant with label, and prediction as text."""
    parts = [
        run.images.assign(
            label=np.array(TREE.leaves)[run.true],
            predicted=np.array(TREE.leaves)[run.predicted],
            seed=run.seed,
        )
        for run in summary.runs
        if run.variant == variant
    ]
    return pd.concat(parts, ignore_index=True)


def test_readers_are_compared_on_the_images_that_both_read(summary: StudySummary) -> None:
    part = readers.section(summary)
    assert part is not None
    images = all_images(summary, "flat")
    images = images[images["seed"] == 0]
    both = images[(images["reader:A"] != "leukemia") & (images["reader:B"] != "")]
    row = cells(part, "A", "B")
    right = cohen_kappa_score(both["reader:A"], both["reader:B"])
    assert row[2:4] == [str(len(both)), str(both["patient"].nunique())]
    assert row[5] == f"{right:.3f}"
    low, high = map(float, row[6].split(" to "))
    assert low < right < high
    assert f"{int((images['reader:A'] == 'leukemia').sum())} readings stop at an inner node" in texts(part)
    first = images[images["reader:B"] != ""][["reader:A", "reader:B"]].replace(
        {"AML": "leukemia", "APML": "leukemia"}
    )
    assert row[7] == f"{cohen_kappa_score(first['reader:A'], first['reader:B']):.3f}"
    against_label = images[images["reader:B"] != ""]
    assert (
        cells(part, "(label)", "B")[5]
        == f"{cohen_kappa_score(against_label['label'], against_label['reader:B']):.3f}"
    )


def test_a_model_stands_beside_the_other_reader_on_the_same_images(summary: StudySummary) -> None:
    part = readers.section(summary)
    assert part is not None
    images = all_images(summary, "base")
    read = images[images["reader:B"] != ""]
    row = cells(part, "base", "B")
    assert row[2] == str(len(read) // 2), "two seeds see the same images"
    assert row[5] == f"{cohen_kappa_score(read['reader:B'], read['predicted']):.3f}"
    both = read[read["reader:A"] != "leukemia"]
    human = cohen_kappa_score(both["reader:B"], both["reader:A"])
    model = cohen_kappa_score(both["reader:B"], both["predicted"])
    assert row[-3:-1] == [f"{human:.3f}", f"{model - human:+.3f}"]
    low, high = map(float, row[-1].split(" to "))
    assert low < model - human < high


def test_one_reader_has_nobody_beside_the_model(tmp_path: Path) -> None:
    part = readers.section(study(tmp_path, columns=1))
    assert part is not None
    assert cells(part, "flat", "A")[-3:] == ["–", "–", "not estimable"]
    assert "kappa" not in texts(part).split("\n")[0]


def test_a_study_without_readers_has_no_such_section(whole: Path) -> None:
    assert readers.section(collect(whole, STUDY, expected_runs())) is None


@pytest.mark.slow("makes a report")
def test_both_pages_have_the_section(summary: StudySummary, tmp_path: Path) -> None:
    root = summary.runs[0].folder.parent
    markdown, html = report(root, tmp_path)
    assert "| A | B |" in section(markdown, "Readers")
    assert ">Readers<" in html


def test_repeats_add_no_images_and_no_patients(summary: StudySummary) -> None:
    """The same answers in a second repeat change nothing, also not the intervals."""
    arms = [
        replace(
            arm, runs=(*arm.runs, *(replace(run, repeat=1, test_fold=run.test_fold + 3) for run in arm.runs))
        )
        for arm in summary.arms
    ]
    again = replace(summary, arms=tuple(arms))
    assert readers.section(again) == readers.section(summary)
    assert subgroups.section(again) == subgroups.section(summary)
