"""Walk through the files below a folder in sorted order. Links are followed, unless they lead in a circle."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

SYSTEM = frozenset(
    {
        "__macosx",
        "@eadir",
        "$recycle.bin",
        "system volume information",
        "lost+found",
        "thumbs.db",
        "desktop.ini",
    }
)
"""Names that operating systems and storage devices add. Some such folders hold small copies of the images."""
MAX_LINKS = 3
"""Nested links up to which a folder is entered again. Links among n folders give n! paths."""
NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""Errors of a link to nothing."""


def is_ignored(name: str) -> bool:
    """Return whether a file or folder is hidden, or belongs to the operating system."""
    return name.startswith(".") or name.casefold() in SYSTEM


@dataclass(frozen=True)
class File:
    """A file of a data set."""

    path: Path
    """Path through the walked folder, links not resolved."""
    real: str
    """Absolute path, links resolved."""
    inode: tuple[int, int] | None = None
    """(device, number) of a file with several names (hard links); None for one name."""
    broken: bool = False
    """Whether it is a link to nothing."""


@dataclass
class Walk:
    """One walk through a data set."""

    skip: Mapping[Path, str]
    """File or folder that the user leaves out -> its name in the command."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Reason -> number of files and folders that were not entered."""
    followed: dict[str, str] = field(default_factory=dict)
    """Linked folder that was entered -> the folder it leads to."""
    counts: Counter[Path] = field(default_factory=Counter)
    """Folder directly below the top -> files in it at any depth, without ignored ones."""
    circles: list[str] = field(default_factory=list)
    """Linked folders that were not entered, since they lead to a folder that contains them."""

    def files(self, top: Path) -> Iterator[File]:
        """Yield the files of a folder, then those of its folders. Raises OSError for what cannot be read."""
        pending = [_Folder(str(top), os.path.realpath(top), (), 0, top)]
        entered: set[str] = set()
        while pending:
            folder = pending.pop()
            entered.add(folder.real)
            inner = []
            with os.scandir(folder.path) as entries:
                ordered = sorted(entries, key=lambda entry: entry.name)
            for entry in ordered:
                if name := self.skip.get(Path(entry.path)):
                    self.skipped[f"left out by --skip {name}"] += _count(entry)
                elif not _is_folder(entry):
                    if not is_ignored(entry.name):
                        self.counts[folder.first] += 1
                    yield _file(entry, folder.real)
                elif entry.name.startswith("."):
                    self.skipped["hidden folder"] += 1
                elif is_ignored(entry.name):
                    self.skipped[f"folder of the operating system ({entry.name})"] += 1
                elif below := self._enter(entry, folder, entered):
                    inner.append(below)
            pending += reversed(inner)

    def _enter(self, entry: os.DirEntry[str], folder: _Folder, entered: set[str]) -> _Folder | None:
        """Return the folder of an entry; None for a link that leads in a circle."""
        above = (*folder.above, folder.real)
        first = folder.first if folder.above else Path(entry.path)
        if not entry.is_symlink():
            return _Folder(entry.path, os.path.join(folder.real, entry.name), above, folder.links, first)
        real = os.path.realpath(entry.path)
        circle = any(Path(outer).is_relative_to(real) for outer in above)
        if circle or (folder.links >= MAX_LINKS and real in entered):
            self.circles.append(entry.path)
            self.skipped["linked folder that leads in a circle"] += 1
            return None
        self.followed[entry.path] = real
        return _Folder(entry.path, real, above, folder.links + 1, first)


@dataclass(frozen=True)
class _Folder:
    path: str
    real: str
    above: tuple[str, ...]
    """The real paths of the folders that contain this one, from the top."""
    links: int
    """Number of linked folders on the path from the top."""
    first: Path
    """The folder directly below the top that is or contains this one; the top itself for the top."""


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _file(entry: os.DirEntry[str], folder: str) -> File:
    linked = entry.is_symlink()
    real = os.path.realpath(entry.path) if linked else os.path.join(folder, entry.name)
    try:
        state = entry.stat()
    except OSError as error:
        if not linked or error.errno not in NOWHERE:
            raise
        return File(Path(entry.path), real, broken=True)
    return File(Path(entry.path), real, (state.st_dev, state.st_ino) if state.st_nlink > 1 else None)


def _count(entry: os.DirEntry[str]) -> int:
    """Return the number of files in a folder, 1 for a file."""
    return sum(len(files) for _, _, files in os.walk(entry.path)) if _is_folder(entry) else 1
