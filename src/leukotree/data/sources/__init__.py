"""Importers: a public data set in its own layout -> a manifest. One module per layout, each with `scan` and `OPTIONS`."""

from __future__ import annotations

import importlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from leukotree.data.sources.layout import Options, Scan
from leukotree.errors import InputError

SOURCES = {name: f"{__name__}.{name}" for name in ("cnmc", "deepapl", "folder", "krd", "pbc", "taleqani")}
"""Name on the command line -> module with `scan(root, options) -> Scan` and `OPTIONS`, the names of the options it heeds."""


@dataclass(frozen=True)
class ImportSummary:
    """What went into a manifest, and what did not."""

    source: str
    manifest: Path
    rows: int
    patients: int
    leaves: dict[str, int]
    skipped: dict[str, int]
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """For a person to read: rows and leaves, then a line per reason for leaving files out, then remarks."""
        people = f"{self.patients} patients" if self.patients else "no patient ids"
        counts = ", ".join(f"{leaf} {count}" for leaf, count in self.leaves.items())
        skips = [f"skipped {count}: {reason}" for reason, count in self.skipped.items()]
        return [f"{self.manifest}: {self.rows} images, {people}: {counts}", *skips, *(f"note: {note}" for note in self.notes)]


def import_source(
    source: str, root: str | Path, manifest: str | Path, cell_types: bool = False, benign: str | None = None
) -> ImportSummary:
    """Write the manifest of a data set that lies below `root` in the layout of `source`; no image is decoded or copied.

    `cell_types` takes cell types as proxies for leaves; `benign` is the leaf for images labelled benign.
    Raises InputError for an unknown source, a folder of another layout, or when nothing is left to import.
    """
    if source not in SOURCES:
        raise InputError(f"unknown source {source!r}; there are {', '.join(SOURCES)}")
    root, manifest = Path(root), Path(manifest)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    if benign is not None and not benign.strip():
        raise InputError("benign: the name of a leaf is empty")
    module = importlib.import_module(SOURCES[source])
    options = Options(cell_types, benign)
    try:
        found: Scan = module.scan(root, options)
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read: {error.strerror}") from error
    idle = [name for name, value in vars(options).items() if value and name not in module.OPTIONS]
    found.notes += [f"--{name.replace('_', '-')} changes nothing for {source}" for name in idle]
    if not found.rows:
        reasons = "; ".join(f"{count} skipped: {reason}" for reason, count in found.skipped.most_common())
        raise InputError(f"{root}: nothing to import as {source}{': ' + reasons if reasons else ', no images'}")
    _write(found, manifest)
    leaves = Counter(row["leaf"] for row in found.rows)
    patients = {row["patient"] for row in found.rows} - {""}
    skipped = dict(sorted(found.skipped.items()))
    return ImportSummary(
        source, manifest, len(found.rows), len(patients), dict(sorted(leaves.items())), skipped, tuple(found.notes)
    )


def _write(found: Scan, path: Path) -> None:
    # pandas takes longer to import than the names of the sources, which a command's help shows, are worth.
    import pandas as pd

    from leukotree.data import manifest

    frame = pd.DataFrame(found.rows)
    manifest.write(frame if (frame["mask"] != "").any() else frame.drop(columns="mask"), path, found.root)
