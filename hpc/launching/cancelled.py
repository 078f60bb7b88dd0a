"""Notes that a study was cancelled. A command that waits for its runs sees such a note on any host, and
submits nothing more. A command that begins later ignores it."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

from leukotree.errors import Preempted
from leukotree.files import append_lines

FILE = "cancelled.jsonl"


def note(root: Path) -> None:
    """Note that the study in this folder is cancelled now."""
    append_lines(root / FILE, [json.dumps({"time": time.time(), "host": socket.gethostname()})])


def times(root: Path) -> int:
    """How often the study was cancelled."""
    try:
        return (root / FILE).read_bytes().count(b"\n")
    except OSError:
        return 0


def check(root: Path, before: int) -> None:
    """Raises Preempted if the study was cancelled since `times` returned `before`."""
    if times(root) != before:
        raise Preempted(f"{root}: cancelled by `leukotree cancel`, so nothing more is submitted")
