"""How many trials fit on the nodes of a Ray cluster, and what each of them gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from leukotree.errors import InputError


@dataclass(frozen=True)
class SlotPlan:
    """The slots of a sweep. A slot is a process that trains one trial after another."""

    cpus: int
    """Cores of each rank of a trial."""
    gpus: float
    """GPUs of each rank of a trial. Below 1 several trials share a GPU."""
    count: int
    """Number of slots."""
    ranks: int = 1
    """Processes of one trial."""

    @property
    def devices(self) -> float:
        """GPUs of one trial; its number of processes where there are no GPUs."""
        return self.ranks * (self.gpus or 1)


def plan_slots(
    nodes: Sequence[Mapping[str, float]],
    cpus: int | None,
    gpus: float | None,
    concurrency: int | None = None,
    ranks: int = 1,
) -> SlotPlan:
    """The slots that fit on the nodes, at most `concurrency`. All ranks of a slot are on one node.

    Raises InputError if no slot fits, and for several ranks that share a GPU.

    Args:
        nodes: the resources of each node: CPU, GPU.
        cpus: cores per rank; None for its GPU's share of the cores of a node, or 1 without GPUs.
        gpus: GPUs per rank; None for 1 if any node has a GPU.
    """
    if gpus is None:
        gpus = min(1.0, max(node.get("GPU", 0.0) for node in nodes))
    if ranks > 1 and gpus % 1:
        raise InputError(
            f"--gpus-per-trial {gpus:g}: each of the {ranks} ranks of a trial takes whole GPUs; use 1"
        )
    on_gpus = [_ranks_on_gpus(node, gpus) for node in nodes]
    cores = [int(node.get("CPU", 0)) for node in nodes]
    if cpus is None:
        shares = [have // most for have, most in zip(cores, on_gpus, strict=True) if most]
        cpus = max(1, min(shares, default=1))
    fitting = [
        have // cpus if most is None else min(have // cpus, most)
        for have, most in zip(cores, on_gpus, strict=True)
    ]
    count = sum(fit // ranks for fit in fitting)
    if not count:
        raise InputError(
            f"no node of Ray has the {cpus * ranks} cores and {gpus * ranks:g} GPUs of a trial; ask for fewer"
        )
    return SlotPlan(cpus, gpus, min(count, concurrency or count), ranks)


def _ranks_on_gpus(node: Mapping[str, float], gpus: float) -> int | None:
    """The number of ranks that the GPUs of a node can serve; None if ranks take no GPU."""
    if not gpus:
        return None
    if gpus > 1:
        return int(node.get("GPU", 0) // gpus)
    return int(node.get("GPU", 0)) * int(1 / gpus)  # a share of one GPU, never parts of two


def slots_on(nodes: Sequence[Mapping[str, float]], plan: SlotPlan) -> int:
    """The number of slots of a plan that fit on the nodes."""

    def on_node(node: Mapping[str, float]) -> int:
        on_cores = int(node.get("CPU", 0)) // plan.cpus
        on_gpus = int(node.get("GPU", 0) / plan.gpus + 1e-9) if plan.gpus else on_cores
        return min(on_cores, on_gpus) // plan.ranks

    return sum(on_node(node) for node in nodes)
