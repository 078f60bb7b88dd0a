"""Many images at once: files -> the square JPEGs that shards hold, in order, by threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from leukotree.data.images import codec

_CHUNK = 8
"""Images that a worker takes at once, so that handing them over costs little."""
_AHEAD = 4
"""Chunks per worker under way: enough to go on while a finished shard is written to the disk."""


def encode(
    paths: Sequence[str], digests: Sequence[str], size: int, quality: int, workers: int
) -> Iterator[bytes | codec.BrokenImage]:
    """Each image as a square JPEG, or why not, in order. At most a few JPEGs, and one decoded image, per
    worker are in memory. Raises InputError for a file whose bytes have not its digest any more.

    Threads, not processes: decoding, resampling and encoding release the interpreter lock.
    """

    def one(path: str, digest: str) -> bytes | codec.BrokenImage:
        try:
            return codec.square(path, size, quality, digest)
        except codec.BrokenImage as error:
            return error

    def several(start: int) -> list[bytes | codec.BrokenImage]:
        some = slice(start, start + _CHUNK)
        return [one(path, digest) for path, digest in zip(paths[some], digests[some], strict=True)]

    waiting: deque[Future[list[bytes | codec.BrokenImage]]] = deque()
    pool = ThreadPoolExecutor(workers, "pack")
    try:
        for start in range(0, len(paths), _CHUNK):
            waiting.append(pool.submit(several, start))
            if len(waiting) > _AHEAD * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
