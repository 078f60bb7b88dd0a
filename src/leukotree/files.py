"""Files that stay whole when a process is killed, the disk is full, or another process reads; and locks."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from leukotree.errors import NO_ROOM, Busy, InputError

FULL = 2**20
"""Bytes. After a failure, a disk with less room than this counts as full."""


def write_atomic(path: str | Path, data: str | bytes, mode: int = 0o666) -> None:
    """Replace a file. A reader sees the old content or the new one, never a part, also after a crash. `mode`:
    the permissions, before the process's umask. Raises OSError."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def append_lines(path: str | Path, lines: Iterable[str]) -> None:
    """Add lines (without line ends) to a log, and wait until they are on the disk. Raises OSError.

    A last line that a kill cut short gets its line end first. Readers leave it out.
    """
    with open(path, "ab+") as file:
        size = file.seek(0, os.SEEK_END)
        cut_short = size > 0 and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n"
        file.write((b"\n" if cut_short else b"") + "".join(f"{line}\n" for line in lines).encode())
        file.flush()
        os.fsync(file.fileno())


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a log, one per line; [] for a file that cannot be read. Other lines are left out,
    such as one that a kill cut short."""
    rows = []
    with contextlib.suppress(OSError):
        for line in path.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                rows.append(json.loads(line))
    return [row for row in rows if isinstance(row, dict)]


def state(status: os.stat_result) -> tuple[int, int, int]:
    """What changes if a file is replaced or written again: the key of a cache of its content."""
    return status.st_ino, status.st_size, status.st_mtime_ns


def plain_stem(name: str, most: int) -> str:
    """A file's name without folders and ending, at most so many characters; others than letters, digits, "_"
    and "-" are "-"."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", Path(name).stem)[:most]


def sha256(path: str | Path) -> str:
    """Hex digest of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_full(error: BaseException) -> bool:
    """Whether the cause of an error is a full disk, or a used up quota."""
    return isinstance(error, OSError) and error.errno in NO_ROOM


def full_disk(*folders: str | Path) -> Path | None:
    """The first of these folders whose disk is full, or None."""
    for folder in folders:
        with contextlib.suppress(OSError):
            if shutil.disk_usage(folder).free < FULL:
                return Path(folder)
    return None


@contextlib.contextmanager
def locked(path: str | Path, busy: str, patience: float = 0.0) -> Iterator[None]:
    """Hold a lock file. The system releases it however this process ends.

    Raises Busy with the text `busy`, and who holds the lock, if another process still holds it after
    `patience` seconds. Raises InputError if the file system has no locks.
    """
    # NFS gives an exclusive lock only on a file that is open for writing.
    with open(path, "a+") as file:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise Busy(busy + holder(Path(path))) from None
                time.sleep(0.5)
            except OSError as error:
                raise InputError(
                    f"{path}: cannot be locked ({error.strerror}); use a file system with flock"
                ) from None
        _write_holder(path)
        yield


@contextlib.contextmanager
def waited_lock(path: str | Path) -> Iterator[None]:
    """Hold a lock file. Other processes wait for it, however long. Raises OSError."""
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def require_writable(folder: str | Path) -> None:
    """Raise the OSError that making a folder, or a file in it, would raise. Nothing is written."""
    folder = Path(folder)
    place = next(parent for parent in (folder, *folder.absolute().parents) if os.path.lexists(parent))
    if not place.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    if not os.access(place, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


def held(path: str | Path) -> bool | None:
    """Whether a process holds a lock file. None where this host cannot know: the last holder was on another
    host, whose locks this file system may not show."""
    path = Path(path)
    try:
        with open(path, "a" if os.access(path, os.W_OK) and path.exists() else "r") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    except OSError:
        return None
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return False if json.loads(path.read_text())["host"] == socket.gethostname() else None
    return False


def _write_holder(path: str | Path) -> None:
    """Write into a lock file who holds it: host, process, SLURM job and time."""
    job = os.environ.get("SLURM_ARRAY_JOB_ID", os.environ.get("SLURM_JOB_ID"))
    who = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "job": job,
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    with contextlib.suppress(OSError), open(path, "r+") as file:  # the lock also holds on a full disk
        file.truncate()
        file.write(json.dumps(who))


def holder(path: Path) -> str:
    """Who holds a lock file, or was the last to do so, for people. "" where the file has no such note."""
    try:
        who = json.loads(path.read_text())
        job = f", job {who['job']}" if who["job"] else ""
        return f" (held by process {who['pid']} on {who['host']}{job}, since {who['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
