"""Sources on artificial layouts with everything that the public sets contain and a partial copy may lack."""

import os
from pathlib import Path

import pandas as pd
import pytest

from leukotree.data import manifest
from leukotree.data.sources import SOURCES
from leukotree.data.sources.importer import import_source
from leukotree.errors import InputError
from leukotree.taxonomy import Taxonomy
from tests.helpers.small_data import lay_out


def imported(source, root, tmp_path, **options):
    """Return (summary, {name: row of the manifest as it is read again})."""
    summary = import_source(source, root, tmp_path / "out" / "m.csv", **options)
    frame = manifest.read(tmp_path / "out" / "m.csv", Taxonomy.paper())
    assert len(frame) == summary.rows == sum(summary.leaves.values())
    return summary, frame.set_index("name").to_dict("index")


@pytest.fixture
def deepapl(tmp_path):
    root = lay_out(
        tmp_path / "deepapl",
        "Data/All/Patient_00/Signed slides/Blast, no lineage spec/BL_1.jpg",
        "Data/All/Patient_00/Signed slides/Blast, no lineage spec/Thumbs.db",
        "Data/All/Patient_00/Signed slides/Smudge cells/SM_1.jpg",
        "Data/All/Patient_00/Unsigned slides/UN_1.jpg",
        "Data/All/Patient_00/loose.jpg",
        "Data/All/Patient_01/2018-12-16_2346/Signed slides/Promyelocyte/PM_1.JPG",
        "Data/All/Patient_01/2018-12-16_2346/Signed slides/Lymphocyte, variant/LV_1.jpg",
        "Data/All/Patient_01/2019-01-02_0000/Signed slides/Lymphocyte/LY_1.jpg",
        "Data/All/Patient_01/2019-01-02_0000/Unsigned slides/UN_2.jpg",
        "Data/All/Patient_02/Signed slides/Myelocyte/MY_1.jpg",
        "Data/All/Patient_09/Signed slides/Myelocyte/MY_2.jpg",
    )
    (root / "Data/master.csv").write_text(
        "\ufeffPatient_ID,Diagnosis,Cohort\nPatient_00,AML,Discovery\nPatient_01,APL,Discovery\n"
        "Patient_02,MDS,Validation\nPatient_03,AML,Validation\n"
    )
    return root


def test_deepapl_labels_leukemic_cells_by_the_patients_diagnosis(deepapl, tmp_path):
    summary, rows = imported("deepapl", deepapl, tmp_path)
    assert {name: (row["leaf"], row["patient"]) for name, row in rows.items()} == {
        "All/Patient_00/Signed slides/Blast, no lineage spec/BL_1.jpg": ("AML", "Patient_00"),
        "All/Patient_01/2018-12-16_2346/Signed slides/Promyelocyte/PM_1.JPG": ("APML", "Patient_01"),
    }
    assert summary.skipped == {
        "Thumbs.db": 1,
        "cell type 'Lymphocyte' is only a proxy, used with --cell-types": 1,
        "cell type 'Lymphocyte, variant' is only a proxy, used with --cell-types": 1,
        "cell type 'Smudge cells' has no leaf": 1,
        "diagnosis 'MDS' has no leaf": 1,
        "not below 'Signed slides/<cell type>'": 1,
        "patient not in master.csv": 1,
        "unsigned slides, no cell type": 2,
    }
    assert summary.notes == (
        "1 patients of master.csv have no folder: Patient_03",
        "1 folders have no patient in master.csv: Patient_09",
    )


def test_deepapl_takes_cell_types_as_proxies_when_asked(deepapl, tmp_path):
    summary, rows = imported("deepapl", deepapl, tmp_path, cell_types=True)
    assert summary.leaves == {"AML": 1, "APML": 1, "normal": 1, "reactive": 1}
    assert summary.patients == 2
    assert {row["group"] for row in rows.values()} == {"patient"}


def test_the_summary_says_all_of_it(deepapl, tmp_path):
    summary, _ = imported("deepapl", deepapl, tmp_path, benign="reactive")
    lines = summary.lines()
    assert lines[0] == f"{tmp_path / 'out' / 'm.csv'}: 2 images, 2 patients: AML 1, APML 1"
    assert "skipped 2: unsigned slides, no cell type" in lines
    assert lines[-1] == "note: --benign changes nothing for deepapl"


def test_the_folder_around_a_layout_will_do_as_well_as_its_top(deepapl, tmp_path, monkeypatch):
    _, outer = imported("deepapl", deepapl, tmp_path)
    _, inner = imported("deepapl", deepapl / "Data", tmp_path)
    monkeypatch.chdir(deepapl / "Data")
    _, here = imported("deepapl", Path("."), tmp_path)
    assert outer == inner == here


def test_a_patient_with_two_diagnoses_is_refused(deepapl, tmp_path):
    with open(deepapl / "Data/master.csv", "a") as file:
        file.write("Patient_00,APL,Discovery\n")
    with pytest.raises(InputError, match=r"master\.csv row 6: 'Patient_00' is 'APL' here but 'AML' above"):
        imported("deepapl", deepapl, tmp_path)


def test_cnmc_reads_subject_and_class_from_the_name_or_from_the_csv_of_the_preliminary_phase(tmp_path):
    root = lay_out(
        tmp_path / "cnmc",
        "C-NMC_Leukemia/training_data/fold_0/all/UID_16_11_1_all.BMP",
        "C-NMC_Leukemia/training_data/fold_2/hem/UID_H10_2_1_hem.bmp",
        "C-NMC_Leukemia/training_data/fold_2/hem/UID_12_2_1_all.bmp",
        "C-NMC_Leukemia/validation_data/C-NMC_test_prelim_phase_data/1.bmp",
        "C-NMC_Leukemia/validation_data/C-NMC_test_prelim_phase_data/2.bmp",
        "C-NMC_Leukemia/testing_data/C-NMC_test_final_phase_data/1.bmp",
    )
    table = root / "C-NMC_Leukemia/validation_data/C-NMC_test_prelim_phase_data_labels.csv"
    table.write_text(
        "Patient_ID,new_names,labels\nUID_57_29_1_all.bmp,1.bmp,1\n"
        "UID_H49_35_1_hem.bmp,2.bmp,0\nUID_57_1_1_all.bmp,3.bmp,1\n"
    )
    summary, rows = imported("cnmc", root, tmp_path)
    assert {name: (row["leaf"], row["patient"]) for name, row in rows.items()} == {
        "training_data/fold_0/all/UID_16_11_1_all.BMP": ("ALL", "16"),
        "training_data/fold_2/hem/UID_H10_2_1_hem.bmp": ("normal", "H10"),
        "validation_data/C-NMC_test_prelim_phase_data/1.bmp": ("ALL", "57"),
        "validation_data/C-NMC_test_prelim_phase_data/2.bmp": ("normal", "H49"),
    }
    assert sorted(summary.skipped.values()) == [1, 1]
    assert "class 'all' in the file's name but folder 'hem'" in summary.skipped
    assert summary.notes == ("1 images of the preliminary phase's CSV are missing",)


def test_cnmc_refuses_a_label_that_contradicts_the_name(tmp_path):
    root = lay_out(tmp_path / "cnmc", "phase2/1.bmp")
    (root / "phase2.csv").write_text("Patient_ID,new_names,labels\nUID_57_29_1_all.bmp,1.bmp,0\n")
    with pytest.raises(
        InputError,
        match=r"phase2\.csv row 2: label '0' of 'UID_57_29_1_all\.bmp' is not 1 for all or 0 for hem",
    ):
        imported("cnmc", root, tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        (
            "Original/Benign/1.jpg",
            "Original/Early/1.jpg",
            "Original/Pre/1.jpg",
            "Original/Pro/1.jpg",
            "Segmented/Pro/1.jpg",
        ),
        tuple(
            f"Blood cell Cancer [ALL]/{name}/1.jpg"
            for name in ("Benign", "[Malignant] early Pre-B", "[Malignant] Pre-B", "[Malignant] Pro-B")
        ),
    ],
)
def test_taleqani_leaves_benign_to_the_user_in_both_releases(tmp_path, names):
    root = lay_out(tmp_path / "set", *names)
    summary, rows = imported("taleqani", root, tmp_path)
    assert summary.leaves == {"ALL": 3}
    assert summary.skipped["Benign has no leaf; --benign LEAF gives it one"] == 1
    assert summary.skipped.get("Segmented: the same fields again", 0) == sum(
        "Segmented" in name for name in names
    )
    assert {(row["patient"], row["group"]) for row in rows.values()} == {("", "image")}
    summary, _ = imported("taleqani", root, tmp_path, benign="reactive")
    assert summary.leaves == {"ALL": 3, "reactive": 1}


def test_pbc_is_normal_whatever_the_white_cell(tmp_path):
    classes = ("basophil", "ig", "neutrophil", "platelet", "erythroblast", "notes")
    root = lay_out(tmp_path / "pbc", *(f"PBC_dataset_normal_DIB/{name}/X_1.jpg" for name in classes))
    summary, _ = imported("pbc", root, tmp_path)
    assert summary.leaves == {"normal": 3}
    assert summary.skipped == {
        "erythroblast: not a white cell": 1,
        "folder 'notes' is no class of the set": 1,
        "platelet: not a white cell": 1,
    }


@pytest.fixture
def krd(tmp_path):
    root = lay_out(
        tmp_path / "set" / "KRD",
        *(f"image/000{n}.jpg" for n in range(1, 5)),
        "mask/0001.png",
        "mask/0003.png",
    )
    labels = (
        "\ufeffImage ID,Categoriy\nImage1,Lymphocyte\nImage2,Basophil\nImage3,Artefact\nImage9,Monocyte\n"
    )
    (root / "class labels.csv").write_text(labels)
    return root


def test_krd_brings_its_masks(krd, tmp_path):
    summary, rows = imported("krd", krd.parent, tmp_path, cell_types=True)
    assert {name: row["mask"] for name, row in rows.items()} == {
        "image/0001.jpg": str((krd / "mask/0001.png").resolve()),
        "image/0002.jpg": "",
    }
    assert summary.skipped == {"cell type 'Artefact' has no leaf": 1, "no label in 'class labels.csv'": 1}
    assert summary.notes == ("1 of the 4 images in 'class labels.csv' are missing", "1 images have no mask")


def test_a_set_of_proxies_only_is_refused_without_the_flag_and_writes_nothing(krd, tmp_path):
    with pytest.raises(InputError, match=r"nothing to import as krd: .*--cell-types"):
        imported("krd", krd, tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_folder_sorted_by_hand(tmp_path):
    root = lay_out(
        tmp_path / "clinic",
        "AML/p1/1.png",
        "AML/p1/day 2/2.TIF",
        "CLL/p2/1.jpeg",
        "CLL/loose.png",
        "readme.txt",
        "top.png",
        "AML/p1/.hidden.png",
        ".git/x.png",
    )
    summary, rows = imported("folder", root, tmp_path)
    assert {name: row["group_id"] for name, row in rows.items()} == {
        "AML/p1/1.png": "clinic/p1",
        "AML/p1/day 2/2.TIF": "clinic/p1",
        "CLL/p2/1.jpeg": "clinic/p2",
        "CLL/loose.png": "clinic/CLL/loose.png",
    }
    assert summary.skipped == {
        "hidden file": 1,
        "hidden folder": 1,
        "not an image (.txt)": 1,
        "not in a folder <leaf>/<patient>/": 1,
    }
    assert summary.notes == ("1 images lie directly in their leaf's folder, so have no patient id",)


def test_every_ending_that_pack_reads_is_imported_and_others_are_named(tmp_path):
    known = [
        "jpg",
        "JPEG",
        "jpe",
        "jfif",
        "png",
        "bmp",
        "tif",
        "tiff",
        "gif",
        "webp",
        "ppm",
        "pgm",
        "pbm",
        "pnm",
    ]
    unread = ["jp2", "heic", "svs", "ndpi", "dcm", "npy", "avif", "czi", "dib"]
    root = lay_out(
        tmp_path / "clinic",
        *(f"AML/p1/{ending}.{ending}" for ending in [*known, *unread, "csv"]),
        "AML/p1/none",
    )
    summary, rows = imported("folder", root, tmp_path)
    assert set(rows) == {f"AML/p1/{ending}.{ending}" for ending in known}
    assert summary.skipped == {
        **{
            f"perhaps an image, in a format that is not read (.{ending}); save it as PNG or TIFF": 1
            for ending in unread
        },
        "not an image (.csv)": 1,
        "not an image (no extension)": 1,
    }


def test_links_are_followed_and_names_that_a_manifest_cannot_hold_are_skipped_and_counted(tmp_path):
    root = lay_out(tmp_path / "clinic", "AML/p1/1.png", "AML/p1/new\nline.png")
    (root / os.fsdecode(b"AML/p1/caf\xe9.png")).write_bytes(b"no pixels")
    lay_out(tmp_path / "elsewhere", "2.png", "p2/5.png")
    (root / "AML/p1/2.png").symlink_to(tmp_path / "elsewhere/2.png")
    (root / "AML/p1/3.png").symlink_to(root / "AML/p1/1.png")
    (root / "AML/p1/4.png").symlink_to(root / "AML/p1/missing.png")
    (root / "AML/p2").symlink_to(tmp_path / "elsewhere/p2")
    summary = import_source("folder", root, tmp_path / "m.csv", follow_links=True)
    assert summary.skipped == {
        "broken link": 1,
        "control characters or broken encoding in the path": 2,
        "link to another image of the set": 1,
    }
    assert summary.notes[1:3] == (
        f"1 linked folders were followed: AML/p2 -> {tmp_path}/elsewhere/p2",
        "1 links lead to nothing: AML/p1/4.png",
    )
    assert manifest.read(tmp_path / "m.csv", Taxonomy.paper())["name"].tolist() == [
        "clinic/AML/p1/1.png",
        "elsewhere/2.png",
        "elsewhere/p2/5.png",
    ]


def test_the_same_folder_gives_the_same_bytes(deepapl, tmp_path):
    first, second = tmp_path / "1.csv", tmp_path / "2.csv"
    for path in (first, second):
        import_source("deepapl", deepapl, path, cell_types=True)
    assert first.read_bytes() == second.read_bytes()
    columns = pd.read_csv(first).columns.tolist()
    assert columns == ["image", "leaf", "patient", "source", "group", "root"]


@pytest.mark.parametrize("source", SOURCES)
def test_a_folder_of_another_layout_is_refused_in_one_line(source, tmp_path):
    root = lay_out(tmp_path / "set", "something/else.txt")
    with pytest.raises(InputError) as caught:
        import_source(source, root, tmp_path / "m.csv")
    assert str(caught.value).startswith(str(root))
    assert "looked there for" in str(caught.value) or "nothing to import" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "m.csv").exists()


def test_an_unknown_source_or_an_absent_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="unknown source 'deepaml'; there are allidb1, "):
        import_source("deepaml", tmp_path, tmp_path / "m.csv")
    with pytest.raises(InputError, match="no such folder"):
        import_source("pbc", tmp_path / "absent", tmp_path / "m.csv")
    with pytest.raises(InputError, match="benign: the name of a leaf is empty"):
        import_source("taleqani", tmp_path, tmp_path / "m.csv", benign=" ")
