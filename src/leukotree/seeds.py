"""Named random streams: one seed gives independent, reproducible numbers for each purpose."""

from __future__ import annotations

import zlib

import numpy as np

BY_STAGE, PAIRED, IN_BLOCKS = VERSIONS = 1, 2, 3
"""How a run draws its numbers. BY_STAGE: weights, order and dropout by the name of the stage, as in the first
version. PAIRED: as `models.streams` says. IN_BLOCKS: also, and the order of very many images is drawn block
by block (`data.order`). A run that was begun in one way is continued so: another order in the middle of an
epoch would show some images twice and others never."""
NEWEST = IN_BLOCKS


def sequence(seed: int, stream: str, *place: int) -> np.random.SeedSequence:
    """The seed of a stream, such as "order", at a place, such as (epoch,). Equal arguments give equal
    numbers."""
    return np.random.SeedSequence([seed, zlib.crc32(stream.encode()), *place])


def generator(seed: int, stream: str, *place: int) -> np.random.Generator:
    """A numpy generator for a stream at a place. Equal arguments give equal numbers."""
    return np.random.Generator(np.random.Philox(sequence(seed, stream, *place)))


def integer(seed: int, stream: str, *place: int) -> int:
    """A 63-bit seed for libraries that take one integer (torch.manual_seed)."""
    return int(sequence(seed, stream, *place).generate_state(1, np.uint64)[0] >> 1)
