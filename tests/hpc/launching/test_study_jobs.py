"""Which jobs in the queue are a study's, and in which order they are ended."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpc.launching import cancel, run_states, study_jobs
from hpc.slurm.queue import BETWEEN, QueuedJob
from leukotree.errors import InputError


def queued(job: str, command: str, workdir: Path, name: str = "leukotree") -> QueuedJob:
    return QueuedJob(job, "RUNNING", "n1", "1:00", "", str(workdir), command, name)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "study.yaml").write_text("study: demo\n")
    return tmp_path


def kinds(checkout: Path, *jobs: QueuedJob) -> dict[str, str]:
    return study_jobs.of_study(checkout / "results/runs/demo", {job.job: job for job in jobs})


def test_a_script_of_the_same_name_in_another_project_is_not_the_studys(checkout: Path) -> None:
    ours = queued("1", f"{checkout}/slurm/sweep.sh study.yaml", checkout)
    typed = queued("2", "slurm/sweep.sh study.yaml", checkout)
    others = [
        queued(str(3 + index), f"{script} study.yaml", checkout)
        for index, script in enumerate(("sweep.sh", "my/sweep.sh"))
    ]
    assert kinds(checkout, ours, typed, *others) == {"1": "sweep", "2": "sweep"}


def test_workers_are_the_studys_whose_search_is(checkout: Path) -> None:
    sweep = queued("12", "slurm/sweep.sh study.yaml", checkout)
    mine = queued("13_0", f"{checkout}/slurm/worker.sh shared", checkout, "leukotree-workers-a-cluster-12")
    others = [
        queued("14_0", f"{checkout}/slurm/worker.sh shared", checkout, "leukotree-workers-a-cluster-112"),
        queued("15_0", "other.sh", checkout, "leukotree-workers-a-cluster-12"),
    ]
    assert kinds(checkout, sweep, mine, *others) == {"12": "sweep", "13_0": "worker"}
    assert kinds(checkout, mine) == {}, "an id alone says nothing"


@pytest.fixture
def search(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The study's folder, with its search and two workers in the queue until the workers are cancelled."""
    rows = [
        ("12", "RUNNING", "n1", "1:00", "", str(checkout), "slurm/sweep.sh study.yaml", "leukotree"),
        (
            "13_0",
            "RUNNING",
            "n2",
            "1:00",
            "",
            str(checkout),
            "slurm/worker.sh /shared",
            "leukotree-workers-a-12",
        ),
        (
            "13_1",
            "PENDING",
            "",
            "1:00",
            "",
            str(checkout),
            "slurm/worker.sh /shared",
            "leukotree-workers-a-12",
        ),
    ]
    (checkout / "queue").write_text("".join(f"{BETWEEN.join(row)}\n" for row in rows))
    for name, script in {
        "squeue": "cat queue",
        "scancel": 'echo "$@" >>ended; [ "$#" = 1 ] || : >queue',
    }.items():
        (checkout / name).write_text(f"#!/bin/sh\n{script}\n")
        (checkout / name).chmod(0o755)
    monkeypatch.chdir(checkout)
    monkeypatch.setenv("PATH", f"{checkout}:{os.environ['PATH']}")
    root = Path("results/runs/demo")
    root.mkdir(parents=True)
    return root


def test_the_status_of_a_study_shows_its_workers_and_their_logs(search: Path) -> None:
    shown = {one.job.id: (one.kind, one.job.state, one.job.log) for one in run_states.look(search).jobs}
    assert set(shown) == {"12", "13_0", "13_1"}
    assert shown["13_0"] == ("worker", "RUNNING", "/shared/worker-13_0.out")


@pytest.mark.parametrize(
    ("script", "says"), [("echo 'Invalid job id specified' >&2; exit 1", ""), ("echo no >&2; exit 1", "no")]
)
def test_what_scancel_says_is_told_for_each_job_that_stays(search: Path, script: str, says: str) -> None:
    Path("scancel").write_text(f"#!/bin/sh\n{script}\n")
    said: dict[str, str] = {}
    cancel._scancel(["12", "13_0"], said)
    assert said == (dict.fromkeys(["12", "13"], f"scancel: {says}") if says else {})


def test_without_scancel_or_scontrol_there_is_one_line(search: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    said: dict[str, str] = {}
    cancel._scancel(["12"], said)
    assert said["12"].startswith("scancel: no such command here")
    with pytest.raises(InputError, match="job 12: not noted: scontrol: no such command here"):
        study_jobs.note(search, "report", "12")


def test_the_end_of_the_input_is_a_no(search: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-D at the question."""
    with open(os.devnull) as nothing:
        monkeypatch.setattr(nothing, "isatty", lambda: True, raising=False)
        monkeypatch.setattr("sys.stdin", nothing)
        assert not cancel.confirmed(search, cancel.find_work(search))


def test_workers_end_after_the_search_which_would_queue_others(
    search: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancel, "POLL", 0.0)
    assert cancel.cancel(search) == []
    assert Path("ended").read_text().split("\n")[:2] == ["12", "12 13"]
