"""The state of runs is what their files say."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from hpc import status
from hpc.launching import job_notes, run_states
from leukotree.errors import InputError


def _run(root: Path, name: str, **status: Any) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    if status:
        (folder / "status.json").write_text(json.dumps(status))
    return folder


def table(root: Path) -> str:
    return status.table(root, run_states.look(root))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "runs" / "focal"
    _run(
        root,
        "flat-000000000001",
        state="done",
        epoch=8,
        epochs=8,
        heartbeat=time.time() - 9999,
        macro_f1=0.75,
    )
    _run(root, "flat-000000000002", state="running", epoch=3, epochs=8, heartbeat=time.time())
    _run(
        root,
        "base-000000000003",
        state="running",
        epoch=4,
        epochs=8,
        heartbeat=time.time() - run_states.STALE - 60,
    )
    _run(
        root,
        "base-000000000004",
        state="failed",
        epoch=1,
        epochs=8,
        heartbeat=time.time(),
        message="loss is NaN in step 12",
    )
    _run(root, "base-000000000005")
    (_run(root, "base-000000000006") / "status.json").write_text(
        '{"state": "run'
    )  # a write that a broken disk cut short
    _run(root, "search", state="not a run")
    return root


def test_states_of_a_study(root: Path) -> None:
    states = {run.run_name[-1]: run for run in run_states.scan(root)}
    assert {number: run.state for number, run in states.items()} == {
        "1": "done",
        "2": "running",
        "3": "hung",
        "4": "failed",
        "5": "queued",
        "6": "queued",
    }
    assert states["1"].macro_f1 == 0.75
    assert states["4"].message == "loss is NaN in step 12"
    assert (states["3"].variant, states["3"].epoch, states["3"].epochs) == ("base", 4, 8)


def test_all_studies_at_once(root: Path) -> None:
    _run(
        root.parent / "other",
        "flat-00000000000a",
        state="done",
        epoch=1,
        epochs=1,
        heartbeat=time.time(),
        macro_f1=0.5,
    )
    found = {(run.study, run.variant) for run in run_states.scan(root.parent)}
    assert found == {("focal", "flat"), ("focal", "base"), ("other", "flat")}


def test_the_table_counts_and_lists_what_is_not_done(root: Path) -> None:
    shown = table(root)
    head, base, flat = shown.splitlines()[:3]
    assert head.split() == ["study", "variant", "done", "running", "hung", "queued", "failed", "macro_f1"]
    assert base.split() == ["focal", "base", "0", "0", "1", "2", "1", "-"]
    assert flat.split() == ["focal", "flat", "1", "1", "0", "0", "0", "0.7500"]
    assert "loss is NaN in step 12" in shown
    assert "6 min ago" in shown
    assert "flat-000000000001" not in shown
    told = json.loads(status.as_json(root, run_states.look(root)))
    assert [run["run_name"] for run in told] == [run.run_name for run in run_states.scan(root)]


def test_runs_that_have_not_begun_are_one_line_for_each_reason(tmp_path: Path) -> None:
    job = str(os.getpid())
    job_notes.record(tmp_path, {job: [f"flat-{number:012x}" for number in range(500)]}, "local")
    job_notes.record(tmp_path, {"999999999": [f"base-{number:012x}" for number in range(3)]}, "local")
    shown = table(tmp_path).splitlines()
    assert len(shown) < 10
    name = tmp_path.name
    reason = f"a local job on {socket.gethostname()} is to do it"
    waiting = f"{name}: 500 runs pending: {reason}; first flat-000000000000, job {job}"
    assert waiting in shown
    assert f"{name}: 3 runs lost: the job ended before the run began; first base-000000000000" in shown


def test_the_table_says_that_jobs_are_not_known_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    _run(tmp_path, "flat-000000000001", state="preempted", kind="node", heartbeat=time.time())
    job_notes.record(tmp_path, {"12_3": ["flat-000000000001"]}, "slurm")
    assert (
        table(tmp_path)
        .splitlines()[-1]
        .startswith("jobs of SLURM are not known here: squeue: no such command")
    )


def test_slurm_is_asked_once_for_all_runs_of_all_studies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "squeue").write_text(f"#!/bin/sh\necho >>{tmp_path}/calls\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for study in ("one", "two"):
        job_notes.record(
            tmp_path / "runs" / study, {f"12_{n}": [f"flat-{n:012x}"] for n in range(50)}, "slurm"
        )
    assert len(run_states.scan(tmp_path / "runs")) == 100
    assert (tmp_path / "calls").read_text() == "\n"


def test_a_note_cut_short_by_a_kill_spoils_no_other(tmp_path: Path) -> None:
    (tmp_path / job_notes.NOTES).write_text('{"run_name": "flat-00000000000a", "on": "slu')
    job_notes.record(tmp_path, {"12_3": ["flat-00000000000b"]}, "slurm")
    assert job_notes.notes(tmp_path)["flat-00000000000b"]["job"] == "12_3"


@pytest.mark.parametrize(
    "field",
    [
        {"macro_f1": "x"},
        {"macro_f1": float("nan")},
        {"epoch": "a"},
        {"epochs": []},
        {"codes": 3},
        {"message": ["two\nlines"]},
        {"message": "two\nlines"},
        {"kind": 3},
        {"heartbeat": "now"},
        {"state": 5},
    ],
)
@pytest.mark.parametrize("state", ["done", "running", "failed"])
def test_a_damaged_field_of_a_status_spoils_no_table(
    tmp_path: Path, field: dict[str, Any], state: str
) -> None:
    _run(tmp_path, "flat-000000000001", state="done", epoch=8, epochs=8, heartbeat=time.time(), macro_f1=0.75)
    said = {"state": state, "epoch": 1, "epochs": 8, "heartbeat": time.time(), "macro_f1": 0.5}
    _run(tmp_path, "base-000000000002", **(said | field))
    assert "0.7500" in table(tmp_path)
    assert "two\nlines" not in table(tmp_path)
    assert len(json.loads(status.as_json(tmp_path, run_states.look(tmp_path)))) == 2


def test_no_runs(tmp_path: Path) -> None:
    assert table(tmp_path).endswith("no runs yet")
    with pytest.raises(InputError, match="nowhere: cannot be read: No such file"):
        run_states.scan(tmp_path / "nowhere")


def test_a_job_tells_hung_from_queued_and_from_lost(tmp_path: Path) -> None:
    """The same files, with a job that lives and with one that has ended."""
    begun = {
        "hung": {"state": "running", "heartbeat": time.time() - run_states.STALE - 60},
        "again": {"state": "preempted"},
        "new": {},
    }
    for number, (name, said) in enumerate(begun.items()):
        for alive in (0, 1):
            if said:
                _run(
                    tmp_path / name,
                    f"flat-{alive:012x}",
                    **{"heartbeat": time.time() - 60, "kind": "timeout", **said},
                )
            job = str(os.getpid()) if alive else "999999999"
            job_notes.record(tmp_path / name, {job: [f"flat-{alive:012x}"]}, "local")
        states = [(run.state, run.kind) for run in run_states.scan(tmp_path / name)]
        expected = [
            [("lost", ""), ("hung", "")],
            [("preempted", "timeout"), ("queued", "timeout")],
            [("lost", ""), ("queued", "")],
        ]
        assert states == expected[number]
    assert "preempted  timeout" in table(tmp_path)


def test_where_nobody_knows_the_jobs_the_files_speak_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    _run(tmp_path, "flat-000000000001", state="preempted", kind="node", heartbeat=time.time())
    job_notes.record(tmp_path, {"12_3": ["flat-000000000001", "flat-000000000002"]}, "slurm")
    assert [run.state for run in run_states.scan(tmp_path)] == ["preempted"]


def test_thousands_of_folders_are_read_once_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(300):
        _run(tmp_path, f"flat-{number:012x}", state="done", epoch=1, epochs=1, heartbeat=time.time())
    reads: list[Path] = []
    inner = run_states.read_status

    def counted(path: Path) -> dict[str, Any]:
        reads.append(path)
        return inner(path)

    monkeypatch.setattr(run_states, "read_status", counted)
    assert len(run_states.scan(tmp_path)) == len(reads) == 300


def test_a_submitted_run_is_queued_while_its_job_lives(tmp_path: Path) -> None:
    job = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    job_notes.record(tmp_path, {str(job.pid): ["flat-1", "flat-2"]}, "local")
    job_notes.record(tmp_path, {"999999999": ["flat-2"]}, "local")  # submitted again: the later note counts
    with open(tmp_path / job_notes.NOTES, "a") as file:
        file.write('{"run_name": "flat-1", "job')  # cut short by a kill
    assert job_notes.notes(tmp_path)["flat-2"]["host"] == socket.gethostname()
    assert job_notes.alive(tmp_path) == {"flat-1": str(job.pid)}
    job.communicate()
    assert job_notes.alive(tmp_path) == {}


def test_a_process_that_took_over_the_number_of_a_job_is_not_the_job(tmp_path: Path) -> None:
    job_notes.record(tmp_path, {str(os.getpid()): ["flat-1"]}, "local")
    assert job_notes.alive(tmp_path) == {"flat-1": str(os.getpid())}
    queue = tmp_path / job_notes.NOTES
    note = json.loads(queue.read_text())
    queue.write_text(json.dumps({**note, "started": "1"}))
    assert job_notes.alive(tmp_path) == {}
