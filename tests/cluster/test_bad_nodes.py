"""Nodes that are not as they should be: no Python, no names, not enough memory."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc.launching import runs
from hpc.launching.place import Place
from hpc.launching.runs import Outcome
from leukotree.records.runfolder import read_status
from leukotree.runtime import Runtime
from tests.helpers.cluster.many_runs import SITE, run, specs, talk_to
from tests.helpers.cluster.processes import wait_for
from tests.helpers.cluster.slurm import HOSTS, ClusterError, Settings, Slurm


@pytest.fixture(scope="module")
def nameless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """A SLURM whose hosts know no names, without accounting."""
    cluster = Slurm(tmp_path_factory.mktemp("slurm"), 22, Settings(accounting=False, names=False))
    try:
        cluster.up()
    except (ClusterError, OSError) as error:
        pytest.skip(f"no test SLURM here: {error}")
    yield cluster
    cluster.down()


@pytest.fixture(autouse=True)
def _here(nameless: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    talk_to(nameless, monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(runs.POLL, "slurm", 1.0)


def inside(slurm: Slurm, host: str) -> str:
    """Id of the first process of a host."""
    pid, _ = slurm.started()[list(HOSTS).index(host) - len(HOSTS)]
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]


@contextlib.contextmanager
def without_python(slurm: Slurm, *hosts: str) -> Iterator[None]:
    enter = [["nsenter", "--target", inside(slurm, host), "--mount", "--pid"] for host in hosts]
    for words in enter:
        subprocess.run([*words, "mount", "-t", "tmpfs", "none", sys.prefix], check=True)
    try:
        yield
    finally:
        for words in enter:
            subprocess.run([*words, "umount", "--lazy", sys.prefix], check=True)


def test_a_node_without_python_is_left_out(nameless: Slurm, shards: Path, tmp_path: Path) -> None:
    [spec], root, outcomes = specs(1, shards), tmp_path / "study", list[Outcome]()
    with without_python(nameless, "n2"):
        nameless.run("scontrol", "update", "NodeName=n1", "State=DRAIN", "Reason=test")
        waiting = threading.Thread(target=lambda: outcomes.append(run([spec], root, wait=True)))
        waiting.start()
        try:
            wait_for("a job that cannot begin", lambda: list(root.glob("jobs/*_bad")) != [], 90)
        finally:
            nameless.run("scontrol", "update", "NodeName=n1", "State=RESUME")
        waiting.join(200)
    [outcome] = outcomes
    assert (outcome.done, len(outcome.submitted)) == ([spec.run_name], 2)
    assert [mark.read_text() for mark in root.glob("jobs/*_bad")] == ["n2\n"]
    assert "--exclude=n2" in (root / "jobs" / f"{outcome.submitted[1]}_submission.sh").read_text()


def test_after_two_such_nodes_the_run_is_given_up(nameless: Slurm, shards: Path, tmp_path: Path) -> None:
    [spec], root = specs(1, shards), tmp_path / "study"
    with without_python(nameless, *HOSTS):
        outcome = run([spec], root, wait=True)
    assert len(outcome.submitted) == 2
    assert outcome.failed[spec.run_name].startswith("node: it could not begin on n1 and n2; see ")


def test_ranks_meet_where_no_name_resolves(nameless: Slurm, shards: Path, tmp_path: Path) -> None:
    [spec], root = specs(1, shards), tmp_path / "study"
    place = Place("slurm", ranks=2, nodes=2, site=SITE)
    outcome = runs.run_many([spec], root, place, runtime=Runtime(device="cpu", threads=1, quiet=True))
    assert outcome.done == [spec.run_name], outcome
    assert json.loads((root / spec.run_name / "attempts.jsonl").read_text())["ranks"] == 2
    assert [place.read_text() for place in root.glob("jobs/*_address")] == [nameless.hosts["n1"]]


@pytest.fixture
def little_memory(nameless: Slurm) -> Iterator[None]:
    """The hosts in a control group, as a container is, which has room for torch and little else."""
    group = Path(f"/sys/fs/cgroup/memory/leukotree-test-{os.getpid()}")
    members = [
        str(pid) for host in HOSTS for pid in (inside(nameless, host), *_children(inside(nameless, host)))
    ]
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(900 * 2**20))
    except OSError as error:
        pytest.skip(f"no control group (v1) for memory to be made here: {error}")
    before = next(
        line for line in Path("/proc/self/cgroup").read_text().splitlines() if ":memory:" in line
    ).partition(":memory:")[2]
    home = Path(f"/sys/fs/cgroup/memory{before}")
    for pid in members:
        (group / "cgroup.procs").write_text(pid)
    yield
    for pid in (group / "cgroup.procs").read_text().split():
        with contextlib.suppress(OSError):
            ((home if home.exists() else home.parents[-3]) / "cgroup.procs").write_text(pid)
    wait_for("an empty group", lambda: not (group / "cgroup.procs").read_text(), 30)
    group.rmdir()


def _children(pid: str) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@pytest.mark.usefixtures("little_memory")
def test_a_run_that_the_kernel_ends_for_lack_of_memory_is_no_lost_node(shards: Path, tmp_path: Path) -> None:
    [small], root = specs(1, shards), tmp_path / "study"
    spec = small.override({"backbone.name": "vit_base_patch16_224", "optim.batch_size": 98})
    outcome = run([spec], root, wait=True)
    assert (len(outcome.submitted), outcome.failed[spec.run_name].partition(";")[0]) == (
        1,
        "oom: the kernel ended a rank for lack of memory",
    )
    assert not list(root.glob("jobs/*_lost"))
    assert read_status(root / spec.run_name).get("kind", "oom") == "oom"
