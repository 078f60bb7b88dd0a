"""Small copies of packed images, for a page."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Sequence
from pathlib import Path

from leukotree.data.dataset import Dataset
from leukotree.data.images import codec
from leukotree.errors import InputError, RunFailed

PHANTOM = "phantom"
"""The source of drawn images. They show no person's cells, so that a page may have them."""
SIDE = 96
"""Largest side in pixels."""
WIDE = 600
"""Largest side of a picture with several panels."""


def read(shards: str, fingerprints: Collection[str], keys: Sequence[str]) -> dict[str, bytes]:
    """Key -> JPEG of at most SIDE pixels. Empty where the shards are not here, or hold other data than these
    fingerprints. An image that cannot be read is left out, and one whose shard would have to be fetched from
    an address."""
    try:
        data = Dataset.open(shards, ends=False)
    except (InputError, RunFailed):
        return {}
    if data.fingerprint not in fingerprints:
        return {}
    row_of = {key: row for row, key in enumerate(data.index["key"].tolist())}
    small = {}
    for key in keys:
        with contextlib.suppress(InputError, RunFailed, codec.BrokenImage, KeyError):
            row = row_of[key]
            if data.address is None or (data.absolute / data.index["shard"].iloc[row]).exists():
                small[key] = _small(data.read(row))
    return small


def of_panel(path: Path) -> bytes | None:
    """JPEG of a picture with several panels, at most WIDE pixels wide. None if it cannot be read."""
    from PIL import Image

    try:
        with Image.open(path, formats=["PNG"]) as picture:
            image = picture.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    image.thumbnail((WIDE, WIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=75)
    return buffer.getvalue()


def _small(jpeg: bytes) -> bytes:
    from PIL import Image

    image = Image.fromarray(codec.decode(jpeg))
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
