"""Sources that are a form and no data set: a table, boxes in three forms, and the tars of others."""

import io
import json
import re
import tarfile
from pathlib import Path

import pandas as pd
import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from leukotree.data import manifest
from leukotree.data.boxes import Crop, parse
from leukotree.data.sources import yolo as yolo_source
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


def change(coco, **lists):
    """Write the table of boxes with other lists, each made from the old one."""
    table = coco / "annotations/instances.json"
    content = json.loads(table.read_text())
    table.write_text(json.dumps(content | {name: make(content[name]) for name, make in lists.items()}))


def test_a_number_of_two_files_gives_no_file_another_ones_boxes(coco, tmp_path):
    change(coco, images=lambda images: [image | {"id": 1} for image in images])
    with pytest.raises(InputError, match="2 skipped: box whose image number stands for several files"):
        boxes("coco", coco, tmp_path)


def test_a_number_of_two_categories_is_refused(coco, tmp_path):
    change(coco, categories=lambda names: [*names, {"id": 0, "name": "eosinophil"}])
    with pytest.raises(InputError, match=r"category 0 is 'lymphoblast' and 'eosinophil'; give each"):
        boxes("coco", coco, tmp_path)


def test_numbers_may_be_written_as_fractions(coco, tmp_path):
    _, plain = boxes("coco", coco, tmp_path)
    change(
        coco,
        annotations=lambda rows: [row | {"image_id": float(row["image_id"])} for row in rows],
        categories=lambda names: [name | {"id": str(name["id"])} for name in names],
    )
    assert boxes("coco", coco, tmp_path)[1] == plain


def test_a_box_outside_of_its_image_and_one_of_a_crowd_are_counted_out(coco, tmp_path):
    more = [
        {"id": 8, "image_id": 1, "category_id": 0, "bbox": [100, 0, 9, 9]},
        {"id": 9, "image_id": 1, "category_id": 0, "bbox": [0, 0, 9, 9], "iscrowd": 1},
    ]
    _, plain = boxes("coco", coco, tmp_path)
    change(coco, annotations=lambda rows: rows + more)
    summary, found = boxes("coco", coco, tmp_path)
    assert found == plain
    assert summary.skipped["box outside of its image"] == 1
    assert summary.skipped["box of a crowd (iscrowd 1): no single cell"] == 1


def test_a_box_with_two_labels_is_not_guessed(coco, tmp_path):
    again = {"id": 9, "image_id": 1, "category_id": 1, "bbox": [10, 5, 20, 10]}
    change(coco, annotations=lambda rows: [*rows, again])
    summary, found = boxes("coco", coco, tmp_path)
    assert ("train/P1_a.png", "10 5 20 10") not in found
    assert len(found) == 2
    assert summary.skipped["box with several labels"] == 1


@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize("form", ["coco", "voc"])
def test_boxes_of_an_image_that_was_turned_or_resized_since_are_left_out(form, turned, request, tmp_path):
    """By the table it is 100 x 50 pixels. A camera's picture may be stored so, and be shown upright."""
    root = request.getfixturevalue(form)
    (file,) = root.rglob("P1_a.png")
    exif = Image.Exif()
    if turned:
        exif[0x112] = 6
    Image.new("RGB", (100, 50) if turned else (200, 100)).save(file, exif=exif)
    summary, found = boxes(form, root, tmp_path)
    assert {name.split("/")[-1] for name, _ in found} == {"P2_b.png"}
    reason = "box of an image that was turned or resized since: the table has another size"
    assert summary.skipped[reason] == 2
    (note,) = (note for note in summary.notes if "another size" in note)
    size = "50 x 100" if turned else "200 x 100"
    assert note.endswith(f"P1_a.png is {size}, and 100 x 50 in the table")


def test_yolo_in_pixels_is_no_box_in_the_image(yolo, tmp_path):
    with open(yolo / "labels/train/P1_a.txt", "a") as file:
        file.write("0 50 20 30 10\n")
    summary, found = boxes("yolo", yolo, tmp_path)
    assert len(found) == 3
    assert summary.skipped["box outside of its image"] == 1


def test_yolo_may_write_the_class_as_a_fraction(yolo, tmp_path):
    _, plain = boxes("yolo", yolo, tmp_path)
    path = yolo / "labels/train/P1_a.txt"
    path.write_text(re.sub("^([0-9])", r"\1.0", path.read_text(), flags=re.MULTILINE))
    assert boxes("yolo", yolo, tmp_path)[1] == plain


@given(st.integers(0, 9000), st.integers(1, 999), st.integers(1, 10_000))
def test_six_decimals_of_yolo_are_enough_for_the_same_pixels(x, across, width):
    """A person's box of whole pixels, written by a program as shares of the width."""
    if x + across > width:
        return
    line = [f"{share:.6f}" for share in ((x + across / 2) / width, 0.5, across / width, 1.0)]
    box = yolo_source._box([float(text) for text in line], width, 10)
    assert Crop().pixels(parse(str(box)), width, 10) == (x, 0, x + across, 10)
    assert box.is_cut(width, 99) is True, "it reaches the upper edge"


def test_an_annotation_with_the_name_of_another_image_is_not_guessed(voc, tmp_path):
    write_voc(voc / "Annotations/empty.xml", "P1_a.png", voc_object("lymphoblast", 2, 2, 9, 9))
    summary, found = boxes("voc", voc, tmp_path)
    assert len(found) == 3
    assert summary.skipped["box of an annotation that is called like one image and names another"] == 1


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


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("b.png,ALL,1,,3,4", r"labels\.csv row 2: the box has no y; give all four numbers, or none"),
        ("b.png,ALL,1,2,3,", r"row 2: the box has no height"),
        ('b.png,ALL,1,"2,5",3,4', r"row 2: y '2,5' has a comma; write decimals with a point"),
        ("b.png,ALL,1,2,0,4", r"row 2: box '1 2 0 4' has no area"),
    ],
)
def test_half_a_box_never_becomes_the_whole_image(study, tmp_path, row, says):
    (study / "labels.csv").write_text(f"image,leaf,x,y,width,height\n{row}\n")
    with pytest.raises(InputError, match=says):
        import_source("table", study, tmp_path / "m.csv")


def test_columns_of_half_a_box_are_named(study, tmp_path):
    (study / "labels.csv").write_text("image,leaf,x,y,w,h\nb.png,ALL,1,2,3,4\n")
    summary = import_source("table", study, tmp_path / "m.csv")
    assert "columns x, y of labels.csv are no boxes without width, height" in summary.notes[0]
    import_source("table", study, tmp_path / "m.csv", mapped={"width": "w", "height": "h"})
    assert manifest.read(tmp_path / "m.csv", Taxonomy.paper())["box"].tolist() == ["1 2 3 4"]


def test_paths_of_another_machine_name_images_without_folders(tmp_path):
    root = lay_out(tmp_path / "flat", "a.png", "b.png", "c.png")
    (root / "t.csv").write_text(
        "image,leaf\nC:\\Users\\Ü\\slides\\a.png,ALL\n/data/x/b.png,AML\nx/c.png,AML\n"
    )
    summary = import_source("table", root, tmp_path / "m.csv")
    assert summary.leaves == {"ALL": 1, "AML": 1}, "x/c.png is a file of another folder"
    assert summary.skipped["row of the table: no image has the name in the table"] == 1


def test_a_row_without_a_name_is_no_file(study, tmp_path):
    (study / "labels.csv").write_text("image,leaf\nb.png,ALL\n ,AML\n")
    summary = import_source("table", study, tmp_path / "m.csv")
    assert summary.skipped["row of the table: it names no image"] == 1
    assert not summary.notes


def test_a_slide_is_never_in_two_groups(study, tmp_path):
    (study / "labels.csv").write_text("image,leaf,slide,patient\nb.png,ALL,s1,\nc.png,ALL,s1,p1\n")
    with pytest.raises(InputError, match=r"slide 's1' has images with a patient, such as other/c\.png of"):
        import_source("table", study, tmp_path / "m.csv")
    (study / "labels.csv").write_text("image,leaf,slide,patient\nb.png,ALL,s1,p2\nc.png,ALL,s1,p1\n")
    assert import_source("table", study, tmp_path / "m.csv").patients == 2, "numbers may start again"


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
