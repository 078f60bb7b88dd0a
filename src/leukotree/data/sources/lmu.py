"""LMU (Matek et al., TCIA AML-Cytomorphology_LMU): single cells in folders by type, without patient ids.

    annotations.dat              path, label, second and third reading or `nan`
    <CODE>/<CODE>_0001.tiff      15 codes, such as MYO

The set is from 100 patients with AML and 100 without a malignancy. Its blasts are those of the former, so
with `cell_types` they are a proxy for AML.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from leukotree.data.sources import classes
from leukotree.data.sources.classes import NO_LEAF
from leukotree.data.sources.layout import Options, Scan, find_top, listed
from leukotree.errors import InputError

OPTIONS = frozenset({"cell_types"})
READINGS = "annotations.dat"
TOPS = ("AML-Cytomorphology_LMU", "AML-Cytomorphology", "images")
LEAVES = {
    **dict.fromkeys(("bas", "eos", "lyt", "mon", "ngb", "ngs"), "normal"),
    **dict.fromkeys(("mob", "myo"), "AML"),
    "lya": "reactive",
    **dict.fromkeys(("ebo", "ksc", "mmz", "myb", "pmb", "pmo"), NO_LEAF),
}
"""Code of a cell type in lower case -> leaf."""


def scan(root: Path, options: Options) -> Scan:
    """Return the cells whose type is a proxy. Raises InputError for another layout."""
    top = find_top(root, [root / name for name in TOPS], _matches, "<CODE>/<CODE>_0001.tiff, such as MYO")
    result = Scan("lmu", top, options.skip)
    readings = next((path for path in (top / READINGS, root / READINGS) if path.is_file()), None)
    images = list(result.images(apart_from={readings} if readings else ()))
    classes.add_all(result, options, images, LEAVES, _kind)
    if readings is not None:
        read = _files_read(readings)
        if absent := read - set(map(str, images)):
            result.notes.append(f"{len(absent)} files of {READINGS} are not there: {listed(absent)}")
    return result


def _matches(folder: Path) -> bool:
    codes = (path for path in folder.iterdir() if path.is_dir() and path.name.casefold() in LEAVES)
    return any(file.name.startswith(f"{code.name}_") for code in codes for file in code.iterdir())


def _kind(image: PurePosixPath) -> str:
    """Return the code of an image; that in the file's name must be the folder's."""
    code = classes.folder(image)
    return code if image.name.casefold().startswith(f"{code.casefold()}_") else ""


def _files_read(path: Path) -> set[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    return {line.split()[0] for line in lines if line.split()}
