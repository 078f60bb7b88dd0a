"""This machine: versions, limits, memory between processes, GPUs, and the links between local ranks."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from hpc.finding import Finding
from hpc.slurm.site_model import Site
from leukotree.errors import InputError, RunFailed, one_line
from leukotree.runtime import Runtime

CONSTRAINTS = Path(__file__).resolve().parents[2] / "constraints.txt"
OPEN_FILES = 4096
"""File descriptors that a node of a Ray cluster needs."""
SHARED_MEMORY = 2**30
"""Bytes in /dev/shm. Ray's object store takes half of it."""
SOCKET_PATH = 107
"""Largest length of a socket's path in bytes."""
BELOW = "/lt.XXXXXX/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
"""The longest path of a socket that a sweep makes, below its temporary folder."""


def versions() -> Finding:
    """Whether the installed packages have the versions that were tested together."""
    try:
        required = metadata.requires("leukotree") or []
    except metadata.PackageNotFoundError:
        return Finding("warn", "versions", "leukotree is not installed", "run `make install`")
    names = [re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0] for line in required if "extra ==" not in line]
    tested = (
        dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)$", CONSTRAINTS.read_text(), re.M))
        if CONSTRAINTS.exists()
        else {}
    )
    tested = {_canonical(name): version for name, version in tested.items()}
    absent, other = [], []
    for name in names:
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            absent.append(name)
            continue
        wanted = tested.get(_canonical(name))
        # torch adds what it was built for, as in 2.14.1+cu130.
        if wanted and installed.partition("+")[0] != wanted.partition("+")[0]:
            other.append(f"{name} {installed}, tested with {wanted}")
    if absent:
        return Finding("FAIL", "versions", f"not installed: {', '.join(absent)}", "run `make install`")
    if other:
        return Finding("warn", "versions", "; ".join(other), "run `make install`, or `make test` with these")
    return Finding(
        "ok", "versions", f"{len(names)} packages, as tested" if tested else f"{len(names)} packages"
    )


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def limits(site: Site) -> Iterator[Finding]:
    """Open files, shared memory and the length of socket paths. Ray fails where they do not suffice."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = hard if hard != resource.RLIM_INFINITY else 2**30  # Ray raises the soft limit itself
    if most < OPEN_FILES:
        yield Finding(
            "warn",
            "open files",
            f"at most {most}",
            f"ask for {OPEN_FILES} (`ulimit -Hn`); a sweep needs them",
        )
    else:
        yield Finding("ok", "open files", f"{soft}, up to {most if most < 2**30 else 'any number'}")
    shared = Path("/dev/shm")  # noqa: S108 - the system's, and only looked at
    room = shutil.disk_usage(shared).free if shared.is_dir() else 0
    if room < SHARED_MEMORY:
        fix = (
            f"give the container or node {SHARED_MEMORY >> 20} MB (docker: --shm-size); NCCL and Ray "
            "exchange data there"
        )
        yield Finding("warn", "shared memory", f"{room >> 20} MB free in {shared}", fix)
    else:
        yield Finding("ok", "shared memory", f"{room / 2**30:.1f} GB free in {shared}")
    scratch = site.scratch or "/tmp"  # noqa: S108 - where slurm/sweep.sh makes a private folder
    length = len(os.fsencode(scratch + BELOW))
    if "$" in scratch:
        yield Finding(
            "ok",
            "socket path",
            f"{scratch} is looked up on the node; keep it under {SOCKET_PATH - len(BELOW)} bytes",
        )
    elif length > SOCKET_PATH:
        fix = f"set `scratch` in the site file to a path of at most {SOCKET_PATH - len(BELOW)} bytes"
        yield Finding(
            "FAIL",
            "socket path",
            f"{length} bytes below {scratch}, the system takes {SOCKET_PATH}",
            fix,
            certain=False,
        )
    else:
        yield Finding("ok", "socket path", f"{length} of {SOCKET_PATH} bytes below {scratch}")


def gpus(site: Site) -> Finding:
    """The GPUs that torch and the driver see. A login node needs none."""
    import torch

    seen = torch.cuda.device_count()
    driver = _driver()
    if driver and not seen:
        fix = f"torch {torch.__version__} needs a newer driver, or CUDA_VISIBLE_DEVICES hides them"
        return Finding("FAIL", "gpus", f"the driver sees {driver}, torch sees none", fix, certain=False)
    if seen < site.gpus_per_node:
        if "SLURM_JOB_ID" in os.environ:
            fix = "ask for them, or correct `gpus_per_node`"
            return Finding(
                "FAIL",
                "gpus",
                f"{seen} in this job, the site says {site.gpus_per_node} per node",
                fix,
                certain=False,
            )
        measured = f"{seen} here, {site.gpus_per_node} on each node of the site"
        return Finding("warn", "gpus", measured, "run `leukotree doctor` in a job (srun) to look at them")
    if not seen:
        return Finding("ok", "gpus", "none here, and the site asks for none")
    names = ", ".join(sorted({torch.cuda.get_device_name(index) for index in range(seen)}))
    return Finding("ok", "gpus", f"{seen} x {names}, CUDA {torch.version.cuda}, {driver or 'no nvidia-smi'}")


def _driver() -> str:
    """Number and driver of the GPUs, from nvidia-smi; empty without it."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = done.stdout.strip().splitlines() if done.returncode == 0 else []
    return f"{len(lines)} GPU(s), driver {lines[0].rpartition(',')[2].strip()}" if lines else ""


def all_reduce(ranks: int, runtime: Runtime) -> Finding:
    """Whether an all-reduce over local ranks is right, and how fast it is: NCCL with GPUs, Gloo without."""
    from hpc.launching.ranks import in_ranks
    from leukotree.bench import all_reduce as reduce

    try:
        speed, backend = in_ranks(reduce.probe, 0.5, runtime=runtime, ranks=ranks)
    except (InputError, RunFailed) as error:
        fix = "see NCCL_DEBUG=INFO, or the site's `interface`"
        return Finding(
            "FAIL", "all-reduce", f"{ranks} local ranks: {one_line(error)[:300]}", fix, certain=False
        )
    return Finding("ok", "all-reduce", f"{ranks} local ranks, {backend}: right, {speed:.2g} GB/s")
