"""SLURM's commands. A controller that is busy or restarts does not answer; it is asked again after a
pause."""

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
from leukotree.errors import InputError, one_line

TIMEOUT = 60.0
"""Seconds within which a command has to answer."""
PAUSES = 2.0, 5.0, 15.0, 30.0
"""Seconds before each further try, where SLURM did not answer."""
QUICK, QUICK_PAUSES = 15.0, (1.0, 4.0)
"""The same where a person waits for the answer."""
NO_ANSWER = re.compile(
    r"contact slurm|timed out|connection (refused|reset|failure)|zero bytes|temporarily"
    r"|unable to connect to database|try again|unexpected message|rate limit",
    re.IGNORECASE,
)
"""What SLURM's commands print where the controller is busy, restarts or cannot be reached."""
JOB_COUNT_LIMIT = re.compile(r"(Max|Grp)SubmitJob")
"""How SLURM names its limits on the number of jobs."""
QUEUE_FULL = re.compile(rf"{JOB_COUNT_LIMIT.pattern}|^(?!.*(Assoc|QOS)\w*Limit).*job submit limit")
"""What sbatch prints where SLURM takes no more jobs of this user, association or QOS. It does not match where
SLURM names another limit."""
CANCELLED = "CANCELLED"
"""State of a job that somebody ended."""


class SlurmError(InputError):
    """A command of SLURM did not do what it was asked for."""


class NoAnswer(SlurmError):
    """SLURM did not answer; it may answer later."""


class Refused(SlurmError):
    """SLURM answered, and refused."""


class QueueFull(Refused):
    """SLURM takes no more jobs for now."""


def ask(*command: str, pauses: Sequence[float] = PAUSES, limit: float = TIMEOUT) -> str:
    """Standard output of a command of SLURM. Raises as `answer`; also Refused or QueueFull, with what SLURM
    printed, where the command fails."""
    return _output(answer(*command, pauses=pauses, limit=limit))


def ask_once(*command: str) -> str:
    """The same in one short try, for a person who waits. Raises as `ask`."""
    return ask(*command, pauses=(), limit=QUICK)


def answer(
    *command: str, script: str | None = None, pauses: Sequence[float] = PAUSES, limit: float = TIMEOUT
) -> subprocess.CompletedProcess[str]:
    """A command of SLURM after its end, whatever its exit code. It reads `script` (None: nothing), and has
    `limit` seconds for each try.

    It is tried again after each of the `pauses` while there is no answer. Raises NoAnswer if there is none
    after that, or if this process is asked to stop meanwhile; Refused where the command is missing.
    """
    for pause in (*pauses, None):
        try:
            return _run(*command, script=script, limit=limit)
        except NoAnswer:
            if pause is None or not _slept(pause):
                raise
    raise AssertionError


def _slept(seconds: float) -> bool:
    """Sleep. False, and at once, if a request to stop comes. One that came before does not count: it may be
    the reason why SLURM is asked."""
    before, end = signals.requested(), time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if signals.requested() and not before:
            return False
        time.sleep(min(0.5, left))
    return True


def environment() -> dict[str, str]:
    """The environment for a command of SLURM: without the variables of the user that would hide jobs, such as
    SQUEUE_STATES."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("SQUEUE_", "SCANCEL_"))}


def _run(
    *command: str, script: str | None = None, limit: float = TIMEOUT
) -> subprocess.CompletedProcess[str]:
    name = command[0]
    if not shutil.which(name):
        raise Refused(f"{name}: no such command here; run this where SLURM is")
    try:
        done = subprocess.run(
            command,
            env=environment(),
            input=script or "",  # never the input of this process: a stand-in in a container reads it
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"{name}: no answer within {limit:.0f} s; try again when SLURM answers") from None
    if done.returncode and NO_ANSWER.search(one_line(done.stderr)):
        raise NoAnswer(f"{name}: {_message(done)}; try again when SLURM answers")
    return done


def _output(done: subprocess.CompletedProcess[str]) -> str:
    if not done.returncode:
        return done.stdout
    message = _message(done)
    raise (QueueFull if QUEUE_FULL.search(message) else Refused)(f"{done.args[0]}: {message}")


def _message(done: subprocess.CompletedProcess[str]) -> str:
    """What a command that failed printed. `scontrol ping` names a controller that is down on stdout."""
    return one_line(done.stderr or done.stdout) or f"failed with exit code {done.returncode}"


@functools.cache
def _config(slurm_conf: str | None) -> str:
    """The configuration of the SLURM whose file is `slurm_conf`; "" where it is not shown. Kept once there is
    an answer. Raises NoAnswer."""
    try:
        return ask("scontrol", "show", "config", pauses=PAUSES[:2])
    except Refused:
        return ""


def _setting(key: str) -> str | None:
    """One value of SLURM's configuration; None where it is not shown. Raises NoAnswer."""
    match = re.search(rf"^{key}\s*=\s*(\S+)", _config(os.environ.get("SLURM_CONF")), re.MULTILINE)
    return match[1] if match else None


def cluster() -> str | None:
    """Name of the cluster whose SLURM answers here; None where it has no name. Raises NoAnswer."""
    return os.environ.get("SLURM_CLUSTER_NAME") or _setting("ClusterName")


def largest_array() -> int | None:
    """SLURM's MaxArraySize: an array's numbers run from 0 to one less. 1 where SLURM takes no arrays, None
    where the size is not shown. Raises NoAnswer."""
    size = _setting("MaxArraySize") or ""
    return max(1, int(size)) if size.isdecimal() else None


def listed(form: str, pauses: Sequence[float] = PAUSES) -> list[str]:
    """A line for each of this user's jobs that SLURM holds or runs, in a format of squeue. Each element of an
    array has its own line. It needs no accounting. Raises as `ask`."""
    command = ("squeue", "--all", "--noheader", "--array", f"--format={form}", "--user", str(os.getuid()))
    return ask(*command, pauses=pauses).splitlines()


def jobs() -> set[str]:
    """Ids of this user's jobs that SLURM holds or runs; elements of arrays as 12_3. Raises as `ask`."""
    return set(listed("%i"))


def array(job: str) -> str:
    """The id of the whole array of a job."""
    return job.partition("_")[0]


def find(script: Path) -> str | None:
    """Id of the job, or array, that was submitted with this batch script, also if it ended a moment ago.
    Raises as `ask`."""
    lines = ask(
        "squeue", "--all", "--noheader", "--states=all", "--user", str(os.getuid()), "--format=%F|%o"
    ).splitlines()
    return next(
        (job.strip() for job, _, path in (line.partition("|") for line in lines) if path == str(script)), None
    )


def sbatch(script: Path) -> str:
    """Submit a batch script that is submitted once. Returns the job's id. Where SLURM did not answer it may
    have taken the job all the same: the job is looked for before the next try. Raises as `ask`."""
    for pause in (*PAUSES, None):
        try:
            printed = ask("sbatch", str(script), pauses=())
            break
        except NoAnswer:
            if job := find(script):
                return job
            if pause is None or not _slept(pause):
                raise
    number = re.search(r"job (\d+)", printed)
    if number is None:
        raise Refused(f"sbatch: no job's number in its answer {printed.strip()!r}")
    return number[1]


def ended(job_ids: Collection[str]) -> dict[str, str]:
    """Job id -> the state in which it ended (FAILED, CANCELLED, ...), of those jobs that SLURM or its
    accounting still knows."""
    if not job_ids:
        return {}
    arrays = ",".join(sorted({array(job) for job in job_ids}))
    accounting = ("--allocations", "--noheader", "--parsable2", "--format=JobID,State", f"--jobs={arrays}")
    queue = ("--all", "--noheader", "--array", "--states=all", "--format=%i|%T", "--user", str(os.getuid()))
    states: dict[str, str] = {}
    for command in (("sacct", *accounting), ("squeue", *queue)):
        try:
            lines = ask(*command, pauses=()).splitlines()
        except SlurmError:  # no accounting
            continue
        for job, _, state in (line.partition("|") for line in lines):
            if job in job_ids:
                states[job] = state.partition(" ")[0]  # "CANCELLED by 0"
    return states
