"""Whether this node is fit for a run: its devices, free disk space, clock and the links between ranks. Takes
a second, before a run begins.

Without it a run would fail later, or not at all: a device that computes wrong gives a wrong model without an
error.
"""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
import torch.distributed as dist

from hpc.finding import Finding
from hpc.launching import results_folder
from leukotree.distributed.engine import Engine
from leukotree.errors import RunFailed, one_line
from leukotree.log import logger

SIZE = {"cpu": 768, "cuda": 4096}
"""Rows of the matrices that are multiplied."""
SUMMED = 2**18
"""Numbers that the ranks add."""
CONTEXT = 2 * 2**30
"""Bytes of a GPU that this process itself may hold before it trains: CUDA's context, NCCL's buffers, the
matrices."""
LEAVING = 5
"""Seconds that an earlier job may take to free a GPU's memory."""
ROOM = 64 * 2**20
"""Free bytes that the temporary folder must have: for sockets, a library that is built, ..."""
SLOWED = ("hw_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown")
"""Reasons why a faulty GPU runs slowly. Other reasons, such as the power limit, are normal."""
SMI_TIMEOUT = 10.0
"""Seconds that nvidia-smi may take."""


def require(root: Path, engine: Engine) -> None:
    """Check this rank's device and, once per node, the node; then add over all ranks. Every rank calls it.

    Raises RunFailed of the kind "node" on every rank, with a line that names each host that is not fit.
    Warnings go to the log.
    """
    findings = [
        *_safely(device(engine.device)),
        *(_safely(node(root)) if os.environ.get("LOCAL_RANK", "0") == "0" else ()),
    ]
    for finding in findings:
        if finding.state == "warn":
            logger.warning(f"{socket.gethostname()}: {finding.line()}")
    problem = _problem(findings)
    try:
        problems = engine.gather(problem)
        if not any(problems):
            problems = engine.gather(_sum(engine))
    except RuntimeError as error:  # the broken device may be the one that talks to the others
        problems = [problem or f"{socket.gethostname()}: all-reduce: {one_line(error)[:300]}"]
    if any(problems):
        raise RunFailed("; ".join(dict.fromkeys(filter(None, problems))), "node")


def _problem(findings: Iterable[Finding]) -> str:
    """What is wrong with this host, in one line; empty if nothing is."""
    failed = [f"{finding.what}: {finding.measured}" for finding in findings if finding.state == "FAIL"]
    return f"{socket.gethostname()}: {', '.join(failed)}" if failed else ""


def examine(root: Path) -> list[Finding]:
    """Findings about all devices that this process sees, and about the node."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    devices = [torch.device("cuda", index) for index in range(count)] or [torch.device("cpu")]
    return [finding for one in (*map(device, devices), node(root)) for finding in _safely(one)]


def _safely(check: Iterator[Finding]) -> Iterator[Finding]:
    """The findings of a check. A check that breaks is a finding, too: what it does, a run does."""
    try:
        yield from check
    except (RuntimeError, OSError) as error:
        yield Finding("FAIL", "health", f"{type(error).__name__}: {one_line(error)[:300]}", certain=False)


def device(where: torch.device) -> Iterator[Finding]:
    """Findings about one device: its memory is free, a product is right, it is not slowed down."""
    if where.type == "cuda":
        yield _memory(where)
    yield _product(where)
    if where.type == "cuda":
        yield from _slowdown(where)


def _memory(where: torch.device) -> Finding:
    for _ in range(LEAVING):
        free, total = torch.cuda.mem_get_info(where)
        measured = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free on {where}"
        if total - free - torch.cuda.memory_reserved(where) <= max(CONTEXT, total // 20):
            return Finding("ok", "gpu memory", measured)
        time.sleep(1)
    # Where jobs share a GPU on purpose, memory of another job is no fault.
    shared = any(name in os.environ for name in ("SLURM_SHARDS_ON_NODE", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"))
    fix = "" if shared else "another process holds the rest: see `nvidia-smi`, and tell the operators"
    return Finding("warn" if shared else "FAIL", "gpu memory", measured, fix, certain=False)


def product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The product of two matrices; a function of its own, so that tests can break it."""
    return left @ right


def _product(where: torch.device) -> Finding:
    """A finding about the product of two matrices of rank one. Each of its numbers is known, and exact in
    float32."""
    size = SIZE[where.type]
    steps = torch.arange(size, device=where, dtype=torch.float32)
    rows, columns, inner = steps % 5 + 1, steps % 7 + 1, steps % 3 + 1
    computed = product(torch.outer(rows, inner), torch.outer(inner, columns))
    wrong = int((computed != torch.outer(rows, columns) * inner.square().sum()).sum())
    if wrong:
        measured = f"{wrong} of {size * size} numbers are wrong on {where}"
        fix = "tell the cluster's operators: this device computes wrong"
        return Finding("FAIL", "matmul", measured, fix, certain=False)
    return Finding("ok", "matmul", f"{size} x {size}, right on {where}")


def _slowdown(where: torch.device) -> Iterator[Finding]:
    """A finding about the clocks of a GPU, from nvidia-smi; none where nvidia-smi does not show them."""
    names = [f"clocks_throttle_reasons.{reason}" for reason in SLOWED]
    query = [
        "nvidia-smi",
        f"--query-gpu=clocks.sm,clocks.max.sm,temperature.gpu,{','.join(names)}",
        "--format=csv,noheader,nounits",
    ]
    identity = str(getattr(torch.cuda.get_device_properties(where), "uuid", ""))
    try:
        done = subprocess.run(
            [*query, f"--id=GPU-{identity}"], capture_output=True, text=True, timeout=SMI_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return
    fields = [field.strip() for field in done.stdout.split(",")]
    if done.returncode or len(fields) != 3 + len(SLOWED):
        return
    clock, most, temperature, *active = fields
    measured = f"{where} at {clock} of {most} MHz, {temperature} C"
    if slowed := [name for name, state in zip(SLOWED, active, strict=True) if state == "Active"]:
        yield Finding("warn", "gpu clock", f"{measured}: {', '.join(slowed)}", "tell the cluster's operators")
    else:
        yield Finding("ok", "gpu clock", measured)


def node(root: Path) -> Iterator[Finding]:
    """Findings about the space for temporary files and about the results folder (see
    `results_folder.check`)."""
    yield _space(Path(tempfile.gettempdir()))
    yield from results_folder.check(root)


def _space(folder: Path) -> Finding:
    free = os.statvfs(folder)
    left = free.f_bavail * free.f_frsize
    measured = f"{left >> 20} MiB free in {folder}"
    if left < ROOM:
        fix = f"free {ROOM >> 20} MiB, or set TMPDIR"
        return Finding("FAIL", "temporary folder", measured, fix, certain=False)
    if left < results_folder.TEMPORARY:
        return Finding(
            "warn", "temporary folder", measured, f"a sweep needs {results_folder.TEMPORARY >> 20} MiB"
        )
    return Finding("ok", "temporary folder", measured)


def _sum(engine: Engine) -> str:
    """What is wrong with a sum over the ranks, on their devices; empty if nothing is."""
    if engine.world == 1:
        return ""
    numbers = torch.full((SUMMED,), float(engine.rank + 1), device=engine.device)
    dist.all_reduce(numbers)
    right = engine.world * (engine.world + 1) / 2
    wrong = int((numbers != right).sum())
    if not wrong:
        return ""
    problem = f"{wrong} of {SUMMED} sums over {engine.world} ranks are wrong"
    return f"{socket.gethostname()}: all-reduce: {problem}"
