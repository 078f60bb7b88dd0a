"""The folder of this machine that holds shards from elsewhere, and how much room they may take."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from leukotree.errors import InputError

GIGABYTE = 10**9
VARIABLES = "LEUKOTREE_CACHE", "LEUKOTREE_SCRATCH"
"""Variables that name the folder where no option does. The second one is set by a site's `scratch`."""
FREE_SHARE = 0.5
"""Share of the disk that the shards may take where no size is given: of what is free and what they have."""


@dataclass
class _Chosen:
    folder: str | None = None
    bytes: int | None = None


_chosen = _Chosen()


def use(folder: str | Path | None, gigabytes: float | None) -> None:
    """Choose the folder and the size (10^9 bytes) for this process. None: as the variables say; half of the
    disk."""
    _chosen.folder = None if folder is None else str(folder)
    _chosen.bytes = None if gigabytes is None else round(gigabytes * GIGABYTE)


def path() -> Path:
    """The folder of this user's shards. It may not exist yet."""
    for text in (_chosen.folder, *(os.environ.get(name) for name in VARIABLES)):
        expanded = os.path.expandvars(text or "")
        if expanded and "$" not in expanded:  # else the variable is not set on this machine
            break
    else:
        expanded = tempfile.gettempdir()
    return Path(expanded).expanduser().absolute() / f"leukotree-{os.getuid()}" / "shards"


def made() -> Path:
    """`path`, which exists and belongs to this user alone. Raises InputError where that cannot be."""
    folder = path()
    private = folder.parent
    try:
        private.mkdir(mode=0o700, parents=True, exist_ok=True)
        if private.is_symlink() or private.stat().st_uid != os.getuid():
            raise InputError(f"{private}: belongs to another user; name another folder with --cache")
        folder.mkdir(mode=0o700, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(13, "cannot be written")
    except OSError as error:
        raise InputError(
            f"{folder}: shards from an address cannot be kept there: {error.strerror}; name another folder "
            "with --cache"
        ) from error
    return folder


def limit(used: int) -> int:
    """Most bytes of all shards together, which now take `used` bytes."""
    if _chosen.bytes is not None:
        return _chosen.bytes
    return int(FREE_SHARE * (shutil.disk_usage(path()).free + used))
