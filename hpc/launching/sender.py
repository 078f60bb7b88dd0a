"""Runs are given to jobs: those that are missing, by one command at a time, as many as SLURM takes."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hpc.launching import arrays, cancelled, devices, failures, job_notes, retries, run_states, submission
from hpc.launching.place import Place
from leukotree import files
from leukotree.errors import InputError
from leukotree.log import logger
from leukotree.runtime import Runtime
from leukotree.spec import RunSpec

RETRY_SECONDS = 30.0
"""Seconds between two tries to submit more jobs where SLURM takes no more."""
BUSY_SECONDS = 120
"""How long to wait for another command that submits runs of the same study."""


@dataclass(frozen=True)
class Runs:
    """Runs of one study, and where they are to happen."""

    specs: Sequence[RunSpec]
    root: Path
    place: Place
    parallel: int | None
    """Most jobs at the same time. None takes what this machine can do, or the number of the site."""
    runtime: Runtime

    @property
    def names(self) -> list[str]:
        return [spec.run_name for spec in self.specs]


@dataclass
class Sender:
    """Gives runs to jobs, as many as SLURM takes. Each method raises Preempted once the study was
    cancelled."""

    runs: Runs
    submitted: list[str] = field(default_factory=list)
    """Ids of all jobs that it has submitted."""
    unsent: list[RunSpec] = field(default_factory=list)
    """Runs that SLURM took no job for."""
    _tried: float = 0.0
    """When it last submitted, by the monotonic clock."""
    _cancelled: int = field(init=False)
    """How often the study had been cancelled when this object was made."""

    def __post_init__(self) -> None:
        self._cancelled = cancelled.times(self.runs.root)

    def send(
        self,
        choose: Callable[[], Sequence[RunSpec]],
        *,
        new_command: bool = False,
        before: Callable[[], None] = lambda: None,
    ) -> list[str]:
        """Submit the runs that `choose` returns, once no other command submits. Returns the ids of the jobs.

        `before` is called before they are queued, if there are any. Nodes on which one of the runs could not
        begin are left out, and the jobs begin later if the server of the shards was away, unless this is a
        `new_command`.
        """
        root, place = self.runs.root, self.runs.place
        with submitting(root):
            cancelled.check(root, self._cancelled)
            if place.on == "slurm":
                arrays.adopt(root)
            todo, notes = list(choose()), job_notes.notes(root)
            tried = [] if new_command else [spec.run_name for spec in todo if spec.run_name in notes]
            pause = max((retries.server_pause(root, name, notes[name]) for name in tried), default=0)
            exclude = {node for name in tried for node in failures.bad_nodes(root, notes[name], name)}
            if todo:
                before()
            try:
                ids = _submit(todo, self.runs, sorted(exclude), pause)
            except InputError as error:
                if not exclude:
                    raise
                bad = f"nodes left out because a run could not begin there: {', '.join(sorted(exclude))}"
                raise type(error)(f"{error}; {bad}") from None
        if place.on == "slurm":
            if len(ids) < len(todo) and not self.unsent:
                logger.warning(f"SLURM takes no more jobs now; {len(todo) - len(ids)} runs wait for room")
            self.unsent = todo[len(ids) :]
        self._tried = time.monotonic()
        self.submitted += ids
        return ids

    def open(self) -> list[RunSpec]:
        """The runs that are to be submitted: those that SLURM took no job for, and those that ended early and
        are tried again."""
        names = {spec.run_name for spec in self.unsent}
        alive = job_notes.alive(self.runs.root)
        unsent = [
            spec
            for spec in self.unsent
            if spec.run_name not in alive and not is_done(self.runs.root, spec.run_name)
        ]
        return unsent + [
            spec
            for spec in missing(self.runs.specs, self.runs.root, new_command=False)
            if spec.run_name not in names
        ]

    def refill(self) -> None:
        """Submit the runs that SLURM took no job for, if RETRY_SECONDS have passed since the last try."""
        cancelled.check(self.runs.root, self._cancelled)
        if self.unsent and time.monotonic() - self._tried > RETRY_SECONDS:
            self.send(self.open)


@contextlib.contextmanager
def submitting(root: Path) -> Iterator[None]:
    """A lock: no two commands find the same runs missing at the same time and queue them twice. Raises
    InputError if another command holds it for BUSY_SECONDS."""
    busy = f"{root}: another command is submitting its runs; wait for it, then run this again"
    root.mkdir(parents=True, exist_ok=True)
    with files.locked(root / ".submit.lock", busy, BUSY_SECONDS):
        yield


def missing(
    specs: Sequence[RunSpec], root: Path, retry_failed: bool = False, *, new_command: bool = True
) -> list[RunSpec]:
    """The runs that are not done, have no job that waits or runs, and are to be tried (see
    `retries.judge`). `retry_failed`: also those that are not to be tried again."""
    alive, notes, begun = job_notes.alive(root), job_notes.notes(root), run_states.begun(root)
    specs_missing = []
    for spec in specs:
        name = spec.run_name
        if name not in begun and name not in notes:
            specs_missing.append(spec)
            continue
        if name in alive or is_done(root, name):
            continue
        if retry_failed or retries.judge(root, name, notes.get(name), new_command=new_command).again:
            specs_missing.append(spec)
    return specs_missing


def is_done(root: Path, run_name: str) -> bool:
    """Whether the status of a run says that it is done."""
    return run_states.read(root / run_name).state == "done"


def _submit(todo: Sequence[RunSpec], runs: Runs, exclude: Sequence[str], pause: int) -> list[str]:
    place, parallel, runtime = runs.place, runs.parallel, runs.runtime
    assert place.on != "inline"
    if not todo:
        return []
    batches = [[spec] for spec in todo]
    if place.on == "local":
        parallel, runtime = _share(len(todo), parallel, place.ranks, runtime)
        batches = [list(todo[first::parallel]) for first in range(parallel)]
    if pause:
        logger.warning(f"the server of the shards did not answer; tries again in {pause} s")
    return submission.submit(
        place, runs.root, batches, parallel=parallel, runtime=runtime, exclude=exclude, pause=pause
    )


def _share(runs: int, parallel: int | None, ranks: int, runtime: Runtime) -> tuple[int, Runtime]:
    """(number of local jobs, the runtime that divides this machine's cores among them)."""
    cores = len(os.sched_getaffinity(0))
    slots = devices.gpu_count(runtime) or cores
    count = min(runs, parallel or max(1, slots // ranks))
    return count, dataclasses.replace(runtime, threads=runtime.threads or max(1, cores // (count * ranks)))
