"""What an audit measured is kept beside the shards, and read for the same data only."""

import json
import os
from pathlib import Path

import pytest

from leukotree.records import audited
from leukotree.records.audited import Audited


def test_it_is_read_as_it_was_kept(tmp_path: Path) -> None:
    nan = float("nan")
    found = Audited(
        {"colour only": 0.5, "source only": nan}, {"colour only": {"AML": 0.25, "ALL": nan}}, {"a": 1.0}
    )
    assert audited.keep(tmp_path, "f" * 64, found)
    known = Audited({"colour only": 0.5}, {"colour only": {"AML": 0.25}}, {"a": 1.0})
    assert audited.read(tmp_path, ["e" * 64, "f" * 64]) == known
    assert audited.read(tmp_path, ["e" * 64]) == Audited()


def test_a_file_of_an_older_version_has_no_leaves(tmp_path: Path) -> None:
    (tmp_path / audited.FILE).write_text('{"fingerprint": "f", "baselines": {"colour only": 0.5}}')
    assert audited.read(tmp_path, ["f"]) == Audited({"colour only": 0.5})


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        '{"fingerprint": ["f"]}',
        '{"fingerprint": "f", "baselines": [1]}',
        '{"fingerprint": "f", "baselines": {"x": "0.5", "y": 7, "z": null, "w": true}}',
        '{"fingerprint": "f", "leaves": {"x": [], "y": {"AML": 2.0}}, "of_source": 1}',
        " " * (audited.MAX_BYTES + 1),
    ],
)
def test_a_damaged_file_says_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / audited.FILE).write_text(content)
    assert audited.read(tmp_path, ["f"]) == Audited()


def test_no_file_says_nothing(tmp_path: Path) -> None:
    assert audited.read(tmp_path / "none", ["f"]) == Audited()


def test_a_folder_that_cannot_be_written_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "shards").write_text("a file in the place of the folder")
    assert not audited.keep(tmp_path / "shards", "f", Audited())
    assert os.listdir(tmp_path) == ["shards"]


def test_a_later_audit_replaces_an_earlier_one(tmp_path: Path) -> None:
    for value in (0.1, 0.2):
        audited.keep(tmp_path, "f", Audited({"colour only": value}))
    assert json.loads((tmp_path / audited.FILE).read_text())["baselines"] == {"colour only": 0.2}
