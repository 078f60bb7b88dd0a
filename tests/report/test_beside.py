"""Arms of several studies: paired where patients and data are the same, refused where nothing compares."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from leukotree import stats
from leukotree.errors import InputError
from leukotree.report import beside, side_by_side
from leukotree.report.collect import collect
from tests.helpers import study_results
from tests.helpers.study_results import STUDY, TREE, expected_runs, images_of_fold, table_row, write_run

ONE = expected_runs(variants=("flat",), seeds=(0,))


def study(root, name: str, skill: float, data: str = "", shift: int = 0):
    """A study of one flat arm. `data`: another fingerprint. `shift`: other images and patients."""
    for row in ONE:
        folder = write_run(
            root / name, row, images_of_fold(row["test_fold"] + shift).assign(fold=row["test_fold"]), skill
        )
        if data:
            environment = json.loads((folder / "env.json").read_text()) | {"dataset": data * 64}
            (folder / "env.json").write_text(json.dumps(environment))
    fields = STUDY | {"study": name, "variants": ["flat"], "search": {"trials": 0}}
    return collect(root / name, fields, ONE)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    root = tmp_path_factory.mktemp("pair")
    return study(root, "weak", 0.5), study(root, "strong", 2.5)


def test_the_same_patients_are_paired_as_the_arms_of_one_study_are(pair):
    weak, strong = pair
    (row,) = beside.differences(beside.candidates(pair))
    assert (row.challenger.name, row.reference.name) == ("strong: flat", "weak: flat")
    assert row.paired
    arms = {
        name: {
            run.test_fold: stats.Fold(
                0.0,
                stats.patient_counts(
                    run.images["patient"].tolist(), run.true, run.predicted, 4, run.images["key"].tolist()
                ),
            )
            for run in summary.runs
        }
        for name, summary in (("strong", strong), ("weak", weak))
    }
    (oracle,) = stats.compare(arms, [("strong", "weak")], 0.5)
    assert row.value == pytest.approx(oracle.pooled)
    np.testing.assert_allclose(row.interval, oracle.bootstrap)
    mean, around = beside.over_folds(row)
    assert around[0] < mean < around[1]


@pytest.mark.parametrize(
    ("change", "why"), [({"data": "e"}, "other data"), ({"shift": 7}, "other test images")]
)
def test_other_patients_or_data_are_not_paired_and_say_why(pair, tmp_path, change, why):
    weak, _ = pair
    other = study(tmp_path, "other", 2.5, **change)
    (row,) = beside.differences(beside.candidates([weak, other]))
    assert (row.paired, row.why) == (False, why)
    (paired,) = beside.differences(beside.candidates(pair))
    if (
        why == "other data"
    ):  # the same predictions: the same value, and a wider interval, as they are drawn apart
        assert row.value == paired.value
        assert np.ptp(row.interval) > np.ptp(paired.interval)
    assert np.isnan(beside.over_folds(row)[0])


def test_an_unpaired_interval_has_the_spread_of_both_groups(pair, tmp_path):
    """Its variance is the sum of the variances of two independent arms."""
    weak, _ = pair
    other = study(tmp_path, "other", 0.5, shift=7)
    one, two = beside.candidates([weak, other])
    (row,) = beside.differences([one, two])
    spreads = [
        stats.bootstrap(of.clusters.counts[None], of.clusters.strata, stats.macro_f1).std()
        for of in (one, two)
    ]
    width = np.ptp(row.interval)
    assert width == pytest.approx(2 * 1.96 * np.hypot(*spreads), rel=0.15)


def test_where_some_patients_are_the_same_there_is_no_interval(pair):
    """As where one study lacks a fold: its patients are neither pairs nor a second sample."""
    one, two = beside.candidates(pair)
    clusters = two.clusters
    fewer = clusters._replace(
        names=clusters.names[1:],
        counts=clusters.counts[1:],
        strata=clusters.strata[1:],
        keys=clusters.keys[1:],
    )
    (row,) = beside.differences([one, replace(two, clusters=fewer)])
    assert (row.why, row.interval) == ("other test images", None)


def test_a_study_without_results_is_refused(pair, tmp_path):
    empty = study_results.make_study(tmp_path / "empty")
    for row in expected_runs():
        shutil.rmtree(empty / row["run_name"])
    with pytest.raises(InputError, match=r"^study synthetic: no finished run of an outer fold"):
        beside.candidates([pair[0], collect(empty, STUDY, expected_runs())])


def test_other_rules_are_refused_with_the_fix(pair, tmp_path):
    other = collect(pair[1].runs[0].folder.parent, pair[1].study | {"decision": "joint"}, ONE)
    with pytest.raises(InputError, match=r"weak and strong decide by other rules .* give decision=greedy"):
        beside.candidates([pair[0], other])


def test_other_leaves_are_refused_by_name(pair, tmp_path):
    for row in ONE:
        folder = write_run(tmp_path / "runs", row, images_of_fold(row["test_fold"]))
        tree = json.loads((folder / "taxonomy.json").read_text())
        (folder / "taxonomy.json").write_text(json.dumps(tree).replace("reactive", "other"))
        frame = pd.read_parquet(folder / "predictions.parquet").rename(
            columns={"logp:reactive": "logp:other"}
        )
        frame.assign(leaf=frame["leaf"].replace("reactive", "other")).to_parquet(
            folder / "predictions.parquet"
        )
    other = collect(tmp_path / "runs", pair[0].study | {"study": "other"}, ONE)
    with pytest.raises(
        InputError, match=r"cannot be compared: only one of them has the leaves other, reactive"
    ):
        beside.candidates([pair[0], other])


def test_two_studies_of_one_name_are_told_apart(pair):
    assert [one.study for one in beside.candidates([pair[0], pair[0]])] == ["weak (1)", "weak (2)"]


def test_the_page_puts_the_arms_side_by_side(pair, tmp_path):
    rendered = side_by_side.render(pair, tmp_path)
    markdown, html = (path.read_text() for path in rendered.write(tmp_path))
    (row,) = beside.differences(beside.candidates(pair))
    assert f"`strong: flat` has {100 * row.value:.1f} points of macro F1 more than `weak: flat`" in markdown
    cells = table_row(markdown, "Differences between studies", "strong: flat − weak: flat")
    assert cells[1] == "paired by patient"
    assert cells[2] == f"{100 * row.value:+.1f}"
    assert "there is no verdict here" in " ".join(html.split())
    scores = table_row(markdown, "", "strong", "flat")
    assert scores[3] == f"{100 * row.challenger.macro_f1:.1f}"
    assert (
        table_row(markdown, "What differs between the studies", "fingerprint of the data")[1:]
        == ["d" * 12] * 2
    )
    assert rendered.lines[0] == "Studies weak, strong: 2 arms"
    assert len(TREE.leaves) == 4
