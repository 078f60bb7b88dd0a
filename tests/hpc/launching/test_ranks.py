"""Local ranks under signals: asked to stop they save and leave, and a killed one ends the others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from hpc.launching import runs
from hpc.launching.place import Place
from leukotree.records.runfolder import read_status
from leukotree.runtime import Runtime
from leukotree.spec import RunSpec
from tests.helpers.specs import tiny_spec

pytestmark = pytest.mark.slow("starts ranks")

QUIET = Runtime(device="cpu", threads=1, quiet=True)


@pytest.fixture
def spec(shards: Path) -> RunSpec:
    return tiny_spec(shards, {"variant": "flat", "optim.batch_size": 14, "optim.epochs": 16})


def begun(spec: RunSpec, home: Path, steps: int = 20) -> subprocess.Popen[str]:
    """`leukotree train` on two ranks, as leader of a session of its own, after so many steps."""
    (home / "run.yaml").write_text(spec.dump())
    command = [
        sys.executable,
        "-m",
        "hpc.cli",
        "train",
        "run.yaml",
        "--ranks",
        "2",
        "--threads",
        "1",
        "--device",
        "cpu",
    ]
    process = subprocess.Popen(command, cwd=home, stderr=subprocess.PIPE, text=True, start_new_session=True)
    record = folder(spec, home) / "metrics.jsonl"
    before = len(record.read_text().splitlines()) if record.exists() else 0
    while not record.exists() or len(record.read_text().splitlines()) < before + steps:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    return process


def folder(spec: RunSpec, home: Path) -> Path:
    return home / "results" / "runs" / "single" / spec.run_name


def session(process: subprocess.Popen[str]) -> Iterator[tuple[int, int]]:
    """(pid, parent) of the living processes that a command started."""
    listed = subprocess.run(
        ["ps", "-eo", "pid,ppid,sid,stat"], capture_output=True, text=True, check=True
    ).stdout
    for line in listed.splitlines()[1:]:
        pid, parent, sid, stat = line.split()
        if int(sid) == process.pid and not stat.startswith("Z"):
            yield int(pid), int(parent)


def workers(process: subprocess.Popen[str]) -> list[int]:
    """The ranks: children of the server that they are forked from, which is a child of the command."""
    family = dict(session(process))
    return sorted(pid for pid, parent in family.items() if family.get(parent) == process.pid)


def test_a_signal_to_the_command_or_to_all_its_processes_saves_and_the_next_command_goes_on(
    spec: RunSpec, tmp_path: Path
) -> None:
    for number, everybody in (
        (signal.SIGTERM, False),
        (signal.SIGUSR2, True),
    ):  # a person's kill; what SLURM does to a step
        process = begun(spec, tmp_path)
        assert len(workers(process)) == 2
        for pid in [pid for pid, _ in session(process)] if everybody else [process.pid]:
            os.kill(pid, number)
        _, said = process.communicate(timeout=60)
        assert (process.returncode, said.count("Traceback")) == (75, 0), said
        assert read_status(folder(spec, tmp_path))["state"] == "preempted"
        assert list(session(process)) == []
    interrupted = runs.run_spec(spec, tmp_path / "results" / "runs" / "single", Place(ranks=2), runtime=QUIET)
    undisturbed = runs.run_spec(spec, tmp_path / "undisturbed", Place(ranks=2), runtime=QUIET)
    one, other = (pd.read_parquet(run.folder / "predictions.parquet") for run in (interrupted, undisturbed))
    pd.testing.assert_frame_equal(one, other)
    attempts = [json.loads(line) for line in (interrupted.folder / "attempts.jsonl").read_text().splitlines()]
    assert [attempt["after"] for attempt in attempts] == [None, "preempted", "preempted"]


def test_a_killed_rank_ends_the_others_within_a_minute_and_is_named(spec: RunSpec, tmp_path: Path) -> None:
    process = begun(spec.override({"optim.epochs": 10_000}), tmp_path)
    os.kill(workers(process)[1], signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "was killed" in said
    assert "Traceback" not in said
    assert list(session(process)) == []
    status = read_status(folder(spec.override({"optim.epochs": 10_000}), tmp_path))
    assert (status["state"], status.get("kind", "node")) in (("running", "node"), ("preempted", "node"))
