"""Whether the nodes of a cluster have what the jobs of a site ask for."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from hpc.finding import Finding
from hpc.slurm.scheduler import NoAnswer, ask_once
from hpc.slurm.site_model import Site

UNUSABLE = re.compile(r"down|drain|fail|maint|inval|unk|power", re.IGNORECASE)
"""States of nodes that take no job now."""


@dataclass(frozen=True)
class Node:
    """One node, as `sinfo` lists it."""

    name: str
    cpus: int
    memory_mb: int
    gpus: dict[str, int]
    """Number of GPUs by type; the type is empty where SLURM names none."""
    features: frozenset[str]
    state: str

    def gpus_of(self, kind: str | None) -> int:
        """The number of GPUs of a type (None: of any type)."""
        return sum(count for name, count in self.gpus.items() if kind in (None, name))


def nodes_for(site: Site, partitions: list[str]) -> Finding:
    """Whether partitions have enough nodes with what a job asks for. It is certain where nodes lack it,
    whether they are up or not.

    Raises NoAnswer.
    """
    nodes = _read(partitions) if partitions else []
    if not nodes:
        raise NoAnswer(f"sinfo shows no node of {', '.join(partitions) or 'any partition'}")
    fit = nodes
    for what, has in _wanted(site).items():
        fitting = [node for node in fit if has(node)]
        if len(fitting) < site.nodes:
            measured = (
                f"{len(fitting)} of {len(nodes)} nodes have {what}, the site asks for {site.nodes} "
                f"({_largest(nodes)})"
            )
            return Finding("warn", "nodes", measured, "ask for less in the site file")
        fit = fitting
    up = [node for node in fit if not UNUSABLE.search(node.state)]
    measured = f"{len(fit)} of {len(nodes)} nodes have what a job asks for, {len(up)} of them are up"
    if len(up) < site.nodes:
        return Finding(
            "warn", "nodes", measured, f"jobs wait until {site.nodes} are: see `sinfo -R`", certain=False
        )
    return Finding("ok", "nodes", measured)


def _wanted(site: Site) -> dict[str, Callable[[Node], bool]]:
    """Requirement of a job, in words -> whether a node meets it."""
    cpus, memory = site.cpus_per_task * max(1, site.gpus_per_node), (site.mem_gb or 0) * 1024
    gpus = f"{site.gpus_per_node} GPUs" + (f" of type {site.gpu_type}" if site.gpu_type else "")
    wanted: dict[str, Callable[[Node], bool]] = {
        f"{cpus} cores (cpus_per_task)": lambda node: node.cpus >= cpus,
        f"{site.mem_gb} GB (mem_gb)": lambda node: node.memory_mb >= memory,
        f"{gpus} (gpus_per_node)": lambda node: node.gpus_of(site.gpu_type) >= site.gpus_per_node,
    }
    if site.constraint and re.fullmatch(r"[\w.&-]+", site.constraint):  # other operators only SLURM can weigh
        features = set(site.constraint.split("&"))
        wanted[f"{site.constraint} (constraint)"] = lambda node: features <= node.features
    return wanted


def _largest(nodes: list[Node]) -> str:
    cpus, memory, gpus = (
        max((number(node) for node in nodes), default=0)
        for number in (
            lambda node: node.cpus,
            lambda node: node.memory_mb // 1024,
            lambda node: node.gpus_of(None),
        )
    )
    kinds = ", ".join(sorted({kind for node in nodes for kind in node.gpus if kind}))
    return f"the largest has {cpus} cores, {memory} GB, {gpus} GPUs{f'; types: {kinds}' if kinds else ''}"


def _read(partitions: list[str]) -> list[Node]:
    """The nodes of partitions, each once. Raises NoAnswer, also where a line lacks fields."""
    nodes = {}
    for line in ask_once(
        "sinfo", "-h", "-N", "-p", ",".join(partitions), "-o", "%N|%c|%m|%G|%f|%T"
    ).splitlines():
        fields = line.strip().split("|", 5)
        if len(fields) < 6:
            raise NoAnswer(f"sinfo: {line.strip()[:200]!r} instead of the six fields asked for")
        name, cpus, memory, gres, features, state = fields
        gpus = {kind: int(count) for kind, count in re.findall(r"(?:^|,)gpu(?::([^:,(]+))?:(\d+)", gres)}
        cores, megabytes = (int(re.sub(r"\D", "", text) or 0) for text in (cpus, memory))
        nodes[name] = Node(name, cores, megabytes, gpus, frozenset(features.split(",")), state)
    return list(nodes.values())
