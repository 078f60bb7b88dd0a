"""Public sets on small copies of their layouts: leaves, patients, and what is left out."""

import pytest

from leukotree.data import manifest
from leukotree.data.sources.importer import import_source
from leukotree.errors import InputError
from leukotree.taxonomy import Taxonomy
from tests.data.sources.test_foreign import laid_out
from tests.helpers.small_data import lay_out


def imported(source, root, tmp_path, **options):
    """(summary, {name and box: (leaf, patient)})."""
    summary = import_source(source, root, tmp_path / "out/m.csv", **options)
    frame = manifest.read(tmp_path / "out/m.csv", Taxonomy.paper())
    names = (frame["name"] + " " + frame["box"]).str.strip()
    return summary, dict(zip(names, zip(frame["leaf"], frame["patient"], strict=True), strict=True))


@pytest.fixture
def idb(tmp_path):
    names = ("Im001_1", "Im002_1", "Im034_0", "im035_0")
    root = lay_out(
        tmp_path / "ALL_IDB", *(f"ALL_IDB1/im/{name}.jpg" for name in names), "ALL_IDB1/im/Thumbs.db"
    )
    lay_out(root, "ALL_IDB1/im/readme.jpg", *(f"ALL_IDB1/xyc/{name}.xyc" for name in names[1:]))
    lay_out(root, "ALL_IDB2/img/Im001_1.tif", "ALL_IDB2/img/Im131_0.tif")
    for name in names[2:]:
        (root / f"ALL_IDB1/xyc/{name}.xyc").write_text("")
    (root / "ALL_IDB1/xyc/Im002_1.xyc").write_text("1000\t500\r\n20 1900\r\n1000 500\r\n\r\n")
    return root


@pytest.mark.parametrize("inside", ["", "ALL_IDB1"])
def test_fields_of_allidb1(idb, tmp_path, inside):
    summary, rows = imported("allidb1", idb / inside, tmp_path)
    assert rows == {
        "im/Im001_1.jpg": ("ALL", ""),
        "im/Im002_1.jpg": ("ALL", ""),
        "im/Im034_0.jpg": ("normal", ""),
        "im/im035_0.jpg": ("normal", ""),
    }
    assert summary.skipped == {"Thumbs.db": 1, "the name is not ImNNN_Y": 1}
    assert summary.notes == ("ALL-IDB2 is cut from these fields: do not use both",)


def test_blasts_of_allidb1_stay_together_with_their_field(idb, tmp_path):
    summary, rows = imported("allidb1", idb, tmp_path, cells=True)
    assert rows == {
        "im/Im002_1.jpg 872 372 257 257": ("ALL", ""),
        "im/Im002_1.jpg -108 1772 257 257": ("ALL", ""),
    }
    assert summary.skipped["field of ALL without a centre in xyc/"] == 1
    assert summary.skipped["healthy field: only blasts have centres"] == 2
    frame = manifest.read(tmp_path / "out/m.csv", Taxonomy.paper())
    assert frame["group_id"].nunique() == 1
    (idb / "ALL_IDB1/xyc/Im001_1.xyc").write_text("5 6\n7\n")
    with pytest.raises(InputError, match=r"Im001_1\.xyc row 2: '7' is not `x y`"):
        imported("allidb1", idb, tmp_path, cells=True)


def test_cells_of_allidb2(idb, tmp_path):
    _, rows = imported("allidb2", idb, tmp_path)
    assert rows == {"img/Im001_1.tif": ("ALL", ""), "img/Im131_0.tif": ("normal", "")}


def test_hehr(tmp_path):
    root = lay_out(
        tmp_path / "set",
        "data/control/AAA/image_1.tif",
        "data/PML_RARA/BBB/image_1.tif",
        "data/NPM1/CCC/image_1.TIF",
        "data/NPM1/CCC/features.npy",
        "data/CBFB_MYH11/DDD/image_1.tif",
        "data/NPM1/EEE/image_1.tif",
        "data/NPM1/FFF/image_1.tif",
        "data/RUNX1_RUNX1T1/GGG/image_1.tif",
        "data/NPM1/loose.tif",
    )
    (root / "metadata.csv").write_text(
        "patient_id,sex_1f_2m,bag_label\nAAA,1,control\nBBB,1,PML_RARA\nCCC,2,NPM1\nDDD,2,CBFB_MYH11\n"
        "EEE,1,control\nGGG,1,RUNX1_RUNX1T1\nHHH,1,NPM1\n"
    )
    summary, rows = imported("hehr", root, tmp_path)
    assert {patient: leaf for leaf, patient in rows.values()} == {
        "AAA": "normal",
        "BBB": "APML",
        "CCC": "AML",
        "DDD": "AML",
        "GGG": "AML",
    }
    assert summary.skipped == {
        "in folder 'NPM1', but metadata.csv says 'control'": 1,
        "not in a patient's folder": 1,
        "patient not in metadata.csv": 1,
        "perhaps an image, in a format that is not read (.npy); save it as PNG or TIFF": 1,
    }
    assert summary.notes == ("1 patients of metadata.csv have no images: HHH",)


def test_lmu(tmp_path):
    names = ("MYO/MYO_0001.tiff", "LYA/LYA_0001.tiff", "NGS/NGS_0001.tiff", "KSC/KSC_0001.tiff")
    root = lay_out(tmp_path / "AML-Cytomorphology_LMU", *names, "NGS/MYO_0009.tiff", "XYZ/XYZ_0001.tiff")
    (root / "annotations.dat").write_text("MYO/MYO_0001.tiff MYO MYO nan\nBAS/BAS_0001.tiff BAS nan nan\n")
    for folder in (tmp_path, root):
        summary, rows = imported("lmu", folder, tmp_path, cell_types=True)
        assert {name: leaf for name, (leaf, _) in rows.items()} == dict(
            zip(names, ("AML", "reactive", "normal"), strict=False)
        )
    assert summary.skipped == {
        "'XYZ' is no class of the set": 1,
        "cell type 'KSC' has no leaf": 1,
        "not in a class folder": 1,
    }
    assert summary.notes == ("1 files of annotations.dat are not there: BAS/BAS_0001.tiff",)


def test_mll23_with_and_without_the_folders_of_its_archives(tmp_path):
    names = (
        "neutrophil_band/neutrophil_band/1.TIF",
        "promyelocyte_atypical/1.tif",
        "lymphocyte_reactive/lymphocyte_reactive/1.tif",
        "myeloblast/1.tif",
        "hairy_cell/1.tif",
        "__MACOSX/1.tif",
    )
    root = lay_out(tmp_path / "MLL23", *names)
    summary, rows = imported("mll23", root, tmp_path, cell_types=True)
    assert [leaf for leaf, _ in rows.values()] == ["reactive", "AML", "normal", "APML"]
    assert summary.skipped == {
        "cell type 'hairy_cell' has no leaf": 1,
        "folder of the operating system (__MACOSX)": 1,
    }


def test_bodzas(tmp_path):
    kinds = ("Basophile", "Neutrophile Band", "Lymphoblast", "Myeloblast", "Normoblast")
    root = lay_out(tmp_path / "set", *(f"Labelled/{kind}/1.bmp" for kind in kinds))
    summary, _ = imported("bodzas", root, tmp_path, cell_types=True)
    assert summary.leaves == {"ALL": 1, "AML": 1, "normal": 2}
    assert summary.skipped == {"cell type 'Normoblast' has no leaf": 1}


def test_raabin(tmp_path):
    kinds = ("Basophil", "Eosinophil", "Lymphocyte", "Monocyte", "Neutrophil")
    names = [f"{part}/{kind}/a_1.jpg" for part in ("Train", "TestA") for kind in kinds]
    root = lay_out(tmp_path / "Raabin", *names, "TestB/Neutrophil/b.jpg", "Train/Burst/c.jpg", "more/d.jpg")
    summary, _ = imported("raabin", tmp_path, tmp_path)
    assert summary.leaves == {"normal": 11}
    assert summary.skipped == {
        "folder 'Burst' is no class of the set": 1,
        "not in Train, TestA or TestB": 1,
    }
    assert root.is_dir()


def test_chula_with_the_mistakes_of_its_table(tmp_path):
    root = lay_out(tmp_path / "set", *(f"images/00000{number}.jpg" for number in range(1, 8)))
    (root / "labels.csv").write_text(
        "Order.jpg,Original name(label machine),Summary by 5 experts,,\n"
        "000001.jpg,LY_1.jpg,Lymphocyte,,Abbreviation\n000002.jpg,MO_1.jpg,Monocyte ,,\n"
        "000003.jpg,SNE_1.jpg,SNE\t,,\n000004.jpg,BL_1.jpg,Myeolblast,,\n"
        "000005.jpg,VLY_1.jpg,Atypical lymphocyte,,\n"
        "000006.jpg,,LQI,,\n000009.jpg,,SNE,,\n"
    )
    summary, rows = imported("chula", root, tmp_path, cell_types=True)
    assert summary.leaves == {"AML": 1, "normal": 3, "reactive": 1}
    assert summary.skipped == {"cell type 'LQI' has no leaf": 1, "not in labels.csv": 1}
    assert summary.notes == ("1 files of labels.csv are not there: 000009.jpg",)
    assert len(rows) == 5


@pytest.mark.parametrize("source", ["lmu", "mll23", "bodzas", "chula"])
def test_cell_types_are_proxies_only_when_asked(source, tmp_path):
    with pytest.raises(InputError, match="is only a proxy, used with --cell-types"):
        import_source(source, laid_out(source, tmp_path), tmp_path / "m.csv")
