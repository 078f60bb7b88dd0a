"""Boxes in the XML of Pascal VOC, of anybody: one image per box. The leaf is the object's name.

    <anywhere>/Annotations/<name>.xml      filename, size, object (name, bndbox)
    <anywhere>/JPEGImages/<name>.jpg

Pixels are counted from 1, and the last one is in the box (VOC2012 development kit, section 8.1). An object
that is no leaf is left out and counted, unless --leaf gives it one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from leukotree.data import boxes as box_texts
from leukotree.data.boxes import Box
from leukotree.data.sources.general import OTHER_SIZE, Boxes, Finder, Sizes, note_absent, source_of
from leukotree.data.sources.layout import Options, Scan
from leukotree.data.sources.walk import Walk, is_ignored
from leukotree.errors import InputError, one_line

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

OPTIONS = frozenset({"patient", "slide"})
MAX_BYTES = 10**7
"""A larger file is no annotation of one image."""

NOT_THERE = "box of a file that is not there"
TWO_IMAGES = "box of an annotation that is called like one image and names another"


@dataclass(frozen=True)
class Annotation:
    """The objects of one image."""

    path: Path
    file: str
    """The image's name in the file, "" without one."""
    size: tuple[int, int]
    """Width and height in pixels, (0, 0) where they are not given."""
    objects: list[tuple[str, Box | None]]
    """Name and box; None for a box without an area."""


def scan(root: Path, options: Options) -> Scan:
    """Return the objects of all annotations below `root`.

    Raises InputError if there are none, and naming a file that is no safe or no valid XML.
    """
    files = (file.path for file in Walk(options.skip).files(root) if not is_ignored(file.path.name))
    paths = [path for path in files if path.suffix.lower() == ".xml"]
    annotations = [one for path in paths if (one := _read(path)) is not None]
    if not annotations:
        raise InputError(
            f"{root}: not this data set's layout; looked there for Annotations/<name>.xml with <annotation>"
        )
    result = Scan(source_of(root), root, options.skip)
    images = list(result.images(apart_from={one.path for one in annotations}))
    finder, boxes, sizes = Finder(images), Boxes(result, options), Sizes(root)
    absent: set[str] = set()
    for one in annotations:
        image, reason = _image_of(one, finder)
        if image is None:
            absent |= {one.file or one.path.stem} if reason == NOT_THERE else set()
            result.skipped[reason] += len(one.objects)
            continue
        differs = sizes.differ(image, one.size)
        for label, box in one.objects:
            if box is None or not label:
                result.skipped["box without an area" if label else "box without a name"] += 1
            elif differs:
                boxes.leave_out(label, OTHER_SIZE)
            elif 0 not in one.size and box.is_outside(*one.size):
                boxes.leave_out(label, box_texts.OUTSIDE)
            else:
                boxes.add(image, label, box, 0 not in one.size and box.is_cut(*one.size))
    note_absent(result, absent, "the annotations")
    boxes.finish(images)
    sizes.note(result)
    return result


def _image_of(annotation: Annotation, finder: Finder) -> tuple[PurePosixPath | None, str]:
    """Return (the image of an annotation, "") or (None, why there is none).

    A file that was copied or renamed may keep the old name inside. So the two names must not be of two
    images.
    """
    named, called = finder.find(annotation.file)[0], finder.find(annotation.path.stem)[0]
    if named and called and named != called:
        return None, TWO_IMAGES
    image = named or called
    return image, "" if image else NOT_THERE


def _read(path: Path) -> Annotation | None:
    """Return the annotation in a file; None for XML of another kind. Raises InputError."""
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: over {MAX_BYTES} bytes, no annotation; leave it out with --skip")
        # No document type at all: entities are what expands without end, or reads other files.
        top = fromstring(path.read_bytes(), forbid_dtd=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except DefusedXmlException as error:
        raise InputError(f"{path}: has a document type or entities, which are not read") from error
    except (ParseError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid XML: {one_line(error)[:200]}") from error
    if top.tag != "annotation":
        return None
    size = top.find("size")
    sides = tuple(int(_number(size, name)) for name in ("width", "height")) if size is not None else (0, 0)
    objects = [(_text(one, "name"), _box(one.find("bndbox"))) for one in top.findall("object")]
    return Annotation(path, _text(top, "filename"), (sides[0], sides[1]), objects)


def _text(parent: Element, name: str) -> str:
    child = parent.find(name)
    return (child.text or "").strip() if child is not None else ""


def _number(parent: Element, name: str) -> float:
    """Return a number, 0 for no number."""
    try:
        value = float(_text(parent, name))
    except ValueError:
        return 0.0
    return value if abs(value) < 1e9 else 0.0


def _box(bounds: Element | None) -> Box | None:
    if bounds is None or any(not _text(bounds, name) for name in ("xmin", "ymin", "xmax", "ymax")):
        return None
    left, top, right, bottom = (_number(bounds, name) for name in ("xmin", "ymin", "xmax", "ymax"))
    try:
        return box_texts.checked(left - 1, top - 1, right - left + 1, bottom - top + 1)
    except ValueError:
        return None
