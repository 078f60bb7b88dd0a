"""The images of a manifest as `pack` would write them, without shards: to look at, not to train on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from leukotree import progress
from leukotree.data import boxes, manifest
from leukotree.data.boxes import WHOLE_BOX, Crop
from leukotree.data.dataset import FORMAT, Dataset, Description
from leukotree.data.images import digests, encoding
from leukotree.data.images.formats import BrokenImage
from leukotree.errors import InputError
from leukotree.taxonomy import Taxonomy

MOST = 20_000
"""Images that are held in memory at most, as JPEGs."""


@dataclass(frozen=True, eq=False)
class Unpacked(Dataset):
    """A data set whose JPEGs are in memory. It has one fold, and any number of leaves."""

    jpegs: tuple[bytes, ...] = field(default=(), repr=False)

    def read(self, row: int) -> bytes:
        """Return the JPEG of one image, by its position in `index`."""
        return self.jpegs[row]


def open_manifest(
    path: str | Path, size: int, quality: int, taxonomy: Taxonomy, crop: Crop = WHOLE_BOX
) -> Unpacked:
    """Read a manifest, and make the squares of its images.

    Args:
        size: width and height in pixels.
        quality: of the JPEGs.
        taxonomy: the leaves that the manifest may have.
        crop: how a box of the manifest becomes an image.

    Raises InputError as `manifest.read`, for more than MOST images and for images that do not decode.
    """
    frame = manifest.read(path, taxonomy)
    if len(frame) > MOST:
        raise InputError(
            f"{path}: {len(frame)} images, more than {MOST}; pack them with --size {size}, name the shards"
        )
    workers, images, cells = len(os.sched_getaffinity(0)), frame["image"].tolist(), frame["box"].tolist()
    known = digests.of_files(images, workers)
    encoded = encoding.encode_files(images, known, size, quality, workers, cells, crop)
    jpegs = tuple(_whole(path, images, progress.over(encoded, "reading", len(images), "image")))
    index = frame[["leaf", "patient", "source"]].assign(
        key=manifest.keys(frame["name"]),
        image=boxes.names(frame["name"].tolist(), cells),
        group=frame["group_id"],
        fold=0,
        sha256=[hashlib.sha256(jpeg).hexdigest() for jpeg in jpegs],
    )
    described = Description.model_validate(
        {
            "format": FORMAT,
            "taxonomy": taxonomy.nested(),
            "size": size,
            "folds": 2,
            "seed": 0,
            "group": "image",
            "counts": index["leaf"].value_counts().to_dict(),
            "patients": 0,
            "options": {"quality": quality},
        }
    )
    content = repr([index["key"].tolist(), index["sha256"].tolist(), size])
    samples = hashlib.sha256(content.encode()).hexdigest()
    return Unpacked(
        Path(path),
        Path(path).absolute(),
        size,
        taxonomy,
        folds=1,
        group="image",
        index=index,
        fingerprint=samples,
        description=described,
        samples=samples,
        jpegs=jpegs,
    )


def _whole(path: str | Path, images: list[str], encoded: Iterable[bytes | BrokenImage]) -> Iterable[bytes]:
    """The JPEGs. Raises InputError for a broken image."""
    for image, jpeg in zip(images, encoded, strict=True):
        if isinstance(jpeg, BrokenImage):
            raise InputError(f"{path}: {image}: {jpeg}; repair the image, or leave its row out")
        yield jpeg
