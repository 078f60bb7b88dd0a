"""Where runs happen: this process, local ranks or jobs, and how the ranks of one run are laid on nodes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from hpc.slurm import site as sites
from hpc.slurm.site_model import Site
from leukotree.errors import InputError

Where = Literal["inline", "local", "slurm"]


@dataclass(frozen=True)
class Place:
    """Where runs happen and on how many processes each. None of it decides a result, so none of it is in a
    spec."""

    on: Where = "inline"
    ranks: int = 1
    """Processes of one run, one per GPU."""
    nodes: int | None = None
    """Nodes of one run on SLURM; None takes as few as the site's GPUs allow."""
    site: Site = field(default_factory=sites.load)
    """The cluster; the site `default` if none is given."""

    def check(self) -> None:
        """Raises InputError where the ranks do not fit the nodes."""
        if self.on == "slurm":
            layout(self.ranks, self.nodes, self.site)
        elif (self.nodes or 1) > 1:
            raise InputError(f"--nodes {self.nodes}: several nodes need --on slurm")


def layout(ranks: int, nodes: int | None, site: Site) -> tuple[int, int]:
    """(nodes, ranks on each node) of a run; `nodes` None takes as few as the site's GPUs allow. Raises
    InputError."""
    nodes = nodes or (-(-ranks // site.gpus_per_node) if site.gpus_per_node else 1)
    if ranks % nodes:
        raise InputError(
            f"--ranks {ranks}: do not divide over {nodes} nodes; use a multiple of {nodes}, or set --nodes"
        )
    each = ranks // nodes
    if site.gpus_per_node and each > site.gpus_per_node:
        raise InputError(
            f"--nodes {nodes}: {each} ranks on each, but the site has {site.gpus_per_node} GPUs per node"
        )
    return nodes, each


def run_parameters(site: Site, nodes: int, each: int) -> dict[str, Any]:
    """Parameters of submitit for a run with `each` ranks on each of `nodes` nodes: one GPU per rank."""
    parameters = sites.submitit_parameters(site, each if site.gpus_per_node else 0)
    if site.gpus_per_node and site.mem_gb:  # the site's memory is that of a whole node
        parameters["mem_gb"] = max(1, site.mem_gb * each // site.gpus_per_node)
    return parameters | {"nodes": nodes, "tasks_per_node": each}
