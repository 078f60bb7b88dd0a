"""Where the trials of a sweep run, and what each of them gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpc.search import slot_plan
from hpc.search.elastic import Elastic
from hpc.search.slot_plan import SlotPlan
from leukotree.runtime import Runtime


@dataclass(frozen=True)
class TrialPlace:
    """Where the trials of a sweep run, and what each of them gets. None of it decides a result, so none of it
    is in a study."""

    address: str | None = None
    """The Ray cluster to join; "auto" finds it. None starts one on this machine for the time of the sweep."""
    nodes: int = 1
    """Trials start once the joined Ray cluster has this many nodes."""
    ranks: int = 1
    """Processes of one trial."""
    cpus: int | None = None
    """Cores of each rank. None: the share of its GPUs, or 1 without GPUs."""
    gpus: float | None = None
    """GPUs of each rank. None: 1 if there are any. 0.25: four trials of one rank share a GPU."""
    concurrency: int | None = None
    """Most trials at once. None: as many as fit."""
    elastic: Elastic | None = None
    """The trials run on workers that come and go. `address` is then a Ray cluster that has no other nodes."""

    def plan(self, nodes: Sequence[Mapping[str, float]], runtime: Runtime) -> SlotPlan:
        """The slots on nodes with these resources. Raises InputError if no trial fits."""
        gpus = 0.0 if runtime.device == "cpu" else self.gpus
        return slot_plan.plan_slots(nodes, self.cpus, gpus, self.concurrency, self.ranks)
