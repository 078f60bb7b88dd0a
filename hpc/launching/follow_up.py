"""The job after the jobs: it submits what is still to do of their runs, and says which are done, and which
are missing."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.launching import failures, job_notes, stale, study_jobs, submission
from hpc.slurm import queue, scheduler
from hpc.slurm import site as sites
from leukotree import files
from leukotree.errors import InputError
from leukotree.spec import RunSpec

if TYPE_CHECKING:
    from hpc.launching.sender import Runs

FILE = "reduced.json"
MINUTES = 15
"""Time limit of the job; ten thousand runs take seconds."""
LATER = 10
"""Minutes after which it runs where it waits for no job."""


@dataclasses.dataclass(frozen=True)
class Reduce:
    """What submitit pickles: the runs to look for, and where they are to happen."""

    runs: Runs

    @property
    def run_names(self) -> list[str]:
        """None: it does no run itself."""
        return []

    def __call__(self) -> None:
        """Submit what is worth it of the runs that are missing; another such job looks after those. Write
        reduced.json and say what it holds; exit code 1 if a run is missing and no job is to do it."""
        from hpc.launching import runs as launch

        root, names = self.runs.root, self.runs.names
        try:
            outcome = launch.queue(self.runs, lambda: again(self.runs))
        except InputError as error:
            outcome = launch.Outcome()
            print(f"leukotree: nothing could be submitted: {error}", file=sys.stderr)
        found = reduced(root, names) | {"submitted": outcome.submitted, "reducer": outcome.reducer}
        files.write_atomic(root / FILE, json.dumps(found, indent=1))
        if outcome.reducer:
            _report_after(root, outcome.reducer)
        print(*lines(found), sep="\n", flush=True)
        if found["missing"] and not outcome.submitted:
            sys.exit(1)


def _report_after(root: Path, reducer: str) -> None:
    """Let the study's report, if one is queued, wait for the next such job: it waits for this one until
    now."""
    with contextlib.suppress(InputError):  # then it comes early, and says what is missing
        for job, kind in study_jobs.of_study(root, queue.look()).items():
            if kind == "report":
                scheduler.ask("scontrol", "update", f"JobId={job}", f"Dependency=afterany:{reducer}")


def again(runs: Runs) -> list[RunSpec]:
    """The missing runs that nobody else submits: those that SLURM had no room for before, and those whose job
    has lost its place, or its node, and was not queued again. Not those that somebody has cancelled, nor
    those of which SLURM does not know."""
    from hpc.launching import runs as launch

    notes, found = job_notes.notes(runs.root), launch.missing(runs.specs, runs.root, anew=False)
    gone = job_notes.of_this_slurm(runs.root, [spec.run_name for spec in found])
    refused = {job for job in gone if failures.requeue_refused(runs.root, job)}
    ended = {job for job, state in scheduler.ended(gone).items() if state != scheduler.GONE}
    return [
        spec for spec in found if spec.run_name not in notes or notes[spec.run_name]["job"] in refused | ended
    ]


def reduced(root: Path, run_names: Sequence[str]) -> dict[str, Any]:
    """{time, asked, done, missing}: `missing` has run name -> {state, kind, message} of each run that is not
    done, also of those that a job is still to do, and of those that are done but stale (see
    `hpc.launching.stale`)."""
    from hpc.launching import retries

    notes = job_notes.notes(root)
    gone = {}
    for name in run_names:
        state = stale.read(root / name)
        if state.state != "done":
            verdict = retries.Verdict(False, reason=state.message)
            if state.state != stale.STATE:
                verdict = retries.judge(root, name, notes.get(name), anew=False)
            gone[name] = {"state": state.state, "kind": verdict.kind, "message": verdict.reason}
    return {"time": time.time(), "asked": len(run_names), "done": len(run_names) - len(gone), "missing": gone}


def lines(found: dict[str, Any]) -> list[str]:
    """For people."""
    rows = [
        f"missing: {name}: {' '.join(filter(None, one.values()))}" for name, one in found["missing"].items()
    ]
    if found["submitted"]:
        rows.insert(
            0,
            f"{len(found['submitted'])} jobs submitted for those that are missing; job {found['reducer']} looks after them",
        )
    return [f"{found['done']} of {found['asked']} runs are done", *rows]


def submit(runs: Runs) -> str:
    """Queue a small job that runs in a while; `put_off` says after which jobs. Returns its id. Raises
    InputError where SLURM refuses it."""
    from hpc.launching.job import outside_a_job

    parameters = sites.submitit_parameters(runs.place.site, small=True)
    parameters |= {"timeout_min": MINUTES, "tasks_per_node": 1, "name": f"{runs.root.name}-reduce"}
    parameters["slurm_additional_parameters"] |= {"begin": f"now+{LATER}minutes"}
    with outside_a_job():
        [job] = submission.queue(
            submission.executor(runs.root / "jobs", parameters), runs.root, [Reduce(runs)]
        )
    return job


def put_off(job: str, after: Collection[str]) -> None:
    """Let the job run when the jobs `after` have ended, however they did. Where SLURM does not hear that, it
    runs early, and queues another."""
    arrays = sorted({scheduler.array(other) for other in after}, key=int)
    if arrays:
        with contextlib.suppress(InputError):
            scheduler.ask(
                "scontrol",
                "update",
                f"JobId={job}",
                f"Dependency=afterany:{':'.join(arrays)}",
                "StartTime=now",
            )


def withdraw(job: str) -> None:
    """Take a job that was just submitted out of the queue."""
    scheduler.ask("scancel", job)
