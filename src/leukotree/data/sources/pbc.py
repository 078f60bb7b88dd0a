"""PBC, Hospital Clinic Barcelona (Acevedo et al.): single cells of healthy donors, so `normal`; no patient
ids.

[PBC_dataset_normal_DIB/]{basophil,...,platelet}/<PREFIX>_<number>.jpg   the original: eight folders, one for
each cell type <32 hexadecimal digits in five groups>.jpg                               a flat folder of cells
of the set's size, as in TXL-PBC

Here any cell of anybody would become a healthy one, so what looks otherwise is refused. Other sets have
folders and files with the names of cell types too. A part of the original is taken if it lies in a folder of
the original's name.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from leukotree.data.images.formats import IMAGE_SUFFIXES
from leukotree.data.sources.layout import Options, Scan, find_top
from leukotree.errors import InputError

OPTIONS: frozenset[str] = frozenset()
NAME = "PBC_dataset_normal_DIB"
PREFIXES = {
    "basophil": {"BA"},
    "eosinophil": {"EO"},
    "erythroblast": {"ERB"},
    "ig": {"IG", "MMY", "MY", "PMY"},
    "lymphocyte": {"LY"},
    "monocyte": {"MO"},
    "neutrophil": {"BNE", "NEUTROPHIL", "SNE"},
    "platelet": {"PLATELET"},
}
"""Class folder -> what its files' names begin with."""
NO_WHITE_CELLS = frozenset({"erythroblast", "platelet"})
FILE = re.compile("([a-z]+)_[0-9]{1,6}", re.IGNORECASE)
UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
SIZES = range(355, 375)
"""Pixels: the set's images are 360 x 363, some 366 x 369."""
LOOKED_FOR = f"its eight class folders, such as neutrophil/SNE_1.jpg, or a part of them in a folder {NAME}"


def scan(root: Path, options: Options) -> Scan:
    """White cells of healthy donors. Raises InputError for another layout."""
    top = find_top(root, [root / NAME], _matches, LOOKED_FOR)
    found = Scan("pbc", top, options.skip)
    original, flat = _is_original(top), not _classes(top)
    for image in found.images():
        folder = image.parts[0].casefold() if len(image.parts) > 1 else ""
        kind = _kind(image)
        if folder and folder not in PREFIXES:
            found.leave_out(image, f"folder {image.parts[0]!r} is no class of the set")
        elif not folder and not flat:
            found.leave_out(image, "not in a class folder")
        elif original or (_is_cell(top / image) if flat else folder == kind):
            _take(found, image, folder or kind)
        else:
            raise InputError(
                f"{root}: not this data set's layout; looked there for {LOOKED_FOR}, not {str(image)!r}"
            )
    return found


def _take(found: Scan, image: PurePosixPath, kind: str) -> None:
    if kind in NO_WHITE_CELLS:
        found.leave_out(image, f"{kind}: not a white cell")
    else:
        found.place(image, "normal")


def _matches(folder: Path) -> bool:
    classes = _classes(folder)
    if _is_original(folder) or not classes:
        return bool(classes) or any(
            path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES for path in folder.iterdir()
        )
    return classes == set(PREFIXES)


def _is_original(folder: Path) -> bool:
    return folder.resolve().name.casefold() == NAME.casefold()


def _classes(folder: Path) -> set[str]:
    """The cell types that have a folder."""
    return {path.name.casefold() for path in folder.iterdir() if path.is_dir()} & set(PREFIXES)


def _kind(image: PurePosixPath) -> str:
    """The class that a file's name says, or nothing."""
    name = FILE.fullmatch(image.stem)
    return next((kind for kind, prefixes in PREFIXES.items() if name and name[1].upper() in prefixes), "")


def _is_cell(path: Path) -> bool:
    """Whether a file has a name as in the flat folder, and the size where that can be read."""
    # Only a flat folder needs the sizes: its names alone say little.
    from PIL import Image

    if not UUID.fullmatch(path.stem):
        return False
    try:
        with Image.open(path) as picture:
            return all(side in SIZES for side in picture.size)
    except OSError:  # `pack` names what does not decode
        return True
