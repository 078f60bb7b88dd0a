"""The state of every run of a study, read from the files in the run folders, and the jobs that do the runs.

Each folder is read by one small read, so ten thousand folders take a second or two.
"""

from __future__ import annotations

import functools
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from hpc.launching import job_files, job_notes, study_jobs
from hpc.slurm import queue as slurm_queue
from hpc.slurm import scheduler
from hpc.slurm.queue import QueuedJob
from leukotree.errors import InputError, one_line
from leukotree.records.runfolder import is_run, read_status

N = TypeVar("N", int, float)
STALE = 300.0
"""Seconds without a heartbeat after which a run in the state "running" counts as hung. A live run writes one
every 15 s."""


@dataclass(frozen=True)
class JobState:
    """A job of SLURM, or a local one, that waits or runs."""

    id: str
    """12_3 for an element of an array; the process id for a local job."""
    on: str
    """slurm or local."""
    state: str
    """PENDING, RUNNING, ... in SLURM's words."""
    reason: str
    """Why it waits, in SLURM's words."""
    nodes: str
    left: str
    """Time left of its limit, as [days-]hours:minutes:seconds; empty for a local job."""
    log: str
    """The file with the errors of the main rank, once the job has begun."""


@dataclass(frozen=True)
class RunState:
    """One run.

    `state` is that of status.json. But it is "hung" for a running one whose heartbeat is older than STALE,
    and "queued" where no status has been written yet. `scan` also knows the jobs: there "queued" is a run
    that a job is still to begin or to continue, and "lost" is one whose job has ended and left no message.
    The command that submitted a lost run tries it again."""

    study: str
    run_name: str
    state: str
    kind: str
    """What ended a run early: preempted, timeout, node, oom, nan, disk or error."""
    epoch: int
    epochs: int
    macro_f1: float | None
    """The macro-F1 of the evaluated fold, once the run is done."""
    age: float | None
    """Seconds since the last heartbeat; None if there was none."""
    message: str
    """The reason of a failed run."""
    job: JobState | None = None
    """The job that is to begin or continue it; None where there is none, or it is not known here."""
    codes: tuple[str, ...] = ()
    """The codes that it was trained with, in their order, if it was continued on other code than it began
    with; else empty."""

    @property
    def variant(self) -> str:
        return self.run_name.rpartition("-")[0]

    @property
    def begun(self) -> bool:
        """Whether it has ever written a heartbeat."""
        return self.age is not None


def read(folder: Path, now: float | None = None) -> RunState:
    """The state of one run folder at the time `now` (unix s). A missing or broken status.json reads as
    "queued"."""
    return of_status(folder, read_status(folder), time.time() if now is None else now)


def begun(root: Path) -> frozenset[str]:
    """The names in a study's folder, by one look. A run that is not among them has no folder, so nothing of
    it needs to be read: a new grid has ten thousand such runs."""
    try:
        return frozenset(os.listdir(root))
    except OSError:
        return frozenset()


def of_status(folder: Path, status: Mapping[str, Any], now: float) -> RunState:
    """The state of a run folder with this status.json at the time `now` (unix s)."""
    beat = status.get("heartbeat")
    age = max(0.0, now - beat) if isinstance(beat, int | float) else None
    state = str(status.get("state", "queued"))
    if state == "running" and (age is None or age > STALE):
        state = "hung"
    kind = status.get("kind", "") if state in ("preempted", "failed") else ""
    epoch, epochs = (_number(status.get(name), int) or 0 for name in ("epoch", "epochs"))
    score, message, codes = (
        _number(status.get("macro_f1"), float),
        one_line(status.get("message", "")),
        status.get("codes"),
    )
    codes = tuple(map(str, codes)) if isinstance(codes, list) else ()
    return RunState(
        folder.parent.name, folder.name, state, str(kind), epoch, epochs, score, age, message, codes=codes
    )


def _number(value: Any, kind: type[N]) -> N | None:
    """A number of status.json; None for anything else, as in a damaged file."""
    return kind(value) if isinstance(value, int | float) and math.isfinite(value) else None


@dataclass(frozen=True)
class StudyJob:
    """A job of a study that does none of its runs: its sweep, its report, ..."""

    study: str
    kind: str
    job: JobState


@dataclass(frozen=True)
class Look:
    """A study, or all studies, at one moment."""

    runs: list[RunState]
    jobs: list[StudyJob]
    slurm_problem: str
    """Why the jobs of SLURM are not known here; empty where they are known."""


def jobs(root: Path) -> list[StudyJob]:
    """The jobs of SLURM of a study. Its folder need not exist yet, as after `leukotree submit`."""
    return _others(root, {}, Slurm())


def scan(root: str | Path) -> list[RunState]:
    """The runs that `look` finds."""
    return look(root).runs


class Reader:
    """Reads the files of runs, and asks SLURM. Who looks again and again may remember what did not change."""

    def run(self, folder: Path, now: float) -> RunState:
        """The state of a run folder at the time `now`."""
        return read(folder, now)

    def notes(self, study: Path) -> dict[str, Any]:
        """See `job_notes.notes`."""
        return job_notes.notes(study)

    def slurm(self) -> Slurm:
        """SLURM's answer."""
        return Slurm()


def look(root: str | Path, reader: Reader | None = None) -> Look:
    """The runs and jobs of a study's folder, or of all studies if `root` holds the studies' folders. They are
    sorted by study and name. Runs that were submitted and have no folder yet are included. SLURM is asked at
    most once.

    Raises InputError if `root` cannot be read.
    """
    reader = reader or Reader()
    now, slurm = time.time(), reader.slurm()
    try:
        folders = _folders(root)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and (waiting := jobs(Path(root))):
            return Look([], waiting, "")
        raise InputError(f"{root}: cannot be read: {error.strerror}; no run has been started there") from None
    runs, others = [], []
    for study in _studies(root, folders):
        notes = reader.notes(study)
        of_study = folders if study == Path(root) else _folders(study)
        states = {folder.name: reader.run(folder, now) for folder in of_study if is_run(folder.name)}
        runs += _study(study, notes, states, slurm)
        others += _others(study, notes, slurm)
    return Look(runs, others, slurm.problem if slurm.needed else "")


def studies(root: str | Path) -> list[Path]:
    """The folders in which the runs of studies may lie: `root`, and those in it."""
    return _studies(root, _folders(root))


def _studies(root: str | Path, folders: list[Path]) -> list[Path]:
    return [Path(root), *(folder for folder in folders if not is_run(folder.name))]


class Slurm:
    """SLURM's answer, which is asked for when it is first needed."""

    problem = ""
    """Why SLURM does not answer, as on a machine that has a copy of the results."""
    needed = False
    """Whether a run's job would have to be known."""

    @functools.cached_property
    def queue(self) -> dict[str, QueuedJob] | None:
        """None where SLURM does not answer."""
        try:
            jobs = slurm_queue.look()
            scheduler.cluster()  # `on_another_cluster` needs an answer, too
            return jobs
        except InputError as error:
            self.problem = str(error)
            return None


def _study(root: Path, notes: dict[str, Any], states: Mapping[str, RunState], slurm: Slurm) -> list[RunState]:
    runs = dict(states)
    for name, note in notes.items():
        if name in runs and runs[name].state == "done":
            continue
        if note["on"] == "slurm" and (slurm.queue is None or job_notes.on_another_cluster(note)):
            slurm.needed |= slurm.queue is None
            continue  # only its files are known
        run = runs.get(name) or RunState(root.name, name, "queued", "", 0, 0, None, None, "")
        job = _job(root, note, slurm)
        runs[name] = replace(run, state=_with_job(run.state, job is not None), job=job)
    return [runs[name] for name in sorted(runs)]


def _job(root: Path, note: dict[str, Any], slurm: Slurm) -> JobState | None:
    """The job that a note is about, if it still waits or runs."""
    log = str(job_files.log(root, note["job"]))
    if note["on"] == "local":
        return (
            JobState(note["job"], "local", "RUNNING", "", note["host"], "", log)
            if job_notes.is_alive(note)
            else None
        )
    queued = (slurm.queue or {}).get(note["job"])
    return _of_slurm(queued, log) if queued else None


def _of_slurm(job: QueuedJob, log: str) -> JobState:
    return JobState(job.job, "slurm", job.state, job.reason, job.nodes, job.left, log)


def _others(root: Path, notes: dict[str, Any], slurm: Slurm) -> list[StudyJob]:
    if not slurm_queue.here() or not slurm.queue:
        return []
    known = {note["job"] for note in notes.values()}
    kinds = study_jobs.of_study(root, slurm.queue)
    return [
        StudyJob(root.name, kind, _of_slurm(slurm.queue[job], _log(root, kind, slurm.queue[job])))
        for job, kind in kinds.items()
        if job not in known
    ]


def _log(root: Path, kind: str, job: QueuedJob) -> str:
    """The log of a job that slurm/sweep.sh, its search or submitit submitted."""
    if kind == "worker":  # its script's argument is the folder that all nodes of the search share
        return str(Path(job.workdir, job.command.partition(" ")[2]) / f"worker-{job.job}.out")
    in_jobs = study_jobs.in_folder(job.command, root)
    return str(job_files.log(root, job.job) if in_jobs else Path(job.workdir) / f"slurm-{job.job}.out")


def _with_job(state: str, alive: bool) -> str:
    """The state of a run that was submitted, from the state in its files and whether its job waits or
    runs."""
    if state == "running":
        return state
    if alive:
        return state if state == "hung" else "queued"
    return "lost" if state in ("hung", "queued") else state


def _folders(root: str | Path) -> list[Path]:
    with os.scandir(root) as entries:
        return [Path(path) for path in sorted(entry.path for entry in entries if entry.is_dir())]


def epochs_of(reached: Sequence[tuple[int, int]]) -> str:
    """The epoch that each of some runs is in, such as "3 of 8" or "3-5 of 8", from (finished epochs, all
    epochs) of each."""
    at = sorted(min(over + 1, epochs) for over, epochs in reached)
    span = f"{at[0]}" if at[0] == at[-1] else f"{at[0]}-{at[-1]}"
    return f"{span} of {max(epochs for _, epochs in reached)}"
