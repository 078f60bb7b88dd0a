"""How often the job of a search is queued again: without end while it comes forward, some times where it does
not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpc.launching import caps, requeue
from leukotree.records import searchfolder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "search" / "flat" / "runs").mkdir(parents=True)
    return tmp_path


def steps(root: Path, text: str) -> None:
    """More lines in the log of a trial."""
    with open(root / "search" / "flat" / "runs" / "metrics.jsonl", "a") as log:
        log.write(text)


def test_a_search_without_progress_is_queued_again_some_times(root: Path) -> None:
    assert [requeue.again(root) for _ in range(caps.SEARCH_ENDS + 2)] == [True] * caps.SEARCH_ENDS + [
        False
    ] * 2


def test_progress_restarts_the_count(root: Path) -> None:
    for _ in range(3 * caps.SEARCH_ENDS):
        steps(root, "{}\n")
        assert requeue.again(root)


def test_a_log_that_was_cut_is_no_progress(root: Path) -> None:
    """A trial that goes on from its checkpoint drops the lines behind it, and writes them again."""
    steps(root, "{}\n" * 10)
    requeue.again(root)
    log = root / "search" / "flat" / "runs" / "metrics.jsonl"
    for length in (3, 30, 3, 30):
        log.write_text("x" * length)
        requeue.again(root)
    assert json.loads((root / "search" / searchfolder.ENDS).read_text())["ends"] == 5


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"reached": null, "ends": 1}', '{"reached": 1e999, "ends": 1}', "\xff"]
)
def test_a_damaged_count_starts_again(root: Path, text: str) -> None:
    (root / "search" / searchfolder.ENDS).write_bytes(text.encode("latin-1"))
    assert requeue.again(root)


def test_logs_that_lead_nowhere_count_nothing(root: Path) -> None:
    steps(root, "12345")
    (root / "search" / "flat" / "history.csv").symlink_to(root / "gone")
    assert searchfolder.recorded_bytes(root) == 5


def test_the_command_says_in_one_line_why_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert requeue.main([str(tmp_path / "absent.yaml")]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("sweep.sh: ")
    assert "absent.yaml" in line
    assert line.endswith("not requeued; submit again to continue")
