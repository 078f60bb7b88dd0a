"""The follow-up job: it runs after the jobs of some runs, submits the runs that are still to do, and lists
those that are missing."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from hpc.launching import arrays, failures, job_files, job_notes, missing_list, study_jobs
from hpc.launching.outcome import Outcome, outcome_of
from hpc.launching.sender import Runs, Sender, missing
from hpc.slurm import queue as slurm_queue
from hpc.slurm import scheduler
from hpc.slurm import site as sites
from hpc.slurm.outside import outside_a_job
from leukotree import files
from leukotree.errors import InputError
from leukotree.log import logger
from leukotree.spec import RunSpec

MINUTES = 15
"""Time limit of the job; ten thousand runs take seconds."""
LATER = 10
"""Minutes after which the job runs if it waits for no other job."""


@dataclasses.dataclass(frozen=True)
class FollowUp:
    """The runs that the job looks at, and where they are to happen: what submitit pickles."""

    runs: Runs

    @property
    def run_names(self) -> list[str]:
        """Empty: it does no run itself."""
        return []

    def __call__(self) -> None:
        """Submit the missing runs that are tried again, with another such job after them. Write reduced.json
        and print what it holds. The exit code is 1 if a run is missing and no job is to do it."""
        root, names = self.runs.root, self.runs.names
        try:
            outcome = queue(self.runs, lambda: again(self.runs))
        except InputError as error:
            outcome = Outcome()
            logger.warning(f"nothing could be submitted: {error}")
        listing = missing_list.find(root, names) | {
            "submitted": outcome.submitted,
            "reducer": outcome.reducer,
        }
        files.write_atomic(root / missing_list.FILE, json.dumps(listing, indent=1))
        if outcome.reducer:
            _report_after(root, outcome.reducer)
        print(*missing_list.lines(listing), sep="\n", flush=True)
        if listing["missing"] and not outcome.submitted:
            sys.exit(1)


def _report_after(root: Path, reducer: str) -> None:
    """Let the study's report, if one is queued, wait for the next follow-up job instead of this one."""
    with contextlib.suppress(InputError):  # then the report comes early, and names what is missing
        for job, kind in study_jobs.of_study(root, slurm_queue.look()).items():
            if kind == "report":
                scheduler.ask("scontrol", "update", f"JobId={job}", f"Dependency=afterany:{reducer}")


def again(runs: Runs) -> list[RunSpec]:
    """The missing runs that nobody else submits: those that SLURM took no job for, and those whose job lost
    its nodes and was not queued again. Runs that somebody has cancelled are left out, and so are those whose
    jobs SLURM does not know."""
    notes, left = job_notes.notes(runs.root), missing(runs.specs, runs.root, new_command=False)
    jobs = job_notes.of_this_slurm(runs.root, [spec.run_name for spec in left])
    refused = {job for job in jobs if failures.requeue_refused(runs.root, job)}
    ended = {job for job, state in scheduler.ended(jobs).items() if state != scheduler.CANCELLED}
    return [
        spec for spec in left if spec.run_name not in notes or notes[spec.run_name]["job"] in refused | ended
    ]


def queue(runs: Runs, choose: Callable[[], Sequence[RunSpec]], *, new_command: bool = False) -> Outcome:
    """Submit the runs that `choose` returns, and wait for none. On SLURM a follow-up job calls this again for
    the runs that are left. It is queued before the others, since SLURM may take only some of them."""
    sender, outcome = Sender(runs), Outcome()

    def reserve() -> None:
        try:
            outcome.reducer = submit(runs)
        except InputError as error:  # the runs are more important
            logger.warning(f"{error}; leukotree status says what is missing")

    try:
        sender.send(
            choose, new_command=new_command, before=reserve if runs.place.on == "slurm" else lambda: None
        )
    except InputError:
        _withdraw(outcome)
        raise
    if not sender.submitted and not job_notes.of_this_slurm(runs.root, job_notes.alive(runs.root)):
        _withdraw(outcome)  # it has no job to follow, or has taken the only place in the queue
        sender.send(lambda: sender.unsent, new_command=new_command)
    outcome.submitted, outcome.unsent = sender.submitted, [spec.run_name for spec in sender.unsent]
    outcome = outcome_of(runs.specs, runs.root, outcome, {})
    if outcome.reducer:
        put_off(outcome.reducer, job_notes.of_this_slurm(runs.root, outcome.waiting))
    return outcome


def _withdraw(outcome: Outcome) -> None:
    if outcome.reducer:
        with contextlib.suppress(InputError):
            withdraw(outcome.reducer)
    outcome.reducer = None


def submit(runs: Runs) -> str:
    """Queue the follow-up job, to run in a while; `put_off` names the jobs that it waits for. Returns its id.
    Raises InputError where SLURM refuses it."""
    parameters = sites.submitit_parameters(runs.place.site, small=True)
    parameters |= {"timeout_min": MINUTES, "tasks_per_node": 1, "name": f"{runs.root.name}-reduce"}
    parameters["slurm_additional_parameters"] |= {"begin": f"now+{LATER}minutes"}
    with outside_a_job():
        [job] = arrays.submit_array(
            arrays.slurm_executor(job_files.folder(runs.root), parameters), runs.root, [FollowUp(runs)]
        )
    return job


def put_off(job: str, after: Collection[str]) -> None:
    """Let the job run when the jobs `after` have ended, whatever became of them. Where SLURM does not answer,
    the job runs early, and queues another one."""
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
