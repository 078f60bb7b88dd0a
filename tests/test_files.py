"""Files that stay whole after a kill or on a full disk, and locks between processes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leukotree import files
from leukotree.errors import Busy

HOLD = """
import sys
from leukotree.files import locked
with locked(sys.argv[1], "busy"):
    print("held", flush=True)
    input()
"""
"""A program that holds a lock file until its input ends."""


def test_a_write_that_fails_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "status.json"
    files.write_atomic(file, "old")

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="No space"):
        files.write_atomic(file, "new")
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]


@given(
    st.lists(st.text(st.characters(exclude_characters="\n\r", codec="utf-8"), max_size=9), max_size=4),
    st.booleans(),
)
def test_lines_are_added_whole_also_behind_one_that_was_cut_short(
    tmp_path_factory, lines: list[str], torn: bool
) -> None:
    log = tmp_path_factory.mktemp("log") / "log"
    log.write_bytes(b"first\n" + b"cut sho" * torn)
    files.append_lines(log, lines)
    assert log.read_bytes().decode().split("\n")[1 + torn : -1] == lines


def test_a_lock_excludes_others_and_ends_with_its_process(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(Busy, match=rf"busy \(held by process {holder.pid} on \S+, since "),
            files.locked(tmp_path / "lock", "busy"),
        ):
            pass
        holder.kill()
    with files.locked(tmp_path / "lock", "busy"):
        pass


@pytest.mark.slow("takes seconds of work")
def test_a_lock_that_is_released_in_time_is_taken(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        threading.Timer(1.0, holder.kill).start()
        with files.locked(tmp_path / "lock", "busy", patience=60):
            assert holder.poll() is not None or holder.wait(10)
