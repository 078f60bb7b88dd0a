"""`leukotree cancel` on the real SLURM: the jobs of a study end, no others; nothing is queued again, nothing
is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from hpc.launching import job_notes, run_states, study_jobs
from hpc.slurm import queue
from tests.helpers.cluster.processes import wait_for
from tests.helpers.cluster.slurm import Slurm

LEUKOTREE = [sys.executable, "-m", "hpc.cli"]
LIMITS = ["--threads", "1", "--device", "cpu"]
SITE = "partition: main\ntime: 5\ncpus_per_task: 1\ninterface: eth0\narray_parallelism: 2\n"


@pytest.fixture
def root(slurm: Slurm, home: Path, shards: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a study of eight long runs, of which two run at once. It is cancelled in the end."""
    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(home)
    base = {
        "data": {"shards": str(shards)},
        "backbone": {"name": "test_vit"},
        "engine": {"precision": "fp32"},
        "optim": {"batch_size": 14, "epochs": 2000},
    }
    study = {
        "study": "demo",
        "base": base,
        "variants": ["flat"],
        "folds": {"outer": 4},
        "grid": {"loss.gamma": [0.0, 1.0]},
    }
    (home / "study.yaml").write_text(yaml.safe_dump(study))
    (home / "site.yaml").write_text(SITE)
    folder = home / "results" / "runs" / "demo"
    yield folder
    if ours := {job.partition("_")[0] for job in study_jobs.of_study(folder, queue.look())}:
        slurm.run("scancel", *ours)


def grid(*words: str) -> list[str]:
    return [*LEUKOTREE, "grid", "study.yaml", "--on", "slurm", "--site", "site.yaml", *LIMITS, *words]


def cancel(*words: str, code: int = 0, **environment: str) -> str:
    asked = {
        "env": os.environ | environment,
        "stdin": subprocess.DEVNULL,
        "capture_output": True,
        "text": True,
    }
    done = subprocess.run([*LEUKOTREE, "cancel", *words], check=False, **asked)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def states(root: Path) -> list[str]:
    return [run.state for run in run_states.scan(root)] if root.exists() else []


def test_a_waiting_command_ends_and_all_its_jobs_do_and_the_same_command_continues(
    slurm: Slurm, root: Path
) -> None:
    other = slurm.run(
        "sbatch", "--parsable", "--output=/dev/null", "--hold", "--job-name=demo", "--wrap", "true"
    ).strip()
    try:
        with subprocess.Popen(grid(), stderr=subprocess.PIPE, text=True) as waiting:
            wait_for(
                "two runs", lambda: waiting.poll() is not None or states(root).count("running") == 2, 150
            )
            said = cancel("demo", "--yes")
            assert waiting.wait(60) == 75
            assert waiting.stderr
            assert "cancelled by `leukotree cancel`, so nothing more is submitted" in waiting.stderr.read()
        [array] = {note["job"].partition("_")[0] for note in job_notes.notes(root).values()}
        assert f"ended: job {array} (run): " in said
        assert "6 pending" in said
        assert list(queue.look()) == [other], "nobody else's job, even of the same name"
        assert sorted(states(root)) == ["lost"] * 6 + ["preempted"] * 2, "what had begun has saved"
        assert cancel("study.yaml") == "nothing of demo is queued or at work; the same commands continue it\n"

        continued = subprocess.run(grid("--no-wait", "--json"), capture_output=True, text=True, check=True)
        assert len(json.loads(continued.stdout)["waiting"]) == 8
    finally:
        slurm.run("scancel", other)


def test_the_job_that_waits_for_the_others_goes_first_and_what_would_end_is_listed(
    slurm: Slurm, root: Path
) -> None:
    done = subprocess.run(grid("--no-wait", "--json"), capture_output=True, text=True, check=True)
    reducer = json.loads(done.stdout)["reducer"]
    listed = cancel("demo", "--dry-run")
    assert f"would end job {reducer} (reduce): 1 pending" in listed
    assert "--add" not in listed
    assert "2 jobs or arrays would be ended; add --yes to do it" in cancel("demo", code=2)
    assert len(queue.look()) == 9, "neither has ended any"
    cancel("demo", "--yes")
    assert queue.look() == {}
    assert not (root / "reduced.json").exists(), "it never began"


def test_jobs_that_were_queued_and_not_noted_are_found_by_their_script(slurm: Slurm, root: Path) -> None:
    """As after a kill between sbatch and the note."""
    subprocess.run(grid("--no-wait"), capture_output=True, check=True)
    (root / job_notes.NOTES).unlink()
    cancel("demo", "--yes")
    assert queue.look() == {}


def test_a_sweep_that_waits_is_ended(slurm: Slurm, root: Path, home: Path) -> None:
    root.mkdir(parents=True)
    mine, others = (
        slurm.run(
            "sbatch", "--parsable", "--hold", "--output=/dev/null", "slurm/sweep.sh", "study.yaml", *words
        ).strip()
        for words in ([], ["study=other"])
    )
    try:
        assert f"ended: job {mine} (sweep): 1 pending" in cancel("demo", "--yes")
        assert list(queue.look()) == [others]
    finally:
        slurm.run("scancel", others)


def test_local_jobs_are_told_to_save_and_the_command_that_waits_submits_none_again(root: Path) -> None:
    words = [*LEUKOTREE, "grid", "study.yaml", "--on", "local", "--parallel", "1", *LIMITS]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as waiting:
        wait_for("a run", lambda: waiting.poll() is not None or "running" in states(root), 120)
        [pid] = {note["job"] for note in job_notes.notes(root).values()}
        assert f"ended: local job {pid}" in cancel("demo", "--yes")
        assert waiting.wait(60) == 75
    assert job_notes.alive(root) == {}
    assert len((root / job_notes.NOTES).read_text().splitlines()) == 8, "submitted once"
    assert "preempted" in states(root)


def test_a_process_that_took_over_a_number_and_one_of_another_host_are_left_alone(root: Path) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as other:
        job_notes.record(root, {str(other.pid): ["flat-00000000000a"]}, "local")
        note = json.loads((root / job_notes.NOTES).read_text())
        (root / job_notes.NOTES).write_text(json.dumps(note | {"started": "1"}) + "\n")
        assert "nothing of demo" in cancel("demo")
        (root / job_notes.NOTES).write_text(json.dumps(note | {"host": "elsewhere"}) + "\n")
        said = cancel("demo", "--yes", code=1)
        assert f"leukotree cancel: local job {other.pid}: on elsewhere; give the command there, too" in said
        assert other.poll() is None
        other.communicate()


def test_a_run_of_a_command_that_submits_nothing_is_named(root: Path) -> None:
    with subprocess.Popen(
        [*LEUKOTREE, "grid", "study.yaml", *LIMITS, "--on", "inline"], stderr=subprocess.DEVNULL
    ) as inline:
        wait_for("a run", lambda: inline.poll() is not None or "running" in states(root), 120)
        assert f"at work in process {inline.pid} of " in cancel("demo", code=1)
        inline.terminate()
    assert "nothing of demo" in cancel("demo")


def test_without_slurm_nothing_is_done(root: Path) -> None:
    job_notes.record(root, {"12_3": ["flat-00000000000a"]}, "slurm")
    error = cancel("demo", "--yes", code=2, PATH="/nowhere")
    assert error.startswith("leukotree cancel: squeue: no such command here")
    assert "no such study has begun" in cancel("unknown", code=2)
