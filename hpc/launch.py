"""Where runs happen: in this process, under local ranks, or in jobs of submitit. What happens is leukotree.train.run."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tqdm import tqdm

from hpc import jobs, reduce, retries, store, submitted
from hpc import site as sites
from hpc.ranks import in_ranks, prepare_ranks
from leukotree import declared, files, signals
from leukotree.errors import RETRIED, InputError, Preempted, RunFailed, kind, one_line
from leukotree.spec import RunSpec

if TYPE_CHECKING:
    from leukotree.train import RunResult, Runtime

Where = Literal["inline", "local", "slurm"]
POLL = {"local": 0.5, "slurm": 10.0}
"""Seconds between two looks at what the jobs do."""
BUSY = 120
"""Seconds to wait for another command that submits runs of the same study."""
SILENT = 600.0
"""Seconds for which SLURM may not answer while a command waits for its jobs."""


@dataclass(frozen=True)
class Place:
    """Where runs happen and on how many processes each. None of it decides a result, so none of it is in a spec."""

    on: Where = "inline"
    ranks: int = 1
    """Processes of one run, one per GPU."""
    nodes: int | None = None
    """Nodes of one run on SLURM; None takes as few as the site's GPUs allow."""
    site: sites.Site | None = None
    """None is the site `default`."""

    def check(self) -> None:
        """Raises InputError where the ranks do not fit the nodes."""
        if self.on == "slurm":
            jobs.layout(self.ranks, self.nodes, self.site or sites.load())
        elif (self.nodes or 1) > 1:
            raise InputError(f"--nodes {self.nodes}: several nodes need --on slurm")


@dataclass
class Outcome:
    """What became of some runs; run names throughout."""

    submitted: list[str] = field(default_factory=list)
    """Ids of the jobs submitted by this call."""
    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """run name -> the kind of failure and the reason, one line."""
    waiting: dict[str, str] = field(default_factory=dict)
    """run name -> id of the job, queued or at work, that is to do it: of this call or of an earlier one."""
    reducer: str | None = None
    """Id of the job that will say what is missing when the others have ended."""

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def lines(self) -> list[str]:
        """For people: the counts, then each failure."""
        sent = f" ({len(self.submitted)} jobs submitted)" if self.submitted else ""
        counts = f"{len(self.done)} runs done, {len(self.failed)} failed, {len(self.waiting)} queued or at work{sent}"
        last = [f"job {self.reducer} will write reduced.json after them"] if self.reducer else []
        return [counts, *last, *(f"failed: {name}: {reason}" for name, reason in self.failed.items())]


def run_spec(
    spec: RunSpec,
    root: Path,
    *,
    on: Where = "inline",
    ranks: int = 1,
    nodes: int | None = None,
    site: sites.Site | None = None,
    runtime: Runtime | None = None,
) -> RunResult:
    """Do one run and wait for it. Raises InputError, Preempted, or RunFailed with the reason the run gave.

    `inline` runs in this process, or with several ranks in so many processes of this machine; `local` and `slurm` run it
    in a job of submitit, with one task per rank.
    """
    place = Place(on, ranks, nodes, site)
    place.check()
    if place.on == "inline":
        prepare_ranks(place.ranks)
    from leukotree import train

    runtime = runtime or train.Runtime()
    if place.on != "slurm":
        jobs.check_gpus(place.ranks, runtime)
    train.check(spec, place.ranks)  # here, so that bad input is one line and not the end of some rank
    if place.on == "inline" and place.ranks > 1:
        result: RunResult = in_ranks(train.run, spec, root, runtime=runtime, ranks=place.ranks)
        return result
    if place.on != "inline":
        outcome = run_many([spec], root, place, runtime=runtime, retry_failed=True)
        if spec.run_name in outcome.failed:
            raise RunFailed(outcome.failed[spec.run_name])
    return train.run(spec, root, runtime)  # done by a job: reads its scores


def run_many(
    specs: Sequence[RunSpec],
    root: Path,
    place: Place,
    *,
    wait: bool = True,
    parallel: int | None = None,
    retry_failed: bool = False,
    runtime: Runtime | None = None,
    title: str = "runs",
    study: Mapping[str, Any] | None = None,
) -> Outcome:
    """Do, or submit, what is missing of these runs; with `wait` return when it has ended, and say what failed.

    `inline` runs one after another here; `local` deals them to `parallel` jobs of submitit (None: as many as the cores or
    GPUs carry); `slurm` submits arrays of one run per job. A run that ended with its job or its node is tried again, so
    often as `retries` allows; one that failed by itself is not, unless `retry_failed` (then once). Completion is read from
    each run's own status.json. `study`: the fields of the runs' study, whose declarations are kept before the first run.
    """
    from leukotree.train import Runtime

    place.check()
    runtime = runtime or Runtime()
    todo = missing(specs, root, retry_failed)
    if todo and place.on == "slurm":
        from hpc import doctor

        doctor.require(todo, place.site or sites.load(), root)
    if study is not None:
        declared.keep(root, study)
    if place.on == "inline":
        return _outcome(specs, root, Outcome(), _inline(todo, root, place, runtime, title))
    outcome = Outcome()
    if todo:
        with _submitting(root):
            outcome.submitted += _submit(missing(specs, root, retry_failed), root, place, parallel, runtime)
    while wait:
        _wait_for(specs, root, place.on, runtime, title)
        if not missing(specs, root, anew=False):
            break
        with _submitting(root):
            outcome.submitted += _submit(missing(specs, root, anew=False), root, place, parallel, runtime)
    outcome = _outcome(specs, root, outcome, {})
    if place.on == "slurm" and outcome.submitted and outcome.waiting and not wait:
        try:
            outcome.reducer = reduce.submit(root, [spec.run_name for spec in specs], set(outcome.waiting.values()), place.site)
        except InputError as error:  # the runs are queued, which is what counts
            print(f"leukotree: {error}; leukotree status says the same", file=sys.stderr)
    return outcome


@contextlib.contextmanager
def _submitting(root: Path) -> Iterator[None]:
    """Two commands at once must not both find the same runs missing, and queue them twice. Raises InputError after a while."""
    busy = f"{root}: another command is submitting its runs; wait for it, then run this again"
    root.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        for left in reversed(range(BUSY)):
            try:
                stack.enter_context(files.locked(root / ".submit.lock", busy))
                break
            except InputError:
                if not left:
                    raise
                time.sleep(1)
        yield


def missing(specs: Sequence[RunSpec], root: Path, retry_failed: bool = False, *, anew: bool = True) -> list[RunSpec]:
    """The runs that are neither done nor with a living job, and that are worth a try (see `retries.judge`)."""
    alive, notes = submitted.alive(root), submitted.notes(root)
    found = []
    for spec in specs:
        name = spec.run_name
        if name in alive or _done(root, name):
            continue
        if retry_failed or retries.judge(root, name, notes.get(name), anew=anew).again:
            found.append(spec)
    return found


def _inline(todo: Sequence[RunSpec], root: Path, place: Place, runtime: Runtime, title: str) -> dict[str, str]:
    """Run one after another; a run that fails does not stop the others. Returns the reasons."""
    failed: dict[str, str] = {}
    for spec in tqdm(todo, desc=title, unit="run", disable=True if runtime.quiet else None):
        for left in reversed(range(retries.CAPS["node"] + 1)):
            failed.pop(spec.run_name, None)
            try:
                run_spec(spec, root, ranks=place.ranks, runtime=runtime)
            except Preempted:
                raise
            except Exception as error:
                failed[spec.run_name] = f"{kind(error)}: {one_line(error)}"
                if left and kind(error) in RETRIED and retries.judge(root, spec.run_name, None, anew=False).again:
                    continue
            break
    return failed


def _submit(todo: Sequence[RunSpec], root: Path, place: Place, parallel: int | None, runtime: Runtime) -> list[str]:
    assert place.on != "inline"
    if not todo:
        return []
    batches = [[spec] for spec in todo]
    if place.on == "local":
        parallel, runtime = _share(len(todo), parallel, place.ranks, runtime)
        batches = [list(todo[first::parallel]) for first in range(parallel)]
    return jobs.submit(
        place.on, root, batches, ranks=place.ranks, nodes=place.nodes, site=place.site, parallel=parallel, runtime=runtime
    )


def _share(runs: int, parallel: int | None, ranks: int, runtime: Runtime) -> tuple[int, Runtime]:
    """How many local jobs, and the runtime that divides this machine's cores among them."""
    cores = len(os.sched_getaffinity(0))
    slots = jobs.gpu_count(runtime) or cores
    count = min(runs, parallel or max(1, slots // ranks))
    return count, dataclasses.replace(runtime, threads=runtime.threads or max(1, cores // (count * ranks)))


def _wait_for(specs: Sequence[RunSpec], root: Path, on: Where, runtime: Runtime, title: str) -> None:
    names = {spec.run_name for spec in specs}
    ended: set[str] = set()

    def look(bar: tqdm[Any]) -> None:
        ended.update(name for name in names - ended if _done(root, name))
        bar.update(len(ended) - bar.n)

    with tqdm(total=len(names), desc=title, unit="run", disable=True if runtime.quiet else None) as bar:
        wait(root, names, on, lambda: look(bar))


def wait(root: Path, run_names: Collection[str], on: Where, tick: Callable[[], None] = lambda: None) -> None:
    """Return when no job is left that is to do one of these runs; `tick` is called between two looks.

    Asked to stop, it raises Preempted: local jobs were told to save and have left, those of SLURM go on.
    """
    answered = time.monotonic()
    while True:
        try:
            if not any(name in run_names for name in submitted.alive(root)):
                break
            answered = time.monotonic()
        except InputError:  # a controller that starts anew is no reason to leave the jobs alone
            if time.monotonic() - answered > SILENT:
                raise
        tick()
        end = time.monotonic() + POLL[on]
        while (left := end - time.monotonic()) > 0:
            if signals.requested():
                _stop(root, run_names, on)
            time.sleep(min(0.5, left))
    tick()


def _stop(root: Path, run_names: Collection[str], on: Where) -> None:
    if on == "slurm":
        raise Preempted("asked to stop waiting; the jobs go on")
    alive, notes = submitted.alive(root), submitted.notes(root)
    here = {name for name, note in notes.items() if note["on"] == "local" and note["host"] == socket.gethostname()}
    told = {job for name, job in alive.items() if name in run_names and name in here}
    for job in told:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(job), signal.SIGTERM)
    while told & set(submitted.alive(root).values()):
        time.sleep(0.5)
    raise Preempted("asked to stop; the local jobs have saved and left")


def _outcome(specs: Sequence[RunSpec], root: Path, outcome: Outcome, failed: dict[str, str]) -> Outcome:
    alive, notes = submitted.alive(root), submitted.notes(root)
    for name in [spec.run_name for spec in specs]:
        if _done(root, name):
            outcome.done.append(name)
        elif name in alive:
            outcome.waiting[name] = alive[name]
        else:
            verdict = retries.judge(root, name, notes.get(name), anew=False)
            outcome.failed[name] = failed.get(name) or f"{verdict.kind or 'node'}: {verdict.reason or 'it never began'}"
    return outcome


def _done(root: Path, run_name: str) -> bool:
    return store.read(root / run_name).state == "done"
