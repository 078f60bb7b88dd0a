"""A job's own folders on its node: `lt.*` in the scratch folder, each with a marker that names its job.

A job that is killed leaves its folders behind. Inside a job, `python -m hpc.slurm.scratch FOLDER` removes
those in FOLDER that jobs of this user left on this node: jobs that SLURM no longer has, and earlier starts of
this job. A folder without a marker is never removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from hpc.slurm import scheduler

MARKER = ".leukotree-job"
"""The file in a job's folder. Its lines: cluster=NAME, job=ID (a number, or 12_3), restart=NUMBER (how often
the job was queued again), host=NAME, user=NAME."""
CACHES = {"TRITON_CACHE_DIR": "triton", "TORCHINDUCTOR_CACHE_DIR": "inductor"}
"""Variable -> folder of a compiler's cache. Otherwise the caches would lie in the home that all jobs share,
or stay on the node for ever. CUDA's own cache has a limit and locks, and saves each job minutes: it stays
shared."""
SQUEUE_TIMEOUT = 60.0
"""Seconds that squeue may take."""


def place() -> Path:
    """The node-local folder for temporary files."""
    return Path(os.environ.get("LEUKOTREE_SCRATCH") or tempfile.gettempdir())


@contextlib.contextmanager
def caches() -> Iterator[None]:
    """Inside a job of SLURM, keep compiled code in a folder of this job, unless the user has set another one.

    The ranks of a node share the folder, and the last one to end removes it. If it cannot be made, the
    variables stay as they are.
    """
    unset = [name for name in CACHES if name not in os.environ]
    if not unset or not _job():
        yield
        return
    clean(place())
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            folder = stack.enter_context(_shared(place() / f"lt.{_job()}.caches"))
            os.environ.update({name: str(folder / CACHES[name]) for name in unset})
        try:
            yield
        finally:
            for name in unset:
                os.environ.pop(name, None)


@contextlib.contextmanager
def _shared(folder: Path) -> Iterator[Path]:
    """A folder of the processes of this job, until the last one ends. Raises OSError if it cannot be made, or
    if it belongs to another user, who may have guessed its name."""
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if folder.is_symlink() or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise PermissionError(f"{folder}: others may use it, too")
    marker = os.open(folder / MARKER, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(marker, fcntl.LOCK_SH)
        if not os.fstat(marker).st_size:
            os.pwrite(marker, "".join(f"{key}={value}\n" for key, value in _owner().items()).encode(), 0)
        yield folder
    finally:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        os.close(marker)


def clean(folder: Path) -> list[Path]:
    """Remove what ended jobs of this user left in a folder of this node. Returns the removed folders.

    Nothing is removed if SLURM does not answer, or outside a job.
    """
    if not _job():
        return []
    left = {path: job for path in folder.glob("lt.*") if (job := _left_by(path))}
    if not left:
        return []
    known = _known_jobs() if set(left.values()).difference(_names()) else None
    ended = [
        path for path, job in left.items() if job in _names() or (known is not None and job not in known)
    ]
    for path in ended:
        shutil.rmtree(path, ignore_errors=True)
    return [path for path in ended if not path.exists()]


def _left_by(folder: Path) -> str | None:
    """The job that made a folder; None if no other job of this user on this node did, nor an earlier start of
    this job, or if a process holds the marker."""
    try:
        if folder.is_symlink() or folder.lstat().st_uid != os.geteuid():
            return None
        marker = os.open(folder / MARKER, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fields = dict(
            line.split("=", 1) for line in os.read(marker, 4096).decode().splitlines() if "=" in line
        )
        fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (OSError, ValueError):
        return None
    finally:
        os.close(marker)
    job, restart = fields.pop("job", ""), fields.pop("restart", "")
    own = {key: value for key, value in _owner().items() if key not in ("job", "restart")}
    earlier = restart.isdecimal() and int(restart) < int(_restart())
    other = re.fullmatch(r"\d+(_\d+)?", job) and (job not in _names() or earlier)
    return job if other and fields == own else None


def _owner() -> dict[str, str]:
    return {
        "cluster": os.environ.get("SLURM_CLUSTER_NAME", ""),
        "job": _job(),
        "restart": _restart(),
        "host": socket.gethostname(),
        "user": _user(),
    }


def _user() -> str:
    """The name of this user, as `id -un` prints it."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a container may not know its users
        return str(os.geteuid())


def _job() -> str:
    """The id of this job; empty outside a job of SLURM."""
    return os.environ.get("SLURM_JOB_ID", "")


def _names() -> tuple[str, str]:
    """The id of this job, and its other name if it is an element of an array."""
    return _job(), "_".join(os.environ.get(f"SLURM_ARRAY_{name}_ID", "") for name in ("JOB", "TASK"))


def _restart() -> str:
    """How often SLURM has queued this job again."""
    return os.environ.get("SLURM_RESTART_COUNT", "0")


def _known_jobs() -> set[str] | None:
    """Ids of this user's jobs that wait or run, elements of arrays by both names. None if SLURM does not
    answer, and if the answer lacks this job: it may come from another cluster.
    """
    command = ["squeue", "--all", "--noheader", "--array", "--user", str(os.geteuid()), "--format=%i %A"]
    try:
        answer = subprocess.run(
            command,
            env=scheduler.environment(),
            capture_output=True,
            text=True,
            timeout=SQUEUE_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    known = set(answer.stdout.split())
    return known if not answer.returncode and _job() in known else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Clean a folder and print what was removed."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if len(words) != 1:
        print("usage: python -m hpc.slurm.scratch FOLDER", file=sys.stderr)
        return 2
    for path in clean(Path(words[0])):
        print(f"{path}: removed; its job has ended")
    return 0


if __name__ == "__main__":
    sys.exit(main())
