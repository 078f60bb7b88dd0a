"""ALL-IDB2 (Labati, Piuri and Scotti, Milan): single cells, cut from the fields of ALL-IDB1. No ids.

[ALL_IDB2/]img/ImNNN_Y.tif        Y = 1: a blast of a patient with ALL, 0: another cell
"""

from __future__ import annotations

from pathlib import Path

from leukotree.data.sources.allidb1 import LEAVES, NAME
from leukotree.data.sources.layout import Options, Scan, find_top

OPTIONS: frozenset[str] = frozenset()


def scan(root: Path, options: Options) -> Scan:
    """Return the cells. Raises InputError for another layout."""
    candidates = [root / "ALL_IDB2", root / "ALL_IDB" / "ALL_IDB2"]
    top = find_top(root, candidates, _matches, "ALL_IDB2/img/ImNNN_Y.tif")
    result = Scan("allidb2", top, options.skip)
    for image in result.images("img"):
        if name := NAME.fullmatch(image.stem):
            result.add(image, LEAVES[name[1]])
        else:
            result.leave_out(image, "the name is not ImNNN_Y")
    result.notes.append("these cells are cut from ALL-IDB1: do not use both")
    return result


def _matches(folder: Path) -> bool:
    return (folder / "img").is_dir() and any(NAME.fullmatch(path.stem) for path in (folder / "img").iterdir())
