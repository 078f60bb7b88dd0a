"""Where the ranks of a job of several tasks meet: the address and the port of the first one."""

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
"""Where ranks meet. Below the ports that the kernel gives to outgoing connections."""
PATIENCE = 180.0
"""Seconds within which the first rank has to say its address, and a name has to resolve."""
SIOCGIFADDR = 0x8915
"""Linux's number of the question for an interface's address."""


def export_ranks(folder: Path) -> int:
    """Give torch.distributed its environment inside a job of several tasks. Returns the number of tasks.
    `folder` is seen by all nodes. Raises RunFailed of the kind "node" where the first rank's address is not
    to be had."""
    import submitit

    job = submitit.JobEnvironment()
    tasks = job.num_tasks
    if tasks > 1:
        # Another port each time the job is queued again: one that was taken once may be taken still.
        start = f"{job.job_id} {os.environ.get('SLURM_RESTART_COUNT', 0)}"
        os.environ["MASTER_PORT"] = str(random.Random(start).randint(*PORTS))
        # Which GPU a rank takes follows from LOCAL_RANK, so CUDA_VISIBLE_DEVICES stays as the scheduler set
        # it.
        submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        if job.num_nodes > 1:
            place = job_files.address(folder, job.job_id, os.environ.get("SLURM_RESTART_COUNT", "0"))
            os.environ["MASTER_ADDR"] = _agreed(place, os.environ["MASTER_ADDR"], job.global_rank == 0)
    return tasks


def _agreed(place: Path, host: str, first: bool) -> str:
    """The first rank's address on the site's interface, which it leaves in the file `place`; its name
    resolves not everywhere. Without an interface its name, once that resolves."""
    interface = os.environ.get("LEUKOTREE_INTERFACE")
    if interface and first:
        address = address_of(interface)
        files.write_atomic(place, address)
        return address
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            if interface:
                return place.read_text()
            socket.getaddrinfo(host, None)
            return host
        except OSError:
            time.sleep(0.5)
    here = socket.gethostname()
    if interface:
        raise RunFailed(
            f"{here}: the first rank, on {host}, has not said its address within {PATIENCE:.0f} s in {place}",
            "node",
        )
    raise RunFailed(
        f"{here}: the name of the first node, {host}, does not resolve; set `interface` in the site file",
        "node",
    )


def address_of(interface: str) -> str:
    """IPv4 address of a network interface of this machine. Raises RunFailed of the kind "node" where it has
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
