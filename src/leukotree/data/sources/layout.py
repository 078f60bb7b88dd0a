"""What the importers share: walking a folder, counting what is left out, and refusing a folder of another layout."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from leukotree.errors import InputError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"})


@dataclass(frozen=True)
class Options:
    """What the user chose."""

    cell_types: bool = False
    """Take a cell's type as a proxy for a leaf."""
    benign: str | None = None
    """The leaf of images labelled benign; None leaves them out."""


@dataclass
class Scan:
    """What an importer found below `root`: a row per image, counts of what it left out, and remarks for the user."""

    source: str
    root: Path
    rows: list[dict[str, str]] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def place(self, image: PurePosixPath, leaf: str, patient: str = "", mask: str = "") -> None:
        """Add an image, its path relative to `root`. Without a patient's id the folds can keep only the image together."""
        row = {"image": str(image), "leaf": leaf, "patient": patient, "source": self.source, "mask": mask}
        self.rows.append(row | {"group": "patient" if patient else "image"})

    def images(self, below: str = ".", apart_from: Collection[Path] = ()) -> Iterator[PurePosixPath]:
        """Image files in sorted order, relative to `root`; other files, but those in `apart_from`, are counted as skipped."""
        home = os.path.realpath(self.root)
        seen: set[str] = set()
        for path in self._files(self.root / below):
            if path in apart_from:
                continue
            target = os.path.realpath(path)
            if reason := _unusable(path.relative_to(self.root), target, home):
                self.skipped[reason] += 1
            elif target in seen:
                self.skipped["link to another image of the set"] += 1
            else:
                seen.add(target)
                yield PurePosixPath(path.relative_to(self.root))

    def _files(self, folder: Path) -> Iterator[Path]:
        def refuse(error: OSError) -> None:
            raise error

        for parent, folders, files in os.walk(folder, onerror=refuse):
            for name in folders:
                if name.startswith("."):
                    self.skipped["hidden folder"] += 1
                elif os.path.islink(os.path.join(parent, name)):
                    self.skipped["linked folder"] += 1
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            yield from (Path(parent, name) for name in sorted(files))


def _unusable(path: Path, target: str, home: str) -> str:
    """Why a file at `path` below `home`, in truth at `target`, is no image to import, or an empty text."""
    suffix = path.suffix.lower()
    if path.name.casefold() == "thumbs.db":
        return "Thumbs.db"
    if path.name.startswith("."):
        return "hidden file"
    if suffix not in IMAGE_SUFFIXES:
        return f"not an image ({suffix or 'no extension'})"
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in str(path)):
        return "control characters or broken encoding in the path"
    if not Path(target).is_relative_to(home):
        return "link to a file elsewhere"
    return "" if os.path.isfile(target) else "broken link"


def find_top(root: Path, candidates: Iterable[Path], matches: Callable[[Path], bool], looked_for: str) -> Path:
    """The first of `root` and the candidates that has the layout. Raises InputError that says what was looked for."""
    for folder in (root, *candidates):
        if folder.is_dir() and matches(folder):
            return folder
    raise InputError(f"{root}: not this data set's layout; looked there for {looked_for}")


def listed(names: Collection[str], most: int = 5) -> str:
    """The names, sorted, cut after `most`."""
    shown = ", ".join(sorted(names)[:most])
    return shown if len(names) <= most else f"{shown}, ..."
