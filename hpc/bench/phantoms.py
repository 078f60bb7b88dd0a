"""Phantom images to measure on."""

from __future__ import annotations

from pathlib import Path


def phantoms(folder: Path, size: int, folds: int = 4, **amounts: int) -> Path:
    """Draw phantoms and pack them at `size` pixels. Returns the folder of their shards."""
    from leukotree.data import phantom
    from leukotree.data.pack import pack

    manifest = phantom.write(folder / "images", size=size, **amounts)
    pack(manifest, folder / "shards", folds=folds, size=size)
    return folder / "shards"
