"""The words of a command become images, in a known order."""

from __future__ import annotations

from pathlib import Path

import pytest

from leukotree.errors import InputError
from leukotree.inference import inputs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b/2.PNG", "b/1.jpg", "a.tif", "b/Thumbs.db", "b/notes.txt", "b/.hidden.png", "scan.dcm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def names(words: list[str], folder: Path) -> list[str]:
    with inputs.opened(words) as table:
        assert list(table.columns) == list(inputs.COLUMNS)
        return [str(Path(image).relative_to(folder)) for image in table["image"]]


def test_a_folder_has_its_images_in_sorted_order_and_what_may_be_one(folder: Path) -> None:
    assert names([str(folder)], folder) == ["a.tif", "scan.dcm", "b/1.jpg", "b/2.PNG"]


def test_files_and_folders_keep_their_order(folder: Path) -> None:
    words = [str(folder / "b/2.PNG"), str(folder / "b"), str(folder / "a.tif")]
    assert names(words, folder) == ["b/2.PNG", "b/1.jpg", "b/2.PNG", "a.tif"]


def test_a_manifest_needs_only_its_images(folder: Path) -> None:
    (folder / "my.csv").write_text("image;Patient;Leaf\na.tif; p1 ;\nb/1.jpg;;AML\n", encoding="utf-8")
    with inputs.opened([str(folder / "my.csv")]) as table:
        rows = table[["image", "patient", "source", "leaf"]].to_numpy().tolist()
    assert rows == [["a.tif", "p1", "", ""], ["b/1.jpg", "", "", "AML"]]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("image\nnone.png\n", "'none.png' is not a file"),
        ("image\n../a.png\n", "lies outside"),
        ("image,patient\na.tif,nan\n", "names nobody"),
        ("image\n", "no rows"),
        ("picture\na.tif\n", "missing column 'image'"),
        ("image\na.tif\na.tif\n", "already in row 2"),
    ],
)
def test_a_wrong_manifest_is_one_line(text: str, says: str, folder: Path) -> None:
    (folder / "my.csv").write_text(text)
    with pytest.raises(InputError, match=says) as caught, inputs.opened([str(folder / "my.csv")]):
        pass
    assert "\n" not in str(caught.value)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no image in it"), inputs.opened([str(tmp_path)]):
        pass
