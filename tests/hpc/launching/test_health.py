"""A node that is not fit ends an attempt as "node", with its name and what is wrong, before anything is
trained."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hpc.cli import main
from hpc.finding import Finding
from hpc.launching import caps, health, retries
from hpc.launching.ranks import in_ranks
from leukotree.distributed.engine import Engine, start
from leukotree.errors import RunFailed
from leukotree.runtime import Runtime
from leukotree.spec import RunSpec
from leukotree.training import run
from tests.helpers.specs import tiny_spec

QUIET = Runtime(device="cpu", threads=1, quiet=True)
HOST = socket.gethostname()
ALONE = Engine(0, 1, torch.device("cpu"))


@pytest.fixture
def spec(shards: Path) -> RunSpec:
    return tiny_spec(shards, {"variant": "flat", "optim.batch_size": 14})


def wrong(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """A product with one wrong number, as of a broken unit."""
    found = left @ right
    found[5, 7] += 1
    return found


def states(findings: list[Finding]) -> dict[str, str]:
    return {finding.what: finding.state for finding in findings}


def test_a_good_node_is_fit(tmp_path: Path) -> None:
    health.require(tmp_path, ALONE)
    assert states(health.examine(tmp_path)) == dict.fromkeys(
        ("matmul", "temporary folder", "locks", "clock"), "ok"
    )


@pytest.mark.slow("trains runs")
def test_a_device_that_computes_wrong_ends_each_attempt_as_node_until_there_were_enough(
    spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "product", wrong)
    folder = tmp_path / spec.run_name
    again = []
    for _ in range(caps.RUN_ENDS["node"] + 1):
        with pytest.raises(
            RunFailed, match=rf"^{HOST}: matmul: 1 of 589824 numbers are wrong on cpu$"
        ) as caught:
            run.run(spec, tmp_path, QUIET, partial(health.require, tmp_path))
        assert caught.value.kind == "node"
        status = json.loads((folder / "status.json").read_text())
        assert (status["state"], status["kind"]) == ("preempted", "node")
        assert status["message"].startswith(f"{HOST}: matmul: ")
        again.append(retries.judge(tmp_path, spec.run_name, None, new_command=False).again)
    assert again == [True, True, True, False]
    assert not (folder / "metrics.jsonl").exists(), "nothing was trained"

    monkeypatch.undo()
    assert run.run(spec, tmp_path, QUIET, partial(health.require, tmp_path)).state == "done"
    monkeypatch.setattr(health, "product", wrong)
    assert run.run(spec, tmp_path, QUIET, partial(health.require, tmp_path)).state == "done", (
        "nothing is left to do"
    )


def look_with(fault: str, root: Path, runtime: Runtime) -> list[tuple[str, str]]:
    """(kind, message) on each rank, where rank 1 has a fault."""
    with start(runtime) as engine:
        summed = health.dist.all_reduce
        if engine.rank == 1 and fault == "matmul":
            health.product = wrong
        if engine.rank == 1 and fault == "sum":
            health.dist.all_reduce = lambda numbers: (summed(numbers), numbers[3:5].zero_())
        try:
            health.require(root, engine)
            found = ("fit", "")
        except RunFailed as error:
            found = (error.kind, str(error))
        health.dist.all_reduce = summed
        return engine.gather(found)


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        ("none", "fit", ""),
        ("matmul", "node", f"{HOST}: matmul: 1 of 589824 numbers are wrong on cpu"),
        ("sum", "node", f"{HOST}: all-reduce: 2 of 262144 sums over 2 ranks are wrong"),
    ],
)
@pytest.mark.slow("starts ranks")
def test_all_ranks_leave_with_the_reason_of_the_one_that_is_not_fit(
    tmp_path: Path, fault: str, kind: str, says: str
) -> None:
    assert in_ranks(look_with, fault, tmp_path, runtime=QUIET, ranks=2) == [(kind, says)] * 2


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A file system in memory."""
    if os.geteuid() != 0:
        pytest.skip("a mount needs root")
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_temporary_folder_and_a_results_folder_that_takes_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mounted(tmp_path / "full", "size=1m") as full, mounted(tmp_path / "fixed", "ro") as fixed:
        monkeypatch.setattr(tempfile, "tempdir", str(full))
        (full / "big").write_bytes(bytes(2**20))
        results = f"results: {fixed}: cannot be written: Read-only file system"
        expected = f"{HOST}: temporary folder: 0 MiB free in {full}, {results}"
        with pytest.raises(RunFailed, match=f"^{expected}$") as caught:
            health.require(fixed, ALONE)
        assert caught.value.kind == "node"


def test_little_room_is_a_warning_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with mounted(tmp_path / "small", "size=200m") as small:
        monkeypatch.setattr(tempfile, "tempdir", str(small))
        health.require(tmp_path, ALONE)
        assert f"{HOST}: warn  temporary folder: 200 MiB free in {small}" in capsys.readouterr().err


def test_a_check_that_breaks_says_so_of_the_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("CUDA error: the launch\ntimed out")

    monkeypatch.setattr(health, "product", lost)
    with pytest.raises(RunFailed, match=f"^{HOST}: health: RuntimeError: CUDA error: the launch timed out$"):
        health.require(tmp_path, ALONE)


class TestGpus:
    """With a stand-in for the driver: there may be none here."""

    @pytest.fixture
    def gpu(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> torch.device:
        monkeypatch.setattr(health, "LEAVING", 1)
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda where: 0)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda where: SimpleNamespace(uuid="12ab"))
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        return torch.device("cuda", 0)

    @pytest.mark.parametrize(
        ("free", "shared", "state"),
        [(79, False, "ok"), (60, False, "FAIL"), (60, True, "warn"), (78, True, "ok")],
    )
    def test_memory_that_somebody_else_holds(
        self, gpu: torch.device, monkeypatch: pytest.MonkeyPatch, free: int, shared: bool, state: str
    ) -> None:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda where: (free * 2**30, 80 * 2**30))
        if shared:
            monkeypatch.setenv("SLURM_SHARDS_ON_NODE", "1")
        found = health._memory(gpu)
        assert (found.state, found.measured) == (state, f"{free}.0 of 80.0 GiB free on cuda:0")

    @pytest.mark.parametrize(
        ("answer", "expected"),
        [
            (
                "1980, 1980, 40, Not Active, Not Active, Not Active",
                [("ok", "cuda:0 at 1980 of 1980 MHz, 40 C")],
            ),
            (
                "300, 1980, 91, Active, Active, Not Active",
                [("warn", "cuda:0 at 300 of 1980 MHz, 91 C: hw_slowdown, hw_thermal_slowdown")],
            ),
            ("Field is not a valid field to query", []),
        ],
    )
    def test_clocks_that_the_hardware_holds_down(
        self, gpu: torch.device, tmp_path: Path, answer: str, expected: list[tuple[str, str]]
    ) -> None:
        (tmp_path / "nvidia-smi").write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/asked\necho "{answer}"\n')
        (tmp_path / "nvidia-smi").chmod(0o755)
        assert [(found.state, found.measured) for found in health._slowdown(gpu)] == expected
        assert "--id=GPU-12ab" in (tmp_path / "asked").read_text()

    def test_without_nvidia_smi_nothing_is_said(
        self, gpu: torch.device, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", "/nowhere")
        assert list(health._slowdown(gpu)) == []


@pytest.mark.slow("computes on the node for seconds")
def test_the_doctor_looks_at_this_node_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", "--node"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith(f"ok    {HOST}: ") for line in lines[:-1])
    assert [line.split(": ")[1] for line in lines[:-1]][0::4] == ["matmul", "all-reduce"]
    monkeypatch.setattr(health, "product", wrong)
    assert main(["doctor", "--node"]) == 1
