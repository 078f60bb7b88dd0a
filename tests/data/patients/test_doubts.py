"""Doubts about ids: one id in several sources, texts for "no id", ids that a spreadsheet changed."""

import numpy as np
import pandas as pd
import pytest

from leukotree.data import manifest as manifests
from leukotree.data.audit.audit import audit
from leukotree.data.pack import pack
from leukotree.data.patients import doubts, identities
from leukotree.data.sources.importer import import_source
from leukotree.errors import InputError
from leukotree.taxonomy import Taxonomy
from tests.helpers.patients import cohort, manifest, named, picture

SMALL = {"folds": 2, "size": 8, "workers": 1}
SCANNERS = [
    (leaf, f"{leaf}{number}", source, 2)
    for leaf in ("AML", "ALL")
    for number in range(6)
    for source in ("old", "new")
]


def kinds(all_doubts):
    return {doubt.kind: doubt for doubt in all_doubts}


def test_the_same_id_in_several_sources_is_named_and_can_be_joined(tmp_path):
    path = manifest(tmp_path, [*SCANNERS, ("AML", "only", "new", 1)])
    told = []
    apart = pack(path, tmp_path / "apart", **SMALL, tell=told.append)
    assert "several-sources" not in kinds(doubts.find(apart.dataset.index, across_sources=True))
    for all_doubts in (apart.doubts, audit(tmp_path / "apart").doubts):
        doubt = kinds(all_doubts)["several-sources"]
        assert {case.ids for case in doubt.cases} == {
            (f"{leaf}{number}",) for leaf in ("AML", "ALL") for number in range(6)
        }
        assert doubt.cases[0].sources == ("new", "old")
        assert doubt.warns
        assert "12 patient id(s) are in several sources: 'ALL0' (source 'new', source 'old')" in doubt.text()
    assert any("--patients-across-sources" in line for line in told)
    assert apart.dataset.description.patients == 25
    joined = pack(path, tmp_path / "joined", **SMALL, patients_across_sources=True)
    assert "several-sources" not in kinds(joined.doubts)
    assert joined.dataset.description.patients == 13
    assert (joined.dataset.index.groupby("patient")["fold"].nunique() == 1).all()
    assert set(joined.dataset.index["source"]) == {"old", "new"}
    audited = audit(tmp_path / "joined")
    assert audited.ok
    assert "several-sources" not in kinds(audited.doubts)
    with pytest.raises(InputError, match="patients_across_sources"):
        pack(path, tmp_path / "apart", **SMALL, patients_across_sources=True)
    with pytest.raises(InputError, match="patients_across_sources True there"):
        pack(path, tmp_path / "joined", **SMALL)


def test_an_id_that_looks_alike_in_another_source_is_named_with_it(tmp_path):
    rows = [("AML", "001", "old", 2), ("AML", "1", "new", 2), ("AML", "2", "old", 2)]
    path = manifest(tmp_path, [*rows, ("ALL", "A", "old", 2), ("ALL", "B", "New", 2)])
    by_kind = kinds(pack(path, tmp_path / "shards", **SMALL).doubts)
    assert [(case.ids, case.sources) for case in by_kind["several-sources"].cases] == [
        (("001", "1"), ("new", "old"))
    ]
    assert [case.ids for case in by_kind["similar-sources"].cases] == [("New", "new")]
    assert "pack with `--patients-across-sources --similar-ids join`" in by_kind["several-sources"].advice
    joined = pack(path, tmp_path / "joined", **SMALL, patients_across_sources=True, similar_ids="join")
    assert joined.dataset.description.patients == 4


def test_an_audit_of_joined_sources_sees_a_patient_in_two_folds(tmp_path):
    shards = tmp_path / "shards"
    pack(manifest(tmp_path, SCANNERS), shards, **SMALL, patients_across_sources=True)
    index = pd.read_parquet(shards / "index.parquet")
    first, second = (index[index["fold"] == fold].iloc[0]["patient"] for fold in (0, 1))
    index.loc[(index["patient"] == first) & (index["source"] == "new"), "patient"] = second
    index.to_parquet(shards / "index.parquet", index=False)
    assert any("leakage: 1 patient(s) are in several folds" in error for error in audit(shards).errors)


def test_an_old_pack_that_split_two_spellings_is_leakage(tmp_path):
    shards = tmp_path / "shards"
    pack(
        manifest(
            tmp_path, [(leaf, f"{leaf}{number}", "x", 1) for leaf in ("AML", "ALL") for number in range(4)]
        ),
        shards,
        **SMALL,
    )
    index = pd.read_parquet(shards / "index.parquet")
    for fold, text in ((0, "Mu\u0308ller"), (1, "M\u00fcller\u200b")):
        index.loc[index.index[index["fold"] == fold][0], "patient"] = text
    index.to_parquet(shards / "index.parquet", index=False)
    audited = audit(shards)
    assert any("leakage: 1 patient(s) are in several folds" in error for error in audited.errors)
    assert {"Mu\u0308ller", "M\u00fcller\u200b"} in named(audited.doubts)


def test_the_same_id_with_two_leaves_is_noted(tmp_path):
    root = cohort(tmp_path / "raw", ["001", "002", "003", "004"])
    for number in range(2):
        picture(root / "CLL" / f"00{number + 1}" / "0.bmp", 50 + number)
        picture(root / "CLL" / f"{number}x" / "0.bmp", 60 + number)
    imported = import_source("folder", root, root / "m.csv")
    packed = pack(root / "m.csv", tmp_path / "shards", folds=2, size=8, workers=1)
    audited = audit(tmp_path / "shards")
    for summary in (imported, packed, audited):
        note = kinds(summary.doubts)["several-leaves"]
        assert [(case.ids, case.leaves) for case in note.cases] == [
            (("001",), ("AML", "CLL")),
            (("002",), ("AML", "CLL")),
        ]
        assert any(
            line.startswith("note: 2 patient id(s) have several leaves: '001' (AML, CLL)")
            for line in summary.lines()
        )


def test_ids_that_a_spreadsheet_made_are_named():
    made = ["2-Jan", "Mar-01", "1.23457E+15", "6-May-23", "01/02/2024", "2024-01-02 00:00:00"]
    frame = pd.DataFrame({"patient": [*made, "MAR-1", "1-2", "P1E+05"], "source": "x", "leaf": "AML"})
    assert {case.ids[0] for case in kinds(doubts.find(frame))["spreadsheet"].cases} == set(made)


NOBODY = [
    "nan",
    "NaN",
    "NA",
    "N/A",
    "n.a.",
    "None",
    "null",
    "NULL",
    "NaT",
    "<NA>",
    "#N/A",
    "#REF!",
    "#VALUE!",
    "unknown",
    "-",
    "?",
    "--",
    "(null)",
    "\\N",
    "Unbekannt",
    "#N/A N/A",
    "not available",
    "ＮＡ",
    "_",
    "keine Angabe",
    "неизвестно",
    "未知",
    "不明",
]


@pytest.mark.parametrize("text", NOBODY)
def test_a_text_that_means_no_id_is_refused_by_a_manifest(tmp_path, text):
    path = manifest(tmp_path, [("AML", "p1", "x", 1), ("AML", text, "x", 2)])
    with pytest.raises(
        InputError, match=r"m\.csv row 3: patient .* names nobody, .*; leave the cell empty \(and 1 more\)"
    ):
        pack(path, tmp_path / "shards", **SMALL)
    assert not (tmp_path / "shards").exists()


@pytest.mark.parametrize("text", [text for text in NOBODY if "/" not in text])
def test_a_folder_name_that_means_no_id_is_refused_at_import(tmp_path, text):
    root = cohort(tmp_path / "raw", ["p1", text])
    with pytest.raises(
        InputError,
        match=r"raw: patient .* names nobody, and 1 images, such as AML/.*/0\.bmp, would be one patient's",
    ):
        import_source("folder", root, root / "m.csv")
    assert not (root / "m.csv").exists()


@pytest.mark.parametrize(
    "text", ["Nan-1", "Nina", "P?", "Ref", "Value", "Nul5", "none2", "0", "Nana", "张", "😀", "N"]
)
def test_real_ids_do_not_mean_no_id(text):
    assert not identities.names_nobody(text)


@pytest.mark.parametrize(
    "numbers", [[1.0, None, 3.0], pd.array([1, None, 3], dtype="Int64"), np.array([1, np.nan, 3], np.float32)]
)
def test_an_empty_cell_of_a_column_of_numbers_is_no_patient_and_whole_numbers_have_no_point(
    tmp_path, numbers
):
    for number in range(3):
        picture(tmp_path / f"{number}.bmp", number)
    table = pd.DataFrame(
        {"image": ["0.bmp", "1.bmp", "2.bmp"], "leaf": "AML", "patient": numbers, "source": 7.0}
    )
    table.to_parquet(tmp_path / "m.parquet", index=False)
    frame = manifests.read(tmp_path / "m.parquet", Taxonomy.paper())
    assert frame["group_id"].tolist() == ["7/1", "7/1.bmp", "7/3"]
    assert frame["group"].tolist() == ["patient", "image", "patient"]


def test_long_numbers_as_floats_are_refused(tmp_path):
    table = pd.DataFrame({"image": ["0.bmp"], "leaf": "AML", "patient": [12345678901234567.0], "source": "x"})
    table.to_parquet(tmp_path / "m.parquet", index=False)
    with pytest.raises(
        InputError, match="column 'patient' is of type double, in which different long numbers may be equal"
    ):
        manifests.read(tmp_path / "m.parquet", Taxonomy.paper())


def test_leaves_and_sources_have_one_spelling(tmp_path):
    for number in range(2):
        picture(tmp_path / f"{number}.bmp", number)
    rows = "0.bmp,Mu\u0308de\u200b,p,Klinik\u00a0A\n1.bmp,M\u00fcde,p\ufeff,Klinik A\n"
    (tmp_path / "m.csv").write_text("image,leaf,patient,source\n" + rows)
    frame = manifests.read(
        tmp_path / "m.csv", Taxonomy.from_nested({"root": {"Mu\u0308de": None, "wach": None}})
    )
    assert frame["leaf"].tolist() == ["Mu\u0308de"] * 2, "as the tree spells it"
    assert frame["group_id"].nunique() == 1


# --- the choice, and packs without one


def test_keep_silences_the_warning_and_is_remembered(tmp_path):
    path = manifest(
        tmp_path, [(leaf, text, "x", 1) for leaf in ("AML", "ALL") for text in (f"{leaf}1", f"{leaf}01")]
    )
    told = []
    kept = pack(path, tmp_path / "shards", **SMALL, similar_ids="keep", tell=told.append)
    assert told == []
    audited = audit(tmp_path / "shards")
    assert audited.warnings == ()
    for lines in (kept.lines(), audited.lines()):
        assert any(
            line.startswith("note: 2 group(s) of ids look alike and are different patients") for line in lines
        )
    assert kept.dataset.description.patients == 4
    with pytest.raises(InputError, match="similar_ids keep there, None now"):
        pack(path, tmp_path / "shards", **SMALL)
    with pytest.raises(InputError, match="similar_ids 'both': must be one of join, keep"):
        pack(path, tmp_path / "others", **SMALL, similar_ids="both")


def test_the_id_of_most_images_is_kept_whatever_the_order(tmp_path):
    rows = [
        ("AML", "7", "x", 1),
        ("AML", "007", "x", 2),
        ("ALL", "q", "x", 1),
        ("ALL", "Q", "x", 1),
        ("AML", "9", "x", 1),
        ("ALL", "8", "x", 1),
    ]
    for name, order in (("one", rows), ("two", rows[::-1])):
        (tmp_path / name).mkdir()
        packed = pack(
            manifest(tmp_path / name, order), tmp_path / f"{name}-shards", **SMALL, similar_ids="join"
        )
        assert set(packed.dataset.index["patient"]) == {"007", "Q", "8", "9"}


def test_a_pack_without_the_options_has_the_identity_that_it_always_had(tmp_path):
    packed = pack(manifest(tmp_path, SCANNERS), tmp_path / "shards", **SMALL)
    options = packed.dataset.description.model_extra["options"]
    assert not {"similar_ids", "patients_across_sources"} & set(options)
