"""Where runs happen: in this process, under local ranks, or in jobs of submitit. What happens is
leukotree.training.run.run."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hpc.launching import caps, follow_up, job_notes, retries, run_states
from hpc.launching.outcome import Outcome, outcome_of
from hpc.launching.place import Place, Where
from hpc.launching.ranks import in_ranks, prepare_ranks
from hpc.launching.sender import ROOM, Runs, Sender, missing
from hpc.slurm import scheduler
from leukotree import progress, signals
from leukotree.errors import RETRIED, InputError, Preempted, RunFailed, kind, one_line
from leukotree.records import commands, declared
from leukotree.records.commands import Given
from leukotree.runtime import Runtime
from leukotree.spec import RunSpec

if TYPE_CHECKING:
    from leukotree.training.run import RunResult

T = TypeVar("T")
POLL = {"local": 0.5, "slurm": 10.0}
"""Seconds between two looks at what the jobs do."""
SILENT = 600.0
"""Seconds for which SLURM may not answer while a command waits for its jobs."""


def run_spec(
    spec: RunSpec,
    root: Path,
    place: Place | None = None,
    *,
    runtime: Runtime | None = None,
    command: Given | None = None,
    todo: Sequence[RunSpec] | None = None,
) -> RunResult:
    """Do one run and wait for it. Raises InputError, Preempted, or RunFailed with the reason the run gave.

    `inline` (a `place` of None, too) runs in this process, or with several ranks in so many processes of this
    machine; `local` and `slurm` run it in a job of submitit, with one task per rank. The `command` that asked
    for it is kept in the study's folder. `todo`: as for `run_many`.
    """
    place = place or Place()
    place.check()
    if place.on == "inline":
        prepare_ranks(place.ranks)
    from leukotree.training import plan, run

    runtime = runtime or Runtime()
    plan.check(spec, place.ranks)  # here, so that bad input is one line and not the end of some rank
    if command is not None:
        commands.keep(root, command)
    if place.on != "inline":
        todo = missing([spec], root, retry_failed=True) if todo is None else todo
        outcome = run_many([spec], root, place, runtime=runtime, todo=todo)
        if spec.run_name in outcome.failed:
            raise RunFailed(outcome.failed[spec.run_name])
        return run.run(spec, root, runtime)  # done by a job: reads its scores
    if place.ranks > 1:
        result: RunResult = in_ranks(run.run, spec, root, runtime=runtime, ranks=place.ranks)
        return result
    return run.run(spec, root, runtime)


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
    command: Given | None = None,
    todo: Sequence[RunSpec] | None = None,
) -> Outcome:
    """Do, or submit, what is missing of these runs; with `wait` return when it has ended, and say what
    failed.

    `inline` runs one after another here; `local` deals them to `parallel` jobs of submitit (None: as many as
    the cores or
    GPUs carry); `slurm` submits arrays of one run per job. A run that ended with its job or its node is tried
    again, so often as `retries` allows; one that failed by itself is not, unless `retry_failed` (then once).
    Completion is read from each run's own status.json. `study`: the fields of the runs' study, whose
    declarations are kept before the first run; so is the `command`. `todo`: those of the runs that are to be
    done, as a command that has checked them knows it; None takes those that are missing.
    """

    runtime = runtime or Runtime()
    if todo is None:
        place.check()
        todo = missing(specs, root, retry_failed)
    if study is not None:
        declared.keep(root, study)
    if command is not None:
        commands.keep(root, command)
    if place.on == "inline":
        return outcome_of(specs, root, Outcome(), _inline(todo, root, place, runtime, title))
    runs = Runs(specs, root, place, parallel, runtime)
    if not wait:
        return (
            follow_up.queue(runs, lambda: missing(specs, root, retry_failed), anew=True)
            if todo
            else outcome_of(specs, root, Outcome(), {})
        )
    sender = Sender(runs)
    if todo:
        sender.send(lambda: missing(specs, root, retry_failed), anew=True)
    pause = functools.partial(_pause, root, runs.names, place.on)
    while True:
        _wait_for(specs, root, place.on, runtime, title, sender.refill)
        if not _patiently(sender.open, pause):
            return _patiently(lambda: outcome_of(specs, root, Outcome(submitted=sender.submitted), {}), pause)
        if not _patiently(lambda: sender.send(sender.open), pause, scheduler.NoAnswer):
            pause(ROOM)


def _pause(root: Path, run_names: Collection[str], on: Where, seconds: float | None = None) -> None:
    """Sleep, until the next look if not for some seconds. Raises Preempted where we are asked to stop."""
    end = time.monotonic() + (POLL[on] if seconds is None else seconds)
    while (left := end - time.monotonic()) > 0:
        if signals.requested():
            _stop(root, run_names, on)
        time.sleep(min(0.5, left))


def _patiently(act: Callable[[], T], pause: Callable[[], None], passing: type[InputError] = InputError) -> T:
    """What `act` gives, which asks SLURM; tried again after errors that are `passing`, since a controller
    that starts anew is no reason to leave the jobs alone. Raises the error that still comes after SILENT
    seconds."""
    begun = time.monotonic()
    while True:
        try:
            return act()
        except passing:
            if time.monotonic() - begun > SILENT:
                raise
        pause()


def _inline(
    todo: Sequence[RunSpec], root: Path, place: Place, runtime: Runtime, title: str
) -> dict[str, str]:
    """Run one after another; a run that fails does not stop the others. Returns the reasons."""
    failed: dict[str, str] = {}
    for spec in progress.over(todo, title, len(todo), "run", quiet=runtime.quiet):
        for left in reversed(range(caps.RUN_ENDS["node"] + 1)):
            failed.pop(spec.run_name, None)
            try:
                run_spec(spec, root, place, runtime=runtime)
            except Preempted:
                raise
            except Exception as error:
                failed[spec.run_name] = f"{kind(error)}: {one_line(error)}"
                if (
                    left
                    and kind(error) in RETRIED
                    and retries.judge(root, spec.run_name, None, anew=False).again
                ):
                    continue
            break
    return failed


def _wait_for(
    specs: Sequence[RunSpec], root: Path, on: Where, runtime: Runtime, title: str, refill: Callable[[], None]
) -> None:
    names = {spec.run_name for spec in specs}
    done: set[str] = set()

    def look(bar: progress.Bar) -> None:
        states = {name: run_states.read(root / name) for name in names - done}
        done.update(name for name, run in states.items() if run.state == "done")
        bar.at(len(done), _others([run for run in states.values() if run.state != "done"]))
        refill()

    # Runs are done side by side, or wait in a queue: those that are done do not tell when the others will be.
    with progress.Bar(title, len(names), "run", quiet=runtime.quiet, rate=False) as bar:
        wait(root, names, on, lambda: look(bar))


def _others(runs: Sequence[run_states.RunState]) -> str:
    """What becomes of the runs that are not done: "2 running (epoch 3-5 of 8), 1 waiting, 1 failed"."""
    running = [run for run in runs if run.state == "running"]
    failed = sum(run.state == "failed" for run in runs)
    where = (
        f" (epoch {run_states.epochs_of([(run.epoch, run.epochs) for run in running])})" if running else ""
    )
    waiting = f"{len(runs) - len(running) - failed} waiting"
    return ", ".join([f"{len(running)} running{where}", waiting, *([f"{failed} failed"] if failed else [])])


def wait(root: Path, run_names: Collection[str], on: Where, tick: Callable[[], None] = lambda: None) -> None:
    """Return when no job is left that is to do one of these runs and can be asked from here; `tick` is called
    between two looks.

    Asked to stop, it raises Preempted: local jobs were told to save and have left, those of SLURM go on.
    """
    pause = functools.partial(_pause, root, run_names, on)

    def at_work() -> bool:
        return any(
            name in run_names and job_notes.AT not in job for name, job in job_notes.alive(root).items()
        )

    while True:
        working = _patiently(at_work, pause)
        _patiently(tick, pause, scheduler.NoAnswer)
        if not working and not _patiently(at_work, pause):  # `tick` may have queued what found no room before
            return
        pause()


def _stop(root: Path, run_names: Collection[str], on: Where) -> None:
    if on == "slurm":
        raise Preempted("asked to stop waiting; the jobs go on")
    alive, notes = job_notes.alive(root), job_notes.notes(root)
    here = {
        name for name, note in notes.items() if note["on"] == "local" and note["host"] == socket.gethostname()
    }
    told = {job for name, job in alive.items() if name in run_names and name in here}
    for job in told:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(job), signal.SIGTERM)
    while told & set(job_notes.alive(root).values()):
        time.sleep(0.5)
    raise Preempted("asked to stop; the local jobs have saved and left")
