"""Sources that are a form and no data set: a table, boxes in three forms, and the tars of others."""

import io
import json
import tarfile
from pathlib import Path

import pandas as pd
import pytest
import webdataset
from PIL import Image

from leukotree.data import manifest
from leukotree.data.sources.importer import import_source, mapped
from leukotree.errors import InputError
from leukotree.taxonomy import Taxonomy
from tests.helpers.small_data import files, lay_out, noise

NAMES = {"lymphoblast": "ALL", "neutrophil": "normal"}


def picture(path, width=100, height=50):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height)).save(path)
    return path


def boxes(source, root, tmp_path, **options):
    """(summary, {(file, box): leaf})."""
    summary = import_source(source, root, tmp_path / "m.csv", new_names=NAMES, **options)
    frame = manifest.read(tmp_path / "m.csv", Taxonomy.paper())
    return summary, dict(zip(zip(frame["name"], frame["box"], strict=True), frame["leaf"], strict=True))


# COCO, YOLO and VOC: the same three boxes in two images, and one of no interest


@pytest.fixture
def coco(tmp_path):
    root = lay_out(tmp_path / "set", "train/P1_a.png", "train/P2_b.png", "train/empty.png")
    content = {
        "images": [
            {"id": 1, "file_name": "P1_a.png", "width": 100, "height": 50},
            {"id": 2, "file_name": "P2_b.png"},
        ],
        "categories": [{"id": n, "name": name} for n, name in enumerate([*NAMES, "platelet"])],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 0, "bbox": [10, 5, 20, 10]},
            {"id": 2, "image_id": 1, "category_id": 1, "bbox": [80, 30, 20, 20]},
            {"id": 3, "image_id": 2, "category_id": 1, "bbox": [0.5, 0.25, 20, 20]},
            {"id": 4, "image_id": 2, "category_id": 2, "bbox": [50, 20, 5, 5]},
        ],
    }
    (root / "annotations").mkdir()
    (root / "annotations/instances.json").write_text(json.dumps(content))
    return root


@pytest.fixture
def yolo(tmp_path):
    root = tmp_path / "set"
    for name in ("P1_a", "P2_b", "empty"):
        picture(root / f"images/train/{name}.png")
    lay_out(root, "labels/train/P1_a.txt")
    (root / "labels/train/P1_a.txt").write_text("0 0.2 0.2 0.2 0.2\r\n1 0.9 0.8 0.2 0.4\r\n")
    polygon = "1 0.005 0.005 0.205 0.005 0.205 0.405 0.005 0.405"
    (root / "labels/train/P2_b.txt").write_text(f"\ufeff{polygon}\n2 0.525 0.45 0.05 0.1 0.87\n\n")
    (root / "data.yaml").write_text(
        "train: images/train\nnc: 3\nnames: [lymphoblast, neutrophil, platelet]\n"
    )
    return root


CORNERS = ("xmin", "ymin", "xmax", "ymax")


def voc_object(name, *bounds):
    sides = "".join(f"<{side}>{value}</{side}>" for side, value in zip(CORNERS, bounds, strict=True))
    return f"<object><name>{name}</name><bndbox>{sides}</bndbox></object>"


def write_voc(path, file, *objects):
    path.parent.mkdir(parents=True, exist_ok=True)
    size = "<size><width>100</width><height>50</height><depth>3</depth></size>"
    path.write_text(f"<annotation><filename>{file}</filename>{size}{''.join(objects)}</annotation>")


@pytest.fixture
def voc(tmp_path):
    root = lay_out(tmp_path / "set", *(f"JPEGImages/{name}.png" for name in ("P1_a", "P2_b", "empty")))
    first = voc_object("lymphoblast", 11, 6, 30, 15), voc_object("neutrophil", 81, 31, 100, 50)
    write_voc(root / "Annotations/P1_a.xml", "C:\\here\\P1_a.png", *first)
    second = voc_object("neutrophil", 1.5, 1.25, 20.5, 20.25), voc_object("platelet", 51, 21, 55, 25)
    write_voc(root / "Annotations/P2_b.xml", "renamed since.png", *second)
    return root


@pytest.mark.parametrize("form", ["coco", "yolo", "voc"])
def test_boxes_of_three_forms_are_the_same_cells(form, request, tmp_path):
    root = request.getfixturevalue(form)
    summary, found = boxes(form, root, tmp_path, patient="(P[0-9]+)_")
    names = sorted({name for name, _ in found})
    assert [name.split("/")[-1] for name in names] == ["P1_a.png", "P2_b.png"]
    a, b = names
    third = {"coco": "0.5 0.25 20 20", "yolo": "0.5 0.25 20 20", "voc": "0.5 0.25 20 20"}[form]
    assert found == {(a, "10 5 20 10"): "ALL", (a, "80 30 20 20"): "normal", (b, third): "normal"}
    assert summary.skipped["'platelet' is no leaf; --leaf platelet=LEAF gives it one"] == 1
    assert summary.skipped["image without a box"] == 1
    assert "1 boxes reach the edge of their image, so may be cut off there" in summary.notes
    assert (summary.patients, summary.source) == (2, form)
    assert summary.lines()[0].endswith("3 boxes of 2 images, 2 patients: ALL 1, normal 2")


@pytest.mark.parametrize("form", ["coco", "yolo", "voc"])
def test_without_any_leaf_the_categories_are_named(form, request, tmp_path):
    root = request.getfixturevalue(form)
    with pytest.raises(InputError, match=r"'lymphoblast' \(1 images; ALL\?\)|'lymphoblast' \(1 images"):
        import_source(form, root, tmp_path / "m.csv")
    assert not (tmp_path / "m.csv").exists()


def test_a_file_name_with_folders_never_means_a_file_of_another_folder(coco, tmp_path):
    table = coco / "annotations/instances.json"
    content = json.loads(table.read_text())
    content["images"][0]["file_name"] = "/home/other/set/train/P1_a.png"
    content["images"][1]["file_name"] = "test/P2_b.png"
    table.write_text(json.dumps(content))
    summary, found = boxes("coco", coco, tmp_path)
    assert {name for name, _ in found} == {"train/P1_a.png"}
    assert summary.skipped["box of a file: no image has the name in the table"] == 2
    assert "1 files of instances.json are not there: test/P2_b.png" in summary.notes


def test_a_name_that_several_images_have_is_not_guessed(coco, tmp_path):
    lay_out(coco, "test/P2_b.png")
    summary, found = boxes("coco", coco, tmp_path)
    assert {name for name, _ in found} == {"train/P1_a.png"}
    assert summary.skipped["box of a file: several images have the name in the table"] == 2


def test_yolo_names_may_be_lines_or_a_mapping_and_must_agree(yolo, tmp_path):
    _, first = boxes("yolo", yolo, tmp_path)
    (yolo / "data.yaml").write_text("names:\n  0: lymphoblast\n  1: neutrophil\n  2: platelet\n")
    (yolo / "classes.txt").write_text("lymphoblast\nneutrophil\nplatelet\n")
    assert boxes("yolo", yolo, tmp_path)[1] == first
    (yolo / "classes.txt").write_text("neutrophil\nlymphoblast\n")
    with pytest.raises(
        InputError, match=r"classes\.txt: other names of the classes than .*data\.yaml; choose"
    ):
        boxes("yolo", yolo, tmp_path)
    assert set(boxes("yolo", yolo, tmp_path, table=yolo / "classes.txt")[1].values()) == {"ALL", "normal"}


def test_a_wrong_line_of_yolo_is_named(yolo, tmp_path):
    with open(yolo / "labels/train/P1_a.txt", "a") as file:
        file.write("1 0.5 0.5\n")
    with pytest.raises(InputError, match=r"P1_a\.txt row 3: '1 0\.5 0\.5' is not <class> <x> <y>"):
        boxes("yolo", yolo, tmp_path)


BOMB = "<!DOCTYPE a [<!ENTITY x 'ha'><!ENTITY y '&x;&x;'>]><annotation><filename>&y;</filename></annotation>"
FOREIGN = (
    "<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><annotation><filename>&x;</filename></annotation>"
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (BOMB, "has a document type or entities"),
        (FOREIGN, "has a document type"),
        ("<annotation>", "not valid XML"),
    ],
)
def test_xml_that_is_not_safe_or_not_whole_is_refused(voc, tmp_path, text, says):
    (voc / "Annotations/P1_a.xml").write_text(text)
    with pytest.raises(InputError, match=rf"P1_a\.xml: {says}"):
        boxes("voc", voc, tmp_path)


def test_other_xml_is_no_annotation(voc, tmp_path):
    _, first = boxes("voc", voc, tmp_path)
    (voc / "settings.xml").write_text("<settings/>")
    assert boxes("voc", voc, tmp_path)[1] == first


# A table


@pytest.fixture
def study(tmp_path):
    root = lay_out(
        tmp_path / "my study ä",
        "slides/A 1.png",
        "slides/A 2.PNG",
        "slides/b.png",
        "other/c.png",
        "m/A 1.png",
    )
    (root / "labels.csv").write_text(
        "\ufeffFile;Diagnosis;PID;Clinic\r\nslides/A 1.png;ALL;7;Nord\r\n"
        "A 2;CLL;8;\r\nb.png;;9;\r\nd.png;ALL;9;\r\n"
    )
    return root


MAP = {"image": "File", "leaf": "Diagnosis", "patient": "PID", "site": "Clinic"}


def test_a_table_names_images_in_several_ways(study, tmp_path):
    summary = import_source("table", study, tmp_path / "m.csv", mapped=MAP)
    frame = manifest.read(tmp_path / "m.csv", Taxonomy.paper())
    rows = frame[["name", "leaf", "patient", "source", "site"]].to_numpy().tolist()
    assert rows == [
        ["slides/A 1.png", "ALL", "7", "my study ä", "Nord"],
        ["slides/A 2.PNG", "CLL", "8", "my study ä", ""],
    ]
    assert summary.skipped == {
        "image without a row in the table": 2,
        "row of the table: no image has the name in the table": 1,
        "the row has no label": 1,
    }
    assert summary.notes == ("1 files of labels.csv are not there: d.png",)


def test_a_parquet_table_gives_the_same(study, tmp_path):
    import_source("table", study, tmp_path / "m.csv", mapped=MAP)
    table = pd.read_csv(study / "labels.csv", sep=";", encoding="utf-8-sig").drop(index=[2, 3])
    table.to_parquet(tmp_path / "labels.parquet")
    import_source("table", study, tmp_path / "p.csv", mapped=MAP, table=tmp_path / "labels.parquet")
    read = [
        manifest.read(tmp_path / name, Taxonomy.paper()).drop(columns="row") for name in ("m.csv", "p.csv")
    ]
    pd.testing.assert_frame_equal(*read)


def test_a_table_may_hold_boxes_and_masks(study, tmp_path):
    (study / "labels.csv").write_text(
        "image,leaf,x,y,width,height,mask,slide\nb.png,ALL,1,2,3,4,m/A 1.png,s1\nb.png,ALL,5,2,3,4,,s1\n"
    )
    import_source("table", study, tmp_path / "m.csv")
    frame = manifest.read(tmp_path / "m.csv", Taxonomy.paper())
    assert frame["box"].tolist() == ["1 2 3 4", "5 2 3 4"]
    assert [name.endswith("m/A 1.png") for name in frame["mask"]] == [True, False]
    assert set(frame["group"]) == {"slide"}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {},
            "looked there for a table with the columns image, leaf; --map leaf=NAME",
        ),
        ({"mapped": {"label": "Diagnosis"}}, "--map label=...: a manifest has no such column"),
        (
            {"mapped": MAP | {"patient": "Nobody"}},
            "looked there for a table with the columns File, Diagnosis, Nobody",
        ),
        ({"mapped": MAP, "patient": "("}, "--patient '(': no regular expression"),
    ],
)
def test_a_table_that_does_not_fit_is_one_line(study, tmp_path, options, says):
    with pytest.raises(InputError) as caught:
        import_source("table", study, tmp_path / "m.csv", **options)
    assert says in str(caught.value)


def test_two_tables_or_two_rows_of_an_image_are_refused(study, tmp_path):
    (study / "more.csv").write_text((study / "labels.csv").read_text())
    with pytest.raises(InputError, match=r"2 tables fit, labels\.csv, more\.csv; choose one with --table"):
        import_source("table", study, tmp_path / "m.csv", mapped=MAP)
    with open(study / "more.csv", "a") as file:
        file.write("slides/A 1.png;CLL;7;\n")
    with pytest.raises(InputError, match=r"more\.csv row 6: image 'slides/A 1\.png' is already in row 2"):
        import_source("table", study, tmp_path / "m.csv", mapped=MAP, table=study / "more.csv")


def test_a_map_has_one_name_for_a_column():
    assert mapped(["leaf=Final diagnosis", "image = File=name"]) == {
        "leaf": "Final diagnosis",
        "image": "File=name",
    }
    for texts in (["leaf"], ["leaf="], ["leaf=A", "leaf=B"]):
        with pytest.raises(InputError, match="--map"):
            mapped(texts)


# Tars of others


def jpeg(seed):
    buffer = io.BytesIO()
    Image.fromarray(noise(seed)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def tars(tmp_path):
    """Two shards that WebDataset has written."""
    root = tmp_path / "shards"
    root.mkdir()
    for number, name in enumerate(("a-000.tar", "b-000.tar.gz")):
        with webdataset.TarWriter(str(root / name)) as sink:
            for row in range(3):
                label = {"cls": row % 2} if number == 0 else {"json": {"leaf": "CLL", "who": f"P{row}"}}
                sink.write({"__key__": f"x/{row:03d}", "jpg": jpeg(3 * number + row), **label})
    return root


def test_tars_become_images_beside_the_manifest(tars, tmp_path):
    """The bytes are those that WebDataset reads."""
    options = {"new_names": {"0": "AML", "1": "APML"}}
    summary = import_source("wds", tars, tmp_path / "m.csv", **options)
    assert summary.leaves == {"AML": 2, "APML": 1, "CLL": 3}
    images = tmp_path / "m-images"
    frame = manifest.read(tmp_path / "m.csv", Taxonomy.paper())
    assert frame["name"].tolist()[0] == "a-000/x/000.jpg"
    urls = [str(path) for path in sorted(tars.iterdir())]
    read = [sample["jpg"] for sample in webdataset.WebDataset(urls, shardshuffle=False)]
    assert [Path(path).read_bytes() for path in frame["image"]] == read
    before = {path: path.stat().st_mtime_ns for path in images.rglob("*.jpg")}
    import_source("wds", tars, tmp_path / "m.csv", **options)
    assert {path: path.stat().st_mtime_ns for path in images.rglob("*.jpg")} == before, "run again"


def test_values_of_json_may_have_other_names(tars, tmp_path):
    (tars / "a-000.tar").unlink()
    summary = import_source(
        "wds", tars, tmp_path / "m.csv", mapped={"patient": "who"}, extract=tmp_path / "there"
    )
    assert (summary.patients, summary.leaves) == (3, {"CLL": 3})
    assert len(list((tmp_path / "there").rglob("*.jpg"))) == 3


def test_a_label_that_is_no_leaf_writes_no_image(tars, tmp_path):
    with pytest.raises(InputError, match=r"'0' \(2 images\)"):
        import_source("wds", tars, tmp_path / "m.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shards"]


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            if name == "link.jpg":
                member.type, member.linkname, member.size = tarfile.SYMTYPE, "/etc/passwd", 0
            tar.addfile(member, io.BytesIO(content))


def test_no_member_leaves_the_folder_and_nothing_is_unpickled(tmp_path):
    root = tmp_path / "shards"
    root.mkdir()
    evil = b"cos\nsystem\n(S'touch /tmp/evil'\ntR."
    write_tar(
        root / "t.tar",
        [
            ("../../out.jpg", b"x"), ("../../out.cls", b"AML"),
            ("/abs.jpg", b"x"), ("/abs.cls", b"AML"),
            ("link.jpg", b""), ("link.cls", b"AML"),
            ("two.jpg", b"x"), ("two.png", b"x"), ("two.cls", b"AML"),
            ("none.jpg", b"x"), ("none.pyd", evil), ("none.pkl", evil),
            ("good.jpg", jpeg(0)), ("good.cls", b"AML\n"), ("good.pkl", evil),
            ("json.jpg", b"x"), ("json.json", b"{broken"),
        ],
    )  # fmt: skip
    summary = import_source("wds", root, tmp_path / "m.csv")
    assert summary.rows == 1
    assert summary.skipped == {
        "sample whose name leaves its folder, or is not printable": 2,
        "sample with several images": 1,
        "sample without a label": 2,
        "sample without an image": 1,
    }
    written = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.jpg"))
    assert written == ["m-images/t/good.jpg"]


def test_a_damaged_tar_is_named(tars, tmp_path):
    whole = (tars / "a-000.tar").read_bytes()
    (tars / "a-000.tar").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"a-000\.tar: not a readable tar"):
        import_source("wds", tars, tmp_path / "m.csv", new_names={"0": "AML", "1": "APML"})
    assert list(files(tars)) == ["a-000.tar", "b-000.tar.gz"]
    assert not (tmp_path / "m-images").exists()


def test_boxes_of_an_image_without_a_size_are_counted(yolo, tmp_path):
    (yolo / "images/train/P2_b.png").write_bytes(b"no image")
    summary, found = boxes("yolo", yolo, tmp_path)
    assert len(found) == 2
    assert summary.skipped["box of an image whose size cannot be read"] == 2
