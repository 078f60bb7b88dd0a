"""`leukotree doctor`: is this cluster ready for this study. Every submission runs the checks that take no
time.

Nothing is queued, trained or downloaded. Files that a check writes are removed.
"""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpc.doctor import node, slurm, work
from hpc.doctor.work import Work
from hpc.finding import Finding
from hpc.launching import results_folder
from hpc.slurm.site_model import Site
from hpc.studies import cells
from hpc.studies.study import RUNS, Study
from hpc.studies.study import load as load_study
from leukotree import spec as specs
from leukotree import tree_choice, yamlfile
from leukotree.errors import InputError, one_line
from leukotree.log import logger
from leukotree.runtime import Runtime
from leukotree.spec import MODEL_PER_DECISION, RunSpec


@dataclass(frozen=True)
class Diagnosis:
    """All findings, in the order in which they were made."""

    findings: list[Finding]

    @property
    def ready(self) -> bool:
        """False if something must be fixed before jobs can do their work."""
        return not any(finding.state == "FAIL" for finding in self.findings)

    def lines(self) -> list[str]:
        """A line for each finding, and a verdict."""
        count = {
            state: sum(finding.state == state for finding in self.findings) for state in ("FAIL", "warn")
        }
        verdict = "ready" if self.ready else "not ready"
        return [
            *(finding.line() for finding in self.findings),
            f"{verdict}: {count['FAIL']} FAIL, {count['warn']} warn",
        ]

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {"ready": self.ready, "findings": [_as_dict(finding) for finding in self.findings]}


def _as_dict(finding: Finding) -> dict[str, Any]:
    fields = asdict(finding)
    return {"mend" if name == "fix" else name: value for name, value in fields.items()}  # scripts read "mend"


def examine(
    path: str | None,
    overrides: Iterable[str],
    *,
    site: Site,
    on_slurm: bool,
    ranks: int | None,
    runtime: Runtime,
) -> Diagnosis:
    """Check everything that can be known here about this machine and site, and about the runs of a study or
    spec.

    Args:
        path: the file of a study or spec (None: only the machine and the site).
        overrides: changes to it.
        on_slurm: whether jobs will go to SLURM. Then its absence is a failure.
        ranks: processes of the all-reduce (None: the GPUs, at least two).

    Raises InputError for a file that is no study or spec.
    """
    from hpc.launching.devices import gpu_count

    planned = planned_by(read(path, list(overrides)), site, on_slurm) if path else None
    checks: list[Callable[[], Iterable[Finding]]] = [
        lambda: [node.versions()],
        lambda: slurm.check(site, needed=on_slurm, sweep=True),
        lambda: [node.gpus(site)],
        lambda: node.limits(site),
        lambda: results_folder.check(RUNS),
        lambda: work.room(planned, RUNS),
    ]
    if planned:
        checks += [
            lambda: work.data(planned, read=True),
            lambda: work.trees(planned),
            lambda: work.weights(planned, on_slurm),
        ]
    # One GPU alone tests no link. Two ranks on the CPU show at least that processes find each other.
    reducing = (
        dataclasses.replace(runtime, device="cpu") if not ranks and gpu_count(runtime) == 1 else runtime
    )
    checks.append(lambda: [node.all_reduce(ranks or max(2, gpu_count(runtime)), reducing)])
    return Diagnosis([finding for check in checks for finding in _guarded(check)])


def examine_node(ranks: int | None, runtime: Runtime) -> Diagnosis:
    """Check what a job checks on its node before a run begins. Each finding has the node's name. `ranks`: as
    for `examine`."""
    from hpc.launching import health
    from hpc.launching.devices import gpu_count

    links = (
        [lambda: [node.all_reduce(ranks or max(2, gpu_count(runtime)), runtime)]]
        if gpu_count(runtime) != 1 or ranks
        else []
    )
    host = socket.gethostname()
    findings = [one for check in (lambda: health.examine(RUNS), *links) for one in _guarded(check)]
    return Diagnosis([dataclasses.replace(one, what=f"{host}: {one.what}") for one in findings])


def require(
    subject: Study | RunSpec | Sequence[RunSpec] | None,
    site: Site,
    root: Path = RUNS,
    *,
    ranks: int = 1,
    nodes: int | None = None,
    sweep: bool = False,
) -> None:
    """Refuse what is sure to fail, before anything is submitted to SLURM. Takes about a second.

    Args:
        subject: what will be submitted, without what is done; None where that is not known yet.
        root: the folder of the run folders.
        ranks, nodes: processes and machines of each run's job.
        sweep: whether the job of the search will be submitted, too.

    Raises InputError with the first failure that does not depend on what only a compute node knows. Other
    problems are warnings in the log.
    """
    planned = None if subject is None else planned_by(subject, site, on_slurm=True)
    checks = (
        lambda: slurm.check(site, needed=True, ranks=ranks, nodes=nodes, sweep=sweep),
        lambda: results_folder.check(root),
        lambda: work.room(planned, root),
    )
    warnings = []
    for check in checks:
        for finding in check():
            if finding.state == "FAIL" and finding.certain:
                fix = f"; {finding.fix}" if finding.fix else ""
                raise InputError(f"{finding.what}: {finding.measured}{fix}; `leukotree doctor` says more")
            if finding.state != "ok":
                warnings.append(finding)
    for finding in warnings:
        logger.warning(finding.line())


def before_queue(path: str | None, overrides: Iterable[str], *, site: Site, ranks: int) -> None:
    """Do `require` for the file of a study or spec, or for a site alone. Raises InputError."""
    require(read(path, list(overrides)) if path else None, site, ranks=ranks)


def planned_by(subject: Study | RunSpec | Sequence[RunSpec], site: Site, on_slurm: bool) -> Work:
    """What a study, a spec or several specs will run. Each model and data set is listed once."""
    if isinstance(subject, Study):
        listed, runs = list(_corners(subject)), _runs(subject)
    else:
        listed = [subject] if isinstance(subject, RunSpec) else list(subject)
        runs = len(listed)
    kinds = {
        (
            spec.variant in MODEL_PER_DECISION,
            spec.data.shards,
            spec.data.repeat,
            spec.backbone,
            spec.data.inner is None,
            tree_choice.file(spec.tree),  # a permuted tree has models of the same size
        ): spec
        for spec in listed
    }
    on_trees = {(spec.data.shards, spec.tree): spec for spec in listed if spec.tree is not None}
    at_once = site.array_parallelism if on_slurm else len(os.sched_getaffinity(0))
    return Work(list(kinds.values()), runs, at_once, list(on_trees.values()))


def _corners(study: Study) -> Iterator[RunSpec]:
    """A spec for each variant, for each value that a search may choose, and for each cell of the grid."""
    place = (study.base.data.test_fold, study.seeds[0])
    for variant in study.variants:
        yield study.spec(variant, {}, *place)
    for key, axis in study.search.space.items():
        for value in axis.choice or ():
            yield study.spec(study.variants[0], {key: value}, *place)
    for repeat in range(1, study.folds.repeats):
        yield study.spec(study.variants[0], {}, *place, repeat=repeat)
    if study.has_grid:
        yield from (row.spec for row in cells.expand(study))


def _runs(study: Study) -> int:
    """How many run folders a study makes: outer folds, the grid, and the inner folds of all trials and
    re-runs."""
    outer = len(study.variants) * len(study.outer_folds) * len(study.seeds)
    in_grid = len(cells.expand(study)) if study.has_grid else 0
    search = study.search
    sizes = [study.trials(search_id.variant) for search_id in study.search_ids]
    trials = sum(size + search.rerun_count(size) * search.rerun_seeds for size in sizes)
    return outer + in_grid + trials * study.folds.inner


def read(path: str, overrides: list[str]) -> Study | RunSpec:
    """The study or spec in a file; only a study has a key `study`."""
    tree = yamlfile.load(path)
    return (
        load_study(path, overrides)
        if isinstance(tree, dict) and "study" in tree
        else specs.load(path, overrides)
    )


def _guarded(check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """The findings of a check. One that raises an error gives one more finding, and the others still run."""
    findings: list[Finding] = []
    try:
        findings.extend(check())
    except Exception as error:
        message = f"a check broke: {type(error).__name__}: {one_line(error)[:200]}"
        findings.append(Finding("warn", "doctor", message))
    return findings
