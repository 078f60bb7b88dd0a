"""Whether sbatch would take the jobs of a site. Only sbatch itself refuses; other checks explain its
refusal."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc.finding import Finding
from hpc.launching import arrays
from hpc.launching.place import layout, run_parameters
from hpc.search import elastic
from hpc.slurm import scheduler
from hpc.slurm import site as sites
from hpc.slurm.outside import outside_a_job
from hpc.slurm.site_model import Site

PASSES = re.compile(
    r"node configuration is not available|not available \(|nodes are busy|policy", re.IGNORECASE
)
"""Refusals that may end: sbatch --test-only counts nodes that are down as missing, and a limit may be used up
only for now."""
EMPTY = "#!/bin/sh\n"
EXPLAIN = ("partition", "time limit", "nodes", "account", "qos")
"""Findings that may explain a refusal of sbatch."""


@dataclass(frozen=True)
class Kind:
    """Jobs with the same options."""

    name: str
    options: Sequence[str]
    script: str
    need: Site
    """A site that asks for exactly what one of these jobs asks for."""


def judge(
    site: Site,
    guesses: Sequence[Finding],
    lacking: Callable[[Site], bool],
    ranks: int = 1,
    nodes: int | None = None,
    sweep: bool = False,
) -> Iterator[Finding]:
    """One finding for each kind of job: of runs with so many ranks, small jobs, workers, and with `sweep` the
    search.

    Args:
        guesses: findings that may explain a refusal.
        lacking: whether too few nodes, up or not, have what a site asks for. Then a refusal that could pass
            does not.

    Raises InputError where the ranks do not fit the site.
    """
    why = "; ".join(
        f"{one.what}: {one.measured}; {one.fix}" for one in guesses if one.fix and one.what in EXPLAIN
    )
    for kind in _kinds(site, ranks, nodes, sweep):
        try:
            refused = refusal(kind.options, kind.script)
        except (scheduler.NoAnswer, scheduler.Refused) as error:
            yield Finding("warn", kind.name, f"not tested: {error}", "they are queued all the same")
            continue
        if not refused:
            yield Finding("ok", kind.name, "sbatch takes them")
            continue
        lasting = not PASSES.search(refused) or lacking(kind.need)
        yield Finding(
            "FAIL" if lasting else "warn",
            kind.name,
            f"sbatch refuses: {refused}",
            why or "fix the site file",
        )


def _kinds(site: Site, ranks: int, nodes: int | None, sweep: bool) -> Iterator[Kind]:
    nodes, each = layout(ranks, nodes, site)
    parameters = run_parameters(site, nodes, each)
    script = arrays.slurm_executor(Path("jobs"), parameters)._make_submission_file_text("true", "")
    gpus = each if site.gpus_per_node else 0
    cores = site.cpus_per_task if gpus else site.cpus_per_task * each
    share = {
        "nodes": nodes,
        "gpus_per_node": gpus,
        "cpus_per_task": cores,
        "mem_gb": parameters.get("mem_gb"),
    }
    yield Kind("jobs of runs", [], script, site.model_copy(update=share))
    yield Kind("small jobs", sites.sbatch_options(site, small=True), EMPTY, sites.small_site(site))
    if site.elastic:
        yield Kind("jobs of workers", elastic.worker_options(site), EMPTY, sites.worker_site(site))
    if sweep:
        yield Kind("jobs of sweeps", sites.sbatch_options(site), EMPTY, site)


def refusal(options: Sequence[str], script: str) -> str | None:
    """Why sbatch would refuse a job, in its own words; None if it takes it. Raises NoAnswer where it does not
    answer."""
    with outside_a_job():
        done = scheduler.answer(
            "sbatch",
            "--test-only",
            *options,
            script=script,
            pauses=scheduler.QUICK_PAUSES,
            limit=scheduler.QUICK,
        )
    if not done.returncode:
        return None
    lines = [re.sub(r"^(sbatch|allocation): ?|^allocation ", "", line) for line in done.stderr.splitlines()]
    words = [
        line.removeprefix("error: ").removeprefix("failure: ")
        for line in lines
        if not line.startswith("Try ")
    ]
    return "; ".join(words)[:300] or f"exit code {done.returncode}"
