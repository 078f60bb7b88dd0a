"""Encode many image files at once, with threads, as the square JPEGs that shards hold."""

from __future__ import annotations

import itertools
import os
import tempfile
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from leukotree import progress, signals
from leukotree.data.boxes import WHOLE_BOX, Crop
from leukotree.data.images import codec
from leukotree.errors import Preempted

_CHUNK = 8
"""Images in one task of a worker: enough that starting a task costs little."""
_AHEAD = 4
"""Tasks per worker that are started ahead: enough to stay busy while a finished shard is written."""


@contextmanager
def no_pillow_warnings() -> Iterator[None]:
    """Ignore warnings of Pillow: `codec` decides which images are broken, and gives the reason."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def encode_files(
    paths: Sequence[str],
    digests: Sequence[str | None],
    size: int,
    quality: int,
    workers: int,
    boxes: Sequence[str] | None = None,
    crop: Crop = WHOLE_BOX,
) -> Iterator[bytes | codec.BrokenImage]:
    """Yield each image as a square JPEG, or the reason why it is broken, in order.

    Each worker holds at most a few JPEGs and one decoded image in memory. The workers are threads, not
    processes: decoding, resampling and encoding release the interpreter lock.

    Args:
        digests: see `digests`; None for a file that is not compared.
        boxes: the part of each file that is the image, "" for the whole file; None for whole files. Boxes of
            one file that follow each other are cut from one decoded image.
        crop: how a box becomes a part.

    Raises InputError for a file whose bytes do not have its digest any more.
    """
    texts = boxes if boxes is not None and any(boxes) else None
    tasks: deque[Future[list[bytes | codec.BrokenImage]]] = deque()
    pool = ThreadPoolExecutor(workers, "pack")

    def encode(rows: range) -> list[bytes | codec.BrokenImage]:
        if texts is None:
            return [_whole(paths[row], digests[row], size, quality) for row in rows]
        return [
            result
            for run in _runs(paths, rows)
            for result in codec.crops(
                paths[run[0]], [texts[row] for row in run], size, quality, digests[run[0]], crop
            )
        ]

    try:
        for rows in _chunks(paths, texts is not None):
            tasks.append(pool.submit(encode, rows))
            if len(tasks) > _AHEAD * workers:
                yield from tasks.popleft().result()
        while tasks:
            yield from tasks.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def encode_once(
    paths: Sequence[str],
    digests: Sequence[str | None],
    size: int,
    quality: int,
    workers: int,
    boxes: Sequence[str] | None,
    crop: Crop,
    folder: Path,
) -> Iterator[bytes | codec.BrokenImage]:
    """Yield as `encode_files`, and decode each file once although its boxes are far from each other.

    Where a file has several boxes, all JPEGs are made first, in the order of the files. They wait in a
    temporary file in `folder`, which needs as much room as the shards. Raises OSError if there is none, and
    Preempted after a signal to stop.
    """
    if boxes is None or not any(boxes) or len(set(paths)) == len(paths):
        yield from encode_files(paths, digests, size, quality, workers, boxes, crop)
        return
    first: dict[str, int] = {}
    ranks = [first.setdefault(path, len(first)) for path in paths]
    order = sorted(range(len(paths)), key=ranks.__getitem__)
    files, texts = ([column[row] for row in order] for column in (paths, boxes))
    known = [digests[row] for row in order]
    made = encode_files(files, known, size, quality, workers, texts, crop)
    waiting: list[tuple[int, int] | codec.BrokenImage] = [(0, 0)] * len(paths)
    with tempfile.TemporaryFile(dir=folder) as file:
        for row, result in zip(order, progress.over(made, "cut", len(order), "image"), strict=True):
            if signals.requested():
                raise Preempted(f"{folder}: the cells are not cut from all images")
            waiting[row] = (file.tell(), len(result)) if isinstance(result, bytes) else result
            if isinstance(result, bytes):
                file.write(result)
        file.flush()
        for place in waiting:
            yield (
                place if isinstance(place, codec.BrokenImage) else os.pread(file.fileno(), place[1], place[0])
            )


def _whole(path: str, digest: str | None, size: int, quality: int) -> bytes | codec.BrokenImage:
    try:
        return codec.square(path, size, quality, digest)
    except codec.BrokenImage as error:
        return error


def _chunks(paths: Sequence[str], together: bool) -> Iterator[range]:
    """Yield the rows of each task; with `together` no task ends between two rows of one file."""
    start = 0
    while start < len(paths):
        end = min(start + _CHUNK, len(paths))
        while together and end < len(paths) and paths[end] == paths[end - 1]:
            end += 1
        yield range(start, end)
        start = end


def _runs(paths: Sequence[str], rows: range) -> list[list[int]]:
    """Return the rows of each file, for rows that follow each other."""
    return [list(run) for _, run in itertools.groupby(rows, key=paths.__getitem__)]
