"""slurm/node.sh and slurm/worker.sh on a bad day, without SLURM; tests/cluster has the good ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow("starts scripts that wait for each other")

SLURM = Path(__file__).parents[2] / "slurm"
SLOW_RAY = 'echo $$ >"{folder}/ray.pid"; trap "" TERM; sleep 300 & while :; do sleep 1; done'
"""One that never comes up, and does not leave when it is asked to. Its process ignores SIGTERM, and it has a
child."""


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `bin`, and what the nodes of a search share, `shared`. The node is called gpu001 in
    SLURM."""
    for name in ("bin", "shared", "scratch"):
        (tmp_path / name).mkdir()
    program(tmp_path, "scancel", "exit 0")
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    known = {
        "SLURMD_NODENAME": "gpu001",
        "SLURM_JOB_ID": "7",
        "SLURM_CPUS_ON_NODE": "1",
        "LEUKOTREE_SCRATCH": "/tmp",
    }
    for name, value in known.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return tmp_path


def program(node: Path, name: str, shell: str) -> None:
    (node / "bin" / name).write_text(f"#!/bin/bash\n{shell}\n")
    (node / "bin" / name).chmod(0o755)


def start(node: Path, role: str) -> subprocess.Popen[str]:
    words = [
        "bash",
        str(SLURM / "node.sh"),
        role,
        "127.0.0.1",
        "9",
        str(node / "shared"),
        str(node / "bin" / "ray"),
        "true",
    ]
    return subprocess.Popen(words, stderr=subprocess.PIPE, text=True, cwd=SLURM.parent)


def bad_nodes(node: Path) -> str:
    path = node / "shared" / "bad-nodes"
    return path.read_text() if path.exists() else ""


def folders(job: str) -> list[Path]:
    """What a job has in /tmp."""
    return [
        path.parent for path in Path("/tmp").glob("lt.*/.leukotree-job") if f"job={job}\n" in path.read_text()
    ]


def test_a_node_is_called_as_slurm_calls_it(node: Path) -> None:
    """Its host may have another name, which `sbatch --exclude` does not know."""
    with start(node, "head") as program_of_node:
        _, message = program_of_node.communicate(timeout=60)
    assert program_of_node.returncode == 70
    assert message.startswith("sweep.sh: gpu001: no program ")
    assert bad_nodes(node).startswith("gpu001 no program ")


@pytest.mark.parametrize("scratch", ["here", ".", "./here", "-rf"])
def test_a_scratch_that_is_no_absolute_path_is_refused(
    node: Path, monkeypatch: pytest.MonkeyPatch, scratch: str
) -> None:
    program(node, "ray", "exit 1")
    monkeypatch.setenv("LEUKOTREE_SCRATCH", scratch)
    with start(node, "head") as program_of_node:
        _, message = program_of_node.communicate(timeout=60)
    assert message == f"sweep.sh: gpu001: {scratch} (site key `scratch`) is no absolute path\n"


@pytest.mark.parametrize(("head", "bad"), [("port=9\n", True), ("port=10\n", False), (None, False)])
def test_a_worker_whose_search_has_ended_is_on_no_bad_node(node: Path, head: str | None, bad: bool) -> None:
    """The search restarted at another port, or has ended, while the worker waited for it."""
    if head:
        (node / "shared" / "head").write_text(head)
    with start(node, "worker") as program_of_node:
        _, message = program_of_node.communicate(timeout=60)
    assert program_of_node.returncode == (70 if bad else 0)
    assert bool(bad_nodes(node)) == bad == bool(message)


@pytest.mark.parametrize(
    "signals", [["TERM"], ["USR1"], ["USR2"], ["TERM", "TERM", "USR1", "USR2"]], ids=" ".join
)
def test_asked_to_stop_while_ray_starts_it_leaves_nothing(
    node: Path, monkeypatch: pytest.MonkeyPatch, signals: list[str]
) -> None:
    job = str(os.getpid())
    monkeypatch.setenv("SLURM_JOB_ID", job)
    program(node, "ray", SLOW_RAY.format(folder=node))
    with start(node, "head") as program_of_node:
        end = time.monotonic() + 60
        while not (node / "ray.pid").exists() or not (node / "ray.pid").read_text():
            assert time.monotonic() < end
            time.sleep(0.05)
        assert len(folders(job)) == 1
        for name in signals:
            program_of_node.send_signal(signal.Signals[f"SIG{name}"])
            time.sleep(0.2)
        program_of_node.communicate(timeout=60)
    assert program_of_node.returncode == 143
    assert folders(job) == []
    assert not Path("/proc", (node / "ray.pid").read_text().strip()).exists()
    assert not bad_nodes(node)


def test_a_worker_leaves_where_its_search_has_ended_and_goes_on_where_slurm_does_not_answer(
    node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_SUBMIT_DIR", str(SLURM.parent))
    (node / "shared" / "head").write_text(
        f"head_job=7 address=127.0.0.1 port=9 token=x shared={node}/shared python=asks ray=false\n"
    )
    program(node, "asks", f'[[ $* == *own_job* ]] && exec {sys.executable} "$@"\nexit 1')
    words = ["bash", str(SLURM / "worker.sh"), str(node / "shared")]

    def run(squeue: str) -> subprocess.CompletedProcess[str]:
        program(node, "squeue", squeue)
        return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)

    for ended in ("true", "echo PENDING", "echo slurm_load_jobs error: Invalid job id specified >&2; exit 1"):
        done = run(ended)
        assert (done.returncode, done.stdout, done.stderr) == (
            0,
            "worker.sh: job 7, which searches, has ended\n",
            "",
        )
    for goes_on in (
        "echo RUNNING",
        "echo slurm_load_jobs error: Unable to contact slurm controller >&2; exit 1",
    ):
        done = run(goes_on)
        assert done.returncode == 70
        assert done.stderr.startswith("worker.sh: gpu001: asks does not run here")
    (node / "shared" / "head").unlink()
    done = run("echo RUNNING")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
