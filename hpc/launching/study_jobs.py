"""Which of this user's jobs belong to a study.

A job belongs to it if its batch script lies in the study's folder, if it runs slurm/sweep.sh on the study's
file, if it is a worker of that search, or if it was noted here. An id alone is not enough: SLURM uses ids
again, and other clusters have the same ones.

`python -m hpc.launching.study_jobs KIND JOB STUDY [key=value ...]` notes a job of a study whose script lies
elsewhere.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpc.launching import job_files
from hpc.slurm import scheduler
from hpc.slurm.queue import QueuedJob
from hpc.studies import study
from leukotree.errors import InputError
from leukotree.files import append_lines

NOTES = "jobs.jsonl"
SWEEP = ("slurm", "sweep.sh")
"""The end of the path of the script that searches. Another project may also have a sweep.sh."""
WORKER = ("slurm", "worker.sh")
WORKERS = "leukotree-workers-"
"""Begin of the name of a worker's job. The cluster and the job that searches follow."""
SWEPT = "sweeps/phantom.yaml"
"""The study of slurm/sweep.sh if none is named."""


def of_study(root: Path, queue: Mapping[str, QueuedJob]) -> dict[str, str]:
    """Job id -> kind of each job of a study: "run", "reduce" (the follow-up job), "sweep", "worker", or the
    kind that was noted."""
    noted = _noted(root)
    kinds = {}
    for job in queue.values():
        if in_folder(job.command, root):
            kinds[job.job] = (
                job.name.removeprefix(f"{root.name}-") if job.name.startswith(f"{root.name}-") else "run"
            )
        elif _sweeps(job.workdir, job.command) == root.resolve():
            kinds[job.job] = "sweep"
        elif (job.job, job.name, job.workdir) in noted:
            kinds[job.job] = noted[job.job, job.name, job.workdir]
    sweeps = {job for job, kind in kinds.items() if kind == "sweep"}
    return kinds | {
        job.job: "worker" for job in queue.values() if job.job not in kinds and _works_for(job) in sweeps
    }


def _works_for(job: QueuedJob) -> str | None:
    """Id of the job that searches, if `job` is a worker of it: the end of its name."""
    script = job.command.partition(" ")[0]
    if job.name.startswith(WORKERS) and Path(job.workdir, script).parts[-2:] == WORKER:
        return job.name.rpartition("-")[2]
    return None


@functools.cache
def in_folder(command: str, root: Path) -> bool:
    """Whether a batch script lies in the study's folder of jobs, where submitit writes it."""
    script = Path(command)
    with contextlib.suppress(OSError):
        return script.suffix == ".sh" and script.parent.samefile(job_files.folder(root))
    return False


@functools.cache
def _sweeps(workdir: str, command: str) -> Path | None:
    """The folder of the study that a job of slurm/sweep.sh searches; None for another job."""
    script, *words = command.split() or [""]
    if Path(workdir, script).parts[-2:] != SWEEP:
        return None
    path, overrides = _arguments(words)
    try:
        plan = study.load(Path(workdir) / path, overrides)
    except InputError:
        return None
    return (Path(workdir) / plan.root).resolve()


def _arguments(words: Sequence[str]) -> tuple[str, list[str]]:
    """(study file, key=value ...) from the arguments of slurm/sweep.sh, read as the script reads them."""
    path, overrides, left = "", [], iter(words)
    for word in left:
        if word == "--site":
            next(left, None)
        elif word.startswith("-") and not word.startswith("--site="):
            path = path or SWEPT  # what follows is its value, or the search's
        elif "=" in word:
            overrides += [] if word.startswith("-") else [word]
        else:
            path = path or word
    return path or SWEPT, overrides


def _noted(root: Path) -> dict[tuple[str, str, str], str]:
    """(job, name, working directory) -> kind."""
    kinds = {}
    with contextlib.suppress(OSError):
        for line in (root / NOTES).read_text().splitlines():
            with contextlib.suppress(ValueError, KeyError):  # a line cut short by a kill
                note = json.loads(line)
                kinds[note["job"], note["name"], note["workdir"]] = note["kind"]
    return kinds


def note(root: Path, kind: str, job: str) -> None:
    """Note that a queued job belongs to the study. Raises InputError if SLURM does not know the job, or does
    not answer."""
    try:
        answer = scheduler.ask("scontrol", "show", "job", job)
    except InputError as error:
        raise InputError(f"job {job}: not noted: {error}") from None
    name, workdir = (
        re.search(pattern, answer, re.MULTILINE) for pattern in (r" JobName=(.*)$", r"^\s*WorkDir=(.*)$")
    )
    if not name or not workdir:
        raise InputError(f"job {job}: not noted: unknown to SLURM")
    root.mkdir(parents=True, exist_ok=True)
    fields = {"kind": kind, "job": job, "name": name[1], "workdir": workdir[1], "time": time.time()}
    append_lines(root / NOTES, [json.dumps(fields)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Note a job. Returns 2 after one line on stderr for bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m hpc.launching.study_jobs", description="Note that a job is a study's."
    )
    parser.add_argument("kind", help="what it does, such as report")
    parser.add_argument("job", help="its id")
    parser.add_argument("study", help="the study's file")
    parser.add_argument("overrides", metavar="key=value", nargs="*")
    given = parser.parse_args(arguments)
    try:
        note(study.load(given.study, given.overrides).root, given.kind, given.job)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
