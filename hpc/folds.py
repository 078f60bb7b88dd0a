"""The outer folds: every variant x test fold x seed with the chosen values, and only what is missing."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from hpc import launch as launching
from hpc import store
from hpc.site import Site
from hpc.study import Study
from hpc.tune import chosen
from leukotree.errors import Preempted, one_line
from leukotree.spec import RunSpec

if TYPE_CHECKING:
    from leukotree.train import Runtime


@dataclass
class FoldsResult:
    """What became of a study's outer-fold runs; run names throughout."""

    submitted: list[str] = field(default_factory=list)
    """Ids of the jobs submitted by this call."""
    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """run name -> the reason, one line."""
    waiting: dict[str, str] = field(default_factory=dict)
    """run name -> id of the job, queued or at work, that is to do it: of this call or of an earlier one."""

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def lines(self) -> list[str]:
        """For people: the counts, then each failure."""
        jobs = f" ({len(self.submitted)} jobs submitted)" if self.submitted else ""
        counts = f"{len(self.done)} runs done, {len(self.failed)} failed, {len(self.waiting)} queued or at work{jobs}"
        return [counts, *(f"failed: {name}: {reason}" for name, reason in self.failed.items())]


def missing(study: Study) -> list[RunSpec]:
    """The runs that are neither done nor with a living job. Raises InputError where a search has not ended."""
    return _missing(study, study.fold_specs(chosen(study)))


def _missing(study: Study, specs: list[RunSpec]) -> list[RunSpec]:
    alive = store.queued(study.root)
    return [spec for spec in specs if not _done(study, spec) and spec.run_name not in alive]


def launch(
    study: Study,
    *,
    on: launching.Where = "local",
    ranks: int = 1,
    site: Site | None = None,
    wait: bool = True,
    parallel: int | None = None,
    runtime: Runtime | None = None,
) -> FoldsResult:
    """Do, or submit, what is missing; with `wait` return when it has ended, and say what failed.

    `inline` runs one after another here; `local` deals the runs to `parallel` jobs of submitit (None: as many as the
    cores or GPUs carry); `slurm` submits arrays of one run per job. Completion is read from each run's own status.json.
    Raises InputError where a search has not ended.
    """
    from leukotree.train import Runtime

    runtime = runtime or Runtime()
    specs = study.fold_specs(chosen(study))
    todo = _missing(study, specs)
    result = FoldsResult()
    if on == "inline":
        failed = _inline(study, todo, ranks, runtime)
        return _outcome(study, specs, result, failed)
    if todo:
        if on == "local":
            parallel, runtime = _share(len(todo), parallel, ranks, runtime)
            batches = [todo[first::parallel] for first in range(parallel)]
        else:
            batches = [[spec] for spec in todo]
        result.submitted = launching.submit(on, study.root, batches, ranks=ranks, site=site, parallel=parallel, runtime=runtime)
    if wait:
        _wait(study, specs, on, runtime)
    return _outcome(study, specs, result, {})


def _inline(study: Study, todo: list[RunSpec], ranks: int, runtime: Runtime) -> dict[str, str]:
    """Run one after another; a run that fails does not stop the others. Returns the reasons."""
    failed = {}
    for spec in tqdm(todo, desc="folds", unit="run", disable=True if runtime.quiet else None):
        try:
            launching.run_spec(spec, study.root, ranks=ranks, runtime=runtime)
        except Preempted:
            raise
        except Exception as error:
            failed[spec.run_name] = one_line(error)
    return failed


def _share(runs: int, parallel: int | None, ranks: int, runtime: Runtime) -> tuple[int, Runtime]:
    """How many local jobs, and the runtime that divides this machine's cores among them."""
    cores = len(os.sched_getaffinity(0))
    slots = launching.gpu_count(runtime) or cores
    jobs = min(runs, parallel or max(1, slots // ranks))
    return jobs, dataclasses.replace(runtime, threads=runtime.threads or max(1, cores // (jobs * ranks)))


def _wait(study: Study, specs: list[RunSpec], on: launching.Where, runtime: Runtime) -> None:
    def count() -> int:
        return sum(_done(study, spec) for spec in specs)

    with tqdm(total=len(specs), initial=count(), desc="folds", unit="run", disable=True if runtime.quiet else None) as bar:

        def look() -> None:
            bar.update(count() - bar.n)

        launching.wait(study.root, {spec.run_name for spec in specs}, on, look)


def _outcome(study: Study, specs: list[RunSpec], result: FoldsResult, failed: dict[str, str]) -> FoldsResult:
    alive = store.queued(study.root)
    for spec in specs:
        name = spec.run_name
        if _done(study, spec):
            result.done.append(name)
        elif name in alive:
            result.waiting[name] = alive[name]
        else:
            result.failed[name] = failed.get(name) or launching.why(study.root, store.read(study.root / name))
    return result


def _done(study: Study, spec: RunSpec) -> bool:
    return store.read(study.root / spec.run_name).state == "done"
