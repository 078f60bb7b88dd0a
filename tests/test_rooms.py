"""The rules between the rooms hold, and each rule fails where it is broken."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from tests import rooms
from tests.rooms import ROOT


def tree(root: Path, **files: str) -> Path:
    """A made-up tree: `hpc__cli="import x"` is the file hpc/cli.py; leukotree lies in src."""
    for name, text in files.items():
        base = root / "src" if name.startswith("leukotree") else root
        file = base / f"{name.replace('__', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))
    return root


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert " -> ".join(rooms.circle(ROOT)) == ""


def test_imports_go_down_only() -> None:
    assert rooms.upward(ROOT) == []


def test_the_science_imports_no_launcher_and_the_launching_no_model_library() -> None:
    assert len(rooms.modules(ROOT)) > 100
    assert rooms.foreign(ROOT) == []


def test_each_file_lies_in_a_room_of_the_table() -> None:
    assert rooms.homeless(ROOT) == []


def test_the_table_has_each_room_once_and_no_other() -> None:
    table = [room for layer in rooms.LAYERS for room in layer]
    assert sorted(table) == sorted({rooms.room_of(module) for module in rooms.modules(ROOT)} - {None})


def test_the_picture_in_the_docs_is_that_of_the_code() -> None:
    """If it is not: `python -m tests.rooms --write`."""
    text = rooms.DOCUMENT.read_text()
    assert rooms.written(text, rooms.picture(ROOT)) == text


def test_the_steps_name_each_room_once() -> None:
    steps = rooms.DOCUMENT.read_text().partition("## From a spec")[2].partition("\n## ")[0]
    named = re.findall(r"`((?:hpc|leukotree)[.][a-z.]+)`", steps)
    assert sorted(named) == sorted(set(named))
    assert [room for room in named if all(room not in layer for layer in rooms.LAYERS)] == []


def test_a_drawing_replaces_the_one_in_a_document() -> None:
    text = "before\n<!-- rooms: how -->\n```\nold\n\nold\n```\nafter\n"
    assert rooms.written(text, "new") == "before\n<!-- rooms: how -->\n```\nnew\n```\nafter\n"


def test_the_picture_leaves_out_what_another_arrow_reaches(tmp_path: Path) -> None:
    root = tree(tmp_path, hpc__cli="import hpc.verbs.data, hpc.options", hpc__options="")
    tree(root, hpc__verbs__data="from hpc import options")
    lines = [line.split() for line in rooms.picture(root).splitlines() if line]
    assert lines == [["hpc.cli", "->", "hpc.verbs"], ["hpc.verbs", "->", "hpc.options"], ["hpc.options"]]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("import leukotree.data.pack", "import leukotree.data.shards"),
        ("from leukotree.data import pack", "from leukotree.data.shards import x"),
        ("from . import pack", "from .shards import x"),
        ("def f():\n    from leukotree.data import pack", "import leukotree.data.shards"),
        (
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from leukotree.data.pack import X",
            "from leukotree.data import shards",
        ),
    ],
)
def test_a_circle_is_found(tmp_path: Path, first: str, second: str) -> None:
    root = tree(tmp_path, leukotree__data__shards=first, leukotree__data__pack=second)
    assert set(rooms.circle(root)) == {"leukotree.data.pack", "leukotree.data.shards"}


def test_a_circle_through_a_third_module_is_found(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        hpc__slurm__a="from hpc.slurm import b",
        hpc__slurm__b="from hpc.slurm import c",
        hpc__slurm__c="from hpc.slurm import a",
    )
    assert rooms.circle(root) in (
        [f"hpc.slurm.{name}" for name in order] for order in ("abca", "bcab", "cabc")
    )


def test_modules_without_a_circle_pass(tmp_path: Path) -> None:
    root = tree(tmp_path, hpc__cli="import hpc.verbs.data", hpc__verbs__data="import leukotree.spec")
    tree(root, leukotree__spec="import os, numpy")
    assert rooms.circle(root) == []
    assert rooms.upward(root) == []
    assert rooms.foreign(root) == []
    assert rooms.homeless(root) == []


@pytest.mark.parametrize(
    ("importing", "imported"),
    [
        ("leukotree__spec", "leukotree__data__pack"),
        ("leukotree__data__pack", "leukotree__training__run"),
        ("leukotree__evaluation__metrics", "leukotree__stats__verdict"),
        ("leukotree__models__losses", "leukotree__data__pack"),  # the same layer
        ("leukotree__report__write", "leukotree__models__losses"),  # below, and yet not for it
        ("leukotree__training__run", "hpc__launching__runs"),
        ("hpc__slurm__site", "hpc__launching__runs"),
        ("hpc__launching__runs", "hpc__cli"),
    ],
)
def test_an_upward_import_is_found(tmp_path: Path, importing: str, imported: str) -> None:
    source, target = (name.replace("__", ".") for name in (importing, imported))
    root = tree(tmp_path, **{importing: f"def f():\n    import {target}", imported: ""})
    assert rooms.upward(root) == [f"{source} imports {target}"]


@pytest.mark.parametrize("text", ["import ray", "from submitit.core import utils", "from hpc import cli"])
def test_a_launcher_in_the_science_is_found(tmp_path: Path, text: str) -> None:
    root = tree(tmp_path, leukotree__training__run=f"def f():\n    {text}")
    [line] = rooms.foreign(root)
    assert line.startswith("leukotree.training.run imports ")


@pytest.mark.parametrize("text", ["import timm", "from webdataset import WebDataset", "import timm.models"])
def test_a_model_library_in_the_launching_is_found(tmp_path: Path, text: str) -> None:
    root = tree(tmp_path, hpc__launching__runs=text, leukotree__models__classifier=text)
    [line] = rooms.foreign(root)
    assert line.startswith("hpc.launching.runs imports ")


def test_a_file_that_no_room_takes_is_found(tmp_path: Path) -> None:
    root = tree(tmp_path, hpc__loose="", leukotree__loose="", leukotree__new__x="", leukotree__data__x="")
    assert sorted(rooms.homeless(root)) == ["hpc.loose", "leukotree.loose", "leukotree.new.x"]
