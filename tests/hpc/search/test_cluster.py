"""A connection to Ray: one that is started here, and a cluster that is joined."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from hpc.launching import snapshot
from hpc.search import cluster
from hpc.search.cluster import connect, nodes
from leukotree.errors import Preempted
from tests.helpers.checkouts import make_checkout

LAPTOP = {"CPU": 2.0}
NODE = {"CPU": 64.0, "GPU": 8.0}


def test_a_cluster_whose_nodes_do_not_join_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "nodes", lambda: [LAPTOP])
    monkeypatch.setattr(cluster, "PATIENCE", 0.0)
    with pytest.raises(Preempted, match="only 1 of 2 nodes of Ray have joined within 0 s") as early:
        cluster._wait_for_nodes(2)
    assert early.value.kind == "node"  # the job that searches is queued again


JOIN = """
import ray, sys
ray.init(address=sys.argv[1], log_to_driver=False)
print(ray.cluster_resources()["CPU"])
"""


@pytest.mark.slow("starts Ray")
def test_only_holders_of_the_token_reach_a_ray_that_is_started_here() -> None:
    import ray  # before its token is set: that must not matter

    with connect(None) as private:
        assert [node["CPU"] for node in nodes()] == [len(os.sched_getaffinity(0))]
        command = [sys.executable, "-c", JOIN, ray.get_runtime_context().gcs_address]
        friend = subprocess.run(command, capture_output=True, text=True, check=False)
        assert friend.stdout.strip() == str(nodes()[0]["CPU"])
        without = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
        outsider = subprocess.run(
            command,
            env={**without, "HOME": str(private), "RAY_NUM_REDIS_GET_RETRIES": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert outsider.returncode != 0
        assert "Failed to connect" in outsider.stderr
    assert not private.exists()
    assert "RAY_AUTH_TOKEN" not in os.environ
    assert "RAY_AUTH_MODE" not in os.environ


@pytest.mark.slow("starts Ray")
def test_it_starts_no_process_that_no_trial_uses() -> None:
    """By default Ray starts one for each CPU: 128 on a large node."""
    import ray

    class Trial:
        def pid(self) -> int:
            return os.getpid()

    def workers() -> set[int]:
        """A worker is a Python script until it has begun. Then it has a title."""
        found = {process.pid: process.cmdline() for process in psutil.Process().children(recursive=True)}
        begins = {pid for pid, words in found.items() if "default_worker.py" in map(os.path.basename, words)}
        titled = {pid for pid, words in found.items() if words[0].startswith("ray::")}
        return begins | {pid for pid in titled if "Agent" not in found[pid][0]}

    with connect(None):
        pid = ray.get(ray.remote(Trial).remote().pid.remote())
        assert workers() == {pid}


WHERE = """
import hpc, leukotree, subprocess, sys
command = [sys.executable, "-c", "import hpc; print(hpc.__file__)"]
rank = subprocess.run(command, capture_output=True, text=True)
paths = hpc.__file__, leukotree.__file__, rank.stdout.strip()
"""


@pytest.mark.slow("starts Ray")
def test_its_processes_import_the_given_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray puts the current folder of the search first in their path: the checkout, which others may edit."""
    import ray

    copy = snapshot.take(tmp_path / "runs")
    monkeypatch.chdir(make_checkout(tmp_path / "checkout"))

    def where() -> tuple[str, ...]:
        known: dict[str, Any] = {}
        exec(WHERE, known)  # by its value: Ray would take the function itself from this file
        return known["paths"]

    with connect(None, code=copy):
        paths = ray.get(ray.remote(where).remote())
    assert paths == (f"{copy}/hpc/__init__.py", f"{copy}/leukotree/__init__.py", f"{copy}/hpc/__init__.py")
    assert Path.cwd() == tmp_path / "checkout"
    assert str(copy) not in os.environ.get("PYTHONPATH", "")
