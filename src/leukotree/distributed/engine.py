"""A rank: its device, its number, and the process group that it joins."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from leukotree.distributed import allocator, peers
from leukotree.distributed.agreement import Agreement
from leukotree.errors import InputError, Preempted, RunFailed, one_line
from leukotree.runtime import MOST_WORKERS, Runtime
from leukotree.spec import EngineSpec

MEET = timedelta(minutes=5)
"""Time limit for all ranks to join the group. A collective may take longer."""

_NO_CUDA = "device cuda: this machine has no CUDA device; use --device cpu"


@dataclass(frozen=True)
class Engine:
    """One rank's view of the job. Made by `start`."""

    rank: int
    world: int
    device: torch.device
    deepspeed: Mapping[str, Mapping[str, Any]] | None = None
    """As `Runtime.deepspeed`."""
    agreement: Agreement = field(init=False)
    """The decisions of all ranks between two steps."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "agreement", Agreement(self.world))

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def pin(self) -> bool:
        """Whether batches lie in page-locked memory, which a GPU copies without making the host wait."""
        return self.device.type == "cuda"

    def autocast(self, spec: EngineSpec) -> contextlib.AbstractContextManager[Any]:
        """The context of a forward pass in the spec's precision."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=spec.precision == "bf16")

    def seed(self, value: int) -> None:
        """Seed torch's generators of the CPU and of this rank's device, with which a step draws.

        `torch.manual_seed` seeds those of every kind of device. Where there is none it notes that for later,
        with the stack: 3 ms, and memory, in each step on the CPU.
        """
        torch.default_generator.manual_seed(value)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(value)

    def put(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy on the device. The host does not wait for it, as page-locked memory allows."""
        return (tensor.pin_memory() if self.pin else tensor).to(self.device, non_blocking=True)

    def default_workers(self) -> int:
        """Decoding threads of this rank: its share of the cores, without those that compute.

        Every rank calls it.
        """
        cores = sorted(os.sched_getaffinity(0))
        # A scheduler may bind each rank of a machine to different cores, or let ranks share them.
        sharing = self.gather((socket.gethostname(), cores)).count((socket.gethostname(), cores))
        computing = torch.get_num_threads() if self.device.type == "cpu" else 1
        return min(MOST_WORKERS, max(1, len(cores) // sharing - computing))

    def gather(self, value: Any) -> list[Any]:
        """The value of every rank, in rank order, on every rank."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        if self.world > 1:
            dist.barrier()


def require_device(wanted: str) -> None:
    """Raises InputError if CUDA is asked for and absent. Inside a SLURM job `start` raises the error."""
    if wanted == "cuda" and not torch.cuda.is_available() and "SLURM_JOB_ID" not in os.environ:
        raise InputError(_NO_CUDA)


def _device(wanted: str) -> torch.device:
    """The device of this rank.

    Raises InputError if CUDA is asked for and absent, or has fewer devices than ranks. Inside a SLURM job an
    absent CUDA is RunFailed of the kind "node": the job has a GPU, and the GPU or its driver is broken.
    """
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    rank = int(os.environ.get("LOCAL_RANK", 0))
    if not count and "SLURM_JOB_ID" in os.environ:
        raise RunFailed(
            f"{socket.gethostname()}: the job asked for a GPU, but there is no CUDA device that works", "node"
        )
    if not count:
        raise InputError(_NO_CUDA)
    if count == 1 and "SLURM_PROCID" in os.environ:  # SLURM may show each task only its own GPU
        rank = 0
    if rank >= count:
        raise InputError(
            f"--ranks: rank {rank} of this machine has no GPU: there are {count}, one per rank; "
            "use fewer ranks"
        )
    return torch.device("cuda", rank)


def settle(device: torch.device) -> None:
    """Let this process compute fp32 in full precision on a device, and keep freed memory on the CPU."""
    torch.set_float32_matmul_precision("highest")  # a variable of NVIDIA's containers asks for TF32
    if device.type == "cpu":
        allocator.keep_freed_memory()
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # it would round fp32 convolutions


@contextlib.contextmanager
def start(runtime: Runtime) -> Iterator[Engine]:
    """The engine of this process, inside the process group of RANK and WORLD_SIZE.

    Without those variables there is one process. Raises as `_device` and `_join`.
    """
    world, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    if runtime.threads:
        torch.set_num_threads(runtime.threads)
    device = _device(runtime.device)
    settle(device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    engine = Engine(rank, world, device, runtime.deepspeed)
    if world == 1 or (dist.is_initialized() and dist.get_world_size() == world):
        yield engine
        return
    _join("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        with peers.watched(rank, world):
            yield engine
    except (Preempted, GeneratorExit):  # all ranks end at the same step
        _leave(engine)
        raise
    # After another error no rank waits here: the others may be in a collective. Its process ends instead.
    _leave(engine)


def _join(backend: str) -> None:
    """Form the process group.

    Raises RunFailed of the kind "node" if not all ranks join within MEET. torch alone would wait for as long
    as for a collective.
    """
    where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    try:
        store, rank, world = next(dist.rendezvous("env://", timeout=MEET))
    except (dist.DistNetworkError, dist.DistStoreError) as error:
        here = socket.gethostname()
        raise RunFailed(
            f"{here}: the ranks did not meet at {where}: {one_line(error)[:200]}", "node"
        ) from error
    store.set_timeout(dist.constants.default_pg_timeout)
    dist.init_process_group(backend, store=dist.PrefixStore("ranks", store), rank=rank, world_size=world)


def _leave(engine: Engine) -> None:
    engine.agreement.decided()  # the group must have no exchange in progress
    dist.destroy_process_group()
