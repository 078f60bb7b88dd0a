"""What the layouts share: options, the images of a folder, counts of what is left out, and refusals."""

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
    """The user's options."""

    cell_types: bool = False
    """Use a cell's type as a proxy for a leaf."""
    benign: str | None = None
    """The leaf of images that are labelled benign; None leaves them out."""
    tumoral: str | None = None
    """The leaf of images that are labelled tumoral; None leaves them out."""
    cells: bool = False
    """Cut single cells out of whole fields, where a source says where they are."""
    table: Path | None = None
    """The file with the labels or boxes, for sources whose files have no fixed names."""
    map: Mapping[str, str] = field(default_factory=dict)
    """Column of a manifest -> the name that it has in the source."""
    patient: str | None = None
    """Regular expression that finds a patient's id in the path of an image."""
    slide: str | None = None
    """Regular expression that finds a slide's id in the path of an image."""
    extract: Path | None = None
    """The folder into which images are written that lie in archives."""
    skip: Mapping[Path, str] = field(default_factory=dict)
    """File or folder to leave out -> its name in the command. Every source uses this option."""


@dataclass
class Scan:
    """The content of a data set below `root`: a row per image, counts of what is left out, and remarks."""

    source: str
    root: Path
    skip: Mapping[Path, str] = field(default_factory=dict)
    rows: list[dict[str, str]] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    files: dict[str, File] = field(default_factory=dict)
    """Image, named as in `rows` -> its file, of all images below `root`."""
    broken: list[str] = field(default_factory=list)
    """Links to nothing."""
    left_out: set[str] = field(default_factory=set)
    """Images that `leave_out` has refused. Links to them are refused, too."""
    loose: bool = False
    """Whether labels that are no leaf are left out and counted, instead of being refused. So it is with the
    boxes of a detector, many of which are of no interest."""
    folders: dict[str, int] = field(default_factory=dict)
    """Folder with the name of a leaf -> files in it, images or not; empty if a source has no such folders."""

    labels: set[str] = field(default_factory=set)
    """Labels of boxes that are left out for another reason. `--leaf` may name them."""
    slides: dict[str, dict[str, str]] = field(default_factory=dict)
    """Slide -> the patients of its images, "" for none, each with its first image."""

    writes: list[Callable[[], None]] = field(default_factory=list)
    """What writes files of the data set. It is called when all has been checked, before the manifest."""

    def __post_init__(self) -> None:
        self.walk = Walk(self.skip, self.skipped)

    def add(
        self,
        image: PurePosixPath,
        leaf: str,
        patient: str = "",
        mask: str = "",
        slide: str = "",
        box: str = "",
    ) -> None:
        """Add an image by its path relative to `root`. Without a patient's id it is a group of its own.

        Args:
            slide: the id of its slide. It is the group where the patient is not known.
            box: the part of the file that is the image, see `boxes`.
        """
        texts = (("leaf", leaf), ("patient", patient or slide), ("source", self.source))
        ids = {name: identities.normal(text) for name, text in texts}
        group = ("patient" if patient else "slide") if ids["patient"] else "image"
        if slide := identities.normal(slide):
            owners = self.slides.setdefault(slide, {})
            owners.setdefault(ids["patient"] if patient else "", str(image))
        self.rows.append({"image": str(image), **ids, "mask": mask, "group": group, "box": box})

    def leave_out(self, image: PurePosixPath, reason: str) -> None:
        """Count an image that is not imported."""
        self.skipped[reason] += 1
        self.left_out.add(str(image))

    def images(self, below: str = ".", apart_from: Collection[Path] = ()) -> Iterator[PurePosixPath]:
        """Yield image files and links to them in sorted order, relative to `root`.

        Other files are counted as skipped, except those in `apart_from`. Raises InputError for a link to
        nothing whose name is no image's, since it may have been a folder.
        """
        for file in self.walk.files(self.root / below):
            if file.path in apart_from:
                continue
            path = PurePosixPath(file.path.relative_to(self.root))
            if file.broken and not path.name.startswith("."):
                if path.suffix.lower() not in IMAGE_SUFFIXES:
                    raise InputError(
                        f"{shown(file.path)}: a link to {shown(file.real)}, which does not exist; "
                        "restore that, remove the link, or leave it out with --skip"
                    )
                self.broken.append(str(path))
            if reason := _unusable(file, path):
                self.skipped[reason] += 1
            else:
                self.files[str(path)] = file
                yield path


def _unusable(file: File, path: PurePosixPath) -> str:
    """Return why a file at `path` below the root is no image to import, or ""."""
    suffix = path.suffix.lower()
    if path.name.casefold() == "thumbs.db":
        return "Thumbs.db"
    if path.name.startswith("."):
        return "hidden file"
    if suffix in UNREAD_SUFFIXES:
        return f"perhaps an image, in a format that is not read ({suffix}); save it as PNG or TIFF"
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
    """Return the first of `root` and the candidates that has the layout.

    Raises InputError naming what was looked for.
    """
    for folder in (root, *candidates):
        if folder.is_dir() and matches(folder):
            return folder
    raise InputError(f"{root}: not this data set's layout; looked there for {looked_for}")


def folder_names(folder: Path) -> set[str]:
    """The names of the folders in a folder, in small letters."""
    return {path.name.casefold() for path in folder.iterdir() if path.is_dir()}


def listed(names: Collection[str], limit: int = 5) -> str:
    """Return the sorted names, cut after `limit`."""
    first = ", ".join(map(shown, sorted(names)[:limit]))
    return first if len(names) <= limit else f"{first}, ..."


def shown(name: str | Path) -> str:
    """Return a name for one line of text, escaped if it is not printable."""
    return str(name) if str(name).isprintable() else repr(str(name))
