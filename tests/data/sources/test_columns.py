"""Sites, scanners and readers of a table beside the data set go into the manifest."""

from __future__ import annotations

from pathlib import Path

import pytest

from leukotree.data import manifest
from leukotree.data.sources.importer import import_source
from leukotree.errors import InputError
from leukotree.taxonomy import Taxonomy
from tests.helpers.small_data import lay_out


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return lay_out(tmp_path / "raw", "APL/p1/a.png", "AML/p2/b.png", "ALL/p3/c.png")


def imported(root: Path, table: str) -> tuple[list[str], object]:
    """The notes of an import with a table, and the rows of its manifest."""
    path = root.parent / "readings.csv"
    path.write_text(table)
    summary = import_source("folder", root, root.parent / "m.csv", columns=path, new_names={"APL": "APML"})
    return list(summary.notes), manifest.read(root.parent / "m.csv", Taxonomy.paper())


def test_images_get_their_values_and_others_none(root: Path) -> None:
    notes, frame = imported(
        root, "reader:A,image,Site\nAPL,APL/p1/a.png,Ulm\nacute,./ALL/p3/c.png,\nAML,no.png,x\n"
    )
    rows = frame.set_index("name")[["site", "reader:A"]].to_dict("index")
    assert {name.split("raw/")[-1]: tuple(row.values()) for name, row in rows.items()} == {
        "APL/p1/a.png": ("Ulm", "APML"),
        "AML/p2/b.png": ("", ""),
        "ALL/p3/c.png": ("", "acute"),
    }
    assert any(note.startswith("1 rows of ") for note in notes)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("image,reader:A\nAPL/p1/a.png,AMK\n", "row 2: reader:A 'AMK' is no node of the tree"),
        ("image,note\nAPL/p1/a.png,x\n", "no column site, scanner or reader:<name>"),
        ("image,site\nno.png,x\n", "names no image that is imported; its paths start at"),
        ("image,site\nAPL/p1/a.png,x\n./APL/p1/a.png,y\n", "row 3: image './APL/p1/a.png' is named twice"),
        ("site\nx\n", "missing column 'image'"),
    ],
)
def test_a_wrong_table_is_refused_and_nothing_is_written(root: Path, table: str, says: str) -> None:
    with pytest.raises(InputError, match=r"readings\.csv") as error:
        imported(root, table)
    assert says in str(error.value)
    assert not (root.parent / "m.csv").exists()
