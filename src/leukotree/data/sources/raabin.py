"""Raabin-WBC, the cells with two labels (Kouzehkanan et al.): single cells of healthy people, without ids.

    Train/{Basophil,Eosinophil,Lymphocyte,Monocyte,Neutrophil}/*.jpg
    TestA/{the same}/*.jpg
    TestB/{Lymphocyte,Neutrophil}/*.jpg                                another microscope and camera

All leaves are `normal`. So any other layout is refused.
"""

from __future__ import annotations

from pathlib import Path

from leukotree.data.sources.layout import Options, Scan, find_top

OPTIONS: frozenset[str] = frozenset()
CLASSES = frozenset({"basophil", "eosinophil", "lymphocyte", "monocyte", "neutrophil"})
PARTS = {"train": "Train", "testa": "TestA", "test-a": "TestA", "testb": "TestB", "test-b": "TestB"}
"""Folder in lower case -> the part of the set."""


def scan(root: Path, options: Options) -> Scan:
    """Return all cells of the parts. Raises InputError for another layout."""
    looked_for = "Train/ and TestA/ with the folders Basophil, Eosinophil, Lymphocyte, Monocyte, Neutrophil"
    top = find_top(root, sorted(root.iterdir()), _matches, looked_for)
    result = Scan("raabin", top, options.skip)
    for image in result.images():
        part, kind = (image.parts[0], image.parts[1]) if len(image.parts) > 2 else ("", "")
        if part.casefold() not in PARTS:
            result.leave_out(image, "not in Train, TestA or TestB")
        elif kind.casefold() not in CLASSES:
            result.leave_out(image, f"folder {kind!r} is no class of the set")
        else:
            result.add(image, "normal")
    return result


def _matches(folder: Path) -> bool:
    inside = {path.name.casefold(): path for path in folder.iterdir() if path.is_dir()}
    test = inside.get("testa") or inside.get("test-a")
    return "train" in inside and test is not None and all(map(_has_classes, (inside["train"], test)))


def _has_classes(folder: Path) -> bool:
    """Return whether at most one class folder is missing."""
    return len(CLASSES - {path.name.casefold() for path in folder.iterdir() if path.is_dir()}) <= 1
