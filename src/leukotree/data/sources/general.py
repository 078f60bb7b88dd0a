"""What the sources share that are no public data set, but a form that many have: tables, boxes, archives.

Their images lie anywhere, so a name of a table is looked up among all images below the root. Ids of patients
and slides come from the paths, by regular expressions that the user gives.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import Path, PurePosixPath

from leukotree.data.boxes import Box
from leukotree.data.images import codec
from leukotree.data.images.formats import IMAGE_SUFFIXES
from leukotree.data.sources.layout import Options, Scan, listed


class Finder:
    """The images of a scan, found by the names that a table has for them."""

    def __init__(self, images: list[PurePosixPath]) -> None:
        self.exact = {str(image): image for image in images}
        self.named: defaultdict[str, list[PurePosixPath]] = defaultdict(list)
        for image in images:
            self.named[image.name.casefold()].append(image)
            self.named[image.stem.casefold()].append(image)

    def find(self, name: str, folder: str = "") -> tuple[PurePosixPath | None, str]:
        """Return (image, "") or (None, why there is none).

        A name is a path below the root, or below `folder`, or the end of such a path, or ends with such a
        path, as the paths of another machine do. Its ending may be missing. A name without folders may be
        anywhere. The folders of an absolute path say nothing of an image directly below the root.
        """
        if not name.strip():
            return None, "it names no image"
        text = PurePosixPath(name.strip().replace("\\", "/"))
        absolute = text.is_absolute() or re.match("[A-Za-z]:", name.strip()) is not None
        parts = [part for part in text.parts if part not in ("/", ".")]
        for start in (PurePosixPath(folder), PurePosixPath()):
            if image := self.exact.get(str(start / PurePosixPath(*parts))):
                return image, ""
        candidates = self.named.get(parts[-1].casefold(), []) if parts else []
        fitting = [image for image in dict.fromkeys(candidates) if _fits(image, parts[:-1], absolute)]
        if len(fitting) > 1:
            return None, "several images have the name in the table"
        return (fitting[0], "") if fitting else (None, "no image has the name in the table")


def _fits(image: PurePosixPath, folders: list[str], absolute: bool) -> bool:
    """Return whether the folders of a name are the end of those of an image, or the other way round.

    Args: absolute: whether the name is an absolute path, which ends with that of any image without folders.
    """
    own = list(image.parts[:-1])
    shorter = min(len(own), len(folders))
    if not shorter:
        return not folders or absolute
    return own[-shorter:] == folders[-shorter:]


class Ids:
    """The ids of patients and slides in the paths of images."""

    def __init__(self, options: Options) -> None:
        self.patterns = {"patient": options.patient, "slide": options.slide}
        self.unmet: Counter[str] = Counter()

    def of(self, image: PurePosixPath) -> dict[str, str]:
        """Return `patient` and `slide` of an image, "" where the expression finds none."""
        ids = {"patient": "", "slide": ""}
        for word, pattern in self.patterns.items():
            if pattern is None:
                continue
            if match := re.search(pattern, str(image)):
                ids[word] = next((group for group in match.groups() if group), match[0])
            else:
                self.unmet[word] += 1
        return ids

    def note(self, scan: Scan) -> None:
        """Note how many images have no id although an expression was given."""
        scan.notes += [f"{count} images have no {word} by --{word}" for word, count in self.unmet.items()]


class Boxes:
    """The boxes of a scan, each once, and how many of them reach an edge."""

    def __init__(self, scan: Scan, options: Options) -> None:
        self.scan, self.ids = scan, Ids(options)
        self.added: dict[tuple[PurePosixPath, Box], str] = {}
        self.contradictory: set[tuple[str, str]] = set()
        self.cut = 0
        scan.loose = True

    def add(self, image: PurePosixPath, label: str, box: Box, cut: bool) -> None:
        """Add a box as an image."""
        before = self.added.get((image, box))
        if before == label:
            self.scan.skipped["box that is there twice"] += 1
        elif before is not None:
            self.contradictory.add((str(image), str(box)))
        else:
            self.added[image, box] = label
            self.scan.add(image, label, box=str(box), **self.ids.of(image))
            self.cut += cut

    def leave_out(self, label: str, reason: str) -> None:
        """Count a box that is not taken."""
        self.scan.skipped[reason] += 1
        self.scan.labels.add(label)

    def finish(self, images: list[PurePosixPath]) -> None:
        """Count images without a box, and bring the boxes of an image together: then it is decoded once."""
        boxed = {image for image, _ in self.added}
        for image in images:
            if image not in boxed:
                self.scan.leave_out(image, "image without a box")
        if self.contradictory:
            # Which of the labels is right is not guessed.
            self.scan.skipped["box with several labels"] += len(self.contradictory)
            self.scan.labels.update(self.added.values())
            rows = self.scan.rows
            self.scan.rows = [row for row in rows if (row["image"], row["box"]) not in self.contradictory]
        self.scan.rows.sort(key=lambda row: row["image"])
        self.ids.note(self.scan)
        if self.cut:
            self.scan.notes.append(f"{self.cut} boxes reach the edge of their image, so may be cut off there")


class Sizes:
    """The sizes of images, beside those that a table of boxes has for them.

    Boxes count the pixels of an image as it was when they were drawn. If it is turned or resized now, they
    hold something else.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.known: dict[PurePosixPath, tuple[int, int] | None] = {}
        self.different: dict[PurePosixPath, str] = {}

    def differ(self, image: PurePosixPath, size: tuple[int, int]) -> bool:
        """Return whether the upright image has another size than (width, height) of a table; False where one
        of both is not known. The first such question for an image reads its header."""
        if 0 in size:
            return False
        if image not in self.known:
            self.known[image] = codec.upright_size(self.root / image)
        here = self.known[image]
        if here is None or here == size:
            return False
        self.different[image] = f"{image} is {here[0]} x {here[1]}, and {size[0]} x {size[1]} in the table"
        return True

    def note(self, scan: Scan) -> None:
        """Note the images whose size differs."""
        if self.different:
            scan.notes.append(
                f"{len(self.different)} images have another size in the table, so were turned or resized "
                f"after the boxes were drawn: {listed(self.different.values(), 1)}"
            )


OTHER_SIZE = "box of an image that was turned or resized since: the table has another size"
"""Why such a box is left out."""


def source_of(root: Path) -> str:
    """Return the name of a source that has none: that of its folder."""
    return root.resolve().name or "folder"


def note_absent(scan: Scan, names: set[str], table: str) -> None:
    """Note the files that a table names and that are not there."""
    if names:
        scan.notes.append(f"{len(names)} files of {table} are not there: {listed(names)}")


def is_image(name: str) -> bool:
    """Return whether a file is an image by its ending."""
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES
