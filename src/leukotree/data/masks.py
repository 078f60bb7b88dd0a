"""The masks of a packed data set's images: found in the manifest that it was packed from.

Shards hold no masks. An image of the manifest is an image of the data set if it has the same source and name,
and if `pack` would make the same bytes from it. Behind pseudonyms there are no names: there the bytes decide,
and also where folders repeat a name.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from leukotree import progress
from leukotree.data import boxes, manifest
from leukotree.data.boxes import WHOLE_BOX, Crop
from leukotree.data.dataset import Dataset
from leukotree.data.images import codec, digests, encoding, maskfile
from leukotree.errors import InputError, one_line
from leukotree.taxonomy import Taxonomy

Place = tuple[str, str, str]
"""The file of an image, that of its mask, and the box of both that is the image, "" for the whole."""


@dataclass(frozen=True)
class Masks:
    """Masks of a data set's images, by the row of its index."""

    manifest: Path
    size: int
    """Width and height of the packed images in pixels."""
    files: dict[int, Place]
    """Row -> the files of its image and its mask, and its box in them."""
    crop: Crop = WHOLE_BOX
    """How a box becomes an image."""
    _read: dict[int, np.ndarray] = field(default_factory=dict, repr=False)

    def read(self, row: int) -> np.ndarray:
        """(size, size) bool: the mask of a row, in the geometry of its packed image; False everywhere where
        it has none. Raises InputError naming a file that cannot be read."""
        if row not in self._read:
            known = self.files.get(row)
            empty = np.zeros((self.size, self.size), bool)
            self._read[row] = empty if known is None else self._square(known)
        return self._read[row]

    def _square(self, place: Place) -> np.ndarray:
        image, mask, box = place
        return maskfile.square(mask, image, self.size, box, self.crop)

    def digest(self, rows: Sequence[int]) -> str:
        """A hex digest of the masks of some rows. Equal ones give equal measures."""
        total = hashlib.sha256()
        for row in rows:
            total.update(np.packbits(self.read(row)).tobytes() if row in self.files else b"none")
        return total.hexdigest()


def match(path: str | Path, dataset: Dataset) -> Masks:
    """The masks that a manifest has for the images of a data set, matched by source and name; behind
    pseudonyms by the bytes of the packed images.

    Raises InputError naming the manifest if it has no mask, or none for this data set, and as
    `manifest.read`.
    """
    path = Path(path)
    frame = manifest.read(path, tree_of_manifest(dataset.taxonomy))
    masked = frame[frame["mask"] != ""]
    if masked.empty:
        raise InputError(f"{path}: has no mask; give the manifest whose column mask names them")
    unnamed = dataset.pack_option("pseudonyms") or dataset.index[["source", "image"]].duplicated().any()
    rows = _by_bytes(masked, dataset) if unnamed else _by_name(masked, dataset)
    if not rows:
        example = f"{masked['source'].iloc[0]}, {masked['name'].iloc[0]}"
        raise InputError(
            f"{path}: none of its {len(masked)} images with a mask, such as ({example}), is in "
            f"{dataset.name}; give the manifest that was packed"
        )
    return Masks(path, dataset.size, rows, dataset.crop)


def verified(masks: Masks, dataset: Dataset, rows: Sequence[int]) -> tuple[Masks, int]:
    """The masks of some rows whose image files give the packed bytes, and how many others there are.

    Another picture under the same name has another cell.
    """
    with_mask = [row for row in rows if row in masks.files]
    kept = {}
    packed = dataset.index["sha256"].to_numpy()
    for row in progress.over(with_mask, "comparing images", len(with_mask), "image"):
        try:
            data = _packed(masks.files[row], dataset)
        except codec.BrokenImage as error:
            raise InputError(f"{masks.files[row][0]}: cannot be read: {one_line(error)}") from error
        if hashlib.sha256(data).hexdigest() == packed[row]:
            kept[row] = masks.files[row]
    return Masks(masks.manifest, masks.size, kept, masks.crop), len(with_mask) - len(kept)


def _packed(place: Place, dataset: Dataset) -> bytes:
    """The JPEG that `pack` makes of an image. Raises BrokenImage."""
    image, _, box = place
    quality = dataset.quality
    if not box:
        return codec.square(image, dataset.size, quality)
    (part,) = codec.crops(image, [box], dataset.size, quality, crop=dataset.crop)
    if isinstance(part, codec.BrokenImage):
        raise part
    return part


def tree_of_manifest(own: Taxonomy) -> Taxonomy:
    """The tree to check a manifest with: that of the data set, or the paper's where its leaves are among
    those. `pack` prunes the tree to the leaves that have images."""
    paper = Taxonomy.paper()
    return paper if set(own.leaves) <= set(paper.leaves) else own


def _by_name(masked: pd.DataFrame, dataset: Dataset) -> dict[int, Place]:
    index = dataset.index
    names = {pair: row for row, pair in enumerate(zip(index["source"], index["image"], strict=True))}
    found: dict[int, Place] = {}
    columns = (masked[name].tolist() for name in ("source", "name", "image", "mask", "box"))
    for source, name, image, mask, box in zip(*columns, strict=True):
        if (row := names.get((source, boxes.name(name, box)))) is not None:
            found[row] = (image, mask, box)
    return found


def _by_bytes(masked: pd.DataFrame, dataset: Dataset) -> dict[int, Place]:
    workers = len(os.sched_getaffinity(0))
    images, masks, cells = (masked[name].tolist() for name in ("image", "mask", "box"))
    known = digests.of_files(images, workers)
    encoded = encoding.encode_files(
        images, known, dataset.size, dataset.quality, workers, cells, dataset.crop
    )
    files: dict[str, Place] = {}
    packed = progress.over(encoded, "matching masks", len(images), "image")
    for data, *place in zip(packed, images, masks, cells, strict=True):
        if isinstance(data, bytes):
            image, mask, box = place
            files.setdefault(hashlib.sha256(data).hexdigest(), (image, mask, box))
    digest = dataset.index["sha256"].tolist()
    return {row: files[text] for row, text in enumerate(digest) if text in files}
