"""ALL-IDB1 (Labati, Piuri and Scotti, Milan): whole fields, and single blasts by their centres. No ids.

    [ALL_IDB1/]im/ImNNN_Y.jpg        Y = 1: of a patient with ALL, 0: healthy
    [ALL_IDB1/]xyc/ImNNN_Y.xyc       a line `x y` for each blast; empty where Y = 0

A blast's box is as large as the images of ALL-IDB2, which are cut from these fields.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from leukotree.data import boxes
from leukotree.data.boxes import Box
from leukotree.data.sources.layout import Options, Scan, find_top
from leukotree.errors import InputError

OPTIONS = frozenset({"cells"})
NAME = re.compile("Im[0-9]{3}_([01])", re.IGNORECASE)
LEAVES = {"1": "ALL", "0": "normal"}
SIDE = 257
"""Width and height of a blast's box, and of the images of ALL-IDB2, in pixels."""


def scan(root: Path, options: Options) -> Scan:
    """Return the fields, or with `options.cells` the blasts in them.

    Raises InputError for another layout, and naming the line of a broken list of blasts.
    """
    candidates = [root / "ALL_IDB1", root / "ALL_IDB" / "ALL_IDB1"]
    top = find_top(root, candidates, _matches, "ALL_IDB1/im/ImNNN_Y.jpg")
    result = Scan("allidb1", top, options.skip)
    for image in result.images("im"):
        name = NAME.fullmatch(image.stem)
        if name is None:
            result.leave_out(image, "the name is not ImNNN_Y")
        elif options.cells:
            _add_blasts(result, image, LEAVES[name[1]])
        else:
            result.add(image, LEAVES[name[1]])
    result.notes.append("ALL-IDB2 is cut from these fields: do not use both")
    return result


def _matches(folder: Path) -> bool:
    return (folder / "im").is_dir() and any(NAME.fullmatch(path.stem) for path in (folder / "im").iterdir())


def _add_blasts(result: Scan, image: PurePosixPath, leaf: str) -> None:
    path = result.root / "xyc" / f"{image.stem}.xyc"
    centres = _centres(path) if path.is_file() else []
    if leaf != "ALL":
        result.leave_out(image, "healthy field: only blasts have centres")
    elif not centres:
        result.leave_out(image, "field of ALL without a centre in xyc/")
    else:
        for box in dict.fromkeys(centres):
            result.add(image, leaf, box=str(box))


def _centres(path: Path) -> list[Box]:
    """Return the box of each blast of a field."""
    try:
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip("\0 \t"):
            continue
        try:
            x, y = map(float, line.split())
            found.append(boxes.checked(x - SIDE // 2, y - SIDE // 2, SIDE, SIDE))
        except ValueError as error:
            raise InputError(
                f"{path} row {number}: {line[:60]!r} is not `x y`, a centre in pixels"
            ) from error
    return found
