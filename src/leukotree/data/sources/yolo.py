"""Boxes in YOLO's text files, of anybody: one image per box. The leaf is the class.

    data.yaml                          names: [...] or {0: ...}; or classes.txt, obj.names: one name a line
    <anywhere>/images/.../<name>.jpg
    <anywhere>/labels/.../<name>.txt   <class> <x centre> <y centre> <width> <height>, as shares of the image

A text file may also lie beside its image. A line may be a polygon (x y x y ...), whose box is taken. A class
that is no leaf is left out and counted, unless --leaf gives it one. Classes without names are numbers.
"""

from __future__ import annotations

import math
from pathlib import Path, PurePosixPath

from leukotree import yamlfile
from leukotree.data import boxes as box_texts
from leukotree.data.boxes import Box
from leukotree.data.images import codec
from leukotree.data.sources.general import Boxes, is_image, source_of
from leukotree.data.sources.layout import Options, Scan
from leukotree.data.sources.walk import Walk, is_ignored
from leukotree.errors import InputError

OPTIONS = frozenset({"table", "patient", "slide"})
NAMES = ("classes.txt", "obj.names", "names.txt")
MAX_BYTES = 10**7
"""A larger text file is no list of boxes."""


def scan(root: Path, options: Options) -> Scan:
    """Return the boxes of the images that have a text file.

    Raises InputError for another layout, and naming the line of a text file that is no box.
    """
    files = [file.path for file in Walk(options.skip).files(root) if not is_ignored(file.path.name)]
    texts = {path.relative_to(root).as_posix(): path for path in files if path.suffix.lower() == ".txt"}
    images = [path.relative_to(root).as_posix() for path in files if is_image(path.name)]
    labels = {image: texts[text] for image in images if (text := _label_file(image, texts))}
    labels = {image: path for image, path in labels.items() if _is_boxes(path)}
    if not labels:
        raise InputError(
            f"{root}: not this data set's layout; looked there for images/<name>.jpg with labels/<name>.txt, "
            "whose lines are <class> <x> <y> <width> <height>"
        )
    names = _names(root, files, options)
    result = Scan(source_of(root), root, options.skip)
    listed = list(result.images(apart_from={*labels.values(), *_name_files(files, options)}))
    boxes = Boxes(result, options)
    for image in listed:
        if path := labels.get(str(image)):
            _add(boxes, image, path, names)
    boxes.finish(listed)
    return result


def _label_file(image: str, texts: dict[str, Path]) -> str:
    """Return the text file of an image, "" without one: beside it, or with labels/ for the last images/."""
    path = PurePosixPath(image).with_suffix(".txt")
    parts = list(path.parts)
    places = [number for number, part in enumerate(parts) if part.casefold() == "images"]
    if places:
        parts[places[-1]] = "labels"
    return next((text for text in (str(PurePosixPath(*parts)), str(path)) if text in texts), "")


def _is_boxes(path: Path) -> bool:
    """Return whether the first line of a file is a box; an empty file says that an image has none."""
    lines = [line for line in _lines(path) if line.strip()]
    return not lines or _numbers(lines[0]) is not None


def _lines(path: Path) -> list[str]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: over {MAX_BYTES} bytes, no list of boxes; leave it out with --skip")
        return path.read_bytes().decode("utf-8-sig", errors="replace").splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def _numbers(line: str) -> tuple[str, list[float]] | None:
    """Return the class and the numbers of a line, None for another text."""
    kind, *texts = line.split()
    kind = kind.removesuffix(".0")  # as programs write it that keep all in one table of fractions
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        return None
    enough = len(numbers) in (4, 5) or (len(numbers) >= 6 and len(numbers) % 2 == 0)
    return (kind, numbers) if kind.isdigit() and enough and all(map(math.isfinite, numbers)) else None


def _add(boxes: Boxes, image: PurePosixPath, path: Path, names: dict[str, str]) -> None:
    lines = [(number, line) for number, line in enumerate(_lines(path), 1) if line.strip()]
    size = codec.upright_size(boxes.scan.root / image) if lines else None
    if lines and size is None:
        boxes.scan.skipped["box of an image whose size cannot be read"] += len(lines)
        return
    for number, line in lines:
        parsed = _numbers(line)
        if parsed is None:
            raise InputError(f"{path} row {number}: {line[:60]!r} is not <class> <x> <y> <width> <height>")
        kind, numbers = parsed
        assert size is not None
        try:
            box = _box(numbers, *size)
        except ValueError:
            boxes.scan.skipped["box without an area"] += 1
            continue
        if box.is_outside(*size):
            boxes.leave_out(names.get(kind, kind), box_texts.OUTSIDE)
            continue
        boxes.add(image, names.get(kind, kind), box, box.is_cut(*size))


def _box(numbers: list[float], width: int, height: int) -> Box:
    """Return the box of a line in pixels. A fifth number is the confidence of a detector."""
    if len(numbers) <= 5:
        x, y, across, down = numbers[:4]
        left, top = x - across / 2, y - down / 2
    else:
        left, top = min(numbers[::2]), min(numbers[1::2])
        across, down = max(numbers[::2]) - left, max(numbers[1::2]) - top
    return box_texts.checked(left * width, top * height, across * width, down * height)


def _name_files(files: list[Path], options: Options) -> list[Path]:
    """Return the files that may hold the names of the classes, the best one first."""
    if options.table:
        return [options.table]
    yamls = [path for path in files if path.suffix.lower() in (".yaml", ".yml")]
    return [*yamls, *(path for name in NAMES for path in files if path.name.casefold() == name)]


def _names(root: Path, files: list[Path], options: Options) -> dict[str, str]:
    """Return a class's number -> its name. Raises InputError for two files with different names."""
    known: dict[str, str] = {}
    first = root
    for path in _name_files(files, options):
        names = _names_in(path)
        if known and names and names != known:
            raise InputError(f"{path}: other names of the classes than {first}; choose one with --table")
        if names and not known:
            known, first = names, path
    if options.table and not known:
        raise InputError(f"{options.table}: has no names of classes")
    return known


def _names_in(path: Path) -> dict[str, str]:
    if path.suffix.lower() not in (".yaml", ".yml"):
        return {str(number): line.strip() for number, line in enumerate(_lines(path)) if line.strip()}
    content = yamlfile.load(path)
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, list):
        return {str(number): str(name) for number, name in enumerate(names)}
    return {str(number): str(name) for number, name in names.items()} if isinstance(names, dict) else {}
