"""LeukemiaAttri on a small copy of its layout, with what is wrong in the published tables of boxes."""

import json

import pytest

from leukotree.data import manifest
from leukotree.data.sources import cocofile
from leukotree.data.sources.importer import import_source
from leukotree.errors import InputError
from leukotree.taxonomy import Taxonomy
from tests.helpers.small_data import lay_out

FIELDS = (
    "4_15_1000_ALL.png",
    "4_16_1000_ALL.png",
    "21_1_1000_CLL.png",
    "7_1_1000_AML.PNG",
    "9_2_1000_APL.png",
)
CATEGORIES = [{"id": 1, "name": "lymphoblast"}, {"id": 2, "name": "neutrophil"}, {"id": 14, "name": "none"}]


def image(number, name, width=640, height=640):
    return {"id": number, "file_name": name, "width": width, "height": height}


def annotation(number, of, box, category=1):
    return {"id": number, "image_id": of, "category_id": category, "bbox": box}


@pytest.fixture
def lahore(tmp_path):
    sub = tmp_path / "LLD" / "H_100X_C1"
    lay_out(sub / "Images" / "train", *FIELDS, "notes.txt", "4_17_1000_MDS.png", "legend.png")
    (sub / "json_labels").mkdir()
    return sub.parent


def write(lahore, images, annotations, split="train", sub="H_100X_C1"):
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    (lahore / sub / "json_labels" / f"{split}.json").write_text(json.dumps(content), encoding="utf-8-sig")


def cells(lahore, tmp_path):
    """(summary, {file: its boxes})."""
    summary = import_source("leukemiaattri", lahore, tmp_path / "m.csv", cells=True)
    frame = manifest.read(tmp_path / "m.csv", Taxonomy.paper())
    assert len(frame) == summary.rows
    assert set(frame["group"]) == {"slide"}
    names = frame["name"].str.split("/").str[-1]
    return summary, frame["box"].groupby(names).apply(list).to_dict()


@pytest.mark.parametrize("inside", ["", "H_100X_C1"])
def test_fields_have_slide_and_leaf_in_their_names(lahore, tmp_path, inside):
    summary = import_source("leukemiaattri", lahore / inside, tmp_path / "m.csv")
    assert summary.leaves == {"ALL": 2, "AML": 1, "APML": 1, "CLL": 1}
    assert summary.lines()[0].endswith("5 images, 4 slides: ALL 2, AML 1, APML 1, CLL 1")
    assert summary.skipped == {
        "diagnosis 'MDS' has no leaf": 1,
        "not an image (.txt)": 1,
        "the name is not <slide>_<field>_<magnification>_<LEAF>": 1,
    }
    frame = manifest.read(tmp_path / "m.csv", Taxonomy.paper())
    assert frame["group_id"].nunique() == 4
    assert set(frame["name"].str.split("/").str[0]) == {"H_100X_C1"}


def test_a_slide_is_one_group_in_all_folders_of_the_set(lahore, tmp_path):
    lay_out(lahore / "L_40X_C2" / "Images" / "test", "4_15_400_ALL.png")
    summary = import_source("leukemiaattri", lahore, tmp_path / "m.csv")
    assert (summary.rows, summary.patients) == (6, 4)
    assert summary.notes == ("2 folders show the same slides again: H_100X_C1, L_40X_C2",)


def test_cells_are_the_boxes_of_fields_that_are_there_each_once(lahore, tmp_path):
    """One file stands under many ids, some files are missing, and boxes of `none` hold no cell."""
    images = [image(1, FIELDS[0]), image(2, FIELDS[0]), image(3, "3_1_1000_ALL.png"), image(4, FIELDS[2])]
    write(
        lahore,
        images,
        [
            annotation(1, 1, [0, 10, 20, 30]),
            annotation(2, 2, [50, 60, 20, 30]),
            annotation(3, 2, [0, 10, 20, 30]),
            annotation(4, 3, [5, 5, 9, 9]),
            annotation(5, 4, [5, 5, 9, 9], 14),
            annotation(6, 4, [15, 5, 9, 9], 2),
            annotation(7, 4, [15, 5, 0, 9]),
            annotation(8, 99, [15, 5, 9, 9]),
            annotation(9, 4, [15, 5, 9, 9], 1),
        ],
    )
    summary, found = cells(lahore, tmp_path)
    assert found == {FIELDS[0]: ["0 10 20 30", "50 60 20 30"], FIELDS[2]: ["15 5 9 9"]}
    assert summary.leaves == {"ALL": 2, "CLL": 1}
    assert summary.lines()[0].endswith("3 boxes of 2 images, 2 slides: ALL 2, CLL 1")
    assert {
        reason: count for reason, count in summary.skipped.items() if reason.startswith(("box", "field"))
    } == {
        "box of a file that is not there": 1,
        "box of category 'none': no white cell": 1,
        "box that is 'neutrophil' and 'lymphoblast'": 1,
        "box that is there twice": 1,
        "box whose image is not in the table": 1,
        "box without an area": 1,
        "field of ALL without a box": 1,
        "field of AML without a box": 1,
        "field of APML without a box": 1,
    }
    assert "1 files of H_100X_C1/train.json are not there: 3_1_1000_ALL.png" in summary.notes
    assert "1 boxes in H_100X_C1 reach the edge of their field, so may be cut off there" in summary.notes


def test_where_an_id_stands_for_two_files_it_means_that_of_its_own_part(lahore, tmp_path):
    """The published table is two tables, one after the other, which have lost some images."""
    images = [image(1, FIELDS[0]), image(2, FIELDS[1]), image(5, FIELDS[1]), image(1, FIELDS[2])]
    boxes = {number: [number, number, 9, 9] for number in range(1, 7)}
    first = [annotation(7, 1, boxes[1]), annotation(8, 2, boxes[2]), annotation(9, 5, boxes[6])]
    second = [annotation(3, 1, boxes[3]), annotation(4, 1, boxes[4]), annotation(5, 2, boxes[5])]
    write(lahore, images, [*first, *second])
    summary, found = cells(lahore, tmp_path)
    assert found == {
        FIELDS[0]: ["1 1 9 9"],
        FIELDS[1]: ["2 2 9 9", "6 6 9 9"],
        FIELDS[2]: ["3 3 9 9", "4 4 9 9"],
    }
    assert summary.skipped["box whose image is in another part of the table"] == 1


def test_an_unsorted_table_is_one_table(lahore, tmp_path):
    images = [image(3, FIELDS[0]), image(1, FIELDS[1]), image(2, FIELDS[2])]
    write(
        lahore,
        images,
        [annotation(9, 1, [1, 1, 9, 9]), annotation(2, 2, [2, 2, 9, 9]), annotation(5, 3, [3, 3, 9, 9])],
    )
    _, found = cells(lahore, tmp_path)
    assert found == {FIELDS[0]: ["3 3 9 9"], FIELDS[1]: ["1 1 9 9"], FIELDS[2]: ["2 2 9 9"]}


def test_two_tables_may_name_a_box_twice(lahore, tmp_path):
    write(lahore, [image(1, FIELDS[0])], [annotation(1, 1, [1, 1, 9, 9])])
    write(lahore, [image("1", FIELDS[0])], [annotation(1, "1", [1.0, 1, 9, 9])], split="test")
    summary, found = cells(lahore, tmp_path)
    assert found == {FIELDS[0]: ["1 1 9 9"]}
    assert summary.skipped["box that is there twice"] == 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "train.json: not a readable JSON file"),
        ("[]", "train.json: no COCO table; it needs the keys images, annotations, categories"),
        ('{"images": [], "annotations": {}}', "train.json: no COCO table; 'annotations' must be a list"),
        (
            '{"images": [{"id": 1}], "annotations": [], "categories": []}',
            "train.json: image 1 has no file_name",
        ),
        ("[" * 100_000, "train.json: not a readable JSON file"),
    ],
)
def test_a_broken_table_is_named(lahore, tmp_path, content, says):
    (lahore / "H_100X_C1/json_labels/train.json").write_text(content)
    with pytest.raises(InputError) as caught:
        cells(lahore, tmp_path)
    assert says in str(caught.value)
    assert not (tmp_path / "m.csv").exists()


def test_without_any_box_there_is_nothing_to_import(lahore, tmp_path):
    with pytest.raises(
        InputError, match=r"nothing to import as leukemiaattri: .* field of ALL without a box"
    ):
        cells(lahore, tmp_path)


@pytest.mark.parametrize(
    "box", [None, [1, 2, 3], [1, 2, 3, "x"], [1, 2, float("nan"), 3], [1, 2, -3, 4], "1 2 3 4"]
)
def test_what_is_no_box_is_counted(tmp_path, box):
    content = {
        "images": [image(1, "a.png")],
        "annotations": [annotation(1, 1, box)],
        "categories": CATEGORIES,
    }
    (tmp_path / "t.json").write_text(json.dumps(content))
    table = cocofile.read(tmp_path / "t.json")
    assert (table.boxes, table.skipped) == ([], {"box without an area": 1})
