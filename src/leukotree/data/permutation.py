"""A random permutation that needs no table: the image at each position is computed.

A Feistel network is a permutation of the numbers below a power of two, whatever its round function is (Luby
and Rackoff 1988). Numbers beyond the wanted range are permuted again until they are within it ("cycle
walking", Black and Rogaway 2002), which gives a permutation of the range.
"""

from __future__ import annotations

import numpy as np

_ROUNDS = 8
_FACTORS = (np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53))
"""Those of the last step of MurmurHash3 (64 bits): a changed bit of its input changes half of its output."""
_SHIFT = np.uint64(33)


class Permutation:
    """A permutation of 0 .. n-1. It takes the memory of its keys.

    Args:
        n: at least 1.
        random: gives the keys.
    """

    def __init__(self, n: int, random: np.random.Generator) -> None:
        self._n = n
        bits = max(2, (n - 1).bit_length())
        self._low = np.uint64(bits // 2)
        low, high = bits // 2, bits - bits // 2
        self._masks = np.uint64(2**low - 1), np.uint64(2**high - 1)
        self._keys = random.integers(0, 2**64, _ROUNDS, dtype=np.uint64)

    def __len__(self) -> int:
        return self._n

    def at(self, positions: np.ndarray) -> np.ndarray:
        """(k,) int64 positions in 0 .. n-1 -> (k,) int64: what the permutation has there."""
        values = self._network(positions.astype(np.uint64))
        while len(beyond := np.flatnonzero(values >= self._n)):
            values[beyond] = self._network(values[beyond])
        return values.astype(np.int64)

    def _network(self, values: np.ndarray) -> np.ndarray:
        """Numbers below 2^bits -> numbers below 2^bits. Each round changes one half by the other one."""
        low_mask, high_mask = self._masks
        low, high = values & low_mask, values >> self._low
        for number, key in enumerate(self._keys):
            if number % 2:
                low ^= _mixed(high, key) & low_mask
            else:
                high ^= _mixed(low, key) & high_mask
        return (high << self._low) | low


def _mixed(half: np.ndarray, key: np.uint64) -> np.ndarray:
    mixed = half ^ key
    for factor in _FACTORS:
        mixed ^= mixed >> _SHIFT
        mixed *= factor  # modulo 2^64
    mixed ^= mixed >> _SHIFT
    return mixed
