"""Any set sorted by hand: ROOT/<leaf>/<patient>/*, at any depth below the patient. The source is ROOT's name.

Images directly in ROOT/<leaf>/ have no patient id.
"""

from __future__ import annotations

from pathlib import Path

from leukotree.data.sources.layout import Options, Scan

OPTIONS: frozenset[str] = frozenset()


def scan(root: Path, options: Options) -> Scan:
    """All images below folders named by leaves; whether the taxonomy has them is checked when the manifest is read."""
    found = Scan(root.resolve().name or "folder", root)
    for image in found.images():
        if len(image.parts) == 1:
            found.skipped["not in a folder <leaf>/<patient>/"] += 1
        else:
            found.place(image, image.parts[0], image.parts[1] if len(image.parts) > 2 else "")
    if nameless := sum(not row["patient"] for row in found.rows):
        found.notes.append(f"{nameless} images lie directly in their leaf's folder, so have no patient id")
    return found
