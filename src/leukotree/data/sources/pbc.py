"""PBC, Hospital Clinic Barcelona (Acevedo et al.): single cells of healthy donors, so `normal`; no patient ids.

[PBC_dataset_normal_DIB/]{basophil,...,platelet}/*.jpg      the original, a folder per cell type
*.jpg                                                       a flat folder, as in TXL-PBC
"""

from __future__ import annotations

from pathlib import Path

from leukotree.data.sources.layout import IMAGE_SUFFIXES, Options, Scan, find_top

OPTIONS: frozenset[str] = frozenset()
WHITE_CELLS = frozenset({"basophil", "eosinophil", "ig", "lymphocyte", "monocyte", "neutrophil"})
OTHER = frozenset({"erythroblast", "platelet"})


def scan(root: Path, options: Options) -> Scan:
    """White cells of healthy donors. Raises InputError for another layout."""
    top = find_top(
        root, [root / "PBC_dataset_normal_DIB"], _matches, "class folders such as neutrophil/ and lymphocyte/, or images directly"
    )
    found = Scan("pbc", top)
    for image in found.images():
        folder = image.parts[0].casefold() if len(image.parts) > 1 else ""
        if not folder or folder in WHITE_CELLS:
            found.place(image, "normal")
        elif folder in OTHER:
            found.skipped[f"{folder}: not a white cell"] += 1
        else:
            found.skipped[f"folder {image.parts[0]!r} is no class of the set"] += 1
    return found


def _matches(folder: Path) -> bool:
    children = list(folder.iterdir())
    classes = any(child.is_dir() and child.name.casefold() in WHITE_CELLS for child in children)
    return classes or any(child.is_file() and child.suffix.lower() in IMAGE_SUFFIXES for child in children)
