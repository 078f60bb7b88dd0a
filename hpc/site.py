"""Site: everything that differs between clusters, so that no study or script has to.

`python -m hpc.site NAME` prints shell lines for use inside a job; `--sbatch` prints the options of `sbatch` instead.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator

from leukotree import yamlfile
from leukotree.errors import InputError
from leukotree.spec import Strict, parse

SITES = Path(__file__).resolve().parents[1] / "slurm" / "site"
DEFAULT = "default"

# Printable ASCII without spaces, quotes, `$`, "`" and backslash: the values also travel as `$(python -m hpc.site NAME --sbatch)`,
# which the shell splits at spaces.
Word = Annotated[str, Field(pattern=r"^[!#%&(-\[\]-_a-~]+$")]
# A path that a shell may read between double quotes: variables, but no commands.
Folder = Annotated[str, Field(pattern=r"^([A-Za-z0-9._/+-]|\$[A-Za-z_]+|\$\{[A-Za-z_]+\})+$")]


class Site(Strict):
    """One cluster: how to ask its SLURM for a job, and what the job finds there. None leaves the cluster's own default."""

    partition: Word | None = None
    """`--partition`; several with commas."""
    account: Word | None = None
    """`--account`, the project that pays."""
    qos: Word | None = None
    """`--qos`."""
    constraint: Word | None = None
    """`--constraint`, node features."""
    time: int = Field(240, ge=1)
    """Time limit of a job in minutes."""
    nodes: int = Field(1, ge=1)
    """Nodes of the sweep's Ray cluster. How many a run takes follows from its ranks, or from --nodes."""
    gpus_per_node: int = Field(0, ge=0)
    """GPUs that a job takes on each node; 0 trains on the CPU."""
    cpus_per_task: int = Field(4, ge=1)
    """CPU cores of one rank. The sweep takes this many for each GPU of a node (once, without GPUs)."""
    mem_gb: int | None = Field(None, ge=1)
    """Memory of a job on each node, in GB."""
    max_array_size: int | None = Field(None, ge=2)
    """Most jobs in one array. None asks SLURM for its MaxArraySize."""
    array_parallelism: int = Field(256, ge=1)
    """Most jobs of an array that run at the same time."""
    warn: int = Field(120, ge=10)
    """Seconds before the time limit at which a run is told to save and leave; its job is then queued again."""
    interface: Word | None = None
    """Network interface between the nodes, for Gloo, NCCL and Ray. None lets each choose."""
    scratch: Folder | None = None
    """Node-local folder for temporary files, where `$NAME` is looked up. Keep it short: a socket's path ends at 107 bytes."""
    setup: tuple[str, ...] = ()
    """Shell lines run at the start of every job, for example `module load cuda`."""
    extra: dict[Word, bool | int | Word] = {}  # noqa: RUF012 - pydantic copies it
    """Further options of sbatch, by their long names without dashes. `true` for an option without a value."""

    @field_validator("extra")
    @classmethod
    def _not_named_above(cls, extra: dict[str, Any]) -> dict[str, Any]:
        for name in extra:
            if name.replace("-", "_") in cls.model_fields or name in {"mem", "gpus-per-node", "array"}:
                raise ValueError(f"{name!r} has a key of its own in a site file, or is set by the launcher")
            if extra[name] is False:
                raise ValueError(f"{name!r}: leave an option out instead of setting it to false")
        return extra

    @field_validator("setup")
    @classmethod
    def _single_lines(cls, lines: tuple[str, ...]) -> tuple[str, ...]:
        if any("\n" in line or not line.strip() for line in lines):
            raise ValueError("each entry is one line of shell, not empty")
        return lines


def known() -> list[str]:
    """Names of the site files in slurm/site/."""
    return sorted(path.stem for path in SITES.glob("*.yaml"))


def load(name_or_path: str | None = None) -> Site:
    """The site slurm/site/<name>.yaml, or the one in a file (anything with a `/` or ending in .yaml); None is `default`.

    Raises InputError for an unknown name (listing the known ones), an unreadable file, or a bad key or value.
    """
    name = name_or_path or DEFAULT
    is_path = "/" in name or name.endswith((".yaml", ".yml"))
    path = Path(name) if is_path else SITES / f"{name}.yaml"
    if not is_path and name not in known():
        raise InputError(f"site {name!r}: unknown; known sites: {', '.join(known()) or 'none'}; or give the path of a YAML file")
    tree = yamlfile.load(path)
    return parse(Site, {} if tree is None else tree, str(path))


def environment(site: Site) -> dict[str, str]:
    """Environment variables that a job of this site needs, their values as a shell reads them."""
    names: dict[str, str] = {}
    if site.interface:
        wanted = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "LEUKOTREE_INTERFACE")
        names |= dict.fromkeys(wanted, shlex.quote(site.interface))
    if site.scratch:
        names["LEUKOTREE_SCRATCH"] = f'"{site.scratch}"'
    return names


def submitit_parameters(site: Site) -> dict[str, Any]:
    """Keyword arguments for `submitit.AutoExecutor.update_parameters`, for jobs of one node.

    `tasks_per_node` and the job's name are the caller's. Keys that the site leaves to the cluster are absent.
    """
    requeue = {} if {"requeue", "no-requeue"} & set(site.extra) else {"requeue": True}
    parameters = {
        "timeout_min": site.time,
        "nodes": 1,
        "cpus_per_task": site.cpus_per_task,
        "gpus_per_node": site.gpus_per_node or None,
        "mem_gb": site.mem_gb,
        "slurm_partition": site.partition,
        "slurm_account": site.account,
        "slurm_qos": site.qos,
        "slurm_constraint": site.constraint,
        "slurm_array_parallelism": site.array_parallelism,
        "slurm_setup": setup_lines(site),
        "slurm_signal_delay_s": site.warn,
        # A rank that dies ends its peers. srun does not take the cores of a task over from sbatch.
        "slurm_srun_args": ["--kill-on-bad-exit=1", f"--cpus-per-task={site.cpus_per_task}"],
        "slurm_additional_parameters": {**requeue, **site.extra},
    }
    return {key: value for key, value in parameters.items() if value not in (None, [], {})}


def setup_lines(site: Site) -> list[str]:
    """Shell lines for the start of a job: the site's own first (a module may set a variable that we then replace)."""
    return [*site.setup, *(f"export {name}={value}" for name, value in environment(site).items())]


def shell_exports(site: Site) -> str:
    """`setup_lines` as text for `eval`. Used inside a job by slurm/sweep.sh."""
    return "".join(f"{line}\n" for line in setup_lines(site))


def sbatch_options(site: Site, small: bool = False) -> list[str]:
    """Options of `sbatch` for the sweep: one task on each of the site's nodes. `small`: one core, no GPU, for the report."""
    size: dict[str, Any] = {
        "nodes": site.nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": site.cpus_per_task * max(1, site.gpus_per_node),
        "gpus-per-node": site.gpus_per_node or None,
        "mem": f"{site.mem_gb}G" if site.mem_gb else None,
    }
    options = {
        "partition": site.partition,
        "account": site.account,
        "qos": site.qos,
        "constraint": site.constraint,
        "time": site.time,
        **({"nodes": 1, "ntasks": 1} if small else size),
        **site.extra,
    }
    return [f"--{name}" if value is True else f"--{name}={value}" for name, value in options.items() if value is not None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print shell lines (or, with --sbatch, options) of a site. Returns 2 after one line on stderr for bad input."""
    parser = argparse.ArgumentParser(prog="python -m hpc.site", description=__doc__)
    parser.add_argument("site", nargs="?", help="name in slurm/site/, or path of a YAML file (default: default)")
    parser.add_argument("--sbatch", action="store_true", help="print options of sbatch on one line, instead of shell lines")
    parser.add_argument("--small", action="store_true", help="with --sbatch: for a job of one core without GPUs")
    given = parser.parse_args(arguments)
    try:
        site = load(given.site)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(" ".join(sbatch_options(site, given.small)) if given.sbatch else shell_exports(site), end="\n" if given.sbatch else "")
    return 0


if __name__ == "__main__":
    sys.exit(main())
