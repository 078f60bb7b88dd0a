"""The images of a command: files, folders, a manifest, or addresses of them. No image is read here."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from leukotree import csvfile
from leukotree.data import manifest
from leukotree.data.fingerprint import DESCRIPTION
from leukotree.data.images.formats import IMAGE_SUFFIXES, UNREAD_SUFFIXES
from leukotree.data.remote.address import hidden, is_remote, trust
from leukotree.data.sources.walk import Walk, is_ignored
from leukotree.errors import InputError
from leukotree.inference import download

COLUMNS = ("path", "image", "patient", "source", "leaf")
"""Columns of `opened`: the file, the image as it was named, and what a manifest says about it, "" where
unknown. Of a manifest there is also `box`, the part of the file that is the image."""
TABLES = (*csvfile.ENDINGS, ".parquet")
"""Endings of manifests."""


def packed(words: Sequence[str]) -> Path | str | None:
    """The folder of shards, or their address, if that is what the words name. A web address without an ending
    is one."""
    if len(words) == 1 and is_remote(words[0]):
        ending = download.is_address(words[0]) and Path(download.name(words[0])).suffix
        if not ending:
            trust(words[0])
            return words[0]
    folder = Path(words[0])
    return folder if len(words) == 1 and (folder / DESCRIPTION).is_file() else None


@contextmanager
def opened(words: Sequence[str], leaf: bool = False) -> Iterator[pd.DataFrame]:
    """A table with COLUMNS, a row for each image that the words name, in their order. A folder's images are
    in sorted order. Files that were downloaded are there as long as the context is.

    Args: leaf: whether each image must have a leaf, which only a manifest gives.

    Raises InputError for what is not there, for a folder without images, and for a manifest beside other
    words.
    """
    with tempfile.TemporaryDirectory(prefix="leukotree-") as folder:
        yield _table(words, Path(folder), leaf)


def is_manifest(word: str) -> bool:
    """Whether a word names a manifest, by its ending."""
    name = download.name(word) if download.is_address(word) else word
    return Path(name).suffix.lower() in TABLES and not Path(word).is_dir()


def _table(words: Sequence[str], folder: Path, leaf: bool) -> pd.DataFrame:
    manifests = [word for word in words if is_manifest(word)]
    if manifests and len(words) > 1:
        raise InputError(f"{manifests[0]}: is a manifest; give it alone, or give images and folders")
    if leaf and not manifests:
        raise InputError(f"{words[0]}: says no leaves; give shards, or a manifest with a column 'leaf'")
    if manifests:
        word = manifests[0]
        path = download.manifest(word, folder) if download.is_address(word) else Path(word)
        frame = manifest.read_images(path, leaf)
        return frame.rename(columns={"image": "path", "shown": "image"}).drop(columns="row")
    pairs = [pair for number, word in enumerate(words) for pair in _files(word, folder / str(number))]
    return pd.DataFrame(pairs, columns=["path", "image"]).assign(patient="", source="", leaf="")


def _files(word: str, folder: Path) -> list[tuple[str, str]]:
    """(path, name) of the images that a word names."""
    if download.is_address(word):
        return [(str(download.image(word, folder)), hidden(word))]
    path = Path(word)
    if not path.is_dir():
        if not path.exists():
            raise InputError(f"{word}: no such file or folder")
        return [(word, word)]
    if (path / DESCRIPTION).is_file():
        raise InputError(f"{word}: is a folder of shards; give it alone")
    files = [str(file.path) for file in Walk({}).files(path) if _is_image(file.path)]
    if not files:
        raise InputError(f"{word}: no image in it; endings of images are {', '.join(sorted(IMAGE_SUFFIXES))}")
    return [(file, file) for file in files]


def _is_image(path: Path) -> bool:
    """Whether a file is an image by its name. One of a format that is not read counts: it is then named as a
    broken one, and not left out in silence."""
    return not is_ignored(path.name) and path.suffix.lower() in IMAGE_SUFFIXES | UNREAD_SUFFIXES
