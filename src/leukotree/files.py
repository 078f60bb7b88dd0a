"""Writes that a kill, a full disk or a reader at the same moment cannot spoil."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from leukotree.errors import Busy, InputError


def write_atomic(path: str | Path, data: str | bytes) -> None:
    """Replace a file so that a reader, or a crash, sees the old content or the new, never a part."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def append_lines(path: str | Path, lines: Iterable[str]) -> None:
    """Add lines (without their ends) to a log and wait until they are on the disk.

    A last line that a kill cut short is ended first, so that it spoils nothing but itself; readers pass it over.
    """
    with open(path, "ab+") as file:
        size = file.seek(0, os.SEEK_END)
        torn = size > 0 and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n"
        file.write((b"\n" if torn else b"") + "".join(f"{line}\n" for line in lines).encode())
        file.flush()
        os.fsync(file.fileno())


def is_full(error: BaseException) -> bool:
    """Whether an error says that a disk, or the quota on it, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def locked(path: str | Path, busy: str) -> Iterator[None]:
    """Hold a lock file for this process; the system lets go of it however the process ends. Raises Busy with the text `busy`
    where another process holds it, or InputError that the file system has no locks."""
    # Opened for writing: NFS grants an exclusive lock to nothing less.
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(busy) from None
        except OSError as error:
            raise InputError(f"{path}: cannot be locked ({error.strerror}); use a file system with flock") from None
        yield
