"""Links in a data set: the real file decides leaf and patient, conflicts are refused, losses are named."""

import os
from pathlib import Path

import pytest

from leukotree.data import manifest
from leukotree.data.sources.importer import import_source
from leukotree.errors import InputError
from leukotree.taxonomy import Taxonomy


@pytest.fixture
def root(tmp_path) -> Path:
    for name in ("AML/p1/1.png", "AML/p1/2.png", "AML/p2/1.png", "ALL/p3/1.png"):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "set"


def link(root: Path, name: str, target: str | Path) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).symlink_to(target)


def imported(root: Path, **options):
    """Return (summary, {content of the file: (leaf, patient)}), read from the written manifest."""
    summary = import_source("folder", root, root.parent / "m.csv", **{"follow_links": True} | options)
    frame = manifest.read(root.parent / "m.csv", Taxonomy.paper())
    assert len(frame) == summary.rows
    return summary, {
        Path(image).read_text(): (leaf, patient)
        for image, leaf, patient in zip(frame["image"], frame["leaf"], frame["patient"], strict=True)
    }


PLAIN = {
    "AML/p1/1.png": ("AML", "p1"),
    "AML/p1/2.png": ("AML", "p1"),
    "AML/p2/1.png": ("AML", "p2"),
    "ALL/p3/1.png": ("ALL", "p3"),
}


def refusal(root: Path, **options) -> str:
    with pytest.raises(InputError) as caught:
        import_source("folder", root, root.parent / "m.csv", **{"follow_links": True} | options)
    assert "\n" not in str(caught.value)
    assert not (root.parent / "m.csv").exists()
    return str(caught.value)


@pytest.mark.parametrize("name", ["AML/a_review/q.png", "AML/q.png", "AML/p0/q.png", "AML/p2/0.png"])
def test_the_file_itself_keeps_its_patient_though_a_link_sorts_first(root, name):
    link(root, name, root / "AML/p1/1.png")
    summary, rows = imported(root)
    assert rows == PLAIN
    assert summary.skipped["link to another image of the set"] == 1
    assert f"1 further names of images were left out: {name} = AML/p1/1.png" in summary.notes


def test_a_link_under_another_leaf_is_refused_with_both_paths(root):
    link(root, "ALL/A_review/q.png", "../../AML/p1/1.png")
    says = refusal(root)
    assert f"{root}/ALL/A_review/q.png: leaf 'ALL'" in says
    assert f"{root}/AML/p1/1.png, whose leaf is 'AML'" in says
    assert "--skip ALL/A_review/q.png" in says
    assert imported(root, skip=["ALL/A_review"])[1] == PLAIN


def test_a_linked_folder_under_another_leaf_is_left_out_as_a_whole(root, monkeypatch):
    link(root, "APML", root / "AML")
    assert refusal(root).endswith("--skip APML")
    assert imported(root, skip=["APML"])[1] == PLAIN
    monkeypatch.chdir(root)
    with pytest.raises(InputError, match=r"--skip APML$"):
        import_source("folder", ".", "../n.csv")


def test_a_hard_link_is_the_same_file_too(root):
    os.link(root / "AML/p1/1.png", root / "AML/p1/0.png")
    os.link(root / "AML/p1/2.png", root / "AML/p2/copy.png")
    summary, _ = imported(root)
    # Of two hard links of one patient one is kept. Those of two patients are both kept, as copies.
    assert summary.rows == 5
    assert summary.skipped["hard link to another image of the set"] == 1
    assert any("AML/p2/copy.png = AML/p1/2.png" in note for note in summary.notes)
    (root.parent / "m.csv").unlink()
    os.link(root / "AML/p1/1.png", root / "ALL/p3/0.png")
    assert "is the same file as" in refusal(root)


@pytest.mark.parametrize("target", ["elsewhere", "set/.store", "set/.store/deep"])
def test_a_linked_class_folder_is_followed(root, target, tmp_path):
    (tmp_path / target / "p9").mkdir(parents=True)
    (tmp_path / target / "p9" / "1.png").write_text("far")
    link(root, "CML", tmp_path / target)
    summary, rows = imported(root)
    assert rows == PLAIN | {"far": ("CML", "p9")}
    assert summary.leaves == {"ALL": 1, "AML": 3, "CML": 1}
    assert f"1 linked folders were followed: CML -> {tmp_path / target}" in summary.notes


def test_images_and_folders_linked_from_elsewhere_keep_apart_though_they_have_the_same_names(root, tmp_path):
    for place in ("big/x", "big/y"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "1.png").write_text(place)
    link(root, "CML/p8", tmp_path / "big/x")
    link(root, "CLL/loose.png", tmp_path / "big/y/1.png")
    summary, rows = imported(root)
    assert rows == PLAIN | {"big/x": ("CML", "p8"), "big/y": ("CLL", "")}
    assert any("the manifest's root is" in note for note in summary.notes)


def test_two_links_to_a_file_outside_must_agree(root, tmp_path):
    (tmp_path / "pool.png").write_text("pool")
    link(root, "AML/p1/x.png", tmp_path / "pool.png")
    link(root, "AML/p1/y.png", tmp_path / "pool.png")
    assert imported(root)[1] == PLAIN | {"pool": ("AML", "p1")}
    (root.parent / "m.csv").unlink()
    link(root, "AML/p2/z.png", tmp_path / "pool.png")
    assert "patient 'p2', but it is the same file as" in refusal(root)
    (root / "AML/p2/z.png").unlink()
    link(root, "ALL/p1/z.png", tmp_path / "pool.png")
    assert "leaf" in refusal(root)


def test_links_may_sort_a_pool_that_has_no_labels(root):
    (root / "pool.png").write_text("pool")
    link(root, "CML/p7/1.png", root / "pool.png")
    assert imported(root)[1] == PLAIN | {"pool": ("CML", "p7")}


def test_a_folder_that_is_linked_under_another_leaf_is_refused(root):
    link(root, "CML", root / "AML")
    assert "leaf 'CML', but it is the same file as" in refusal(root)


def test_links_in_a_circle_are_named_and_end(root):
    link(root, "AML/p1/up", "..")
    link(root, "AML/p1/top", root)
    link(root, "AML/p1/above", root.parent)
    link(root, "AML/p2/me", "me")
    with pytest.raises(InputError, match=r"me: a link to .*, which does not exist"):
        import_source("folder", root, root.parent / "m.csv")
    (root / "AML/p2/me").unlink()
    summary, rows = imported(root)
    assert rows == PLAIN
    assert summary.skipped["linked folder that leads in a circle"] == 3
    assert any("AML/p1/above" in note and "AML/p1/up" in note for note in summary.notes)


@pytest.mark.slow("walks thousands of paths")
def test_folders_that_all_link_to_each_other_end(root):
    for here in range(8):
        for there in range(8):
            if here != there:
                link(root, f"AML/p1/{here}/{there}", root / f"AML/p1/{there}")
    assert imported(root)[1] == PLAIN


def test_a_link_to_a_folder_that_is_not_there_is_refused(root):
    link(root, "CML", "/no/such/disk/CML")
    assert refusal(root).startswith(f"{root / 'CML'}: a link to /no/such/disk/CML, which does not exist")
    assert imported(root, skip=["CML"])[1] == PLAIN


def test_a_class_of_broken_links_is_refused(root):
    link(root, "CML/p7/1.png", "/no/such/disk/1.png")
    says = refusal(root)
    assert f"{root / 'CML'}: none of its 1 files can be imported, so leaf 'CML' would lose them" in says
    assert "1 broken link" in says


def test_a_folder_that_cannot_be_read_is_refused(root, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("p2"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert refusal(root) == f"{root}/AML/p2: cannot be read: Permission denied"


def test_files_of_the_operating_system_are_no_data(root):
    for name in (
        "__MACOSX/AML/p1/x.png",
        "AML/@eaDir/1.png/THUMB.jpg",
        "AML/p1/._1.png",
        "AML/.DS_Store",
        "AML/p1/Thumbs.db",
        "CLL/.DS_Store",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    summary, rows = imported(root)
    assert rows == PLAIN
    assert summary.skipped == {
        "Thumbs.db": 1,
        "folder of the operating system (@eaDir)": 1,
        "folder of the operating system (__MACOSX)": 1,
        "hidden file": 3,
    }
    assert "folder 'CLL' is empty" in summary.notes


def test_a_link_to_a_cell_that_a_set_leaves_out_is_left_out_too(tmp_path):
    root = tmp_path / "PBC_dataset_normal_DIB"
    for name in ("platelet/PLATELET_1.jpg", "neutrophil/SNE_1.jpg"):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_bytes(b"x")
    link(root, "neutrophil/BNE_1.jpg", root / "platelet/PLATELET_1.jpg")
    summary = import_source("pbc", root, tmp_path / "m.csv")
    assert summary.rows == 1
    assert summary.skipped["link to an image that is left out"] == 1
    (root / "neutrophil/SNE_1.jpg").unlink()
    with pytest.raises(
        InputError, match=r"nothing to import as pbc: .*1 skipped: link to an image that is left out"
    ):
        import_source("pbc", root, tmp_path / "m.csv")


def test_a_mask_that_is_linked_from_elsewhere_is_inside_the_root_too(tmp_path):
    for name in ("krd/image/0001.jpg", "far/0001.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"x")
    link(tmp_path / "krd", "mask", tmp_path / "far")
    (tmp_path / "krd/class labels.csv").write_text("Image ID,Categoriy\nImage1,Basophil\n")
    with pytest.raises(InputError, match=r"krd/mask: a link out of the data set, to .*--follow-links"):
        import_source("krd", tmp_path / "krd", tmp_path / "out/m.csv", cell_types=True)
    import_source("krd", tmp_path / "krd", tmp_path / "out/m.csv", cell_types=True, follow_links=True)
    assert manifest.read(tmp_path / "out/m.csv", Taxonomy.paper())["mask"].tolist() == [
        str(tmp_path / "far/0001.png")
    ]


def test_the_current_folder_may_be_the_set(root, monkeypatch):
    monkeypatch.chdir(root)
    summary = import_source("folder", ".", "../m.csv", skip=["AML/p1", "ALL/"])
    assert summary.leaves == {"AML": 1}
    assert summary.skipped == {"left out by --skip AML/p1": 2, "left out by --skip ALL": 1}


def test_a_manifest_without_links_does_not_change(root):
    imported(root)
    first = "image,leaf,patient,source,group,root\nset/ALL/p3/1.png,ALL,p3,set,patient,set\n"
    assert (root.parent / "m.csv").read_text().startswith(first)


@pytest.mark.parametrize(
    ("name", "named"), [("CML", "CML"), ("CML/p7", "CML/p7"), ("CML/p7/2.png", "CML/p7/2.png")]
)
def test_a_link_out_of_the_set_is_refused_unless_the_option_allows_it(root, tmp_path, name, named):
    """A download must not name private files of its user."""
    elsewhere = tmp_path / "elsewhere" / "p7" / "2.png"
    elsewhere.parent.mkdir(parents=True)
    elsewhere.write_bytes(b"private")
    target = {"CML": elsewhere.parents[1], "CML/p7": elsewhere.parent}.get(name, elsewhere)
    link(root, name, target)
    message = refusal(root, follow_links=False)
    assert message.startswith(f"{root / named}: a link out of the data set, to {target}; ")
    assert f"--skip {named}" in message
    imported(root)
