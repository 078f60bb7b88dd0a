"""Several manifests become one data set: paths start at their own manifest, and sources stay apart."""

import shutil

import numpy as np
import pandas as pd
import pytest

from leukotree.data import joined
from leukotree.data.audit.audit import audit
from leukotree.data.dataset import Dataset
from leukotree.data.pack import pack
from leukotree.errors import InputError
from leukotree.taxonomy import Taxonomy
from tests.helpers.small_data import LEAVES, change_manifest, write_manifest

TREE = Taxonomy.paper()
SMALL = {"folds": 3, "size": 16, "workers": 1}


@pytest.fixture
def both(tmp_path):
    """Two manifests in folders of their own, with equal names of files and patients, but other pictures."""
    return [
        write_manifest(tmp_path / "delhi", patients=3, images=1, source="Delhi"),
        write_manifest(tmp_path / "teh ran é", patients=3, images=2, source="Tehran", first=100),
    ]


def test_paths_start_at_their_own_manifest_and_sources_are_kept(both):
    rows, doubts = joined.read(both, TREE)
    assert rows.groupby("source", sort=False).size().to_dict() == {"Delhi": 9, "Tehran": 18}
    folders = rows["image"].str.extract(r"/(delhi|teh ran é)/")[0]
    assert (folders == rows["source"].map({"Delhi": "delhi", "Tehran": "teh ran é"})).all()
    assert not doubts


def test_one_manifest_is_read_as_before(both):
    alone, _ = joined.read(both[:1], TREE)
    rows, _ = joined.read(both, TREE)
    pd.testing.assert_frame_equal(rows.iloc[: len(alone)], alone)


def test_an_id_of_one_source_never_meets_that_of_another(both, tmp_path):
    data = pack(both, tmp_path / "out", **SMALL).dataset
    assert data.description.patients == 18, "AML-0 of Delhi and AML-0 of Tehran are two people"
    assert set(data.index["group"].str.split("/").str[0]) == {"Delhi", "Tehran"}
    asked = pack(both, tmp_path / "asked", **SMALL, patients_across_sources=True).dataset
    assert asked.description.patients == 9
    assert (asked.index.groupby("patient")["fold"].nunique() == 1).all()


def test_columns_that_only_one_manifest_has_are_empty_in_the_other(both, tmp_path):
    change_manifest(both[0], lambda table: table.assign(site="Ward 1", scanner=""))
    index = pack(both, tmp_path / "out", **SMALL).dataset.index
    assert index.groupby("source")["site"].unique().map(list).to_dict() == {
        "Delhi": ["Ward 1"],
        "Tehran": [""],
    }
    assert "scanner" not in index


def test_the_same_manifest_twice_is_refused(both):
    again = both[0].parent / ".." / both[0].parent.name / both[0].name
    with pytest.raises(InputError, match="named twice"):
        joined.read([both[0], again], TREE)


def test_an_image_of_two_manifests_is_refused_and_both_rows_are_named(both):
    shutil.copy(both[0], copy := both[0].with_name("copy.csv"))
    with pytest.raises(InputError, match=r"copy.csv row 2: .*row 2 of .*manifest.csv.*and 8 more") as refused:
        joined.read([both[0], copy], TREE)
    assert "\n" not in str(refused.value)


def test_a_wrong_row_names_its_own_manifest(both):
    change_manifest(both[1], lambda table: table.assign(leaf=["AMLL", *table["leaf"][1:]]))
    with pytest.raises(InputError, match=r"teh ran é/manifest.csv row 2: unknown leaf 'AMLL'"):
        joined.read(both, TREE)


def test_no_manifest_is_refused():
    with pytest.raises(InputError, match="no manifest"):
        joined.read([], TREE)


def test_patients_of_one_source_in_two_manifests_are_one_and_this_is_said(both, tmp_path):
    change_manifest(both[1], lambda table: table.assign(source="Delhi"))
    summary = pack(both, tmp_path / "out", **SMALL)
    assert summary.dataset.description.patients == 9
    assert [doubt.kind for doubt in summary.doubts] == ["one-source"]
    assert "give each a source of its own" in summary.lines()[-1]


def test_names_of_one_source_in_two_manifests_are_one_group_and_this_is_said(both, tmp_path):
    for path in both:
        change_manifest(path, lambda table: table.assign(source="Delhi", patient=""))
    summary = pack(both, tmp_path / "out", **SMALL)
    assert (summary.dataset.index.groupby("image")["fold"].nunique() == 1).all()
    assert [doubt.kind for doubt in summary.doubts] == ["one-source"]
    assert "names of images that are in several manifests, such as: 'AML/0_0.png'" in summary.lines()[-1]


def test_slides_of_one_source_beside_patients_of_another_are_counted(both, tmp_path):
    alone = pack(both, tmp_path / "alone", **SMALL).dataset
    assert "slides" not in alone.description.model_extra
    change_manifest(both[1], lambda table: table.assign(group="slide"))
    joined_set = pack(both, tmp_path / "out", **SMALL).dataset.description
    assert joined_set.model_extra["slides"] == {"Tehran": 9}
    assert joined_set.patients == 9


def test_the_number_of_a_slide_is_no_patient_of_another_source(both, tmp_path):
    asked = pack(both, tmp_path / "patients", **SMALL)
    assert "several-sources" in [doubt.kind for doubt in asked.doubts]
    change_manifest(both[1], lambda table: table.assign(group="slide"))
    summary = pack(both, tmp_path / "out", **SMALL)
    assert not summary.doubts
    assert not audit(tmp_path / "out").doubts
    change_manifest(both[0], lambda table: table.assign(group="slide"))
    slides = pack(both, tmp_path / "slides", **SMALL)
    assert "several-sources" in [doubt.kind for doubt in slides.doubts]


def test_a_data_set_whose_outer_test_has_the_boxes_has_none(both, tmp_path):
    change_manifest(both[1], lambda table: table.assign(box="1 2 20 20"))
    summary = pack(both, tmp_path / "out", **SMALL, test_sources=["Tehran"])
    assert "boxes" not in summary.dataset.description.model_extra
    assert summary.test.description.model_extra["boxes"] == {"cells": 18, "files": 18, "cut": 0}


@pytest.fixture
def shared(both):
    """A picture of Delhi that is in Tehran, too."""
    shutil.copy(both[0].parent / "AML/1_0.png", both[1].parent / "AML/2_1.png")
    return both


def test_copies_over_sources_are_found_before_anything_is_written(shared, tmp_path):
    with pytest.raises(InputError, match=r"'AML/1_0.png' \(group Delhi/AML-1, source Delhi\) = .*Tehran"):
        pack(shared, tmp_path / "out", **SMALL)
    assert not (tmp_path / "out").exists()


def test_copies_over_sources_are_kept_together_if_asked(shared, tmp_path):
    pack(shared, tmp_path / "out", **SMALL, group_duplicates=True)
    index = Dataset.open(tmp_path / "out").index
    copies = index[index["sha256"].duplicated(keep=False)]
    assert sorted(copies["source"]) == ["Delhi", "Tehran"]
    assert copies["fold"].nunique() == copies["group"].nunique() == 1


def test_a_copy_with_another_leaf_in_another_source_is_refused(both, tmp_path):
    shutil.copy(both[0].parent / "AML/1_0.png", both[1].parent / "APML/2_1.png")
    with pytest.raises(InputError, match=r"leaf AML, source Delhi\) = .*leaf APML, source Tehran"):
        pack(both, tmp_path / "out", **SMALL, group_duplicates=True)


def test_the_order_of_the_manifests_decides_the_order_of_the_rows(both):
    rows, _ = joined.read(both[::-1], TREE)
    assert list(rows["source"].unique()) == ["Tehran", "Delhi"]
    assert np.array_equal(np.unique(rows["leaf"]), sorted(LEAVES))


def test_a_file_whose_boxes_are_of_two_patients_is_refused_over_manifests_too(both):
    change_manifest(both[0], lambda table: table.assign(box="0 0 20 20"))
    other = both[0].with_name("other.csv")
    table = pd.read_csv(both[0]).assign(box="20 0 20 20")
    table.to_csv(other, index=False)
    rows, _ = joined.read([both[0], other], TREE)
    assert len(rows) == 18, "two cells of each file, of one patient"
    table.assign(source="Tehran").to_csv(other, index=False)
    with pytest.raises(InputError, match=r"other.csv row 2: .*row 2 of .*manifest.csv"):
        joined.read([both[0], other], TREE)
    table.drop(columns="box").assign(patient="").to_csv(other, index=False)
    with pytest.raises(InputError, match=r"other.csv row 2: "):
        joined.read([both[0], other], TREE)
