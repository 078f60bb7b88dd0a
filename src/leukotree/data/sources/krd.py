"""KRD-WBC: single white cells with binary masks. They have cell types, but no diagnoses and no patient ids.

    class labels.csv        `Image ID` (Image12), `Categoriy` (spelled so)
    image/0012.jpg
    mask/0012.png

The five types are the mature white cells of normal blood, a proxy for `normal`. So an import needs
`cell_types`.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from leukotree import csvfile
from leukotree.data.sources.layout import Options, Scan, find_top
from leukotree.errors import InputError

OPTIONS = frozenset({"cell_types"})
LABELS = "class labels.csv"
PROXIES = dict.fromkeys(("basophil", "eosinophil", "lymphocyte", "monocyte", "neutrophil"), "normal")


def scan(root: Path, options: Options) -> Scan:
    """Return the cells that have a label, with their masks.

    Raises InputError for another layout or a broken label file.
    """
    top = find_top(root, sorted(root.iterdir()), _matches, f"{LABELS!r} and image/")
    labels = _labels(top / LABELS)
    masks = _by_number(top, options) if (top / "mask").is_dir() else {}
    result = Scan("krd", top, options.skip)
    images: dict[int, PurePosixPath] = {}
    for image in result.images("image"):
        number = _number(image.stem)
        cell_type = labels.get(number, "")
        if number in labels and (first := images.setdefault(number, image)) != image:
            raise InputError(
                f"{top / image}: its label number {number} is that of {top / first}, too; "
                "remove one of the two"
            )
        if not cell_type:
            result.leave_out(image, f"no label in {LABELS!r}")
        elif cell_type.casefold() not in PROXIES:
            result.leave_out(image, f"cell type {cell_type!r} has no leaf")
        elif not options.cell_types:
            result.leave_out(image, f"cell type {cell_type!r} is only a proxy, used with --cell-types")
        else:
            result.add(image, PROXIES[cell_type.casefold()], mask=masks.get(number, ""))
    if absent := len(set(labels) - set(images)):
        result.notes.append(f"{absent} of the {len(labels)} images in {LABELS!r} are missing")
    if unmasked := sum(not row["mask"] for row in result.rows):
        result.notes.append(f"{unmasked} images have no mask")
    return result


def _matches(folder: Path) -> bool:
    return (folder / LABELS).is_file() and (folder / "image").is_dir()


def _by_number(top: Path, options: Options) -> dict[int, str]:
    """Return the number of an image -> its mask."""
    masks: dict[int, str] = {}
    for path in Scan("", top, options.skip).images("mask"):
        number = _number(path.stem)
        if number >= 0 and (first := masks.setdefault(number, str(path))) != str(path):
            raise InputError(
                f"{top / path}: a mask of the same image as {top / first}; remove one of the two"
            )
    return masks


def _number(name: str) -> int:
    """Return the number at the end of `Image12` or `0012`; -1 without one."""
    digits = re.search(r"[0-9]+$", name)
    return int(digits[0]) if digits else -1


def _labels(path: Path) -> dict[int, str]:
    """Return the number of an image -> its cell type."""
    cell_types = csvfile.lookup(path, "Image ID", "Categoriy")
    labels = {_number(name): cell_type for name, cell_type in cell_types.items()}
    labels.pop(-1, None)
    return labels
