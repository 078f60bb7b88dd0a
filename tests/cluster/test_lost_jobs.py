"""Jobs that are queued although the command that queued them does not know it: they are found, and nothing is
queued twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc.launching import job_notes, missing_list, runs
from hpc.slurm import scheduler
from tests.helpers.cluster.many_runs import HELD, SITE, ids_in_queue, run, specs, stand_in, talk_to
from tests.helpers.cluster.processes import wait_for
from tests.helpers.cluster.slurm import ClusterError, Settings, Slurm

TIMED_OUT = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"
KILLS = '"$real" "$@"; [ $(wc -l <"$(dirname "$0")/../sbatch-calls") -lt 2 ] || kill -KILL "$PPID"'
"""The first call is that of the job that follows the others."""
QUEUE = """
import sys
from pathlib import Path
from tests.helpers.cluster.many_runs import HELD, run, specs
run(specs(3, Path(sys.argv[1])), Path("study"), HELD)
"""


@pytest.fixture
def here(slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    talk_to(slurm, monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(scheduler, "PAUSES", (0.1, 0.1, 0.1))
    before = ids_in_queue(slurm)
    yield slurm
    if ours := {job.partition("_")[0] for job in ids_in_queue(slurm) - before}:
        slurm.run("scancel", *ours)


def test_a_kill_before_the_jobs_are_noted(
    here: Slurm, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ids_in_queue(here)
    with monkeypatch.context() as patch:
        stand_in("sbatch", KILLS, tmp_path, patch)
        patch.setenv("PYTHONPATH", ":".join(sys.path))
        killed = subprocess.run([sys.executable, "-c", QUEUE, str(shards)], check=False)
    assert killed.returncode == -signal.SIGKILL
    root = tmp_path / "study"
    lost = {job for job in ids_in_queue(here) - before if "_" in job}
    assert (len(lost), job_notes.notes(root)) == (3, {})

    calls = stand_in("sbatch", 'exec "$real" "$@"', tmp_path, monkeypatch)
    calls.unlink()
    outcome = run(specs(3, shards), root, HELD)
    assert (outcome.submitted, set(outcome.waiting.values())) == ([], lost)
    assert not calls.exists()
    assert not list(root.glob("jobs/*.intent"))


def test_a_job_that_was_found_does_its_run(
    here: Slurm, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fetches by itself what it is to do."""
    [spec], root = specs(1, shards), tmp_path / "study"
    monkeypatch.setitem(runs.POLL, "slurm", 1.0)
    with monkeypatch.context() as patch:
        stand_in("sbatch", KILLS, tmp_path, patch)
        patch.setenv("PYTHONPATH", ":".join(sys.path))
        subprocess.run(
            [sys.executable, "-c", QUEUE.replace("3", "1").replace(", HELD)", ")"), str(shards)], check=False
        )
    outcome = run([spec], root, wait=True)
    assert (outcome.done, outcome.submitted) == ([spec.run_name], [])


def test_sbatch_that_did_not_answer_and_yet_took_the_jobs(
    here: Slurm, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ids_in_queue(here)
    calls = stand_in(
        "sbatch", f'"$real" "$@" >/dev/null; echo "{TIMED_OUT}" >&2; exit 1', tmp_path, monkeypatch
    )
    outcome = run(specs(2, shards), tmp_path / "study", HELD)
    assert set(outcome.submitted) | {outcome.reducer} == ids_in_queue(here) - before
    assert len(calls.read_text().splitlines()) == 2, "the array, and the job that follows it"


def fails_twice(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says = f'echo "{command}: error: Unable to contact slurm controller (connect failure)" >&2; exit 1'
    shell = f'[ $(wc -l <{tmp_path}/{command}-calls) -gt 2 ] || {{ {says}; }}; exec "$real" "$@"'
    stand_in(command, shell, tmp_path, monkeypatch)


def test_scontrol_that_fails_twice_and_then_works(
    here: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler._config.cache_clear()
    fails_twice("scontrol", tmp_path, monkeypatch)
    assert (scheduler.cluster(), scheduler.largest_array()) == (here.cluster, 101)


@pytest.mark.parametrize("command", ["sbatch", "squeue"])
def test_a_command_that_fails_twice_and_then_works(
    here: Slurm, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    fails_twice(command, tmp_path, monkeypatch)
    root = tmp_path / "study"
    outcome = run(specs(2, shards), root, HELD)
    assert len(outcome.submitted) == 2
    assert job_notes.alive(root) == outcome.waiting
    assert {note["cluster"] for note in job_notes.notes(root).values()} == {here.cluster}


def test_jobs_of_another_cluster_are_left_alone_and_named(
    here: Slurm,
    shards: Path,
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted, root = specs(2, shards), tmp_path / "study"
    first = run(wanted[:1], root, HELD)
    other = Slurm(tmp_path_factory.mktemp("slurm"), 21, Settings(accounting=False))
    try:
        other.up()
    except (ClusterError, OSError) as error:
        pytest.skip(f"no second test SLURM here: {error}")
    try:
        with monkeypatch.context() as patch:
            talk_to(other, patch)
            second = run(wanted, root, HELD)
            assert len(second.submitted) == 1
            assert second.waiting[wanted[0].run_name] == f"{first.submitted[0]}@{here.cluster}"
            assert (
                f"1 of them wait for jobs of the cluster {here.cluster}, which only answers there"
                in second.lines()
            )
    finally:
        other.down()
    assert job_notes.alive(root)[wanted[0].run_name] == first.submitted[0]


def test_a_run_whose_requeue_is_refused_is_submitted_again_by_the_last_job(
    here: Slurm, shards: Path, tmp_path: Path
) -> None:
    [short], root = specs(1, shards), tmp_path / "study"
    spec = short.override({"optim.epochs": 20})
    first = run([spec], root, SITE.model_copy(update={"time": 30, "extra": {"no-requeue": True}}))
    [job], record = first.submitted, root / spec.run_name / "metrics.jsonl"
    wait_for("training", lambda: record.exists() and record.read_text().count("\n") > 9, 120)
    here.run("scancel", "--signal=USR2", job)
    answer = root / missing_list.FILE
    wait_for(
        "the end of the run", lambda: answer.exists() and json.loads(answer.read_text())["done"] == 1, 300
    )
    assert (root / "jobs" / f"{job}_refused").exists()
    again = job_notes.notes(root)[spec.run_name]["jobs"]
    assert len(again) == 2
    said = (root / "jobs" / f"{first.reducer}_0_log.out").read_text()
    assert "1 jobs submitted for those that are missing" in said


def test_what_somebody_cancelled_is_not_submitted_again_by_the_last_job(
    here: Slurm, shards: Path, tmp_path: Path
) -> None:
    wanted, root = specs(2, shards), tmp_path / "study"
    first = run(wanted, root, HELD)
    here.run("scontrol", "release", str(first.reducer))
    here.run("scancel", first.submitted[0].partition("_")[0])
    wait_for("the last job", lambda: (root / missing_list.FILE).exists(), 120)
    answer = json.loads((root / missing_list.FILE).read_text())
    assert (answer["done"], len(answer["missing"]), answer["submitted"]) == (0, 2, [])
