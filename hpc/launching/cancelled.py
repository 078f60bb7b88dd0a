"""Notes that a study was cancelled. A command that waits for its runs sees them on any host, and submits
nothing any more; one that begins later does not mind them."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

from leukotree.errors import Preempted
from leukotree.files import append_lines

FILE = "cancelled.jsonl"


def note(root: Path) -> None:
    """The study in this folder is cancelled now."""
    append_lines(root / FILE, [json.dumps({"time": time.time(), "host": socket.gethostname()})])


def times(root: Path) -> int:
    """How often it has been."""
    try:
        return (root / FILE).read_bytes().count(b"\n")
    except OSError:
        return 0


def check(root: Path, before: int) -> None:
    """Raises Preempted if it was cancelled since `times` said `before`."""
    if times(root) != before:
        raise Preempted(f"{root}: cancelled by `leukotree cancel`, so nothing more is submitted")
