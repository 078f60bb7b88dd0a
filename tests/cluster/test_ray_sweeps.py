"""Real searches on a Ray over two hosts: a killed head, a client without the token, two sweeps beside each
other."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers.cluster.jobs import wait_for_jobs
from tests.helpers.cluster.processes import process_start
from tests.helpers.cluster.slurm import Slurm
from tests.helpers.cluster.sweep_jobs import processes, ray_processes, sbatch

STAND_IN = """\
#!{python}
import os, sys
if sys.argv[1] == "sweep":
    os.execv({python!r}, [{python!r}, "-m", "hpc.cli", *sys.argv[1:], "--device", "cpu"])
print('{{"waiting": {{}}}}')
"""
TRIALS = 6
JOIN = "import ray, sys; ray.init(sys.argv[1], log_to_driver=False); print(len(ray.nodes()))"


def _study(home: Path, shards: Path, name: str, epochs: int) -> Path:
    fields = {
        "study": name,
        "base": {
            "data": {"shards": str(shards)},
            "backbone": {"name": "test_vit"},
            "optim": {"epochs": epochs, "batch_size": 14, "lr": 1e-3},
            "engine": {"precision": "fp32"},
        },
        "variants": ["flat"],
        "folds": {"outer": 4, "inner": 2},
        "search": {
            "nested": False,
            "trials": TRIALS,
            "startup_trials": 2,
            "space": {"loss.gamma": {"uniform": [0, 5]}},
        },
    }
    (home / "sweeps" / f"{name}.yaml").write_text(yaml.safe_dump(fields))
    return home / "results/runs" / name / "search" / "flat"


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _ended(folder: Path) -> list[int]:
    return [line["trial"] for line in _lines(folder / "trials.jsonl") if "state" in line]


def _attempts(folder: Path, trial: int) -> list[dict[str, Any]]:
    return [
        line for file in (folder / "runs" / f"{trial:05d}").glob("*/attempts.jsonl") for line in _lines(file)
    ]


def _wait(what: str, ready: Callable[[], Any], seconds: float = 300, left: Callable[[], Any] = str) -> Any:
    """What `ready` says once it is true; if it never is, the test fails with what `left` says."""
    end = time.monotonic() + seconds
    while not (found := ready()):
        if time.monotonic() > end:
            pytest.fail(f"{what}: not after {seconds:.0f} s {left()}")
        time.sleep(0.2)
    return found


def _gone(scratch: Path) -> None:
    """Nothing private is left, at the latest half a minute after the jobs."""
    _wait(
        "the end of what was private",
        lambda: not any(scratch.iterdir()),
        30,
        lambda: sorted(scratch.rglob("*"))[:50],
    )


def _driver(study: str) -> tuple[int, str] | None:
    """pid of the running sweep of a study, and the address of its Ray."""
    for pid, args in processes(f"sweeps/{study}.yaml"):
        words = args.split()
        if "hpc.cli" in words and "--ray-address" in words:
            return pid, words[words.index("--ray-address") + 1]
    return None


def _host(pid: int) -> str:
    """What the processes of a host share."""
    return os.readlink(f"/proc/{pid}/ns/net")


def _join(pid: int, address: str, **token: str) -> subprocess.CompletedProcess[str]:
    """A client of this Ray on the head's host, with nothing of ours in its environment but what is given."""
    command = [
        "nsenter",
        f"--target={pid}",
        "--net",
        "--uts",
        "--mount",
        "--pid",
        sys.executable,
        "-c",
        JOIN,
        address,
    ]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "RAY_NUM_REDIS_GET_RETRIES": "1",
        **token,
    }
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder for what is private to a node, with a path that is short enough."""
    with tempfile.TemporaryDirectory(prefix="lt", dir="/tmp") as folder:
        yield Path(folder)


@pytest.mark.long("two sweeps on four nodes of Ray; tests/cluster/test_sweep_script.py loses one Ray")
def test_sweeps_survive_a_killed_head_and_each_other(
    slurm: Slurm, home: Path, shards: Path, scratch: Path
) -> None:
    program = home / "bin" / "leukotree"
    program.parent.mkdir()
    program.write_text(STAND_IN.format(python=sys.executable))
    program.chmod(0o755)
    environment = {
        "PATH": f"{program.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "LEUKOTREE_SCRATCH": str(scratch),
    }
    first, second = _study(home, shards, "first", 3), _study(home, shards, "second", 2)

    # Its head's Ray and the search itself are killed midway.
    job = sbatch(slurm, home, environment, "sweeps/first.yaml")
    _wait("two trials of the first sweep", lambda: len(_ended(first)) >= 2)
    pid, address = _wait("the first sweep", lambda: _driver("first"))
    family = [(one, process_start(one)) for one, _ in [*processes(address), *processes("ray::")]]
    heads = [
        one
        for one, args in processes(address.split(":")[1])
        if ("gcs_server" in args or "/raylet " in args) and _host(one) == _host(pid)
    ]
    assert len(heads) == 2
    os.kill(pid, signal.SIGKILL)
    for one in heads:
        with contextlib.suppress(
            ProcessLookupError
        ):  # its job ends them as soon as it sees that the search has gone
            os.kill(one, signal.SIGKILL)
    ended = wait_for_jobs(slurm, job)
    assert ended[job] in ("FAILED", "NODE_FAIL"), ended
    _wait(
        "the end of its processes",
        lambda: not [one for one, start in family if process_start(one) == start],
        30,
    )
    assert ray_processes(slurm) == []
    _gone(scratch)
    record, finished = _lines(first / "trials.jsonl"), _ended(first)
    assert len(finished) < TRIALS
    starts = {trial: len(_attempts(first, trial)) for trial in finished}

    # Submitted again, beside another one on the same hosts.
    jobs = [sbatch(slurm, home, environment, f"sweeps/{name}.yaml") for name in ("first", "second")]
    (pid, address), (_, other) = (
        _wait(f"the {name} sweep", lambda name=name: _driver(name)) for name in ("first", "second")
    )
    assert address != other
    token = Path(f"/proc/{pid}/environ").read_bytes().split(b"RAY_AUTH_TOKEN=")[1].split(b"\0")[0].decode()
    friend = _join(pid, address, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token)
    assert friend.stdout.strip() in ("1", "2"), friend.stderr  # the second node may be on its way
    stranger = _join(pid, address)
    assert stranger.returncode != 0
    assert "Failed to connect" in stranger.stderr
    outputs = [home / f"slurm-{job}.out" for job in jobs]
    assert set(wait_for_jobs(slurm, *jobs, seconds=500).values()) == {"COMPLETED"}, [
        file.read_text() for file in outputs
    ]
    assert ray_processes(slurm) == []
    _gone(scratch)

    # What had ended was not trained again, and what was drawn is what was trained.
    assert _lines(first / "trials.jsonl")[: len(record)] == record
    assert {trial: len(_attempts(first, trial)) for trial in finished} == starts
    for folder in (first, second):
        lines = _lines(folder / "trials.jsonl")
        assert [line["trial"] for line in lines if "chosen" in line] == list(range(TRIALS))
        assert sorted(_ended(folder)) == list(range(TRIALS))
        assert {line["state"] for line in lines if "state" in line} <= {"completed", "stopped"}
        assert (folder / "best.yaml").exists()
        assert {attempt["host"] for trial in range(TRIALS) for attempt in _attempts(folder, trial)} <= {
            "n1",
            "n2",
        }
