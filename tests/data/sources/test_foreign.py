"""Every source refuses every layout of another source in one line, and writes nothing."""

from pathlib import Path

import pytest
import webdataset
from PIL import Image

from leukotree.data.sources import SOURCES, pbc
from leukotree.data.sources.importer import import_source
from leukotree.errors import InputError
from tests.helpers.small_data import lay_out

UUID = "51a9fe3d-cea1-5b9f-87ab-8454a0d746f{}.jpg"
LAYOUTS = {
    "allidb1": ("ALL_IDB1/im/Im001_1.jpg", "ALL_IDB1/im/Im034_0.jpg", "ALL_IDB1/xyc/Im001_1.xyc"),
    "allidb2": ("ALL_IDB2/img/Im001_1.tif", "ALL_IDB2/img/Im131_0.tif"),
    "bodzas": tuple(f"Labelled/{name}/1.bmp" for name in ("Basophile", "Neutrophile Band", "Myeloblast")),
    "chula": ("images/000001.jpg", "images/000002.jpg"),
    "coco": ("train/1.jpg", "train/2.jpg"),
    "hehr": ("data/control/AAA/image_1.tif", "data/PML_RARA/BBB/image_1.tif"),
    "cnmc": (
        "C-NMC_training_data/fold_0/all/UID_1_1_1_all.jpg",
        "C-NMC_training_data/fold_0/hem/UID_H1_1_1_hem.jpg",
    ),
    "deepapl": ("Data/All/Patient_01/Signed slides/Promyelocyte/PM_1.jpg",),
    "folder": ("AML/p1/1.jpg", "CLL/p2/1.jpg"),
    "krd": ("image/0001.jpg", "mask/0001.png"),
    "pbc": tuple(
        f"PBC_dataset_normal_DIB/{name}_1.jpg" for name in ("basophil/BA", "ig/MMY", "neutrophil/SNE")
    ),
    "mll23": tuple(f"{name}/{name}/1.tif" for name in ("neutrophil_band", "myeloblast", "smudge_cell")),
    "raabin": tuple(
        f"{part}/{name}/2019_1.jpg"
        for part in ("Train", "TestA")
        for name in ("Basophil", "Eosinophil", "Lymphocyte", "Monocyte", "Neutrophil")
    ),
    "table": ("one/1.jpg", "two/2.jpg"),
    "voc": ("JPEGImages/1.jpg", "Annotations/1.xml"),
    "wds": ("000.tar",),
    "yolo": ("images/1.jpg", "labels/1.txt", "classes.txt"),
    "taleqani": tuple(f"Original/{name}/1.jpg" for name in ("Benign", "Early", "Pre", "Pro")),
    "a flat folder": ("1.jpg", "2.jpg", "IMG_0001.jpg"),
    "a flat folder of crops of another size": tuple(UUID.format(number) for number in range(3)),
    "a flat folder with a few names of PBC": ("BA_1.jpg", "SNE_2.jpg", "AML_3.jpg"),
    "patients": ("p1/1.jpg", "p2/1.jpg"),
    "cell types of anybody": ("neutrophil/1.jpg", "lymphocyte/1.jpg", "monocyte/1.jpg"),
    "cell types of anybody, named by type": ("Neutrophil/NEU_1.jpg", "Lymphocyte/LYT_1.jpg"),
    "cells of a leukemic patient": (
        "Lymphocyte/LY_1.jpg",
        "Monocyte/MO_1.jpg",
        "Blast, no lineage spec/BL_1.jpg",
    ),
    "eight classes of other files": tuple(f"{kind}/{kind}_1.jpg" for kind in pbc.PREFIXES),
    "a cell type in the folder of another": ("neutrophil/LY_1.jpg",),
    "train and test": ("train/AML/1.jpg", "test/AML/1.jpg"),
    "before and after": ("pre/1.jpg", "post/1.jpg"),
    "other stages": ("early/1.jpg", "late/1.jpg"),
    "lyon": ("trainset/P0/000000.jpg", "trainset/P2/000000.jpg"),
    "leukemiaattri": ("H_100X_C1/Images/train/44_102_1000_AML.png",),
    "lmu": ("BAS/BAS_0001.tiff", "EBO/EBO_0001.tiff"),
    "no images": ("notes/readme.txt",),
}


TABLES = {
    "chula": {
        "labels.csv": "Order.jpg,Original name(label machine),Summary by 5 experts,,\n000001.jpg,,SNE,,\n"
    },
    "coco": {
        "boxes.json": '{"images": [{"id": 1, "file_name": "1.jpg"}], '
        '"categories": [{"id": 0, "name": "ALL"}], '
        '"annotations": [{"id": 1, "image_id": 1, "category_id": 0, "bbox": [1, 1, 9, 9]}]}'
    },
    "deepapl": {"Data/master.csv": "Patient_ID,Diagnosis\nPatient_01,APL\n"},
    "hehr": {"metadata.csv": "patient_id,bag_label\nAAA,control\nBBB,PML_RARA\n"},
    "krd": {"class labels.csv": "Image ID,Categoriy\nImage1,Basophil\n"},
    "lyon": {"clinical_annotation.csv": "ID,LABEL\nP0,1\nP2,0\n"},
    "table": {"labels.csv": "image,leaf\none/1.jpg,ALL\n2,CLL\n"},
    "voc": {
        "Annotations/1.xml": "<annotation><filename>1.jpg</filename><object><name>ALL</name>"
        "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"
    },
    "yolo": {"labels/1.txt": "0 0.5 0.5 0.5 0.5\n", "classes.txt": "ALL\n"},
}
"""Layout -> its files that are no images."""


def laid_out(layout: str, folder: Path) -> Path:
    root = lay_out(folder / "set", *LAYOUTS[layout])
    for path in root.rglob("*.*"):
        if path.suffix in (".jpg", ".png", ".tiff", ".tif", ".bmp"):
            Image.new("RGB", (40, 40)).save(path)
    for name, text in TABLES.get(layout, {}).items():
        (root / name).write_text(text)
    if layout == "wds":
        with webdataset.TarWriter(str(root / "000.tar")) as sink:
            sink.write({"__key__": "1", "jpg": b"no pixels", "cls": "ALL"})
    return root


REFUSALS = ("not this data set's layout; looked there for", "no leaf of the tree", "nothing to import")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_taken_by_its_own_source_only(layout, tmp_path):
    root = laid_out(layout, tmp_path)
    for source in SOURCES:
        if source == layout:
            continue
        with pytest.raises(InputError) as caught:
            import_source(source, root, tmp_path / "m.csv", cell_types=True, benign="normal")
        message = str(caught.value)
        assert len(message.splitlines()) == 1, source
        assert message.startswith(str(root)), source
        assert any(words in message for words in REFUSALS), (source, message)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["set"], source
    if layout in SOURCES:
        assert import_source(layout, root, tmp_path / "m.csv", cell_types=True).rows


REAL = {
    "cnmc": "cnmc",
    "deepapl": "deepapl",
    "krd": "krd",
    "pbc": "pbc",
    "taleqani": "taleqani",
    "lyon": "lyon",
    "leukemiaattri": "leukemiaattri",
}


@pytest.mark.slow("walks through real sets once for each source")
@pytest.mark.parametrize("data", REAL)
def test_a_real_set_is_taken_by_its_own_source_only(data, real_data, tmp_path):
    for source in SOURCES:
        if source == REAL[data]:
            assert import_source(source, real_data / data, tmp_path / "own.csv", cell_types=True).rows
            continue
        with pytest.raises(InputError):
            import_source(source, real_data / data, tmp_path / "m.csv", cell_types=True, benign="normal")
        assert not (tmp_path / "m.csv").exists(), source


def test_real_cells_of_patients_are_no_healthy_ones(real_data, tmp_path):
    signed = sorted((real_data / "deepapl/Data/All").glob("*/Signed slides"))[:20]
    for folder in (*signed, *(folder for patient in signed for folder in patient.iterdir())):
        with pytest.raises(InputError, match="not this data set's layout"):
            import_source("pbc", folder, tmp_path / "m.csv")


def test_pbc_in_full_in_part_and_flat(tmp_path):
    full = [f"{kind}/{sorted(prefixes)[0]}_1.jpg" for kind, prefixes in pbc.PREFIXES.items()]
    classes = lay_out(tmp_path / "classes", *full, "Lymphocyte/LY_100007.JPG", "loose.jpg")
    summary = import_source("pbc", classes, tmp_path / "m.csv")
    assert summary.leaves == {"normal": 7}
    assert summary.skipped == {
        "erythroblast: not a white cell": 1,
        "not in a class folder": 1,
        "platelet: not a white cell": 1,
    }
    part = lay_out(tmp_path / "PBC_dataset_normal_DIB", *full[:2])
    assert import_source("pbc", part, tmp_path / "m.csv").leaves == {"normal": 2}
    flat = lay_out(tmp_path / "flat", *(UUID.format(number) for number in range(3)))
    for path in flat.iterdir():
        Image.new("RGB", (366, 369)).save(path)
    assert import_source("pbc", flat, tmp_path / "m.csv").leaves == {"normal": 3}
    Image.new("RGB", (366, 369)).save(flat / "LY_1.jpg")
    with pytest.raises(InputError, match=r"not this data set's layout.*not 'LY_1\.jpg'"):
        import_source("pbc", flat, tmp_path / "m.csv")


def test_krd_refuses_two_images_or_masks_of_one_number(tmp_path):
    root = lay_out(tmp_path / "krd", "image/0001.jpg", "image/1.png")
    (root / "class labels.csv").write_text("Image ID,Categoriy\nImage1,Basophil\n")
    with pytest.raises(
        InputError, match=r"image/1\.png: its label number 1 is that of .*image/0001\.jpg, too"
    ):
        import_source("krd", root, tmp_path / "m.csv", cell_types=True)
    (root / "image/1.png").unlink()
    lay_out(root, "mask/0001.png", "mask/1.png", "mask/legend.png", "mask/about.png")
    with pytest.raises(InputError, match=r"mask/1\.png: a mask of the same image as .*mask/0001\.png"):
        import_source("krd", root, tmp_path / "m.csv", cell_types=True)
    (root / "mask/1.png").unlink()
    assert import_source("krd", root, tmp_path / "m.csv", cell_types=True).rows == 1
