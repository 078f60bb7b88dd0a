"""The C library's memory of a process that trains on a CPU.

A training step frees its activations and asks for the same amount again. glibc gives large blocks back to the
system at once, so each step pays for new pages. EfficientNet-Lite0 at 224 px, batch 32, spends a third of its
time so.
"""

from __future__ import annotations

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Names of mallopt(3)."""
_LARGEST_BLOCK, _NEVER = 2**30, 2**31 - 1
_OF_THE_USER = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
"""Variables with which a user or a site has chosen."""


def keep_freed_memory() -> bool:
    """Let this process keep memory that it frees, for its next step. No number that it computes changes.

    False where the C library is another one than glibc, or where a variable of the user has chosen.
    """
    if any(os.environ.get(name) for name in _OF_THE_USER):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK) and mallopt(_TRIM_THRESHOLD, _NEVER))
