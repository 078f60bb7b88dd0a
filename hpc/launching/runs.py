"""Where runs happen: in this process, under local ranks, or in jobs of submitit. What happens is
leukotree.training.run.run."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hpc.launching import follow_up, job_notes, retries, run_states, stale
from hpc.launching.place import Place, Where
from hpc.launching.ranks import in_ranks, prepare_ranks
from hpc.launching.sender import ROOM, Runs, Sender, is_done, missing
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
    unsent: list[str] = field(default_factory=list)
    """Runs that no job is to do yet, since SLURM took no more jobs."""
    reducer: str | None = None
    """Id of the job that will submit those, and say what is missing, when the others have ended."""

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def lines(self) -> list[str]:
        """For people: the counts, then each failure."""
        sent = f" ({len(self.submitted)} jobs submitted)" if self.submitted else ""
        counts = f"{len(self.done)} runs done, {len(self.failed)} failed, {len(self.waiting)} queued or at work{sent}"
        return [
            counts,
            *self._notes(),
            *(f"failed: {name}: {reason}" for name, reason in self.failed.items()),
        ]

    def _notes(self) -> list[str]:
        lines = [f"job {self.reducer} will write reduced.json after them"] if self.reducer else []
        if self.unsent:
            later = f"job {self.reducer} submits them" if self.reducer else "run the same command again"
            lines.append(
                f"{len(self.unsent)} runs are not queued yet, SLURM takes no more jobs: {later} when the first have ended"
            )
        abroad = Counter(
            job.partition(job_notes.AT)[2] for job in self.waiting.values() if job_notes.AT in job
        )
        lines += [
            f"{count} of them wait for jobs of the cluster {name}, which only answers there"
            for name, count in abroad.items()
        ]
        return lines


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
    from leukotree.training import run

    runtime = runtime or Runtime()
    run.check(spec, place.ranks)  # here, so that bad input is one line and not the end of some rank
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
        return _outcome(specs, root, Outcome(), _inline(todo, root, place, runtime, title))
    runs = Runs(specs, root, place, parallel, runtime)
    if not wait:
        return (
            queue(runs, lambda: missing(specs, root, retry_failed), anew=True)
            if todo
            else _outcome(specs, root, Outcome(), {})
        )
    sender = Sender(runs)
    if todo:
        sender.send(lambda: missing(specs, root, retry_failed), anew=True)
    pause = functools.partial(_pause, root, runs.names, place.on)
    while True:
        _wait_for(specs, root, place.on, runtime, title, sender.refill)
        if not _patiently(sender.open, pause):
            return _patiently(lambda: _outcome(specs, root, Outcome(submitted=sender.submitted), {}), pause)
        if not _patiently(lambda: sender.send(sender.open), pause, scheduler.Silent):
            pause(ROOM)


def queue(runs: Runs, choose: Callable[[], Sequence[RunSpec]], *, anew: bool = False) -> Outcome:
    """Submit of some runs those to `choose`, and wait for none. On SLURM a small job follows, which calls
    this again for what is left; it has its place in the queue before they have theirs, since SLURM may take
    only some of them."""
    sender, outcome = Sender(runs), Outcome()

    def reserve() -> None:
        try:
            outcome.reducer = follow_up.submit(runs)
        except InputError as error:  # the runs count
            print(f"leukotree: {error}; leukotree status says what is missing", file=sys.stderr)

    try:
        sender.send(choose, anew=anew, before=reserve if runs.place.on == "slurm" else lambda: None)
    except InputError:
        _withdraw(outcome)
        raise
    if not sender.submitted and not job_notes.of_this_slurm(runs.root, job_notes.alive(runs.root)):
        _withdraw(outcome)  # it has nothing to follow, or has taken the only place
        sender.send(lambda: sender.unsent, anew=anew)
    outcome.submitted, outcome.unsent = sender.submitted, [spec.run_name for spec in sender.unsent]
    outcome = _outcome(runs.specs, runs.root, outcome, {})
    if outcome.reducer:
        follow_up.put_off(outcome.reducer, job_notes.of_this_slurm(runs.root, outcome.waiting))
    return outcome


def _withdraw(outcome: Outcome) -> None:
    if outcome.reducer:
        with contextlib.suppress(InputError):
            follow_up.withdraw(outcome.reducer)
    outcome.reducer = None


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
        for left in reversed(range(retries.CAPS["node"] + 1)):
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
        _patiently(tick, pause, scheduler.Silent)
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


def _outcome(specs: Sequence[RunSpec], root: Path, outcome: Outcome, failed: dict[str, str]) -> Outcome:
    alive, notes = job_notes.alive(root), job_notes.notes(root)
    for name in [spec.run_name for spec in specs]:
        if is_done(root, name):
            state = stale.read(root / name)
            if state.state == stale.STATE:  # packed again while the others were at work
                outcome.failed[name] = f"{stale.STATE}: {state.message}"
            else:
                outcome.done.append(name)
        elif name in alive:
            outcome.waiting[name] = alive[name]
        elif name not in outcome.unsent:
            verdict = retries.judge(root, name, notes.get(name), anew=False)
            outcome.failed[name] = (
                failed.get(name) or f"{verdict.kind or 'node'}: {verdict.reason or 'it never began'}"
            )
    return outcome
