"""The site files of clusters, and what a site gives to a job: options of sbatch and lines of shell.

`python -m hpc.slurm.site NAME` prints shell lines for use inside a job; `--sbatch` prints the options of
`sbatch` instead.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpc.slurm import container, exported
from hpc.slurm.site_model import Site
from leukotree import yamlfile
from leukotree.config import parse
from leukotree.errors import InputError

SITES = Path(__file__).resolve().parents[2] / "slurm" / "site"
DEFAULT = "default"
REFUSED = "--the-site-is-bad"
"""Not an option of sbatch, which therefore refuses it."""


def known() -> list[str]:
    """Names of the site files in slurm/site/."""
    return sorted(path.stem for path in SITES.glob("*.yaml"))


def load(name_or_path: str | None = None) -> Site:
    """The site slurm/site/<name>.yaml, or the one in a file (anything with a `/` or ending in .yaml); None is
    `default`.

    Keys that the site leaves out are taken from the variables that the user exports for sbatch.
    Raises InputError for an unknown name (listing the known ones), an unreadable file, or a bad key or value.
    """
    name = name_or_path or DEFAULT
    is_path = "/" in name or name.endswith((".yaml", ".yml"))
    path = Path(name) if is_path else SITES / f"{name}.yaml"
    if not is_path and name not in known():
        names = ", ".join(known()) or "none"
        raise InputError(f"site {name!r}: unknown; known sites: {names}; or give the path of a YAML file")
    tree = yamlfile.load(path)
    site = exported.fill(parse(Site, {} if tree is None else tree, str(path)))
    container.check(site)
    return site


def environment(site: Site) -> dict[str, str]:
    """Environment variables that a job of this site needs, their values as a shell reads them."""
    names: dict[str, str] = {}
    if site.interface:
        wanted = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "LEUKOTREE_INTERFACE")
        names |= dict.fromkeys(wanted, shlex.quote(site.interface))
    if site.scratch:
        names["LEUKOTREE_SCRATCH"] = f'"{site.scratch}"'
    if site.elastic:
        names["LEUKOTREE_ELASTIC"] = f'"${{LEUKOTREE_ELASTIC:-{site.elastic}}}"'
    return names


def gpus(site: Site, count: int) -> dict[str, str]:
    """The option of sbatch that asks for `count` GPUs of each node; empty for none."""
    if not count:
        return {}
    wanted = f"{site.gpu_type}:{count}" if site.gpu_type else str(count)
    if site.gpu_option == "gpus-per-node":
        return {"gpus-per-node": wanted}
    others = site.extra.get("gres")  # SLURM takes the last --gres alone
    return {"gres": f"gpu:{wanted},{others}" if others else f"gpu:{wanted}"}


def submitit_parameters(site: Site, gpus_per_node: int | None = None, small: bool = False) -> dict[str, Any]:
    """Keyword arguments for `hpc.launching.arrays.slurm_executor`, for jobs of one node.

    The caller adds `tasks_per_node` and the job's name. Keys that the site leaves to the cluster are absent.

    Args:
        gpus_per_node: GPUs of the job on each node (None: the site's).
        small: for a job of one core without GPUs.
    """
    where = small_site(site) if small else site
    count = where.gpus_per_node if gpus_per_node is None else gpus_per_node
    requeue = {} if {"requeue", "no-requeue"} & set(where.extra) else {"requeue": True}
    parameters = {
        "timeout_min": where.time,
        "nodes": 1,
        "cpus_per_task": where.cpus_per_task,
        "mem_gb": where.mem_gb,
        "slurm_partition": where.partition,
        "slurm_account": where.account,
        "slurm_qos": where.qos,
        "slurm_wckey": where.wckey,
        "slurm_constraint": where.constraint,
        "slurm_array_parallelism": where.array_parallelism,
        "slurm_setup": setup_lines(where),
        "slurm_python": container.PYTHON if where.container else None,
        "slurm_signal_delay_s": where.warn,
        "slurm_srun_args": ["--export=ALL", *(() if small else _of_ranks(where))],
        "slurm_additional_parameters": {
            **requeue,
            **where.extra,
            **gpus(where, count),
            **(mail(where) if small else {}),
        },
    }
    return {key: value for key, value in parameters.items() if value not in (None, [], {})}


def _of_ranks(site: Site) -> list[str]:
    """Arguments of the srun that starts the ranks of a run."""
    # A rank that dies ends the others. srun does not take the number of cores of a task from sbatch.
    return ["--kill-on-bad-exit=1", f"--cpus-per-task={site.cpus_per_task}", *site.srun_args]


def small_site(site: Site) -> Site:
    """The site for small jobs: one core, no GPU, and nothing that is meant for large nodes."""
    small = site.small.model_dump(exclude_none=True)
    none = {
        "gpus_per_node": 0,
        "gpu_type": None,
        "cpus_per_task": 1,
        "mem_gb": None,
        "nodes": 1,
        "constraint": None,
    }
    return site.model_copy(update=none | small)


def worker_site(site: Site) -> Site:
    """The site for a worker of an elastic search: one node, or one GPU of it with its share of the rest."""
    if site.worker == "node" or not site.gpus_per_node:
        return site.model_copy(update={"nodes": 1})
    memory = max(1, site.mem_gb // site.gpus_per_node) if site.mem_gb else None
    return site.model_copy(update={"nodes": 1, "gpus_per_node": 1, "mem_gb": memory})


def mail(site: Site) -> dict[str, str]:
    """Options of sbatch for the mail about a job; empty without an address."""
    return {"mail-user": site.mail, "mail-type": site.mail_type} if site.mail else {}


def setup_lines(site: Site) -> list[str]:
    """Lines of bash for the start of a job. The site's own lines come first: a module may set a variable that
    is then replaced."""
    exports = [f"export {name}={value}" for name, value in environment(site).items()]
    return [*site.setup, *exports, *container.setup_lines(site)]


def shell_exports(site: Site) -> str:
    """`setup_lines` and the array `srun_args` as text for `eval`, inside a job of slurm/sweep.sh."""
    of_srun = [f"srun_args=({shlex.join(site.srun_args)})"] if site.srun_args else []
    return "".join(f"{line}\n" for line in [*setup_lines(site), *of_srun])


def sbatch_options(site: Site, small: bool = False) -> list[str]:
    """Options of `sbatch` for the sweep: one task on each of the site's nodes. `small`: one core, no GPU, for
    the report."""
    where = small_site(site) if small else site
    size: dict[str, Any] = {
        "nodes": site.nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": site.cpus_per_task * max(1, site.gpus_per_node),
    }
    options = {
        "partition": where.partition,
        "account": where.account,
        "qos": where.qos,
        "wckey": where.wckey,
        "constraint": where.constraint,
        "time": where.time,
        **({"nodes": 1, "ntasks": 1} if small else size),
        "mem": f"{where.mem_gb}G" if where.mem_gb else None,
        **where.extra,
        **gpus(where, where.gpus_per_node),
        **mail(where),
    }
    return [
        f"--{name}" if value is True else f"--{name}={value}"
        for name, value in options.items()
        if value is not None
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print shell lines (or, with --sbatch, options) of a site. Returns 2 after one line on stderr for bad
    input."""
    parser = argparse.ArgumentParser(prog="python -m hpc.slurm.site", description=__doc__)
    parser.add_argument(
        "site", nargs="?", help="name in slurm/site/, or path of a YAML file (default: default)"
    )
    parser.add_argument(
        "--sbatch", action="store_true", help="print options of sbatch on one line, instead of shell lines"
    )
    parser.add_argument(
        "--small", action="store_true", help="with --sbatch: for a job of one core without GPUs"
    )
    given = parser.parse_args(arguments)
    try:
        site = load(given.site)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        if given.sbatch:  # `sbatch $(...)` runs whatever this exits with; such an option it refuses
            print(REFUSED)
        return 2
    if given.sbatch:
        small = given.small or site.elastic is not None  # the head of an elastic search computes nothing
        print(*exported.through(sbatch_options(site, small), ["SITE", *exported.named()]))
    else:
        print(shell_exports(site), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
