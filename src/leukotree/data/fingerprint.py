"""Which data set a packed folder holds: the fingerprint of its description and its index, without reading a
single image."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from leukotree.errors import InputError, RunFailed
from leukotree.taxonomy import Taxonomy

DESCRIPTION, INDEX = "dataset.json", "index.parquet"
MAX_BYTES = 2**30
"""Of dataset.json and of index.parquet, each; a larger file is refused unread."""
_AWAY = (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EREMOTEIO)
"""What a file system answers whose server or disk is not there."""


class Packed(NamedTuple):
    """What stands in a packed folder."""

    fingerprint: str
    """See `of`."""
    tree: str
    """The label tree as JSON, as `Taxonomy.nested` has it."""


def of(described: bytes, indexed: bytes) -> str:
    """sha256 hex over the contents of dataset.json and index.parquet: the same value, the same samples,
    wherever they lie."""
    return hashlib.sha256(described + indexed).hexdigest()


def packed(folder: str | Path) -> Packed | None:
    """What a folder holds now; None where no packed folder is there. Raises InputError for one that cannot be
    read."""
    paths = [Path(folder) / name for name in (DESCRIPTION, INDEX)]
    try:
        states = [path.stat() for path in paths]
    except OSError:
        return None
    return _packed(Path(folder), tuple((one.st_ino, one.st_size, one.st_mtime_ns) for one in states))


@lru_cache(maxsize=64)  # a study asks once for each of its runs
def _packed(folder: Path, states: tuple[tuple[int, ...], ...]) -> Packed:
    described, indexed = content(folder / DESCRIPTION), content(folder / INDEX)
    try:
        tree = Taxonomy.from_nested(json.loads(described)["taxonomy"]).nested()
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{folder / DESCRIPTION}: holds no taxonomy; pack the folder again") from error
    return Packed(of(described, indexed), json.dumps(tree))


def content(path: Path) -> bytes:
    """The bytes of a plain file of a packed folder. Raises InputError for a link, a pipe, or a file that is
    too large."""
    try:
        descriptor = os.open(
            path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        )  # a pipe would make us wait
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise InputError(f"{path}: is no plain file; copy or pack the folder again")
            found = file.read(MAX_BYTES + 1)
    except OSError as error:
        reason = "is a link" if path.is_symlink() else f"cannot be read: {error.strerror}"
        raise unreadable(error, f"{path}: {reason}; `leukotree pack` writes such a folder") from error
    if len(found) > MAX_BYTES:
        raise InputError(f"{path}: over {MAX_BYTES} bytes; pack the folder again")
    return found


def unreadable(error: OSError, message: str) -> InputError | RunFailed:
    """What to raise where a file cannot be read: its file system may be away, for a while or on this node,
    and not the file."""
    return RunFailed(message, "node") if error.errno in _AWAY else InputError(message)
