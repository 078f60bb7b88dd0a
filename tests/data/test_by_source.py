"""Folds that are sources, an outer test that no fold trains on, and sources with the same leaves."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leukotree.data import by_source, folds
from leukotree.data.dataset import Dataset
from leukotree.data.pack import pack
from leukotree.data.pack_options import Options
from leukotree.errors import InputError
from leukotree.spec import DataSpec
from tests.helpers.small_data import LEAVES, change_manifest, files, write_manifest

SMALL = {"size": 16, "workers": 1}
SOURCES = ("Baltimore", "Delhi", "Tehran")


@pytest.fixture
def three(tmp_path):
    """Three sources with 2, 3 and 4 patients of each leaf, and one image of each."""
    return [
        write_manifest(tmp_path / name, patients=2 + place, images=1, source=name, first=100 * place)
        for place, name in enumerate(SOURCES)
    ]


# --- leave one source out


def test_each_fold_is_a_source(three, tmp_path):
    summary = pack(three, tmp_path / "out", **SMALL, folds_by="source")
    data = summary.dataset
    assert data.folds == 3
    assert data.index.groupby("fold")["source"].unique().map(list).tolist() == [[name] for name in SOURCES]
    described = json.loads((tmp_path / "out/dataset.json").read_text())
    assert described["fold_sources"] == list(SOURCES)
    assert "each fold is a source: 0 'Baltimore', 1 'Delhi', 2 'Tehran'" in summary.lines()


def test_no_run_trains_on_the_source_that_it_tests(three, tmp_path):
    data = pack(three, tmp_path / "out", **SMALL, folds_by="source").dataset
    train, test = folds.split(data.index, DataSpec(shards="out", test_fold=1))
    assert set(data.index["source"].iloc[test]) == {"Delhi"}
    assert set(data.index["source"].iloc[train]) == {"Baltimore", "Tehran"}


def test_a_number_of_folds_that_is_not_that_of_the_sources_is_refused(three, tmp_path):
    with pytest.raises(InputError, match=r"folds 5: .* as many as sources, 3"):
        pack(three, tmp_path / "out", **SMALL, folds=5, folds_by="source")
    assert pack(three, tmp_path / "out", **SMALL, folds=3, folds_by="source").dataset.folds == 3


def test_a_second_deal_of_sources_is_refused(three, tmp_path):
    with pytest.raises(InputError, match="one deal"):
        pack(three, tmp_path / "out", **SMALL, folds_by="source", repeats=2)
    data = pack(three, tmp_path / "out", **SMALL, folds_by="source").dataset
    with pytest.raises(InputError, match="one deal"):
        data.deal(2)


def test_one_source_is_no_cross_validation(three, tmp_path):
    with pytest.raises(InputError, match="all images are of source 'Baltimore'"):
        pack(three[:1], tmp_path / "out", **SMALL, folds_by="source")
    assert not (tmp_path / "out").exists()


def without(leaf):
    return lambda table: table[table["leaf"] != leaf]


def test_a_leaf_of_one_source_cannot_be_learnt_without_it(three, tmp_path):
    for manifest in three[1:]:
        change_manifest(manifest, without("APML"))
    with pytest.raises(InputError, match=r"APML \(Baltimore\).*--match leaf"):
        pack(three, tmp_path / "out", **SMALL, folds_by="source")


def test_a_source_without_a_leaf_is_named(three, tmp_path):
    change_manifest(three[2], without("APML"))
    summary = pack(three, tmp_path / "out", **SMALL, folds_by="source")
    assert any("fold 2 (source 'Tehran') has no image of APML" in line for line in summary.lines())


def test_a_patient_in_two_sources_never_straddles_their_folds(three, tmp_path):
    with pytest.raises(InputError, match=r"group\(s\) are in several sources"):
        pack(three, tmp_path / "out", **SMALL, folds_by="source", patients_across_sources=True)


def test_a_copy_in_two_sources_never_straddles_their_folds(three, tmp_path):
    shutil.copy(three[0].parent / "AML/0_0.png", three[1].parent / "AML/0_0.png")
    with pytest.raises(InputError, match="exact copies"):
        pack(three, tmp_path / "out", **SMALL, folds_by="source", group_duplicates=True)
    assert not list(tmp_path.glob("*out*"))


# --- an outer test


def test_the_outer_test_is_in_no_fold_and_has_a_folder_of_its_own(three, tmp_path):
    summary = pack(three, tmp_path / "out", **SMALL, folds=2, test_sources=["Tehran"])
    test = Dataset.open(tmp_path / "out-test")
    assert set(summary.dataset.index["source"]) == {"Baltimore", "Delhi"}
    assert set(test.index["source"]) == {"Tehran"}
    assert test.folds == 1
    assert test.taxonomy == summary.dataset.taxonomy
    assert not set(test.index["key"]) & set(summary.dataset.index["key"])
    assert any(f"leukotree evaluate STUDY {tmp_path / 'out-test'}" in line for line in summary.lines())


def test_nothing_trains_on_an_outer_test(three, tmp_path):
    pack(three, tmp_path / "out", **SMALL, folds=2, test_sources=["Tehran"])
    test = Dataset.open(tmp_path / "out-test")
    with pytest.raises(InputError, match="nothing is left to train on"):
        folds.split(test.index, DataSpec(shards="out-test"))
    with pytest.raises(InputError, match="one fold"):
        test.deal(2)


def test_folds_by_source_beside_an_outer_test(three, tmp_path):
    data = pack(three, tmp_path / "out", **SMALL, folds_by="source", test_sources=["Tehran"]).dataset
    assert data.index.groupby("fold")["source"].unique().map(list).tolist() == [["Baltimore"], ["Delhi"]]


def test_an_outer_test_may_have_one_leaf(three, tmp_path):
    change_manifest(three[2], lambda table: table[table["leaf"] == "AML"])
    test = pack(three, tmp_path / "out", **SMALL, folds=2, test_sources=["Tehran"]).test
    assert test.description.counts == {"normal": 0, "AML": 4, "APML": 0}


def test_leaves_that_only_the_outer_test_has_are_refused_or_left_out(three, tmp_path):
    for manifest in three[:2]:
        change_manifest(manifest, without("APML"))
    with pytest.raises(InputError, match=r"4 of its images are of leaves .*\(APML\)"):
        pack(three, tmp_path / "out", **SMALL, folds=2, test_sources=["Tehran"])
    summary = pack(three, tmp_path / "out", **SMALL, folds=2, test_sources=["Tehran"], match="leaf")
    assert set(summary.test.index["leaf"]) == {"normal", "AML"}


def test_one_source_beside_an_outer_test_with_other_leaves_keeps_its_images(three, tmp_path):
    """There is nothing to match it with, and the outer test loses the leaves that no model learns."""
    change_manifest(three[0], without("APML"))
    joined = [three[0], three[2]]
    with pytest.raises(InputError, match="leave them out with --match leaf"):
        pack(joined, tmp_path / "out", **SMALL, folds=2, test_sources=["Tehran"])
    summary = pack(joined, tmp_path / "out", **SMALL, folds=2, test_sources=["Tehran"], match="leaf")
    assert len(summary.dataset.index) == 4
    assert set(summary.test.index["leaf"]) == {"normal", "AML"}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["Paris"], "'Paris': no such source; the manifests have Baltimore, Delhi"),
        (SOURCES, "no other source"),
    ],
)
def test_a_wrong_outer_test_is_refused(three, tmp_path, names, message):
    with pytest.raises(InputError, match=message):
        pack(three, tmp_path / "out", **SMALL, test_sources=names)
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.parametrize("mode", ["patient", "file", "picture"])
def test_nothing_of_the_outer_test_is_trained_on(three, tmp_path, mode):
    """A patient, the bytes of a file, or a picture in another file."""
    first, last = three[0].parent / "AML/0_0.png", three[2].parent / "AML/0_0.png"
    if mode == "file":
        shutil.copy(first, last)
    if mode == "picture":
        last.write_bytes(first.read_bytes() + b"more")
    options = {"patients_across_sources": mode == "patient", "group_duplicates": True}
    with pytest.raises(InputError, match="--test-source"):
        pack(three, tmp_path / "out", **SMALL, folds=2, test_sources=["Tehran"], **options)
    assert not list(tmp_path.glob("*out*")), "nothing is left, hidden or not"


def test_packing_again_writes_only_what_is_missing(three, tmp_path):
    options = {**SMALL, "folds": 2, "test_sources": ["Tehran"]}
    pack(three, tmp_path / "out", **options)
    before = {name: files(tmp_path / name) for name in ("out", "out-test")}
    assert not pack(three, tmp_path / "out", **options).written
    shutil.rmtree(tmp_path / "out-test")  # as after a kill between the two
    assert pack(three, tmp_path / "out", **options).written
    assert before == {name: files(tmp_path / name) for name in ("out", "out-test")}
    with pytest.raises(InputError, match=r"packed from other input .*test_sources"):
        pack(three, tmp_path / "out", **SMALL, folds=2)


# --- the same leaves in every source


def test_every_source_has_as_many_images_of_a_leaf(three, tmp_path):
    change_manifest(three[1], without("APML"))
    summary = pack(three, tmp_path / "out", **SMALL, folds=2, match="leaf")
    table = pd.crosstab(summary.dataset.index["source"], summary.dataset.index["leaf"])
    assert (table == 2).all(axis=None)
    assert list(table) == ["AML", "normal"], "Delhi has no APML"
    described = json.loads((tmp_path / "out/dataset.json").read_text())
    assert described["unmatched"] == {
        "Baltimore": {"APML": 2},
        "Delhi": {"AML": 1, "normal": 1},
        "Tehran": {"AML": 2, "APML": 4, "normal": 2},
    }


def test_after_broken_images_are_dropped_the_sources_still_match(three, tmp_path):
    (three[0].parent / "AML/0_0.png").write_bytes(b"no picture")
    index = pack(
        three, tmp_path / "out", **SMALL, folds_by="source", match="leaf", drop_broken=True
    ).dataset.index
    assert pd.crosstab(index["source"], index["leaf"]).to_numpy().tolist() == [[1, 2, 2]] * 3


@st.composite
def tables(draw):
    """Images of two or three sources, each of two or three leaves, in groups of one to four."""
    rows = []
    for source in range(draw(st.integers(2, 3))):
        for leaf in LEAVES[: draw(st.integers(2, 3))]:
            for group in range(draw(st.integers(1, 4))):
                rows += [(f"s{source}", leaf, f"s{source}/{leaf}{group}")] * draw(st.integers(1, 4))
    table = pd.DataFrame(rows, columns=["source", "leaf", "group"])
    return table.assign(key=[f"{number:03}" for number in range(len(table))])


@settings(max_examples=60, deadline=None)
@given(tables(), st.integers(0, 1000))
def test_matching_makes_source_and_leaf_independent_and_keeps_most_groups(table, seed):
    kept = by_source.matched(table, seed)
    counts = pd.crosstab(table["source"], table["leaf"])
    common = counts.loc[:, (counts > 0).all()].min()
    assert (pd.crosstab(kept["source"], kept["leaf"]) == common).all(axis=None)
    assert kept.index.is_monotonic_increasing
    pd.testing.assert_frame_equal(kept, by_source.matched(table, seed))
    for (source, leaf), rows in table[table["leaf"].isin(common.index)].groupby(["source", "leaf"]):
        left = kept[(kept["source"] == source) & (kept["leaf"] == leaf)]
        assert left["group"].nunique() == min(rows["group"].nunique(), common[leaf])


def test_sources_without_common_leaves_cannot_be_matched(three, tmp_path):
    change_manifest(three[0], lambda table: table[table["leaf"] == "AML"])
    with pytest.raises(InputError, match="have AML in common, and a study needs at least two"):
        pack(three, tmp_path / "out", **SMALL, match="leaf")


def test_one_source_cannot_be_matched():
    with pytest.raises(InputError, match="one source"):
        by_source.matched(pd.DataFrame({"source": "a", "leaf": ["AML", "ALL"], "group": "g"}), 0)


def test_options_are_named_in_the_description_only_where_they_are_on():
    assert not {"folds_by", "match", "test_sources", "outer_test"} & Options().identity().keys()
    assert Options(test_sources=("a",)).identity()["test_sources"] == ["a"]
    for change in ({"folds_by": "site"}, {"match": "site"}):
        with pytest.raises(InputError, match="must be"):
            Options(**change)


def test_folds_of_sources_are_numbered_by_their_sorted_names():
    table = pd.DataFrame(
        {"source": list("baba"), "leaf": ["AML", "AML", "ALL", "ALL"], "group": list("wxyz")}
    )
    assert np.array_equal(by_source.source_folds(table), [1, 0, 1, 0])
