"""The address and the port of the first rank, where the ranks of a job of several tasks meet."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import struct
import time
from pathlib import Path

from hpc.launching import job_files
from leukotree import files
from leukotree.errors import RunFailed

PORTS = 20000, 32000
"""Ports for the ranks. They lie below those that the kernel gives to outgoing connections."""
PATIENCE = 180.0
"""Seconds within which the first rank has to write its address, and a name has to resolve."""
SIOCGIFADDR = 0x8915
"""Linux's number of the request for an interface's address."""


def export_ranks(folder: Path) -> int:
    """Set the environment of torch.distributed inside a job of several tasks. Returns the number of tasks.
    All nodes see `folder`. Raises RunFailed of the kind "node" if the first rank's address is not known."""
    import submitit

    job = submitit.JobEnvironment()
    tasks = job.num_tasks
    if tasks > 1:
        # Another port each time the job is queued again: the one before may still be taken.
        start = f"{job.job_id} {os.environ.get('SLURM_RESTART_COUNT', 0)}"
        os.environ["MASTER_PORT"] = str(random.Random(start).randint(*PORTS))
        # LOCAL_RANK decides which GPU a rank takes, so CUDA_VISIBLE_DEVICES stays as the scheduler set it.
        submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        if job.num_nodes > 1:
            address_file = job_files.address(folder, job.job_id, os.environ.get("SLURM_RESTART_COUNT", "0"))
            os.environ["MASTER_ADDR"] = _agreed(address_file, os.environ["MASTER_ADDR"], job.global_rank == 0)
    return tasks


def _agreed(address_file: Path, host: str, first: bool) -> str:
    """The first rank's address on the site's interface; without an interface its host name, once that
    resolves. `first`: this is the first rank, which writes the address to the file. A host name does not
    resolve on every node."""
    interface = os.environ.get("LEUKOTREE_INTERFACE")
    if interface and first:
        address = address_of(interface)
        files.write_atomic(address_file, address)
        return address
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            if interface:
                return address_file.read_text()
            socket.getaddrinfo(host, None)
            return host
        except OSError:
            time.sleep(0.5)
    here = socket.gethostname()
    if interface:
        problem = f"the first rank, on {host}, has not written its address to {address_file}"
        raise RunFailed(f"{here}: {problem} within {PATIENCE:.0f} s", "node")
    raise RunFailed(
        f"{here}: the name of the first node, {host}, does not resolve; set `interface` in the site file",
        "node",
    )


def address_of(interface: str) -> str:
    """IPv4 address of a network interface of this machine. Raises RunFailed of the kind "node" if it has
    none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            answer = fcntl.ioctl(asked.fileno(), SIOCGIFADDR, struct.pack("256s", interface.encode()[:15]))
        except OSError:
            here = socket.gethostname()
            raise RunFailed(
                f"{here}: interface {interface!r} has no IPv4 address; see `interface` in the site file",
                "node",
            ) from None
    return socket.inet_ntoa(answer[20:24])
