"""The files below a folder, in sorted order, through links as well; a link that would lead in a circle is not
followed."""

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
"""Names that operating systems and storage boxes add. Some such folders hold small copies of the images."""
MOST_LINKS = 3
"""Links one inside another up to which a folder is entered again: links among n folders give n! ways."""
NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def set_aside(name: str) -> bool:
    """Whether a file or folder is hidden, or the operating system's own."""
    return name.startswith(".") or name.casefold() in SYSTEM


@dataclass(frozen=True)
class File:
    """A file as it was met."""

    path: Path
    """As the folder and the names below it, links not resolved."""
    real: str
    """Where it is in truth, absolute."""
    inode: tuple[int, int] | None = None
    """(device, number) of a file that has several names in truth, called hard links; None for one name."""
    broken: bool = False
    """A link to nothing."""


@dataclass
class Walk:
    """One look at a data set; `skipped` counts what was not entered, by the reason."""

    skip: Mapping[Path, str]
    """Files and folders that the user leaves out, and how they were named."""
    skipped: Counter[str] = field(default_factory=Counter)
    followed: dict[str, str] = field(default_factory=dict)
    """Linked folder -> where it leads, of those that were entered."""
    met: Counter[Path] = field(default_factory=Counter)
    """Folder directly below the top -> files in it at any depth, without hidden ones."""
    circles: list[str] = field(default_factory=list)
    """Linked folders that were not entered, since they lead to a folder that holds them."""

    def files(self, top: Path) -> Iterator[File]:
        """Files of a folder, then those of its folders. Raises OSError for what cannot be read."""
        pending = [_Folder(str(top), os.path.realpath(top), (), 0, top)]
        met: set[str] = set()
        while pending:
            folder = pending.pop()
            met.add(folder.real)
            inner = []
            with os.scandir(folder.path) as entries:
                ordered = sorted(entries, key=lambda entry: entry.name)
            for entry in ordered:
                if named := self.skip.get(Path(entry.path)):
                    self.skipped[f"left out by --skip {named}"] += _count(entry)
                elif not _is_folder(entry):
                    if not set_aside(entry.name):
                        self.met[folder.first] += 1
                    yield _file(entry, folder.real)
                elif set_aside(entry.name):
                    hidden = entry.name.startswith(".")
                    self.skipped[
                        "hidden folder" if hidden else f"folder of the operating system ({entry.name})"
                    ] += 1
                elif below := self._enter(entry, folder, met):
                    inner.append(below)
            pending += reversed(inner)

    def _enter(self, entry: os.DirEntry[str], folder: _Folder, met: set[str]) -> _Folder | None:
        above = (*folder.above, folder.real)
        first = folder.first if folder.above else Path(entry.path)
        if not entry.is_symlink():
            return _Folder(entry.path, os.path.join(folder.real, entry.name), above, folder.links, first)
        real = os.path.realpath(entry.path)
        if any(Path(one).is_relative_to(real) for one in above) or (
            folder.links >= MOST_LINKS and real in met
        ):
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
    """The folders on the way here, as they are in truth."""
    links: int
    """Linked folders on the way here."""
    first: Path
    """The folder directly below the top that this one is or lies in."""


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
    """Files of what the user leaves out."""
    return sum(len(files) for _, _, files in os.walk(entry.path)) if _is_folder(entry) else 1
