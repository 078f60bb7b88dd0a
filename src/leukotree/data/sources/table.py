"""Any images with a table of their labels: CSV or Parquet. The user names the columns.

    <any>.csv                image, leaf, and what else a manifest has; --map leaf=Diagnosis names a column
    <anywhere>/*.png

The table is the only one in the folder, or the one of --table. The column image holds paths below the root,
or names of files anywhere below it, with or without their endings.
"""

from __future__ import annotations

from pathlib import Path

from leukotree import csvfile
from leukotree.data import boxes, described, manifest_table
from leukotree.data.sources.general import Finder, Ids, note_absent, source_of
from leukotree.data.sources.layout import Options, Scan, shown
from leukotree.errors import InputError

OPTIONS = frozenset({"table", "map", "patient", "slide"})
ENDINGS = (*csvfile.ENDINGS, ".parquet")
CORNER = ("x", "y", "width", "height")
"""Columns of a box, where it is not one text."""
KNOWN = ("image", "leaf", "patient", "slide", "source", "mask", "box", *CORNER, *described.PLACES)
"""What --map can name, and what a column of that name means without --map."""
REQUIRED = ("image", "leaf")


def scan(root: Path, options: Options) -> Scan:
    """Return the rows of the table whose image is there.

    Raises InputError for a folder without such a table, a column that is not there, and an image that has
    two rows with one box.
    """
    names = _names(options)
    path, columns, lines = _read(root, options, names)
    result = Scan(source_of(root), root, options.skip)
    finder, ids = Finder(list(result.images(apart_from={path}))), Ids(options)
    folder = path.parent.relative_to(root).as_posix() if path.is_relative_to(root) else ""
    absent: set[str] = set()
    used: dict[tuple[str, str], int] = {}
    for row, line in enumerate(lines):
        values = {name: column[row].strip() for name, column in columns.items()}
        image, reason = finder.find(values["image"], folder)
        box = _box(path, line, values)
        if image is None:
            result.skipped[f"row of the table: {reason}"] += 1
            absent |= {values["image"]} - {""}
        elif not values["leaf"]:
            result.leave_out(image, "the row has no label")
        elif (first := used.setdefault((str(image), box), line)) != line:
            raise InputError(f"{path} row {line}: image {values['image']!r} is already in row {first}")
        else:
            found = ids.of(image)
            patient = values.get("patient", "") or found["patient"]
            slide = values.get("slide", "") or found["slide"]
            mask = _mask(path, line, finder, values.get("mask", ""), folder)
            result.add(image, values["leaf"], patient, mask, slide, box)
            places = {name: values[name] for name in described.PLACES if name in values}
            result.rows[-1].update(places, **({"source": values["source"]} if values.get("source") else {}))
    rest = set(result.files) - {row["image"] for row in result.rows} - result.left_out
    rest -= {row["mask"] for row in result.rows}
    if rest:
        result.skipped["image without a row in the table"] += len(rest)
    note_absent(result, absent, path.name)
    given, lacking = ([name for name in CORNER if (name in columns) == there] for there in (True, False))
    if given and lacking:
        result.notes.append(
            f"columns {', '.join(given)} of {path.name} are no boxes without {', '.join(lacking)}, so they "
            f"are not used; --map {lacking[0]}=NAME says how yours is named"
        )
    ids.note(result)
    return result


def _names(options: Options) -> dict[str, str]:
    """Return what a column means -> its name. Raises InputError for a meaning that there is not."""
    if unknown := [name for name in options.map if name not in KNOWN]:
        raise InputError(
            f"--map {unknown[0]}=...: a manifest has no such column; it is one of {', '.join(KNOWN)}"
        )
    return {name: options.map.get(name, name) for name in KNOWN}


def _read(
    root: Path, options: Options, names: dict[str, str]
) -> tuple[Path, dict[str, list[str]], list[int]]:
    """Return the table's path, its known columns, and the line of each row."""
    required = [names[name] for name in (*REQUIRED, *options.map) if name in names]
    required = list(dict.fromkeys(required))
    if options.table:
        path = options.table
        csvfile.check_ending(path, ENDINGS)
    else:
        path = _only_table(root, options, required)
    if path.suffix.lower() == ".parquet":
        table, lines = manifest_table.texts(path, required, tuple(names.values()))
    else:
        read = csvfile.read(path, required, [name for name in names.values() if name not in required])
        table, lines = read.columns, read.lines
    columns = {name: table[theirs] for name, theirs in names.items() if theirs in table}
    return path, columns, lines


def _only_table(root: Path, options: Options, required: list[str]) -> Path:
    tables = [path for path in sorted(root.iterdir()) if path.suffix.lower() in ENDINGS and path.is_file()]
    fitting = [path for path in tables if path not in options.skip and _has(path, required)]
    if len(fitting) == 1:
        return fitting[0]
    listed = ", ".join(map(shown, (path.name for path in fitting)))
    if fitting:
        raise InputError(f"{root}: {len(fitting)} tables fit, {listed}; choose one with --table")
    raise InputError(
        f"{root}: not this data set's layout; looked there for a table with the columns "
        f"{', '.join(required)}; --map leaf=NAME and --map image=NAME say how yours are named"
    )


def _has(path: Path, required: list[str]) -> bool:
    if path.suffix.lower() != ".parquet":
        return csvfile.has_columns(path, required)
    try:
        manifest_table.texts(path, required)
    except InputError:
        return False
    return True


def _box(path: Path, line: int, values: dict[str, str]) -> str:
    """Return the box of a row in one spelling, "" for the whole image.

    Raises InputError for what is no box, and for a row with some numbers of a box and not all: as a whole
    image it would be another one.
    """
    text = values.get("box", "")
    if not text and all(name in values for name in CORNER):
        numbers = {name: values[name] for name in CORNER}
        if any(numbers.values()) and not all(numbers.values()):
            lacking = ", ".join(name for name, number in numbers.items() if not number)
            raise InputError(f"{path} row {line}: the box has no {lacking}; give all four numbers, or none")
        if comma := [f"{name} {number!r}" for name, number in numbers.items() if "," in number]:
            raise InputError(f"{path} row {line}: {comma[0]} has a comma; write decimals with a point")
        text = " ".join(numbers.values()).strip()
    try:
        return str(boxes.parse(text)) if text else ""
    except ValueError as error:
        raise InputError(f"{path} row {line}: box {text!r} {error}") from error


def _mask(path: Path, line: int, finder: Finder, name: str, folder: str) -> str:
    """Return the path of a mask below the root. Raises InputError for one that is not there."""
    if not name:
        return ""
    mask, reason = finder.find(name, folder)
    if mask is None:
        raise InputError(f"{path} row {line}: mask {name!r}: {reason}")
    return str(mask)
