"""SLURM's commands, asked with patience: a controller that is busy or starts anew answers a while later."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from leukotree import signals
from leukotree.errors import InputError

ANSWER = 60.0
"""Seconds within which a command has to answer."""
PAUSES = 2.0, 5.0, 15.0, 30.0
"""Seconds before each further try, where SLURM did not answer."""
QUICK, QUICK_PAUSES = 15.0, (1.0, 4.0)
"""The same where a person waits for the answer."""
SILENT = re.compile(
    r"contact slurm|timed out|connection (refused|reset|failure)|zero bytes|temporarily|unable to connect to database|try again"
    r"|unexpected message|rate limit",
    re.IGNORECASE,
)
"""What SLURM's commands say where the controller is busy, starts anew or cannot be reached."""
COUNTED = re.compile(r"(Max|Grp)SubmitJob")
"""How SLURM names its limits on the number of jobs."""
FULL = re.compile(rf"{COUNTED.pattern}|^(?!.*(Assoc|QOS)\w*Limit).*job submit limit")
"""What sbatch says where SLURM takes no more jobs of this user, association or QOS, and not where it names
another limit."""
GONE = "CANCELLED"
"""State of a job that somebody ended."""


class Silent(InputError):
    """SLURM did not answer; it may in a while."""


class Refused(InputError):
    """SLURM answered, and said no."""


class Full(Refused):
    """SLURM takes no more jobs for now."""


def ask(*command: str, pauses: Sequence[float] = PAUSES, limit: float = ANSWER) -> str:
    """What a command of SLURM prints. Raises as `answer`, and Refused or Full with what SLURM says."""
    return _printed(answer(*command, pauses=pauses, limit=limit))


def ask_once(*command: str) -> str:
    """The same in one short try, for a person who waits. Raises as `ask`."""
    return ask(*command, pauses=(), limit=QUICK)


def answer(
    *command: str, script: str | None = None, pauses: Sequence[float] = PAUSES, limit: float = ANSWER
) -> subprocess.CompletedProcess[str]:
    """The end of a command of SLURM that reads `script` and has `limit` seconds for each try. Raises Silent
    where there is no answer after the last of the `pauses`, or when we are asked to stop meanwhile, and
    Refused where there is no such command."""
    for pause in (*pauses, None):
        try:
            return _tried(*command, script=script, limit=limit)
        except Silent:
            if pause is None or not _slept(pause):
                raise
    raise AssertionError


def _slept(seconds: float) -> bool:
    """Sleep. False, and at once, where a request to stop comes; one that came before does not count, since it
    is what we are asking for."""
    before, end = signals.requested(), time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if signals.requested() and not before:
            return False
        time.sleep(min(0.5, left))
    return True


def environment() -> dict[str, str]:
    """For a command of SLURM: without the variables that would hide jobs from us, such as a user's
    SQUEUE_STATES."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("SQUEUE_", "SCANCEL_"))}


def _once(*command: str) -> str:
    return _printed(_tried(*command))


def _tried(
    *command: str, script: str | None = None, limit: float = ANSWER
) -> subprocess.CompletedProcess[str]:
    name = command[0]
    if not shutil.which(name):
        raise Refused(f"{name}: no such command here; run this where SLURM is")
    try:
        done = subprocess.run(
            command,
            env=environment(),
            input=script,
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Silent(f"{name}: no answer within {limit:.0f} s; try again when SLURM answers") from None
    if done.returncode and SILENT.search(message := _message(done)):
        raise Silent(f"{name}: {message}; try again when SLURM answers")
    return done


def _printed(done: subprocess.CompletedProcess[str]) -> str:
    if not done.returncode:
        return done.stdout
    message = _message(done)
    raise (Full if FULL.search(message) else Refused)(f"{done.args[0]}: {message}")


def _message(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join(done.stderr.split()) or f"failed with exit code {done.returncode}"


@functools.cache
def _config(where: str | None) -> str:
    """Of the SLURM whose file is `where`; "" where it does not say. Asked until there is an answer. Raises
    Silent."""
    try:
        return ask("scontrol", "show", "config", pauses=PAUSES[:2])
    except Refused:
        return ""


def _setting(key: str) -> str | None:
    """Of SLURM's configuration; None where it does not say. Raises Silent."""
    found = re.search(rf"^{key}\s*=\s*(\S+)", _config(os.environ.get("SLURM_CONF")), re.MULTILINE)
    return found[1] if found else None


def cluster() -> str | None:
    """Name of the cluster whose SLURM we talk to; None where it does not say. Raises Silent."""
    return os.environ.get("SLURM_CLUSTER_NAME") or _setting("ClusterName")


def largest_array() -> int | None:
    """SLURM's MaxArraySize: an array's numbers run from 0 to one less. 1 where it takes no arrays, None where
    it does not say. Raises Silent."""
    found = _setting("MaxArraySize") or ""
    return max(1, int(found)) if found.isdecimal() else None


def listed(form: str, pauses: Sequence[float] = PAUSES) -> list[str]:
    """A line for each of this user's jobs that SLURM holds or runs, elements of arrays apart, in a format of
    squeue. It needs no accounting. Raises as `ask`."""
    command = ("squeue", "--all", "--noheader", "--array", f"--format={form}", "--user", str(os.getuid()))
    return ask(*command, pauses=pauses).splitlines()


def jobs() -> set[str]:
    """Their ids, elements of arrays as 12_3."""
    return set(listed("%i"))


def array(job: str) -> str:
    """The id of the whole array of a job."""
    return job.partition("_")[0]


def find(script: Path) -> str | None:
    """Id of the job, or array, that was submitted with this batch script, also where it ended a moment
    ago."""
    lines = ask(
        "squeue", "--all", "--noheader", "--states=all", "--user", str(os.getuid()), "--format=%F|%o"
    ).splitlines()
    return next(
        (job.strip() for job, _, path in (line.partition("|") for line in lines) if path == str(script)), None
    )


def sbatch(script: Path) -> str:
    """Submit a batch script that is submitted once; the job's id. Where SLURM did not answer it may have
    taken the job all the same: then it is looked for before the next try. Raises as `ask`."""
    for pause in (*PAUSES, None):
        try:
            answer = _once("sbatch", str(script))
            break
        except Silent:
            if found := find(script):
                return found
            if pause is None or not _slept(pause):
                raise
    number = re.search(r"job (\d+)", answer)
    if number is None:
        raise Refused(f"sbatch: no job's number in its answer {answer.strip()!r}")
    return number[1]


def is_running(job_id: str) -> bool:
    """Whether SLURM counts this start of the job as running, and has not begun to end it."""
    command = ["squeue", "--all", "--noheader", "--jobs", job_id, "--Format=state,restartcnt"]
    try:
        answer = ask(*command).split()
    except InputError:
        return False
    return answer == ["RUNNING", os.environ.get("SLURM_RESTART_COUNT", "0")]


def requeue(job_id: str) -> None:
    """Have the job that we are in begun anew. Raises Refused, or Silent."""
    for pause in (*PAUSES, None):
        try:
            _once("scontrol", "requeue", job_id)
            return
        except Silent:
            if not is_running(job_id):  # SLURM has heard it
                return
            if pause is None:
                raise
            time.sleep(pause)


def ended(job_ids: Collection[str]) -> dict[str, str]:
    """job id -> the state in which it ended, of those that SLURM or its accounting still knows: FAILED,
    CANCELLED, ..."""
    arrays = ",".join(sorted({array(job) for job in job_ids}))
    found: dict[str, str] = {}
    for command in (
        ("sacct", "--allocations", "--noheader", "--parsable2", "--format=JobID,State", f"--jobs={arrays}"),
        (
            "squeue",
            "--all",
            "--noheader",
            "--array",
            "--states=all",
            "--format=%i|%T",
            "--user",
            str(os.getuid()),
        ),
    ):
        try:
            lines = ask(*command, pauses=()).splitlines() if arrays else []
        except InputError:  # no accounting
            continue
        for job, _, state in (line.partition("|") for line in lines):
            if job in job_ids:
                found[job] = state.partition(" ")[0]  # "CANCELLED by 0"
    return found
