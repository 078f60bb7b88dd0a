"""The code of a process: its commit, a digest of its files, and the codes of several attempts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from leukotree.records import origin, runfolder
from leukotree.records.runfolder import RunFolder
from leukotree.spec import RunSpec
from leukotree.taxonomy import Taxonomy

REPOSITORY = Path(__file__).parents[2]


def git(folder: Path, *words: str) -> str:
    settings = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "safe.directory=*"]
    return subprocess.run(
        ["git", *settings, *words], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small checkout with one commit."""
    for file in (
        "src/leukotree/__init__.py",
        "hpc/__init__.py",
        "slurm/sweep.sh",
        "slurm/site/a.yaml",
        "README.md",
    ):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("1\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    return tmp_path


def test_this_code_names_its_commit_and_its_files() -> None:
    code = origin.here()
    assert set(code) == set(origin.KEYS)
    assert code["code"] == origin.digest(
        {"leukotree": REPOSITORY / "src" / "leukotree", "hpc": REPOSITORY / "hpc"}
    )


@pytest.mark.parametrize(
    ("file", "dirty"),
    [
        (None, False),
        ("src/leukotree/__init__.py", True),
        ("hpc/new.py", True),
        ("hpc/n e w\u00e9.py", True),
        ("slurm/sweep.sh", True),
        ("slurm/site/a.yaml", False),  # how a cluster is asked for jobs
        ("slurm/site/mine.yaml", False),
        ("README.md", False),
        ("results/table.py", False),
        ("hpc/notes.txt", False),
    ],
)
def test_changes_of_the_code_count_and_others_do_not(checkout: Path, file: str | None, dirty: bool) -> None:
    if file:
        (checkout / file).parent.mkdir(exist_ok=True)
        (checkout / file).write_text("2\n")
    assert (origin._commit(checkout), origin._dirty(checkout)) == (git(checkout, "rev-parse", "HEAD"), dirty)


def test_a_file_that_was_removed_is_a_change(checkout: Path) -> None:
    (checkout / "hpc" / "__init__.py").unlink()
    assert origin._dirty(checkout) is True


def test_the_checkout_of_another_user_is_read(checkout: Path) -> None:
    """git itself refuses it, with "dubious ownership"."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    for path in (checkout, checkout / ".git"):
        os.chown(path, 12345, 12345)
    assert (
        subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=checkout, capture_output=True, check=False
        ).returncode
        != 0
    )
    assert len(origin._commit(checkout) or "") == 40
    assert origin._dirty(checkout) is False


def test_without_git_or_a_checkout_the_commit_is_unknown(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = checkout / ".venv" / "site-packages"  # an installed package within the checkout of something else
    other.mkdir(parents=True)
    assert origin._commit(other) is None
    monkeypatch.setenv("PATH", "")
    assert origin._commit(checkout) is None
    assert origin._dirty(checkout) is None


def test_environment_variables_of_git_are_ignored(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a hook of git."""
    monkeypatch.setenv("GIT_DIR", str(REPOSITORY / ".git"))
    assert (
        origin._commit(checkout)
        == subprocess.run(
            ["git", "--git-dir", checkout / ".git", "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    )


def test_a_copy_has_the_same_digest_and_other_files_another_one(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("copy") / "hpc"
    shutil.copytree(checkout / "hpc", place)
    first = origin.digest({"hpc": checkout / "hpc"})
    for name in ("__pycache__/a.pyc", ".a.py.swp", "a.py~", ".git/HEAD"):
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text("x")
    assert origin.digest({"hpc": place}) == first
    (place / "a.yaml").write_text("")
    assert origin.digest({"hpc": place}) != first
    (place / "a.yaml").rename(place / "b.yaml")
    third = origin.digest({"hpc": place})
    (place / "b.yaml").write_text("x")
    assert origin.digest({"hpc": place}) != third != first


def attempt(commit: str, code: str | None = None, dirty: bool = False, at: int = 1) -> dict[str, Any]:
    return {"commit": commit * 40, "code": code, "dirty": dirty, "at": at}


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [
        ([], []),
        ([{"host": "n1"}, {"host": "n1"}], []),
        ([attempt("a", "1", at=0), attempt("a", "1")], ["commit aaaaaaaaaaaa"]),
        (
            [attempt("a", "1", at=0), attempt("b", "1")],
            ["commit bbbbbbbbbbbb"],
        ),  # a commit that leaves the code alone
        ([attempt("a", "1", at=0), attempt("b", "2")], ["commit aaaaaaaaaaaa", "commit bbbbbbbbbbbb"]),
        (
            [attempt("a", "1", at=0), attempt("a", "2", dirty=True)],
            ["commit aaaaaaaaaaaa", "commit aaaaaaaaaaaa with changes (code 2)"],
        ),
        (
            [attempt("a", "1", at=0), attempt("b", "2", at=0)],
            ["commit bbbbbbbbbbbb"],
        ),  # nothing of the first is in the run
        (
            [attempt("a", at=0), {"host": "n1"}, attempt("b", "2")],
            ["commit aaaaaaaaaaaa", "commit bbbbbbbbbbbb"],
        ),
        ([{"commit": None, "version": "0.1.0", "code": "1"}], ["version 0.1.0 (code 1)"]),
    ],
)
def test_the_codes_of_a_run(attempts: list[dict[str, Any]], expected: list[str]) -> None:
    assert origin.sequence(attempts) == expected


def begin(root: Path, code: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """An attempt at a run with some code, that writes a checkpoint."""
    monkeypatch.setattr(origin, "here", lambda: dict.fromkeys(origin.KEYS) | code)
    folder = RunFolder(root, RunSpec())
    with folder.opened(Taxonomy.paper(), {"dataset": "d"}, ranks=1):
        folder.status(state="running")
        (folder.checkpoints / "1").mkdir(parents=True, exist_ok=True)
    return folder


def test_each_attempt_has_its_code_and_the_status_has_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = ({"commit": letter * 40, "dirty": False, "code": letter * 12} for letter in "ab")
    folder = begin(tmp_path, one, monkeypatch)
    assert "codes" not in runfolder.read_status(folder.path)
    begin(tmp_path, two, monkeypatch)
    rows = [json.loads(line) for line in (folder.path / "attempts.jsonl").read_text().splitlines()]
    assert [(row["commit"], row["dirty"], row["code"]) for row in rows] == [
        tuple(one.values()),
        tuple(two.values()),
    ]
    assert runfolder.read_status(folder.path)["codes"] == ["commit aaaaaaaaaaaa", "commit bbbbbbbbbbbb"]


def test_a_run_of_an_older_version_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = begin(tmp_path, {}, monkeypatch)
    path = folder.path / "attempts.jsonl"
    path.write_text(json.dumps({"host": "n1", "ranks": 1, "at": 0}) + "\n")
    (folder.path / "env.json").write_text(json.dumps({"dataset": "d", "commit": "a" * 40}))
    begin(tmp_path, {"commit": "b" * 40, "code": "b" * 12}, monkeypatch)
    assert runfolder.code_of(folder.path) == ["commit aaaaaaaaaaaa", "commit bbbbbbbbbbbb"]


def test_linked_folders_are_code_too_and_a_circle_of_links_ends(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The sites of a hospital may lie in a folder of its own."""
    sites = tmp_path_factory.mktemp("sites")
    (sites / "ours.yaml").write_text("partition: gpu\n")
    (checkout / "slurm" / "more").symlink_to(sites)
    (sites / "back").symlink_to(checkout / "slurm")
    names = [path.relative_to(checkout).as_posix() for path in origin.code_files(checkout / "slurm")]
    assert names == ["slurm/more/ours.yaml", "slurm/site/a.yaml", "slurm/sweep.sh"]
