"""Who gives runs to jobs: what is missing, one command at a time, as many as there is room for."""

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

ROOM = 30.0
"""Seconds between two looks whether SLURM takes more jobs."""
BUSY = 120
"""Seconds to wait for another command that submits runs of the same study."""


@dataclass(frozen=True)
class Runs:
    """Runs of one study, and where they are to happen."""

    specs: Sequence[RunSpec]
    root: Path
    place: Place
    parallel: int | None
    """Jobs at once; None: what the machine carries, or the site says."""
    runtime: Runtime

    @property
    def names(self) -> list[str]:
        return [spec.run_name for spec in self.specs]


@dataclass
class Sender:
    """Gives runs to jobs, as many as there is room for. Raises Preempted from every method once the study was
    cancelled."""

    runs: Runs
    submitted: list[str] = field(default_factory=list)
    """Ids of all its jobs."""
    unsent: list[RunSpec] = field(default_factory=list)
    """Runs for which SLURM had no room."""
    _looked: float = 0.0
    _cancelled: int = field(init=False)
    """How often the study had been cancelled when this began."""

    def __post_init__(self) -> None:
        self._cancelled = cancelled.times(self.runs.root)

    def send(
        self,
        choose: Callable[[], Sequence[RunSpec]],
        *,
        anew: bool = False,
        before: Callable[[], None] = lambda: None,
    ) -> list[str]:
        """Submit the runs to `choose`, once no other command submits. Returns the ids of the jobs. `before`
        is called where there are any, before they are queued. Unless it is `anew`, nodes on which a run could
        not begin are left out."""
        root, place = self.runs.root, self.runs.place
        with submitting(root):
            cancelled.check(root, self._cancelled)
            if place.on == "slurm":
                arrays.adopt(root)
            todo, notes = list(choose()), job_notes.notes(root)
            known = [] if anew else [spec.run_name for spec in todo if spec.run_name in notes]
            exclude = {node for name in known for node in failures.bad_nodes(root, notes[name], name)}
            if todo:
                before()
            try:
                ids = _submit(todo, self.runs, sorted(exclude))
            except InputError as error:
                if not exclude:
                    raise
                bad = f"nodes left out, since a run could not begin there: {', '.join(sorted(exclude))}"
                raise type(error)(f"{error}; {bad}") from None
        if place.on == "slurm":
            if len(ids) < len(todo) and not self.unsent:
                logger.warning(f"SLURM takes no more jobs now; {len(todo) - len(ids)} runs wait for room")
            self.unsent = todo[len(ids) :]
        self._looked = time.monotonic()
        self.submitted += ids
        return ids

    def open(self) -> list[RunSpec]:
        """The runs that are to be submitted: those that found no room, and those that ended early and are
        tried again."""
        names = {spec.run_name for spec in self.unsent}
        alive = job_notes.alive(self.runs.root)
        left = [
            spec
            for spec in self.unsent
            if spec.run_name not in alive and not is_done(self.runs.root, spec.run_name)
        ]
        return left + [
            spec
            for spec in missing(self.runs.specs, self.runs.root, anew=False)
            if spec.run_name not in names
        ]

    def refill(self) -> None:
        """Submit what found no room before, if it is time to look."""
        cancelled.check(self.runs.root, self._cancelled)
        if self.unsent and time.monotonic() - self._looked > ROOM:
            self.send(self.open)


@contextlib.contextmanager
def submitting(root: Path) -> Iterator[None]:
    """Two commands at once must not both find the same runs missing, and queue them twice. Raises InputError
    after a while."""
    busy = f"{root}: another command is submitting its runs; wait for it, then run this again"
    root.mkdir(parents=True, exist_ok=True)
    with files.locked(root / ".submit.lock", busy, BUSY):
        yield


def missing(
    specs: Sequence[RunSpec], root: Path, retry_failed: bool = False, *, anew: bool = True
) -> list[RunSpec]:
    """The runs that are neither done nor with a living job, and that are worth a try (see
    `retries.judge`)."""
    alive, notes = job_notes.alive(root), job_notes.notes(root)
    found = []
    for spec in specs:
        name = spec.run_name
        if name in alive or is_done(root, name):
            continue
        if retry_failed or retries.judge(root, name, notes.get(name), anew=anew).again:
            found.append(spec)
    return found


def is_done(root: Path, run_name: str) -> bool:
    return run_states.read(root / run_name).state == "done"


def _submit(todo: Sequence[RunSpec], runs: Runs, exclude: Sequence[str]) -> list[str]:
    place, parallel, runtime = runs.place, runs.parallel, runs.runtime
    assert place.on != "inline"
    if not todo:
        return []
    batches = [[spec] for spec in todo]
    if place.on == "local":
        parallel, runtime = _share(len(todo), parallel, place.ranks, runtime)
        batches = [list(todo[first::parallel]) for first in range(parallel)]
    return submission.submit(place, runs.root, batches, parallel=parallel, runtime=runtime, exclude=exclude)


def _share(runs: int, parallel: int | None, ranks: int, runtime: Runtime) -> tuple[int, Runtime]:
    """How many local jobs, and the runtime that divides this machine's cores among them."""
    cores = len(os.sched_getaffinity(0))
    slots = devices.gpu_count(runtime) or cores
    count = min(runs, parallel or max(1, slots // ranks))
    return count, dataclasses.replace(runtime, threads=runtime.threads or max(1, cores // (count * ranks)))
