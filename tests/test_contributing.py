"""CONTRIBUTING.md is followed literally: its code is applied to a copy of the tree, and its commands are
run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.checkouts import REPOSITORY, make_checkout, python_path

TEXT = (REPOSITORY / "CONTRIBUTING.md").read_text()


def section(title: str) -> str:
    return TEXT.split(f"## {title}\n")[1].split("\n## ")[0]


def blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the tree, with a command `leukotree` that runs it."""
    folder = make_checkout(tmp_path / "tree")
    shutil.copytree(
        REPOSITORY / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__", "kept")
    )
    shutil.copy(REPOSITORY / "pyproject.toml", folder)
    (folder / "bin").mkdir()
    (folder / "bin/leukotree").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m hpc.cli "$@"\n')
    (folder / "bin/python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    for command in (folder / "bin").iterdir():
        command.chmod(0o755)
    return folder


def follow(text: str, tree: Path) -> str:
    """Apply the diffs, save the files, run the commands. Returns what they print."""
    for diff in blocks("diff", text):
        subprocess.run(["git", "apply", "--recount", "-"], cwd=tree, input=diff, text=True, check=True)
    for name, code in re.findall(r"as `(\S+\.py)`:\n\n```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        (tree / name).write_text(code)
    variables = os.environ | {
        "PATH": f"{tree}/bin:{os.environ['PATH']}",
        "PYTHONPATH": python_path(tree),
        "PYTHONSAFEPATH": "1",
    }
    printed = ""
    for script in blocks("sh", text):
        done = subprocess.run(
            ["bash", "-e", "-c", script], cwd=tree, env=variables, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        printed += done.stdout
    for folder in ("src", "tests/evaluation"):
        checked = subprocess.run(
            [sys.executable, "-m", "ruff", "check", folder],
            cwd=tree,
            capture_output=True,
            text=True,
            check=False,
        )
        assert not re.findall(r"(?:mean_path|filenames)\.py:.*", checked.stdout), checked.stdout
    return printed


@pytest.mark.slow("a process for each command")
def test_a_decision_rule_is_added_as_it_is_written(tree: Path) -> None:
    printed = follow(section("Add a decision rule"), tree)
    assert re.search(r"\d+ passed", printed)
    code = "import leukotree.evaluation.decide as d; print(d.__file__, *d.RULES)"
    shown = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": python_path(tree)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert shown.startswith(str(tree)), "the copy was tried, not this tree"
    assert "mean_path" in shown


@pytest.mark.slow("a process for each command")
def test_a_source_is_added_as_it_is_written(tree: Path) -> None:
    text = section("Add a source")
    printed = follow(text, tree)
    expected = [
        line.removeprefix("# ") for line in blocks("sh", text)[0].splitlines() if line.startswith("#")
    ]
    assert printed.splitlines() == expected
    assert (tree / "my.csv").read_text().count("AML") == 4


def test_every_file_that_is_named_is_there() -> None:
    named = re.findall(r"`((?:src|tests|docs|hpc)/[^`*]+?)`", TEXT)
    new = {"src/leukotree/data/sources/filenames.py", "tests/evaluation/test_mean_path.py"}
    absent = [
        name for name in named if name not in new and "NAME" not in name and not (REPOSITORY / name).exists()
    ]
    assert not absent
