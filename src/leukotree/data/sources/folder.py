"""Any set in folders ROOT/<leaf>/<patient>/*, at any depth below the patient. The source is ROOT's name.

Images directly in ROOT/<leaf>/ have no patient id. Images directly in ROOT have no leaf, unless a link in a
leaf's folder leads to them.
"""

from __future__ import annotations

from pathlib import Path

from leukotree.data.sources.layout import Options, Scan
from leukotree.data.sources.walk import is_ignored

OPTIONS: frozenset[str] = frozenset()


def scan(root: Path, options: Options) -> Scan:
    """Return all images in folders with the names of leaves. `leaves.check` compares these with the tree."""
    result = Scan(root.resolve().name or "folder", root, options.skip)
    for image in result.images():
        if len(image.parts) == 1:
            result.skipped["not in a folder <leaf>/<patient>/"] += 1
        else:
            result.add(image, image.parts[0], image.parts[1] if len(image.parts) > 2 else "")
    children = (path for path in sorted(root.iterdir()) if path.is_dir() and path not in options.skip)
    result.folders = {path.name: result.walk.counts[path] for path in children if not is_ignored(path.name)}
    if nameless := sum(not row["patient"] for row in result.rows):
        result.notes.append(f"{nameless} images lie directly in their leaf's folder, so have no patient id")
    return result
