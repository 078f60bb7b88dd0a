"""Damaged folders are refused by name, in one line."""

import shutil

import numpy as np
import pandas as pd
import pytest

from leukotree.errors import InputError
from leukotree.records import runfolder
from leukotree.report.collect import collect
from tests.helpers.study_results import STUDY, expected_runs, report


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: pd.concat([f, f.head(1)]), "occurs twice"),
        (lambda f: f.assign(leaf="lymph"), "unknown leaf 'lymph'"),
        (lambda f: f.assign(**{"logp:AML": np.nan}), "not a number"),
        (lambda f: f.assign(fold=2), "belongs to fold 2, not to the test fold"),
        (lambda f: f.head(0), "no rows"),
        (lambda f: f.head(5), "other images or labels than in"),
    ],
)
def test_predictions(copy, change, message):
    path = copy / "base-000000000000" / "predictions.parquet"
    change(pd.read_parquet(path)).to_parquet(path)
    with pytest.raises(InputError, match=rf"base-000000000000/predictions\.parquet: .*{message}"):
        collect(copy, STUDY, expected_runs())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("base-000000000000/env.json", "{", r"base-000000000000/env\.json: cannot be read as JSON"),
        (
            "base-000000000000/env.json",
            '{"dataset": "other"}',
            r"base-000000000000/env\.json: made from other shards than flat-",
        ),
        (
            "base-000000000000/predictions.parquet",
            "no parquet",
            "base-000000000000: its predictions cannot be read",
        ),
        ("search/flat/trials.csv", "trial,state\n", r"search/flat/trials\.csv: no column 'epochs'"),
        ("search/flat/trials.csv", "", r"search/flat/trials\.csv: cannot be read"),
        ("search/flat/best.yaml", "chosen: 3\n", r"search/flat/best\.yaml: has no `chosen` values"),
    ],
)
def test_files(copy, name, content, message):
    (copy / name).write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        collect(copy, STUDY, expected_runs())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("line", ["[]", "{}", "x", '"kind"', '{"kind": "epoch", "epoch": "a"}'])
def test_metrics_end_at_a_line_that_is_no_row(copy, line):
    path = copy / "base-000000000000" / "metrics.jsonl"
    before = runfolder.read_metrics(path.parent)
    path.write_text(f"{path.read_text()}{line}\n")
    assert runfolder.read_metrics(path.parent) == before
    collect(copy, STUDY, expected_runs())


def test_a_folder_that_holds_another_run(copy):
    shutil.copy(copy / "flat-000001000000" / "spec.yaml", copy / "flat-000000000000" / "spec.yaml")
    with pytest.raises(InputError, match="test_fold is 1, the study expects 0"):
        collect(copy, STUDY, expected_runs())


def test_runs_on_another_tree(copy):
    swapped = (
        '{"root": {"reactive": null, "normal": null, "leukemia": {"acute": {"AML": null, "APML": null}}}}'
    )
    (copy / "multilabel-000002000001" / "taxonomy.json").write_text(swapped)
    with pytest.raises(
        InputError, match=r"multilabel-000002000001/taxonomy\.json: differs from that of flat"
    ):
        collect(copy, STUDY, expected_runs())


def test_a_patient_in_two_test_folds(copy):
    """The images differ, so that no key occurs twice. The bootstrap over patients would be wrong."""
    for row in expected_runs():
        if row["test_fold"] == 2:
            path = copy / row["run_name"] / "predictions.parquet"
            pd.read_parquet(path).replace({"patient": {"p2-0": "p0-0"}}).to_parquet(path)
    with pytest.raises(InputError, match=r"patient '\w+/p0-0' is in two test folds"):
        report(copy, copy.parent / "out")
    assert not (copy.parent / "out").exists()
