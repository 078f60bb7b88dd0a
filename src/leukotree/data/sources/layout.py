"""What the importers share: the images of a folder, counting what is left out, and refusing a folder of
another layout."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from leukotree.data.images.formats import IMAGE_SUFFIXES, UNREAD_SUFFIXES
from leukotree.data.patients import identities
from leukotree.data.sources.walk import File, Walk
from leukotree.errors import InputError


@dataclass(frozen=True)
class Options:
    """What the user chose."""

    cell_types: bool = False
    """Take a cell's type as a proxy for a leaf."""
    benign: str | None = None
    """The leaf of images labelled benign; None leaves them out."""
    skip: Mapping[Path, str] = field(default_factory=dict)
    """Files and folders to leave out, and how the user named them. Every source heeds them."""


@dataclass
class Scan:
    """What an importer found below `root`: a row per image, counts of what it left out, and remarks for the
    user."""

    source: str
    root: Path
    skip: Mapping[Path, str] = field(default_factory=dict)
    rows: list[dict[str, str]] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    files: dict[str, File] = field(default_factory=dict)
    """Image, as in `rows` -> its file, of all images that were met."""
    broken: list[str] = field(default_factory=list)
    """Links that lead nowhere."""
    left_out: set[str] = field(default_factory=set)
    """Images that the importer has looked at and will not have, whatever a link to one may say."""
    folders: dict[str, int] = field(default_factory=dict)
    """Folder that stands for a leaf -> files in it, images or not; empty where a source has no such
    folders."""

    def __post_init__(self) -> None:
        self.walk = Walk(self.skip, self.skipped)

    def place(self, image: PurePosixPath, leaf: str, patient: str = "", mask: str = "") -> None:
        """Add an image, its path relative to `root`. Without a patient's id the folds can keep only the image
        together."""
        ids = {
            name: identities.normal(text)
            for name, text in (("leaf", leaf), ("patient", patient), ("source", self.source))
        }
        self.rows.append(
            {"image": str(image), **ids, "mask": mask, "group": "patient" if ids["patient"] else "image"}
        )

    def leave_out(self, image: PurePosixPath, reason: str) -> None:
        """Count an image that is none for this study."""
        self.skipped[reason] += 1
        self.left_out.add(str(image))

    def images(self, below: str = ".", apart_from: Collection[Path] = ()) -> Iterator[PurePosixPath]:
        """Image files in sorted order, relative to `root`, links to them too; other files, but those in
        `apart_from`, are counted as skipped. Raises InputError for a link that leads nowhere and has no name
        of an image, so may be a folder."""
        for file in self.walk.files(self.root / below):
            if file.path in apart_from:
                continue
            path = PurePosixPath(file.path.relative_to(self.root))
            if file.broken and path.suffix.lower() not in IMAGE_SUFFIXES and not path.name.startswith("."):
                raise InputError(
                    f"{shown(file.path)}: a link to {shown(file.real)}, which is not there; "
                    "restore that, remove the link, or leave it out with --skip"
                )
            if file.broken and not path.name.startswith("."):
                self.broken.append(str(path))
            if reason := _unusable(file, path):
                self.skipped[reason] += 1
            else:
                self.files[str(path)] = file
                yield path


def _unusable(file: File, path: PurePosixPath) -> str:
    """Why a file at `path` below the root is no image to import, or an empty text."""
    suffix = path.suffix.lower()
    if path.name.casefold() == "thumbs.db":
        return "Thumbs.db"
    if path.name.startswith("."):
        return "hidden file"
    if suffix in UNREAD_SUFFIXES:
        return f"perhaps an image, of a kind that is not read ({suffix}); save it as PNG or TIFF"
    if suffix not in IMAGE_SUFFIXES:
        return f"not an image ({shown(suffix) or 'no extension'})"
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in str(path)):
        return "control characters or broken encoding in the path"
    if file.broken:
        return "broken link"
    return "" if os.path.isfile(file.real) else "not a file"


def find_top(
    root: Path, candidates: Iterable[Path], matches: Callable[[Path], bool], looked_for: str
) -> Path:
    """The first of `root` and the candidates that has the layout. Raises InputError that says what was looked
    for."""
    for folder in (root, *candidates):
        if folder.is_dir() and matches(folder):
            return folder
    raise InputError(f"{root}: not this data set's layout; looked there for {looked_for}")


def listed(names: Collection[str], most: int = 5) -> str:
    """The names, sorted, cut after `most`."""
    first = ", ".join(map(shown, sorted(names)[:most]))
    return first if len(names) <= most else f"{first}, ..."


def shown(name: str | Path) -> str:
    """A name for a line of text, escaped where it would break it."""
    return str(name) if str(name).isprintable() else repr(str(name))
