"""The C library's memory of a process that trains on a CPU.

A training step frees its activations and asks for the same amount again. glibc gives large blocks back to the
system at once, so each step pays for new pages. EfficientNet-Lite0 at 224 px, batch 32, spends a third of its
time so.
"""

from __future__ import annotations

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
"""Names of mallopt(3)."""
_LARGEST_BLOCK, _NEVER, _NONE = 2**30, -1, 0
_OF_THE_USER = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_")
"""Variables with which a user or a site has chosen."""
_TUNABLES = ("glibc.malloc.trim_threshold", "glibc.malloc.mmap_threshold", "glibc.malloc.mmap_max")
"""What they are called in the variable GLIBC_TUNABLES."""


def keep_freed_memory() -> bool:
    """Let this process keep memory that it frees, for its next step. No number that it computes changes.

    False where the C library has no such choice, as on macOS and with musl, or where a variable of the user
    has chosen.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if any(os.environ.get(name) for name in _OF_THE_USER) or any(name in tunables for name in _TUNABLES):
        return False
    try:
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    except OSError:  # a program without shared libraries
        return False
    if mallopt is None:
        return False
    # Until version 2.34 or so glibc refuses so large a threshold. There no block gets pages of its own.
    own_pages = mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK) or mallopt(_MMAP_MAX, _NONE)
    return bool(own_pages and mallopt(_TRIM_THRESHOLD, _NEVER))
