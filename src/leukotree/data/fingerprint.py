"""The fingerprint of a packed folder: which data set it holds, found without reading any image."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from leukotree import files
from leukotree.data.remote.place import place
from leukotree.errors import InputError, RunFailed
from leukotree.taxonomy import Taxonomy

DESCRIPTION, INDEX = "dataset.json", "index.parquet"
DEAL = "folds-{}.parquet"
"""The deal of a repeat above 0: key and fold of every sample. See `deals`."""
MAX_BYTES = 2**30
"""Largest dataset.json and index.parquet; a larger file is refused before it is read."""
_UNAVAILABLE = (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EREMOTEIO)
"""Errors of a file system whose server or disk is not available."""


class Packed(NamedTuple):
    """The contents of a packed folder, in short."""

    fingerprint: str
    """See `fingerprint_of`."""
    tree: str
    """The label tree as JSON, as `Taxonomy.nested` gives it."""


def fingerprint_of(description: bytes, index: bytes) -> str:
    """Return sha256 hex over the contents of dataset.json and index.parquet.

    Equal fingerprints mean equal samples, wherever the folders lie.
    """
    return hashlib.sha256(description + index).hexdigest()


def dealt(fingerprint: str, deal: bytes) -> str:
    """Return the fingerprint of a repeat above 0: sha256 hex over that of the samples and the bytes of the
    repeat's deal. Other repeats do not change it."""
    return hashlib.sha256(fingerprint.encode() + deal).hexdigest()


def read_deal(folder: str | Path, repeat: int) -> bytes:
    """Return the bytes of the deal of a repeat above 0. Raises InputError if it is not there."""
    path = Path(folder) / DEAL.format(repeat)
    if not path.exists() and not path.is_symlink():
        raise InputError(
            f"{path}: repeat {repeat} is not dealt; run `leukotree pack {folder} --repeats {repeat + 1}`"
        )
    return read_plain(path)


def packed(folder: str | Path, repeat: int = 0) -> Packed | None:
    """Return what a folder holds now; None if it is no packed folder. Of an address: what its copy on this
    machine held when it was last compared; None without a copy. No server is asked.

    Args:
        repeat: the deal of the samples to folds. It is part of the fingerprint, if it is not 0.

    Raises InputError for a packed folder that cannot be read, and for a repeat that is not dealt.
    """
    folder = place(folder)
    paths = [folder / name for name in (DESCRIPTION, INDEX)]
    try:
        states = [path.stat() for path in paths]
    except OSError:
        return None
    content = _packed(folder, tuple(map(files.state, states)))
    if not repeat:
        return content
    deal = folder / DEAL.format(repeat)
    state = files.state(deal.stat()) if deal.exists() else ()
    return content._replace(fingerprint=_dealt(content.fingerprint, folder, repeat, state))


@lru_cache(maxsize=64)
def _dealt(fingerprint: str, folder: Path, repeat: int, state: tuple[int, ...]) -> str:
    return dealt(fingerprint, read_deal(folder, repeat))


@lru_cache(maxsize=64)  # a study needs it once for each of its runs
def _packed(folder: Path, states: tuple[tuple[int, ...], ...]) -> Packed:
    description, index = read_plain(folder / DESCRIPTION), read_plain(folder / INDEX)
    try:
        tree = Taxonomy.from_nested(json.loads(description)["taxonomy"]).nested()
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{folder / DESCRIPTION}: holds no taxonomy; pack the folder again") from error
    return Packed(fingerprint_of(description, index), json.dumps(tree))


def read_plain(path: Path) -> bytes:
    """Return the bytes of a plain file of a packed folder.

    Raises InputError for a link, a pipe, or a file that is too large.
    """
    # Non-blocking, since opening a pipe would wait for its other end.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise InputError(f"{path}: is no plain file; copy or pack the folder again")
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        reason = "is a link" if path.is_symlink() else f"cannot be read: {error.strerror}"
        raise read_error(error, f"{path}: {reason}; `leukotree pack` writes such a folder") from error
    if len(content) > MAX_BYTES:
        raise InputError(f"{path}: over {MAX_BYTES} bytes; pack the folder again")
    return content


def read_error(error: OSError, message: str) -> InputError | RunFailed:
    """Return the exception for a file that cannot be read.

    It is RunFailed of kind "node" if the file system is not available, perhaps only now or on this machine.
    Otherwise it is InputError.
    """
    return RunFailed(message, "node") if error.errno in _UNAVAILABLE else InputError(message)
