"""The images of a command, prepared as `pack` prepares them, and decoded as training decodes them."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from leukotree import progress, signals
from leukotree.data import described, stream
from leukotree.data.dataset import Dataset
from leukotree.data.images import codec, encoding
from leukotree.data.images.formats import BrokenImage
from leukotree.errors import InputError, one_line
from leukotree.inference.loaded import Prepared

CHUNK = 8
"""Images in one task of a decoding thread."""


@dataclass(frozen=True, eq=False)
class Images:
    """N images, of which none is in memory."""

    table: pd.DataFrame
    """N rows: image (its name), key, patient, source and leaf ("" where unknown), sha256 of the packed JPEG,
    and the columns of `described` that are there."""
    size: int
    """Width and height in pixels."""
    decode: Callable[[int, np.ndarray], object]
    """Decodes an image, by its number, into an (size, size, 3) uint8 array. Safe from several threads."""
    across_sources: bool = False
    """Whether the id of a patient means the same patient in every source."""
    broken: tuple[tuple[str, str], ...] = ()
    """(image, reason) of those that were left out."""
    notes: tuple[str, ...] = ()
    """What a reader should know about them."""


def of_shards(folder: Path | str, prepared: Prepared, fold: int | None = None) -> Images:
    """The images of a folder of shards (or of an address) as they are, or of one of its folds, in the order
    of the index.

    Raises InputError for images of another size than `prepared`.
    """
    dataset = Dataset.open(folder)
    if dataset.size != prepared.size:
        raise InputError(
            f"{folder}: packed at {dataset.size} pixels, and the model takes {prepared.size}; give the "
            f"manifest instead, or pack it again with --size {prepared.size}"
        )
    rows = np.arange(len(dataset)) if fold is None else np.flatnonzero(dataset.index["fold"] == fold)
    if not len(rows):
        raise InputError(f"{folder}: has no fold {fold}; its folds are 0 to {dataset.folds - 1}")
    notes = []
    if (quality := dataset.quality) != prepared.quality:
        notes.append(f"{folder} has JPEGs of quality {quality}; the model was trained on {prepared.quality}")
    columns = ["key", "patient", "source", "leaf", "sha256", *described.present(dataset.index)]
    table = dataset.index.iloc[rows][columns].reset_index(drop=True)
    table.insert(0, "image", table["key"])

    def decode(number: int, buffer: np.ndarray) -> np.ndarray:
        return stream.decode(dataset, int(rows[number]), buffer)

    return Images(table, dataset.size, decode, dataset.patients_across_sources, notes=tuple(notes))


@contextmanager
def of_files(
    table: pd.DataFrame, prepared: Prepared, workers: int, drop_broken: bool = False
) -> Iterator[Images]:
    """The images of files, each prepared once. They lie as JPEGs in a temporary file, which ends with the
    context.

    Args:
        table: see `inputs.opened`.
        workers: threads that read and resize.

    Raises InputError that names broken images, unless they are left out, and for a disk without room.
    """
    with tempfile.TemporaryFile(prefix="leukotree-") as file:
        digests: list[str] = []
        places: list[tuple[int, int]] = []
        good: list[int] = []
        broken: list[tuple[str, str]] = []
        paths, end = table["path"].tolist(), 0
        encoded = encoding.encode_files(
            paths,
            [None] * len(paths),
            prepared.size,
            prepared.quality,
            max(1, workers),
            table["box"].tolist() if "box" in table else None,
            prepared.crop,
        )
        with encoding.no_pillow_warnings():
            for number, jpeg in enumerate(progress.over(encoded, "prepare", len(paths), "image")):
                signals.stop_if_requested(f"{number} of {len(paths)} images are prepared")
                if isinstance(jpeg, BrokenImage):
                    broken.append((str(table["image"].iloc[number]), str(jpeg)))
                    continue
                _write(file.fileno(), jpeg)
                places.append((end, len(jpeg)))
                digests.append(hashlib.sha256(jpeg).hexdigest())
                good.append(number)
                end += len(jpeg)
        _refuse_broken(broken, len(good), drop_broken)
        rows = table.iloc[good].drop(columns=["path", "box"], errors="ignore").reset_index(drop=True)
        rows["key"], rows["sha256"] = rows["image"], digests

        def decode(number: int, buffer: np.ndarray) -> np.ndarray:
            start, length = places[number]
            return codec.decode(os.pread(file.fileno(), length, start), buffer.reshape(-1))

        yield Images(rows, prepared.size, decode, broken=tuple(broken))


def _write(descriptor: int, jpeg: bytes) -> None:
    try:
        written = 0
        while written < len(jpeg):
            written += os.write(descriptor, jpeg[written:])
    except OSError as error:
        place = tempfile.gettempdir()
        raise InputError(
            f"{place}: no room for the prepared images ({one_line(error.strerror)}); name another folder in "
            "the variable TMPDIR"
        ) from error


def _refuse_broken(broken: Sequence[tuple[str, str]], good: int, drop: bool) -> None:
    if not broken or (drop and good):
        return
    from leukotree.data.pack_folder import list_broken

    fix = "none is left" if drop else "repair them, or leave them out with --drop-broken"
    raise InputError(f"{len(broken)} broken image(s): {list_broken(broken)}; {fix}")


def batches(
    images: Images, rows: np.ndarray, batch_size: int, workers: int
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Yield (b,) rows and (b, 3, size, size) uint8 pixels, channels last in memory as in training, in the
    order of `rows`. The next batch is decoded while the caller uses one, by `workers` threads; 0 decodes in
    the calling thread."""
    parts = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    started: deque[tuple[np.ndarray, torch.Tensor, list[Future[None]]]] = deque()
    pool = ThreadPoolExecutor(max(1, workers), "decode")

    def fill(numbers: np.ndarray, out: np.ndarray) -> None:
        for number, buffer in zip(numbers.tolist(), out, strict=True):
            pixels = images.decode(number, buffer)
            if isinstance(pixels, np.ndarray) and not np.may_share_memory(pixels, buffer):
                np.copyto(buffer, pixels)

    def start(numbers: np.ndarray) -> tuple[np.ndarray, torch.Tensor, list[Future[None]]]:
        pixels = torch.empty((len(numbers), images.size, images.size, 3), dtype=torch.uint8)
        out, chunks = pixels.numpy(), [slice(at, at + CHUNK) for at in range(0, len(numbers), CHUNK)]
        if not workers:
            fill(numbers, out)
            return numbers, pixels, []
        return numbers, pixels, [pool.submit(fill, numbers[chunk], out[chunk]) for chunk in chunks]

    try:
        for part in parts:
            started.append(start(part))
            if len(started) > 1:
                yield _waited(*started.popleft())
        while started:
            yield _waited(*started.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _waited(
    numbers: np.ndarray, pixels: torch.Tensor, tasks: Sequence[Future[None]]
) -> tuple[np.ndarray, torch.Tensor]:
    for task in tasks:
        task.result()
    return numbers, pixels.permute(0, 3, 1, 2)
