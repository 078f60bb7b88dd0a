"""Manifests: what is read, what is refused with which message, and what is written."""

import os
import tempfile
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leukotree.data import manifest
from leukotree.errors import InputError
from leukotree.taxonomy import Taxonomy

TAXONOMY = Taxonomy.paper()
HEADER = "image,leaf,patient,source\n"


@pytest.fixture
def folder(tmp_path):
    """A folder with four image files. They are never decoded, so they may hold anything."""
    (tmp_path / "data" / "p1").mkdir(parents=True)
    for name in ("a.png", "b.png", "p1/c.png", "p1/c_mask.png"):
        (tmp_path / "data" / name).write_bytes(b"pixels")
    return tmp_path / "data"


def read(folder, text, name="m.csv"):
    (folder / name).write_text(text)
    return manifest.read(folder / name, TAXONOMY)


def refusal(folder, text):
    with pytest.raises(InputError) as caught:
        read(folder, text)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(folder / "m.csv"))
    return message.removeprefix(str(folder))


def test_paths_are_absolute_and_every_value_is_text(folder):
    frame = read(folder, "\ufeff" + HEADER + "a.png,AML,007,x\np1/c.png,normal,1e5,x\n")
    assert frame["image"].tolist() == [str(folder / "a.png"), str(folder / "p1/c.png")]
    assert frame["name"].tolist() == ["a.png", "p1/c.png"]
    assert frame["patient"].tolist() == ["007", "1e5"]
    assert frame["mask"].tolist() == ["", ""]
    assert frame["row"].tolist() == [2, 3]


def test_spaces_around_an_id_do_not_make_another_patient(folder):
    frame = read(folder, HEADER + "a.png,AML,p1,x\nb.png, AML,p1 ,x \n")
    assert frame["group_id"].nunique() == 1


def test_the_folds_keep_a_patient_together_where_there_is_one_and_else_the_image(folder):
    frame = read(folder, HEADER + "a.png,AML,p1,x\nb.png,AML,,x\np1/c.png,AML,p1,y\n")
    assert frame["group"].tolist() == ["patient", "image", "patient"]
    assert frame["group_id"].tolist() == ["x/p1", "x/b.png", "y/p1"]  # p1 of x and p1 of y are two people


def test_a_group_can_be_named(folder):
    """With `slide` the column patient holds the slide's id; with `image` nothing is kept together."""
    frame = read(
        folder,
        "image,leaf,patient,source,group\n"
        "a.png,AML,s1,x,slide\nb.png,AML,s1,x,slide\np1/c.png,AML,p1,x,image\n",
    )
    assert frame["group_id"].tolist() == ["x/s1", "x/s1", "x/p1/c.png"]


def test_no_two_pairs_of_source_and_patient_share_a_group(folder):
    frame = read(folder, HEADER + "a.png,AML,c,a/b\nb.png,AML,b/c,a\np1/c.png,AML,c,a%2Fb\n")
    assert frame["group_id"].nunique() == 3


def test_masks_and_further_columns(folder):
    frame = read(
        folder,
        "mask,note,image,leaf,patient,source\np1/c_mask.png,good,p1/c.png,AML,p1,x\n,,a.png,AML,p1,x\n",
    )
    assert frame["mask"].tolist() == [str(folder / "p1/c_mask.png"), ""]
    assert "note" not in frame


def test_site_scanner_and_readers_are_kept_and_empty_columns_are_not(folder):
    """A reader may name a leaf, stop at an inner node, or not have read the image."""
    header = "image,leaf,patient,source,Scanner,READER: B,reader:A,site,reader:nobody\n"
    frame = read(folder, header + "a.png,AML,p,x, s1 ,APML,acute,,\nb.png,AML,p,x,,,AML,,  \n")
    assert list(frame)[10:] == ["scanner", "reader:B", "reader:A"]
    assert frame["scanner"].tolist() == ["s1", ""]
    assert frame["reader:A"].tolist() == ["acute", "AML"]
    assert frame["reader:B"].tolist() == ["APML", ""]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        (
            "reader:A",
            "AMK",
            " row 2: reader:A 'AMK' is no leaf and no inner node of the taxonomy, which has normal",
        ),
        ("reader:A", "nan", "leave the cell empty where the reader gave none"),
        ("reader:A", "root", "'root' is no leaf"),
        ("reader: ", "AML", ": column 'reader:': the name of a reader is a text after 'reader:'"),
        ("site", "a\u2028b", "site 'a\\u2028b' has a line break"),
        ("reader:A,Reader: A", "AML,AML", ": column 'reader:A' is in the header twice, as 'reader:A' and"),
    ],
)
def test_a_bad_reading_is_named(folder, name, value, says):
    assert says in refusal(folder, f"image,leaf,patient,source,{name}\na.png,AML,p,x,{value}\n")


def test_a_parquet_manifest_has_the_same_further_columns(folder):
    table = pd.DataFrame(
        {
            "image": ["a.png", "b.png"],
            "leaf": "AML",
            "patient": "p",
            "source": "x",
            "site": [None, "Ulm"],
            "reader:A": [None, "acute"],
            "reader:B": [None, None],
        }
    )
    table.to_parquet(folder / "m.parquet")
    frame = manifest.read(folder / "m.parquet", TAXONOMY)
    assert frame[["site", "reader:A"]].to_numpy().tolist() == [["", ""], ["Ulm", "acute"]]
    assert "reader:B" not in frame
    manifest.write(frame, folder / "again.csv")
    pd.testing.assert_frame_equal(manifest.read(folder / "again.csv", TAXONOMY), frame.assign(row=[2, 3]))


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("", ": no rows"),
        (
            "a.png,AMK,p,x\n",
            " row 2: unknown leaf 'AMK'; the taxonomy has normal, reactive, ALL, AML, APML, CLL, CML",
        ),
        ("a.png,AMK,p,x\np1/c.png,acute,p,x\n", "(and 1 more)"),
        ("a.png,AML,p,x\nno.png,AML,p,x\n", " row 3: image 'no.png' is not a file"),
        ("p1,AML,p,x\n", " row 2: image 'p1' is not a file"),
        ("n\0l.png,AML,p,x\n", r" row 2: image 'n\x00l.png' has a line break or control character"),
        ('a.png,AML,"p\nq",x\n', r" row 2: patient 'p\nq' has a line break"),
        (
            "../out.png,AML,p,x\n",
            " row 2: image '../out.png' lies outside the manifest's folder; name the folder",
        ),
        ("p1/../../out.png,AML,p,x\n", "lies outside"),
        (
            "/etc/hostname,AML,p,x\n",
            " row 2: image '/etc/hostname' is absolute; write it relative to the manifest",
        ),
        (
            "a.png,AML,p,x\nb.png,AML,p,x\np1/../a.png,AML,p,x\n",
            " row 4: image 'p1/../a.png' is already in row 2",
        ),
        (
            "a.png,AML,p,x\nlink.png,ALL,q,x\n",
            " row 3: image 'link.png' is already in row 2 as 'a.png', by a link",
        ),
        (
            "a.png,AML,p,x\nlink.png,ALL,q,x\n",
            "by a link; leaf 'ALL' here, 'AML' there; patient 'q' here, 'p' there",
        ),
        (
            "link.png,AML,p,x\na.png,ALL,p,x\n",
            " row 3: image 'a.png' is already in row 2 as 'link.png', by a link; leaf 'ALL'",
        ),
        ("a.png,,p,x\n", " row 2: leaf is empty"),
        ("a.png,AML,p,\n", " row 2: source is empty"),
        (",AML,p,x\n", " row 2: image is empty"),
        ("a.png,AML,x\n", " row 2: 3 values where the header has 4 columns"),
    ],
)
def test_a_bad_row_is_named_with_its_value(folder, rows, says):
    (folder.parent / "out.png").write_bytes(b"pixels")
    (folder / "link.png").symlink_to("a.png")
    assert says in refusal(folder, HEADER + rows)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("image,leaf,patient\na.png,AML,p\n", ": missing column 'source'; it has 'image', 'leaf', 'patient'"),
        (
            "image,leaf,patient,source,group\na.png,AML,p,x,site\n",
            " row 2: unknown group 'site'; it is one of patient, ",
        ),
        (
            "image,leaf,patient,source,group\na.png,AML,,x,patient\n",
            " row 2: group is 'patient' but patient is empty",
        ),
        ("image,leaf,patient,source,mask\na.png,AML,p,x,no.png\n", " row 2: mask 'no.png' is not a file"),
        ("image,leaf,patient,source,mask\na.png,AML,p,x,/m.png\n", " row 2: mask '/m.png' is absolute"),
    ],
)
def test_a_bad_column_is_named(folder, text, says):
    assert says in refusal(folder, text)


def test_a_manifest_may_lie_away_from_its_images_if_it_declares_their_root(folder, tmp_path):
    """`image` is relative to the manifest, and `root` names the folder that holds the images."""
    away = tmp_path / "lists" / "m.csv"
    frame = pd.DataFrame(
        {"image": ["a.png", "p1/c.png"], "leaf": "AML", "patient": ["", "p1"], "source": "x"}
    )
    manifest.write(frame, away, root=folder)
    written = pd.read_csv(away)
    assert written.columns.tolist() == ["image", "leaf", "patient", "source", "root"]
    assert written["image"].tolist() == ["../data/a.png", "../data/p1/c.png"]
    assert all((away.parent / image).is_file() for image in written["image"])
    assert manifest.read(away, TAXONOMY)["group_id"].tolist() == ["x/a.png", "x/p1"]

    (tmp_path / "out.png").write_bytes(b"pixels")
    away.write_text("image,leaf,patient,source,root\n../data/../out.png,AML,p,x,../data\n")
    with pytest.raises(
        InputError, match=r"row 2: image '../data/../out.png' lies outside its root '../data'"
    ):
        manifest.read(away, TAXONOMY)


def test_where_the_manifest_lies_changes_neither_names_nor_groups(folder, tmp_path):
    frame = pd.DataFrame({"image": ["p1/c.png", "a.png"], "leaf": "AML", "patient": "", "source": "x"})
    places = [
        folder / "m.csv",
        folder.parent / "m.csv",
        tmp_path / "far" / "away" / "m.csv",
        folder / "p1" / "m.csv",
    ]
    frames = []
    for place in places:
        manifest.write(frame, place, root=folder)
        frames.append(manifest.read(place, TAXONOMY))
    for other in frames[1:]:
        pd.testing.assert_frame_equal(frames[0], other)


def test_a_link_that_leaves_the_root_is_refused_and_a_linked_root_is_fine(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.png").write_bytes(b"pixels")
    (folder / "link.png").symlink_to(tmp_path / "elsewhere" / "x.png")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    assert "'link.png' lies outside" in refusal(folder, HEADER + "link.png,AML,p,x\n")
    assert "'linked/x.png' lies outside" in refusal(folder, HEADER + "linked/x.png,AML,p,x\n")
    frame = read(folder, "image,leaf,patient,source,root\nlinked/x.png,AML,p,x,linked\n")
    assert frame["image"].tolist() == [str(tmp_path / "elsewhere" / "x.png")]


def test_a_manifest_reached_through_a_link_means_the_same(folder, tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "short").symlink_to(tmp_path / "deep" / "er")
    frame = pd.DataFrame({"image": ["a.png"], "leaf": ["AML"], "patient": ["p"], "source": ["x"]})
    manifest.write(frame, tmp_path / "short" / "m.csv", root=folder)
    assert manifest.read(tmp_path / "short" / "m.csv", TAXONOMY)["image"].tolist() == [str(folder / "a.png")]


def test_parquet_holds_the_same_and_numbers_its_rows_from_one(folder):
    frame = pd.DataFrame(
        {"image": ["a.png", "b.png"], "leaf": ["AML", "CLL"], "patient": ["p", ""], "source": ["x", "x"]}
    )
    manifest.write(frame, folder / "m.csv")
    manifest.write(frame, folder / "m.parquet")
    from_csv = manifest.read(folder / "m.csv", TAXONOMY)
    from_parquet = manifest.read(folder / "m.parquet", TAXONOMY)
    assert from_parquet["row"].tolist() == [1, 2]
    pd.testing.assert_frame_equal(from_csv.drop(columns="row"), from_parquet.drop(columns="row"))


def test_parquet_ids_may_be_numbers_or_null(folder):
    frame = pd.DataFrame(
        {"image": ["a.png", "b.png"], "leaf": ["AML", "CLL"], "source": pd.Categorical(["x", "x"])}
    )
    frame["patient"] = pd.array([7, None], dtype="Int64")
    frame.to_parquet(folder / "m.parquet")
    assert manifest.read(folder / "m.parquet", TAXONOMY)["group_id"].tolist() == ["x/7", "x/b.png"]


def test_parquet_that_is_none_or_lacks_a_column_is_refused(folder):
    (folder / "m.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(InputError, match="not a readable Parquet file"):
        manifest.read(folder / "m.parquet", TAXONOMY)
    with pytest.raises(InputError, match="no such file"):
        manifest.read(folder / "n.parquet", TAXONOMY)
    pd.DataFrame({"image": ["a.png"]}).to_parquet(folder / "m.parquet")
    with pytest.raises(InputError, match="missing column 'leaf', 'patient', 'source'"):
        manifest.read(folder / "m.parquet", TAXONOMY)
    pd.DataFrame({"image": ["a.png"], "leaf": [["AML"]], "patient": ["p"], "source": ["x"]}).to_parquet(
        folder / "m.parquet"
    )
    with pytest.raises(InputError, match="column 'leaf' is of type"):
        manifest.read(folder / "m.parquet", TAXONOMY)


def test_a_read_manifest_can_be_written_again(folder, tmp_path):
    frame = read(
        folder,
        "image,leaf,patient,source,mask,group\np1/c.png,AML,p1,x,p1/c_mask.png,slide\na.png,CLL,,x,,\n",
    )
    manifest.write(frame, tmp_path / "again.csv", root=folder)
    pd.testing.assert_frame_equal(manifest.read(tmp_path / "again.csv", TAXONOMY), frame)


def test_writing_replaces_the_file_or_changes_nothing(folder):
    frame = pd.DataFrame({"image": ["a.png"], "leaf": ["AML"], "patient": ["p"], "source": ["x"]})
    (folder / "m.csv").write_text("old")
    manifest.write(frame, folder / "m.csv")
    first = (folder / "m.csv").read_bytes()
    manifest.write(frame, folder / "m.csv")
    assert (folder / "m.csv").read_bytes() == first == b"image,leaf,patient,source\na.png,AML,p,x\n"
    with pytest.raises(InputError, match=r"a\.png.m\.csv: cannot be written"):
        manifest.write(frame, folder / "a.png" / "m.csv")
    assert sorted(os.listdir(folder)) == ["a.png", "b.png", "m.csv", "p1"]


VALID = (
    b"image,leaf,patient,source,mask,group,root\n"
    b'a.png,AML,p1,x,,,\n"b, 2.png",normal,,x,m.png,image,.\nc.png,CLL,s1,"y, z",,slide,\n'
)
PIECES = st.one_of(
    st.binary(max_size=3),
    st.text(max_size=4).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.sampled_from(
        [b",", b'"', b"\n", b"\r", b"\0", b"/", b"../", b"\xef\xbb\xbf", b"image", b"AML", b"slide", b"a.png"]
    ),
)
EDITS = st.lists(st.tuples(st.integers(0, len(VALID)), st.integers(0, 12), PIECES), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def edited():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        for image in ("a.png", "b, 2.png", "c.png", "m.png"):
            (folder / image).write_bytes(b"pixels")
        yield folder


def check_message(message, path):
    assert len(message.splitlines()) == 1
    assert message.startswith(str(path))


@pytest.mark.slow("reads and packs many images")
@settings(max_examples=400, deadline=None)
@given(edits=EDITS)
def test_any_edit_of_a_manifest_gives_a_sound_table_or_one_line(edited, edits):
    content = VALID
    for start, cut, piece in edits:
        content = content[:start] + piece + content[start + cut :]
    path = edited / "m.csv"
    path.write_bytes(content)
    try:
        frame = manifest.read(path, TAXONOMY)
    except InputError as error:
        check_message(str(error), path)
        return
    assert len(frame) > 0
    assert frame["image"].is_unique
    assert set(frame["leaf"]) <= set(TAXONOMY.leaves)
    assert set(frame["group"]) <= set(manifest.GROUPS)
    assert (frame["group_id"] != "").all()
    assert all(Path(image).is_file() for image in frame["image"])
    assert all(not mask or Path(mask).is_file() for mask in frame["mask"])
