"""Boxes of a manifest: read, turned into parts of images, and packed."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from leukotree.data import boxes, manifest, masks, unpacked
from leukotree.data.boxes import Box, Crop
from leukotree.data.images import codec, encoding
from leukotree.data.pack import pack
from leukotree.errors import InputError
from leukotree.taxonomy import Taxonomy
from tests.helpers.small_data import files, noise

PAPER = Taxonomy.paper()
SMALL = {"size": 32, "folds": 2, "workers": 2}
LEAVES = ("AML", "ALL", "CLL", "normal")
CELLS = ("2 3 20 18", "30 4 25 31", "45 20 15 20")
"""Boxes in fields of 60 x 40 pixels. The last reaches two edges."""


@pytest.fixture
def fields(tmp_path):
    """A folder of twelve fields, three slides of each leaf, and a manifest of three cells in each."""
    rows = []
    for number in range(12):
        name = f"field {number}.png"
        Image.fromarray(noise(number, 40, 60)).save(tmp_path / name)
        rows += [(name, LEAVES[number % 4], f"s{number}", "lab", "slide", box) for box in CELLS]
    table = pd.DataFrame(rows, columns=["image", "leaf", "patient", "source", "group", "box"])
    table.to_csv(tmp_path / "m.csv", index=False)
    return tmp_path


def change(folder, row, **values):
    """Write values into a row of the manifest."""
    table = pd.read_csv(folder / "m.csv")
    table.loc[row, list(values)] = list(values.values())
    table.to_csv(folder / "m.csv", index=False)
    return folder / "m.csv"


def by_name(dataset):
    """The bytes of each image of a packed data set."""
    return {name: dataset.read(row) for row, name in enumerate(dataset.index["image"])}


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("1 2 3 4", "1 2 3 4"),
        (" 1.0, 2.50,3,4 ", "1 2.5 3 4"),
        ("[-3, 0, 10, 1e1]", "-3 0 10 10"),
        ("15.99999999 0 2 2", "16 0 2 2"),
    ],
)
def test_a_box_has_one_spelling(text, box):
    assert str(boxes.parse(text)) == box == str(boxes.parse(box))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1 2 3", "is not 'x y width height'"),
        ("1 2 3 4 5", "is not 'x y width height'"),
        ("left top 3 4", "is not 'x y width height'"),
        ("1 2 0 4", "has no area"),
        ("1 2 3 -4", "has no area"),
        ("nan 2 3 4", "is no place in an image"),
        ("1 2 inf 4", "is no place in an image"),
        ("1e300 2 3 4", "is no place in an image"),
    ],
)
def test_what_is_no_box_is_named_with_its_row(fields, text, says):
    with pytest.raises(InputError, match=r"m\.csv row 5: box .*" + says):
        manifest.read(change(fields, 3, box=text), PAPER)


@given(
    st.builds(Box, st.floats(-50, 150), st.floats(-50, 150), st.floats(0.01, 300), st.floats(0.01, 300)),
    st.integers(1, 120),
    st.integers(1, 120),
    st.floats(0, 4),
    st.booleans(),
)
def test_a_part_lies_in_its_image_and_holds_what_the_box_has_there(box, width, height, margin, square):
    crop = Crop(margin, square)
    inside = crop.pixels(box, width, height)
    ends = min(box.x + box.width, width), min(box.y + box.height, height)
    if max(box.x, 0) >= ends[0] or max(box.y, 0) >= ends[1]:
        assert inside is None
        return
    left, top, right, bottom = inside
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    if not square:
        assert left <= max(box.x, 0) + 0.01
        assert right >= ends[0] - 0.01
    assert left <= max(box.x, 0) + 1
    assert right >= ends[0] - 1
    side = max(box.width, box.height) * (1 + 2 * margin)
    if square and 1 <= side < min(width, height) - 1:
        assert right - left == bottom - top == round(side)


def test_margin_and_square_by_hand():
    box = Box(10, 20, 10, 20)
    assert Crop().pixels(box, 100, 100) == (10, 20, 20, 40)
    assert Crop(margin=0.5).pixels(box, 100, 100) == (5, 10, 25, 50)
    assert Crop(square=True).pixels(box, 100, 100) == (5, 20, 25, 40)
    assert Crop(margin=0.25, square=True).pixels(box, 100, 100) == (0, 15, 30, 45)
    assert Crop(square=True).pixels(Box(0, 20, 10, 20), 100, 100) == (0, 20, 20, 40), "moved inwards"
    assert Crop(square=True).pixels(Box(95, 20, 10, 20), 100, 100) == (80, 20, 100, 40)
    assert Crop(square=True).pixels(Box(10, 0, 30, 50), 60, 40) == (0, 0, 50, 40), "no room for a square"


def test_a_box_is_cut_where_it_reaches_an_edge():
    assert [Box(0, 5, 9, 9).is_cut(40, 40), Box(31, 5, 9, 9).is_cut(40, 40)] == [True, True]
    assert Box(0.005, 5, 9, 9).is_cut(40, 40), "less than a person draws: a rounded 0"
    assert [Box(1, 5, 9, 9).is_cut(40, 40), Box(5, 35, 9, 9).is_cut(40, 40)] == [False, True]


def test_packed_cells_are_those_that_a_person_cuts_out(fields, tmp_path):
    """The same bytes as from a file for each cell, which Pillow has cut."""
    cells = tmp_path / "cells"
    cells.mkdir()
    rows = []
    for number, row in pd.read_csv(fields / "m.csv").iterrows():
        x, y, width, height = map(int, row["box"].split())
        with Image.open(fields / row["image"]) as field:
            field.crop((x, y, x + width, y + height)).save(cells / f"{number}.png")
        rows.append((f"{number}.png", row["leaf"], row["patient"], "lab", "slide"))
    pd.DataFrame(rows, columns=["image", "leaf", "patient", "source", "group"]).to_csv(
        cells / "m.csv", index=False
    )
    cut = pack(cells / "m.csv", tmp_path / "cut", **SMALL).dataset
    summary = pack(fields / "m.csv", tmp_path / "boxes", **SMALL)
    boxed = summary.dataset
    expected = {int(name.removesuffix(".png")): jpeg for name, jpeg in by_name(cut).items()}
    table = pd.read_csv(fields / "m.csv")
    names = boxes.names(table["image"], table["box"])
    assert by_name(boxed) == {name: expected[number] for number, name in enumerate(names)}
    assert names[0] == "field 0.png#xywh=2,3,20,18"
    assert boxed.index.groupby("group")["fold"].nunique().max() == 1
    assert boxed.index["group"].nunique() == 12
    assert boxed.description.model_extra["boxes"] == {"cells": 36, "files": 12, "cut": 12}
    assert any(
        "36 images are boxes of 12 files; 12 of them reach the edge" in line for line in summary.lines()
    )


def test_a_field_is_decoded_once_for_all_its_cells(fields, tmp_path, monkeypatch):
    decoded, whole = [], codec._whole
    monkeypatch.setattr(codec, "_whole", lambda data: (decoded.append(data), whole(data))[1])
    pack(fields / "m.csv", tmp_path / "out", **SMALL)
    assert len(decoded) == len(set(decoded)) == 12


def test_boxes_far_apart_are_encoded_in_order(fields, tmp_path):
    table = manifest.read(fields / "m.csv", PAPER).sample(frac=1, random_state=0)
    columns = [table["image"].tolist(), [None] * len(table), 16, 95, 2, table["box"].tolist(), Crop()]
    assert list(encoding.encode_once(*columns, tmp_path)) == list(encoding.encode_files(*columns))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["m.csv", *(f"field {number}.png" for number in range(12))]
    )


def test_the_identity_of_a_pack_follows_bytes_and_box(fields, tmp_path):
    out = tmp_path / "out"
    first = pack(fields / "m.csv", out, **SMALL)
    before = files(out)
    change(fields, 0, box="2.0, 3 20 18")
    assert not pack(fields / "m.csv", out, **SMALL).written, "the same box in another spelling"
    assert files(out) == before
    for option in ({"box_margin": 0.1}, {"box_square": True}):
        with pytest.raises(InputError, match=r"packed from other input \(box_"):
            pack(fields / "m.csv", out, **SMALL, **option)
    change(fields, 0, box="2 3 20 19")
    with pytest.raises(InputError, match=r"packed from other input \(another manifest\)"):
        pack(fields / "m.csv", out, **SMALL)
    other = pack(fields / "m.csv", tmp_path / "other", **SMALL).dataset
    assert other.fingerprint != first.dataset.fingerprint


def test_two_cells_of_one_file_are_no_copies(fields, tmp_path):
    for row in range(3):
        change(fields, row, leaf=LEAVES[row])
    assert len(pack(fields / "m.csv", tmp_path / "out", **SMALL).dataset) == 36


def test_the_same_cell_in_two_files_is_a_copy(fields, tmp_path):
    (fields / "field 4.png").write_bytes((fields / "field 0.png").read_bytes())
    with pytest.raises(InputError, match="exact copies of one picture are in different groups"):
        pack(fields / "m.csv", tmp_path / "out", **SMALL)
    assert len(pack(fields / "m.csv", tmp_path / "out", **SMALL, group_duplicates=True).dataset) == 36


def test_other_cells_of_a_copy_of_a_file_are_in_its_group(fields, tmp_path):
    (fields / "copy.png").write_bytes((fields / "field 0.png").read_bytes())
    path = change(fields, 3, image="copy.png", box="0 0 9 9", leaf="CLL")  # of another slide
    with pytest.raises(InputError, match="exact copies of one picture are in different groups"):
        pack(path, tmp_path / "out", **SMALL)
    index = pack(path, tmp_path / "out", **SMALL, group_duplicates=True).dataset.index
    of_both = index[index["image"].str.contains(r"copy|field 0\.|field 1\.")]
    assert of_both["group"].nunique() == 1, "the copy's slide also has other cells"


@pytest.mark.parametrize("drop", [False, True])
def test_a_box_outside_of_its_image_is_a_broken_image(fields, tmp_path, drop):
    change(fields, 1, box="60 0 10 10")
    if drop:
        dataset = pack(fields / "m.csv", tmp_path / "out", **SMALL, drop_broken=True).dataset
        assert [item.image for item in dataset.description.dropped] == ["field 0.png#xywh=60,0,10,10"]
        assert dataset.description.model_extra["boxes"]["cells"] == 35
        return
    with pytest.raises(InputError, match=r"box '60 0 10 10' lies outside of the image, which is 60 x 40"):
        pack(fields / "m.csv", tmp_path / "out", **SMALL)
    assert not (tmp_path / "out").exists()


def test_a_broken_file_breaks_all_its_cells(fields, tmp_path):
    (fields / "field 3.png").write_bytes(b"no image")
    dataset = pack(fields / "m.csv", tmp_path / "out", **SMALL, drop_broken=True).dataset
    assert len(dataset) == 33
    assert len(dataset.description.dropped) == 3


def test_a_repeated_box_and_a_file_of_two_patients_are_refused(fields):
    with pytest.raises(
        InputError, match=r"row 3: image 'field 0\.png' with box '2 3 20 18' is already in row 2"
    ):
        manifest.read(change(fields, 1, box="2.0 3 20 18"), PAPER)
    with pytest.raises(
        InputError,
        match=r"row 3: image 'field 0\.png' is already in row 2; patient 's9' here, 's0' there; all",
    ):
        manifest.read(change(fields, 1, box="9 9 9 9", patient="s9"), PAPER)


def test_cells_without_a_patient_stay_with_their_file(fields, tmp_path):
    table = pd.read_csv(fields / "m.csv").assign(patient="", group="image")
    table.to_csv(fields / "m.csv", index=False)
    rows = manifest.read(fields / "m.csv", PAPER)
    assert rows.groupby("name")["group_id"].nunique().max() == 1
    dataset = pack(fields / "m.csv", tmp_path / "out", **SMALL).dataset
    field = dataset.index["image"].str.split("#").str[0]
    assert dataset.index.groupby(field)["fold"].nunique().max() == 1
    numbers = pack(
        fields / "m.csv", tmp_path / "numbers", **SMALL, pseudonyms=tmp_path / "secret" / "t.csv"
    ).dataset
    assert numbers.index.groupby("group").size().tolist() == [3] * 12
    assert numbers.index["image"].is_unique


def test_a_box_counts_in_the_upright_image(tmp_path):
    """Exif says that the stored image lies on its side: pixels of the box are those that people see."""
    upright = np.zeros((40, 60, 3), np.uint8)
    upright[5:15, 40:55] = 255
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    stored = Image.fromarray(np.rot90(upright).copy())
    for name in ("a.jpg", "a.png"):
        stored.save(tmp_path / name, exif=exif, quality=100)
        assert codec.upright_size(tmp_path / name) == (60, 40)
        (white,) = codec.crops(tmp_path / name, ["42 7 10 6"], 8, 95)
        assert codec.decode(white).min() > 240, name


def test_a_manifest_without_shards_and_masks_have_the_same_cells(fields, tmp_path):
    (fields / "mask").mkdir()
    for number in range(12):
        mask = np.zeros((40, 60), np.uint8)
        mask[3:12, 2:22] = 255  # the upper half of the first cell
        Image.fromarray(mask).save(fields / f"mask/{number}.png")
    table = pd.read_csv(fields / "m.csv")
    table["mask"] = [f"mask/{row // 3}.png" for row in range(36)]
    table.to_csv(fields / "m.csv", index=False)
    options = {"box_margin": 0.0, "box_square": True}
    dataset = pack(fields / "m.csv", tmp_path / "out", **SMALL, **options).dataset
    assert dataset.preparation == {"size": 32, "quality": 95, "square": True}
    direct = unpacked.open_manifest(fields / "m.csv", 32, 95, PAPER, dataset.crop)
    assert by_name(direct) == by_name(dataset)
    matched = masks.match(fields / "m.csv", dataset)
    kept, others = masks.verified(matched, dataset, range(len(dataset)))
    assert (len(kept.files), others) == (36, 0)
    assert kept.crop == Crop(square=True)
    plain = pack(fields / "m.csv", tmp_path / "plain", **SMALL).dataset
    first = plain.index["image"].tolist().index("field 0.png#xywh=2,3,20,18")
    mask = masks.match(fields / "m.csv", plain).read(first)
    assert mask[:15].all()
    assert not mask[17:].any()


def test_images_to_predict_may_be_boxes(fields):
    frame = manifest.read_images(fields / "m.csv")
    assert frame["shown"].iloc[0] == "field 0.png#xywh=2,3,20,18"
    assert frame["box"].tolist()[:3] == list(CELLS)


def test_a_manifest_is_written_with_its_boxes(fields, tmp_path):
    rows = manifest.read(fields / "m.csv", PAPER)
    for name in ("again.csv", "again.parquet"):
        manifest.write(rows, tmp_path / name)
        again = manifest.read(tmp_path / name, PAPER)
        assert again["box"].tolist() == rows["box"].tolist()
    manifest.write(rows[::3].assign(box=""), tmp_path / "whole.csv")
    assert "box" not in pd.read_csv(tmp_path / "whole.csv")


def test_a_killed_pack_of_cells_goes_on_to_the_same_bytes(fields, tmp_path, monkeypatch):
    whole, calls = codec.crops, []

    def mortal(*arguments):
        calls.append(None)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return whole(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(codec, "crops", mortal)
        with pytest.raises(KeyboardInterrupt):
            pack(fields / "m.csv", tmp_path / "out", **SMALL)
    pack(fields / "m.csv", tmp_path / "out", **SMALL)
    pack(fields / "m.csv", tmp_path / "undisturbed", **SMALL)
    assert files(tmp_path / "out") == files(tmp_path / "undisturbed")
    described = json.loads((tmp_path / "out/dataset.json").read_text())
    assert described["boxes"]["cells"] == 36
