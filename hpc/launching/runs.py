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
from hpc.launching.sender import RETRY_SECONDS, Runs, Sender, missing
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
"""Seconds between two looks at the jobs."""
NO_ANSWER_SECONDS = 600.0
"""How long SLURM may give no answer while a command waits for its jobs."""


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
    """Do, or submit, those of these runs that are missing. With `wait` it returns when they have ended.

    A `place` that is `inline` does one run after another here; `local` divides them among jobs of submitit;
    `slurm` submits arrays of one run per job. A run that ended with its job or its node is tried again, as
    often as `retries` allows. Whether a run is done stands in its own status.json.

    Args:
        parallel: local jobs, or jobs of SLURM, at the same time (None: as many as the cores or GPUs allow, or
            the number of the site).
        retry_failed: try also those once that failed by themselves.
        study: the fields of the runs' study; its declarations are kept before the first run.
        command: the command that asked for the runs; it is kept, too.
        todo: those of the runs that are to be done, from a caller that has checked them (None: those that are
            missing).
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
            follow_up.queue(runs, lambda: missing(specs, root, retry_failed), new_command=True)
            if todo
            else outcome_of(specs, root, Outcome(), {})
        )
    sender = Sender(runs)
    if todo:
        sender.send(lambda: missing(specs, root, retry_failed), new_command=True)
    pause = functools.partial(_pause, root, runs.names, place.on)
    while True:
        _wait_for(specs, root, place.on, runtime, title, sender.refill)
        if not _until_answered(sender.open, pause):
            return _until_answered(
                lambda: outcome_of(specs, root, Outcome(submitted=sender.submitted), {}), pause
            )
        if not _until_answered(lambda: sender.send(sender.open), pause, scheduler.NoAnswer):
            pause(RETRY_SECONDS)


def _pause(root: Path, run_names: Collection[str], on: Where, seconds: float | None = None) -> None:
    """Sleep for some seconds; None is the time between two looks. Raises Preempted if this process is asked
    to stop."""
    end = time.monotonic() + (POLL[on] if seconds is None else seconds)
    while (left := end - time.monotonic()) > 0:
        if signals.requested():
            _stop(root, run_names, on)
        time.sleep(min(0.5, left))


def _until_answered(
    ask: Callable[[], T], pause: Callable[[], None], passing: type[InputError] = InputError
) -> T:
    """What `ask` returns, which asks SLURM. It is tried again after errors of the type `passing`: a
    controller that restarts is no reason to give up the jobs. Raises the error that still comes after
    NO_ANSWER_SECONDS."""
    began = time.monotonic()
    while True:
        try:
            return ask()
        except passing:
            if time.monotonic() - began > NO_ANSWER_SECONDS:
                raise
        pause()


def _inline(
    todo: Sequence[RunSpec], root: Path, place: Place, runtime: Runtime, title: str
) -> dict[str, str]:
    """Do one run after another. Returns run name -> reason of those that failed; they do not stop the
    others."""
    failed: dict[str, str] = {}
    for spec in progress.over(todo, title, len(todo), "run", quiet=runtime.quiet):
        for tries_left in reversed(range(caps.RUN_ENDS["node"] + 1)):
            failed.pop(spec.run_name, None)
            try:
                run_spec(spec, root, place, runtime=runtime)
            except Preempted:
                raise
            except Exception as error:
                failed[spec.run_name] = f"{kind(error)}: {one_line(error)}"
                if (
                    tries_left
                    and kind(error) in RETRIED
                    and retries.judge(root, spec.run_name, None, new_command=False).again
                ):
                    if kind(error) == "server":
                        seconds = caps.SERVER_PAUSE * 2 ** (caps.RUN_ENDS["node"] - tries_left)
                        progress.say(f"leukotree: {one_line(error)}; tries again in {seconds} s")
                        signals.sleep(seconds, f"asked to stop before {spec.run_name} was tried again")
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

    # Runs are done at the same time, or wait in a queue: no rate of theirs tells when the others will be
    # done.
    with progress.Bar(title, len(names), "run", quiet=runtime.quiet, rate=False) as bar:
        wait(root, names, on, lambda: look(bar))


def _others(runs: Sequence[run_states.RunState]) -> str:
    """The states of the runs that are not done: "2 running (epoch 3-5 of 8), 1 waiting, 1 failed"."""
    running = [run for run in runs if run.state == "running"]
    failed = sum(run.state == "failed" for run in runs)
    where = (
        f" (epoch {run_states.epochs_of([(run.epoch, run.epochs) for run in running])})" if running else ""
    )
    waiting = f"{len(runs) - len(running) - failed} waiting"
    return ", ".join([f"{len(running)} running{where}", waiting, *([f"{failed} failed"] if failed else [])])


def wait(root: Path, run_names: Collection[str], on: Where, tick: Callable[[], None] = lambda: None) -> None:
    """Return when no job is left that does one of these runs and can be asked for from here. `tick` is called
    between two looks.

    Raises Preempted if this process is asked to stop. Local jobs have then saved and ended; jobs of SLURM go
    on.
    """
    pause = functools.partial(_pause, root, run_names, on)

    def at_work() -> bool:
        return any(
            name in run_names and job_notes.AT not in job for name, job in job_notes.alive(root).items()
        )

    while True:
        working = _until_answered(at_work, pause)
        _until_answered(tick, pause, scheduler.NoAnswer)
        # `tick` may have queued runs that SLURM took no job for before.
        if not working and not _until_answered(at_work, pause):
            return
        pause()


def _stop(root: Path, run_names: Collection[str], on: Where) -> None:
    if on == "slurm":
        raise Preempted("asked to stop waiting; the jobs go on")
    alive, notes = job_notes.alive(root), job_notes.notes(root)
    here = {
        name for name, note in notes.items() if note["on"] == "local" and note["host"] == socket.gethostname()
    }
    stopped = {job for name, job in alive.items() if name in run_names and name in here}
    for job in stopped:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(job), signal.SIGTERM)
    while stopped & set(job_notes.alive(root).values()):
        time.sleep(0.5)
    raise Preempted("asked to stop; the local jobs have saved and left")
