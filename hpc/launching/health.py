"""Is this node fit for a run: its devices, its room, its clock and the ranks' links. Takes a second, before a
run begins.

A run would say the same later, or never: a device that computes wrong gives a wrong model without an error.
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
"""Seconds that the job before may take to let go of a GPU's memory."""
ROOM = 64 * 2**20
"""Bytes that the temporary folder must have: sockets, a library that is built, ..."""
SLOWED = ("hw_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown")
"""Why a GPU that is not well runs slowly; others, as the power limit, are usual."""
PATIENCE = 10.0
"""Seconds that nvidia-smi may take."""


def require(root: Path, engine: Engine) -> None:
    """Look at this rank's device and, once per node, at the node; then add over all ranks. Every rank calls
    it.

    Raises RunFailed of the kind "node" on every rank, with a line that names each host that is not fit.
    Warnings go to the log.
    """
    found = [
        *_safely(device(engine.device)),
        *(_safely(node(root)) if os.environ.get("LOCAL_RANK", "0") == "0" else ()),
    ]
    for finding in found:
        if finding.state == "warn":
            logger.warning(f"{socket.gethostname()}: {finding.line()}")
    problem = _problem(found)
    try:
        problems = engine.gather(problem)
        if not any(problems):
            problems = engine.gather(_sum(engine))
    except RuntimeError as error:  # the device that is broken may be that which talks to the others
        problems = [problem or f"{socket.gethostname()}: all-reduce: {one_line(error)[:300]}"]
    if any(problems):
        raise RunFailed("; ".join(dict.fromkeys(filter(None, problems))), "node")


def _problem(found: Iterable[Finding]) -> str:
    """What is wrong with this host, in one line; empty if nothing is."""
    said = [f"{finding.what}: {finding.measured}" for finding in found if finding.state == "FAIL"]
    return f"{socket.gethostname()}: {', '.join(said)}" if said else ""


def examine(root: Path) -> list[Finding]:
    """All devices that this process sees, and the node."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    devices = [torch.device("cuda", index) for index in range(count)] or [torch.device("cpu")]
    return [finding for one in (*map(device, devices), node(root)) for finding in _safely(one)]


def _safely(check: Iterator[Finding]) -> Iterator[Finding]:
    """A check that breaks is a finding: what it does, a run does too."""
    try:
        yield from check
    except (RuntimeError, OSError) as error:
        yield Finding("FAIL", "health", f"{type(error).__name__}: {one_line(error)[:300]}", certain=False)


def device(where: torch.device) -> Iterator[Finding]:
    """One device: nobody else's memory, a right product, no slowdown."""
    if where.type == "cuda":
        yield _memory(where)
    yield _product(where)
    if where.type == "cuda":
        yield from _slowdown(where)


def _memory(where: torch.device) -> Finding:
    for _ in range(LEAVING):
        free, total = torch.cuda.mem_get_info(where)
        said = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free on {where}"
        if total - free - torch.cuda.memory_reserved(where) <= max(CONTEXT, total // 20):
            return Finding("ok", "gpu memory", said)
        time.sleep(1)
    # Where jobs share a GPU on purpose, another one's memory is no fault.
    shared = any(name in os.environ for name in ("SLURM_SHARDS_ON_NODE", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"))
    mend = (
        "" if shared else "somebody else's process holds the rest: see `nvidia-smi`, and tell the operators"
    )
    return Finding("warn" if shared else "FAIL", "gpu memory", said, mend, certain=False)


def product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """A place of its own, so that tests can break it."""
    return left @ right


def _product(where: torch.device) -> Finding:
    """The product of two matrices of rank one, whose every number is known and exact in float32."""
    size = SIZE[where.type]
    steps = torch.arange(size, device=where, dtype=torch.float32)
    rows, columns, inner = steps % 5 + 1, steps % 7 + 1, steps % 3 + 1
    found = product(torch.outer(rows, inner), torch.outer(inner, columns))
    wrong = int((found != torch.outer(rows, columns) * inner.square().sum()).sum())
    if wrong:
        mend = "tell the cluster's operators: this device computes wrong"
        return Finding(
            "FAIL", "matmul", f"{wrong} of {size * size} numbers are wrong on {where}", mend, certain=False
        )
    return Finding("ok", "matmul", f"{size} x {size}, right on {where}")


def _slowdown(where: torch.device) -> Iterator[Finding]:
    """What nvidia-smi says of the clocks; nothing, where it says nothing."""
    names = [f"clocks_throttle_reasons.{reason}" for reason in SLOWED]
    query = [
        "nvidia-smi",
        f"--query-gpu=clocks.sm,clocks.max.sm,temperature.gpu,{','.join(names)}",
        "--format=csv,noheader,nounits",
    ]
    identity = str(getattr(torch.cuda.get_device_properties(where), "uuid", ""))
    try:
        done = subprocess.run(
            [*query, f"--id=GPU-{identity}"], capture_output=True, text=True, timeout=PATIENCE, check=False
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
    """The room for temporary files, and the results folder: that it takes files, keeps locks, and has this
    node's time."""
    yield _room(Path(tempfile.gettempdir()))
    yield from results_folder.check(root)


def _room(folder: Path) -> Finding:
    free = os.statvfs(folder)
    left = free.f_bavail * free.f_frsize
    measured = f"{left >> 20} MiB free in {folder}"
    if left < ROOM:
        return Finding(
            "FAIL",
            "temporary folder",
            measured,
            f"make {ROOM >> 20} MiB of room, or set TMPDIR",
            certain=False,
        )
    if left < results_folder.TEMPORARY:
        return Finding(
            "warn", "temporary folder", measured, f"a sweep needs {results_folder.TEMPORARY >> 20} MiB"
        )
    return Finding("ok", "temporary folder", measured)


def _sum(engine: Engine) -> str:
    """Add over the ranks, on their devices. Returns what is wrong; empty if nothing is."""
    if engine.world == 1:
        return ""
    numbers = torch.full((SUMMED,), float(engine.rank + 1), device=engine.device)
    dist.all_reduce(numbers)
    right = engine.world * (engine.world + 1) / 2
    wrong = int((numbers != right).sum())
    return (
        f"{socket.gethostname()}: all-reduce: {wrong} of {SUMMED} sums over {engine.world} ranks are wrong"
        if wrong
        else ""
    )
