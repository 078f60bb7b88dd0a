"""slurm/sweep.sh when SIGUSR1 comes at an odd time, or a node cannot start. Scripts stand in for SLURM's
commands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow("starts commands as processes")

ROOT = Path(__file__).parents[3]
STEP = """
shared=$(echo "$PWD"/results/runs/.sweeps/here-7)
trap 'echo told >>told' TERM
echo $$ >"$shared/driver"
{begin}
for _ in {{1..100}}; do sleep 0.1; [[ -s told ]] && (( ++ends > 20 )) && exit 75; done
"""
"""Stands in for the step and its search: saves for two seconds after SIGTERM."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout in job 7 on a node n1 that has begun for the first time. `requeued` holds what scontrol was
    asked."""
    for name in ("hpc", "slurm"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name in ("bin", "sweeps"):
        (tmp_path / name).mkdir()
    (tmp_path / "sweeps" / "phantom.yaml").write_text("study: phantom\n")
    program(
        tmp_path, "python", f'exec {sys.executable} "$@"'
    )  # a link would not find the packages of its venv
    program(tmp_path, "leukotree", "exit 0")
    program(tmp_path, "ray", "exit 1")
    program(tmp_path, "scontrol", 'echo "$@" >>requeued')
    program(tmp_path, "sinfo", "echo n1; echo n10; echo n2")
    program(tmp_path, "srun", STEP.format(begin=""))
    job = {
        "JOB_ID": "7",
        "CLUSTER_NAME": "here",
        "JOB_NUM_NODES": "1",
        "CPUS_ON_NODE": "1",
        "JOB_PARTITION": "main",
    }
    for name, value in job.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    monkeypatch.setenv("SLURMD_NODENAME", "n1")
    monkeypatch.setenv("LEUKOTREE_HOME", str(tmp_path))
    monkeypatch.setenv("SITE", "default")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return tmp_path


def program(home: Path, name: str, shell: str) -> None:
    (home / "bin" / name).write_text(f"#!/bin/bash\n{shell}\n")
    (home / "bin" / name).chmod(0o755)


def start(home: Path) -> subprocess.Popen[str]:
    words = ["bash", str(ROOT / "slurm" / "sweep.sh")]
    return subprocess.Popen(words, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path: Path) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end, path
        time.sleep(0.05)


def test_asked_to_leave_before_the_search_it_is_requeued_without_a_search(home: Path) -> None:
    program(home, "leukotree", "touch looked; sleep 1")  # the look at the cluster
    with start(home) as job:
        wait_for(home / "looked")
        job.send_signal(signal.SIGUSR1)
        _, errors = job.communicate(timeout=60)
    assert (job.returncode, errors) == (75, "sweep.sh: asked to stop, requeued; the search will continue\n")
    assert (home / "requeued").read_text() == "requeue 7\n"
    assert not (home / "told").exists()


@pytest.mark.parametrize("times", [1, 3])
def test_asked_to_leave_in_the_search_it_waits_for_it_however_often_it_is_asked(
    home: Path, times: int
) -> None:
    with start(home) as job:
        wait_for(home / "results/runs/.sweeps/here-7/driver")
        for _ in range(times):
            job.send_signal(signal.SIGUSR1)
            time.sleep(0.3)
        _, errors = job.communicate(timeout=60)
    assert (job.returncode, errors) == (75, "sweep.sh: asked to stop, requeued; the search will continue\n")
    assert (home / "told").read_text().split() == ["told"] * times


@pytest.mark.parametrize(("node", "code"), [("n1", 70), ("n10", 75)])
def test_a_first_start_stops_where_its_own_node_is_bad_and_at_no_other(
    home: Path, node: str, code: int
) -> None:
    program(home, "srun", STEP.format(begin=f'echo "{node} no room" >>"$shared/bad-nodes"; exit 70'))
    with start(home) as job:
        job.communicate(timeout=60)
    assert job.returncode == code
    left_out = (home / "requeued").read_text() if code == 75 else ""
    assert left_out == (f"requeue 7\nupdate JobId=7 ExcNodeList={node}\n" if code == 75 else "")
