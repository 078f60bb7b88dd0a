"""Folders of jobs on a node: made for a job, removed with it, and cleaned up after a killed one, and nothing
else ever is."""

from __future__ import annotations

import fcntl
import os
import pwd
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hpc.slurm import scratch


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The scratch of a node, inside job 7 of the cluster `here`; the file `squeue.said` holds the ids that
    squeue knows."""
    commands, folder = tmp_path / "bin", tmp_path / "scratch"
    commands.mkdir()
    folder.mkdir()
    (tmp_path / "squeue.said").write_text("7\n")
    (commands / "squeue").write_text(
        f"#!/bin/sh\necho >>{tmp_path}/squeue.calls\ncat {tmp_path}/squeue.said\n"
    )
    (commands / "squeue").chmod(0o755)
    known = {"PATH": f"{commands}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "SLURM_CLUSTER_NAME": "here"}
    for name, value in (known | {"LEUKOTREE_SCRATCH": str(folder)}).items():
        monkeypatch.setenv(name, value)
    for name in scratch.CACHES:
        monkeypatch.delenv(name, raising=False)
    return folder


def left(node: Path, job: str, /, **changes: str) -> Path:
    """What the node program of a killed job leaves: a folder with a marker."""
    folder = node / f"lt.{job}.a1B2c3"
    (folder / "ray").mkdir(parents=True)
    fields = {
        "cluster": "here",
        "job": job,
        "host": socket.gethostname(),
        "user": pwd.getpwuid(os.geteuid()).pw_name,
    } | changes
    (folder / scratch.MARKER).write_text("".join(f"{key}={value}\n" for key, value in fields.items()))
    return folder


def test_a_jobs_compilers_keep_their_caches_in_a_folder_that_ends_with_the_job(node: Path) -> None:
    with scratch.caches():
        [folder] = node.iterdir()
        assert folder.name == "lt.7.caches"
        assert os.environ["TRITON_CACHE_DIR"] == str(folder / "triton")
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(folder / "inductor")
        assert folder.stat().st_mode & 0o077 == 0
    assert list(node.iterdir()) == []
    assert "TRITON_CACHE_DIR" not in os.environ


def test_they_end_with_a_job_that_fails(node: Path) -> None:
    with pytest.raises(SystemExit), scratch.caches():
        sys.exit(75)
    assert list(node.iterdir()) == []


def test_what_the_user_has_set_stays(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", "/mine")
    with scratch.caches():
        assert os.environ["TRITON_CACHE_DIR"] == "/mine"
    assert os.environ["TRITON_CACHE_DIR"] == "/mine"


def test_ranks_of_a_node_share_them_and_the_last_one_removes_them(node: Path) -> None:
    program = "from hpc.slurm import scratch\nwith scratch.caches(): print('in', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout
        assert other.stdout.readline() == "in\n"
        with scratch.caches():
            assert [path.name for path in node.iterdir()] == ["lt.7.caches"]
        assert (node / "lt.7.caches").exists()
        other.communicate("\n")
    assert list(node.iterdir()) == []


def test_a_folder_that_somebody_else_made_is_not_used(node: Path, tmp_path: Path) -> None:
    """Its name can be guessed, and compilers run what lies in it."""
    (tmp_path / "theirs").mkdir()
    (node / "lt.7.caches").symlink_to(tmp_path / "theirs")
    with scratch.caches():
        assert "TRITON_CACHE_DIR" not in os.environ
    (node / "lt.7.caches").unlink()
    (node / "lt.7.caches").mkdir(mode=0o777)
    (node / "lt.7.caches").chmod(0o777)
    with scratch.caches():
        assert "TRITON_CACHE_DIR" not in os.environ
    assert (node / "lt.7.caches").exists()


def test_outside_a_job_nothing_changes(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = left(node, "5")
    monkeypatch.delenv("SLURM_JOB_ID")
    with scratch.caches():
        assert "TRITON_CACHE_DIR" not in os.environ
    assert old.exists()


def test_a_later_job_removes_what_a_killed_one_left(node: Path) -> None:
    old = left(node, "5")
    with scratch.caches():
        assert not old.exists()


def test_folders_that_are_not_of_a_dead_job_of_ours_on_this_node_stay(node: Path, tmp_path: Path) -> None:
    (tmp_path / "squeue.said").write_text("7 7\n6 6\n8_3 21\n")
    kept = [
        left(node, "8_3"),
        left(node, "21"),
        left(node, "6"),
        left(node, "7"),
        left(node, "11", cluster="there"),
        left(node, "12", host="other"),
        left(node, "13", user="nobody"),
        left(node, "16", more="x"),
    ]
    (node / "lt.17.a1B2c3").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (left(tmp_path / "elsewhere", "18")).rename(tmp_path / "elsewhere" / "lt.18.x")
    (node / "lt.18.x").symlink_to(tmp_path / "elsewhere" / "lt.18.x")
    (node / "lt.19.x").write_text("a file")
    kept += [node / "lt.17.a1B2c3", node / "lt.18.x" / "ray", node / "lt.19.x"]
    dead = [left(node, "5"), left(node, "20_3")]
    assert sorted(scratch.clean(node)) == sorted(dead)
    assert [path for path in kept if not path.exists()] == []


def test_a_folder_whose_marker_a_process_holds_is_in_use(node: Path) -> None:
    old = left(node, "5")
    with open(old / scratch.MARKER) as marker:
        fcntl.flock(marker, fcntl.LOCK_SH)
        assert scratch.clean(node) == []
    assert scratch.clean(node) == [old]


def test_where_slurm_does_not_answer_nothing_is_removed(node: Path, tmp_path: Path) -> None:
    old = left(node, "5")
    (tmp_path / "bin" / "squeue").write_text("#!/bin/sh\nexit 1\n")
    assert scratch.clean(node) == []
    assert old.exists()


def test_an_answer_that_does_not_know_our_own_job_is_none(node: Path, tmp_path: Path) -> None:
    """It may be that of another cluster."""
    old = left(node, "5")
    (tmp_path / "squeue.said").write_text("6\n")
    assert scratch.clean(node) == []
    assert old.exists()


def test_what_a_user_sets_for_squeue_hides_no_job(
    node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suspended = left(node, "5")
    (tmp_path / "bin" / "squeue").write_text('#!/bin/sh\necho 7; test "$SQUEUE_STATES" || echo 5\n')
    monkeypatch.setenv("SQUEUE_STATES", "RUNNING")
    assert scratch.clean(node) == []
    assert suspended.exists()


def test_a_job_that_was_requeued_removes_what_its_earlier_start_left(
    node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    earlier, now = left(node, "7", restart="0"), left(node / "now", "7", restart="1")
    now = now.rename(node / "lt.now")
    assert scratch.clean(node) == [earlier]
    assert now.exists()


def test_slurm_is_asked_only_if_there_is_something_to_remove(node: Path, tmp_path: Path) -> None:
    left(node, "7")
    scratch.clean(node)
    assert not (tmp_path / "squeue.calls").exists()
    left(node, "5")
    left(node, "4")
    scratch.clean(node)
    assert (tmp_path / "squeue.calls").read_text() == "\n"


def test_the_command_says_what_it_removed(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = left(node, "5")
    assert scratch.main([str(node)]) == 0
    assert capsys.readouterr().out == f"{old}: removed; its job has ended\n"
    assert scratch.main([]) == 2
