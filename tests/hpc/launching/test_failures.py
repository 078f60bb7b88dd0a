"""What a job's remains say of its end."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest

from hpc.launching import batch_script, failures, job_notes, run_states
from leukotree.records.runfolder import read_status


@pytest.mark.parametrize(
    ("groups", "file", "content"),
    [
        ("0::/job_7\n", "sys/fs/cgroup/job_7/memory.events", "oom 3\noom_kill 2\n"),
        ("0::/elsewhere\n", "sys/fs/cgroup/memory.events", "oom 3\noom_kill 2\n"),
        (
            "9:pids:/\n4:memory:/docker/x\n0::/\n",
            "sys/fs/cgroup/memory/memory.oom_control",
            "under_oom 0\noom_kill 2\n",
        ),
        ("0::/\n", "sys/fs/cgroup/memory.current", "2\n"),
    ],
    ids=["version 2", "container", "version 1", "not counted"],
)
def test_the_kernel_counts_what_it_ended_for_lack_of_memory(
    tmp_path: Path, groups: str, file: str, content: str
) -> None:
    for name, text in (("proc/self/cgroup", groups), (file, content)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert failures.memory_kills(tmp_path) == (0 if "current" in file else 2)


@pytest.mark.parametrize("state", ["running", "preempted"])
def test_the_end_of_a_batch_script_tells_out_of_memory_from_a_lost_rank(tmp_path: Path, state: str) -> None:
    """From what slurmstepd leaves in the log; then the job is not queued again, and the run is no node's
    fault."""
    root = tmp_path / "study"
    job_notes.record(root, {"9": ["flat-1"]}, "slurm")
    (root / "flat-1").mkdir()
    (root / "flat-1" / "status.json").write_text(
        json.dumps({"state": state, "kind": "node", "epoch": 1, "heartbeat": 1.0})
    )
    (root / "jobs").mkdir()
    log = root / "jobs" / "9_0_log.err"
    log.write_text(
        "slurmstepd: error: Detected 1 oom_kill event in StepId=9.0. "
        "Some of the step tasks have been OOM Killed.\n"
    )
    script = "\n".join(
        [*batch_script.at_the_start(root / "jobs", "t"), "(exit 137)", *batch_script.at_the_end()]
    )
    done = subprocess.run(
        ["bash", "-c", f"SLURM_JOB_ID=9\n{script}"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (
        137,
        "flat-1: oom: the kernel ended a rank for lack of memory\n",
    )
    assert not (root / "jobs" / "9_lost").exists()
    assert {name: read_status(root / "flat-1")[name] for name in ("state", "kind")} == {
        "state": "failed",
        "kind": "oom",
    }
    assert run_states.read(root / "flat-1").kind == "oom"


def test_the_end_of_a_batch_script_names_the_node_without_python(tmp_path: Path) -> None:
    logs = tmp_path / "jobs"
    logs.mkdir()
    (logs / "9_0_log.err").write_text(
        "slurmstepd: error: execve(): /venv/bin/python: No such file or directory\n"
        "srun: error: n2: task 1: Exited with exit code 2\n"
        "srun: error: n1: task 0: Killed\n"
    )
    script = "\n".join([*batch_script.at_the_start(logs, "t"), "(exit 137)", *batch_script.at_the_end()])
    assert subprocess.run(["bash", "-c", f"SLURM_JOB_ID=9\n{script}"], check=False).returncode == 137
    assert (logs / "9_bad").read_text() == "n2\n"
    assert failures.bad_nodes(tmp_path, {"jobs": ["9"]}, "flat-1") == ["n2"]


class TestTheNodesToLeaveOut:
    """From what two jobs of a run left behind."""

    @pytest.fixture
    def left(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
        """The nodes, where the job 7_1 ended with these marks and this word of a rank, and the run began in
        the job `attempt`."""
        (tmp_path / "jobs").mkdir()
        (tmp_path / "flat-1").mkdir()
        (tmp_path / "scontrol").write_text("#!/bin/sh\nprintf 'n1\\nn2\\nn7\\n'\n")  # of n[1-2],n7
        (tmp_path / "scontrol").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

        def bad(word: str = "", attempt: dict[str, str] | None = None, **marks: str) -> list[str]:
            for name, text in marks.items():
                (tmp_path / "jobs" / f"7_1_{name}").write_text(f"{text}\n")
            if word:
                (tmp_path / "jobs" / "7_1_0_log.err").write_text(f"flat-1: node: {word}\n")
            if attempt:
                (tmp_path / "flat-1" / "attempts.jsonl").write_text(json.dumps(attempt) + "\n")
            return failures.bad_nodes(tmp_path, {"jobs": ["5", "7_1"]}, "flat-1")

        return bad

    BEGUN: ClassVar = {"slurm_job_id": "9", "slurm_array_job_id": "7", "slurm_array_task_id": "1"}

    def test_those_without_python_each_by_its_name(self, left: Callable[..., list[str]]) -> None:
        assert left(bad="n1,n2") == ["n1", "n2"]

    def test_the_one_that_a_rank_names(self, left: Callable[..., list[str]]) -> None:
        assert left("n2.cluster: gpus: none", nodes="n[1-2],n7") == ["n2"]
        assert left("n7: gpus: none; n1: gpus: none", nodes="n[1-2],n7") == ["n1", "n7"]
        assert left("n7: gpus: none", self.BEGUN, nodes="n[1-2],n7") == ["n7"], (
            "it is looked at inside of the run"
        )

    def test_all_of_the_job_where_none_is_named(self, left: Callable[..., list[str]]) -> None:
        assert left("the data set is not here", {"slurm_job_id": "5"}, nodes="n[1-2],n7") == [
            "n1",
            "n2",
            "n7",
        ]

    def test_none_of_a_job_in_which_the_run_had_begun(self, left: Callable[..., list[str]]) -> None:
        assert left("a rank was lost", self.BEGUN, nodes="n[1-2],n7", bad="n1") == []

    def test_none_without_python_where_the_run_had_begun(self, left: Callable[..., list[str]]) -> None:
        assert left(attempt=self.BEGUN, bad="n1") == []
