"""Encode many image files at once, with threads, as the square JPEGs that shards hold."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from leukotree.data.images import codec

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
    paths: Sequence[str], digests: Sequence[str | None], size: int, quality: int, workers: int
) -> Iterator[bytes | codec.BrokenImage]:
    """Yield each image as a square JPEG, or the reason why it is broken, in order.

    Each worker holds at most a few JPEGs and one decoded image in memory. The workers are threads, not
    processes: decoding, resampling and encoding release the interpreter lock.

    Args: digests: see `digests`; None for a file that is not compared.

    Raises InputError for a file whose bytes do not have its digest any more.
    """

    def encode(path: str, digest: str | None) -> bytes | codec.BrokenImage:
        try:
            return codec.square(path, size, quality, digest)
        except codec.BrokenImage as error:
            return error

    def encode_chunk(start: int) -> list[bytes | codec.BrokenImage]:
        chunk = slice(start, start + _CHUNK)
        return [encode(path, digest) for path, digest in zip(paths[chunk], digests[chunk], strict=True)]

    tasks: deque[Future[list[bytes | codec.BrokenImage]]] = deque()
    pool = ThreadPoolExecutor(workers, "pack")
    try:
        for start in range(0, len(paths), _CHUNK):
            tasks.append(pool.submit(encode_chunk, start))
            if len(tasks) > _AHEAD * workers:
                yield from tasks.popleft().result()
        while tasks:
            yield from tasks.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
