"""Any set sorted by hand: ROOT/<leaf>/<patient>/*, at any depth below the patient. The source is ROOT's name.

Images directly in ROOT/<leaf>/ have no patient id. Those directly in ROOT have no leaf, unless a leaf's
folder links to them.
"""

from __future__ import annotations

from pathlib import Path

from leukotree.data.sources.layout import Options, Scan
from leukotree.data.sources.walk import set_aside

OPTIONS: frozenset[str] = frozenset()


def scan(root: Path, options: Options) -> Scan:
    """All images below folders named by leaves; whether the tree has them is checked by `leaves`."""
    found = Scan(root.resolve().name or "folder", root, options.skip)
    for image in found.images():
        if len(image.parts) == 1:
            found.skipped["not in a folder <leaf>/<patient>/"] += 1
        else:
            found.place(image, image.parts[0], image.parts[1] if len(image.parts) > 2 else "")
    children = (path for path in sorted(root.iterdir()) if path.is_dir() and path not in options.skip)
    found.folders = {path.name: found.walk.met[path] for path in children if not set_aside(path.name)}
    if nameless := sum(not row["patient"] for row in found.rows):
        found.notes.append(f"{nameless} images lie directly in their leaf's folder, so have no patient id")
    return found
