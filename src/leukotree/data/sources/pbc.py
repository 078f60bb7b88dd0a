"""PBC (Acevedo et al., Hospital Clinic Barcelona): single cells of healthy donors, without patient ids.

    [PBC_dataset_normal_DIB/]{basophil,...,platelet}/<PREFIX>_<number>.jpg
    <UUID>.jpg

The first form is the original, with a folder for each of eight cell types. The second is a flat folder of
cells of the same size, as in TXL-PBC. All leaves are `normal`.

Every cell becomes a healthy one, so any other layout is refused. Other sets have folders and files with the
names of cell types, too. A part of the original is accepted in a folder with the original's name.
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
"""Class folder -> prefixes of its files' names."""
NO_WHITE_CELLS = frozenset({"erythroblast", "platelet"})
FILE = re.compile("([a-z]+)_[0-9]{1,6}", re.IGNORECASE)
UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
SIZES = range(355, 375)
"""Sides in pixels. The set's images have 360 x 363, some 366 x 369."""
LOOKED_FOR = f"its eight class folders, such as neutrophil/SNE_1.jpg, or a part of them in a folder {NAME}"


def scan(root: Path, options: Options) -> Scan:
    """Return the white cells. Raises InputError for another layout."""
    top = find_top(root, [root / NAME], _matches, LOOKED_FOR)
    result = Scan("pbc", top, options.skip)
    original, flat = _is_original(top), not _classes(top)
    for image in result.images():
        folder = image.parts[0].casefold() if len(image.parts) > 1 else ""
        kind = _kind(image)
        if folder and folder not in PREFIXES:
            result.leave_out(image, f"folder {image.parts[0]!r} is no class of the set")
        elif not folder and not flat:
            result.leave_out(image, "not in a class folder")
        elif original or (_is_cell(top / image) if flat else folder == kind):
            _take(result, image, folder or kind)
        else:
            raise InputError(
                f"{root}: not this data set's layout; looked there for {LOOKED_FOR}, not {str(image)!r}"
            )
    return result


def _take(result: Scan, image: PurePosixPath, kind: str) -> None:
    if kind in NO_WHITE_CELLS:
        result.leave_out(image, f"{kind}: not a white cell")
    else:
        result.add(image, "normal")


def _matches(folder: Path) -> bool:
    """Return whether a folder may be the original, a part of it with its name, or a flat folder of images."""
    classes = _classes(folder)
    if classes:
        return _is_original(folder) or classes == set(PREFIXES)
    return any(path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES for path in folder.iterdir())


def _is_original(folder: Path) -> bool:
    return folder.resolve().name.casefold() == NAME.casefold()


def _classes(folder: Path) -> set[str]:
    """Return the cell types that have a folder."""
    return {path.name.casefold() for path in folder.iterdir() if path.is_dir()} & set(PREFIXES)


def _kind(image: PurePosixPath) -> str:
    """Return the class in a file's name, or ""."""
    name = FILE.fullmatch(image.stem)
    return next((kind for kind, prefixes in PREFIXES.items() if name and name[1].upper() in prefixes), "")


def _is_cell(path: Path) -> bool:
    """Return whether a file has a name of the flat folder, and the right size if that can be read."""
    from PIL import Image  # only needed for a flat folder

    if not UUID.fullmatch(path.stem):
        return False
    try:
        with Image.open(path) as picture:
            return all(side in SIZES for side in picture.size)
    except OSError:  # `pack` reports images that do not decode
        return True
