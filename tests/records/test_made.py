"""made.json: what an import left out goes with the shards, unless the manifest was changed in between."""

from __future__ import annotations

import json
from pathlib import Path

from leukotree.records import made
from leukotree.records.made import Imported

IMPORTED = Imported(3, {"no label": 2, "left out by --skip Mrs-Smith": 1})


def packed(folder: Path, imported: Imported | None = IMPORTED, anonymous: bool = False) -> Path:
    """A folder of shards whose manifest was written by an import."""
    shards = folder / "shards"
    shards.mkdir()
    manifest = folder / "m.csv"
    manifest.write_text("image,leaf\n")
    made.note_manifest(manifest, ["import", "folder", "Mrs-Smith", "m.csv"], imported)
    made.note_shards(shards, [manifest], ["pack", "m.csv", "shards"], anonymous)
    return shards


def test_what_an_import_left_out_goes_with_the_shards(tmp_path: Path) -> None:
    shards = packed(tmp_path)
    assert made.imported(shards) == [IMPORTED]
    assert [words[0] for words, _ in made.commands(shards)] == ["import", "pack"]


def test_with_pseudonyms_only_the_number_goes_with_them(tmp_path: Path) -> None:
    shards = packed(tmp_path, anonymous=True)
    assert made.imported(shards) == [Imported(3, {made.WITHHELD: 3})]
    assert [words[0] for words, _ in made.commands(shards)] == ["pack"]
    assert "Smith" not in (shards / made.FILE).read_text()


def test_of_a_changed_manifest_nothing_is_known(tmp_path: Path) -> None:
    manifest = tmp_path / "m.csv"
    manifest.write_text("image,leaf\n")
    made.note_manifest(manifest, ["import"], IMPORTED)
    manifest.write_text("image,leaf\nmore\n")
    shards = tmp_path / "shards"
    shards.mkdir()
    made.note_shards(shards, [manifest], ["pack"])
    assert made.imported(shards) == []


def test_older_and_damaged_notes_say_nothing(tmp_path: Path) -> None:
    assert made.imported(tmp_path) == []
    for content in ("{", "[]", json.dumps({"commands": []}), json.dumps({"imported": [{"images": "x"}]})):
        (tmp_path / made.FILE).write_text(content)
        assert made.imported(tmp_path) == []
