"""The folder of this machine where a data set lies, or its copies do. Asks no server."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from leukotree.data.remote import scratch
from leukotree.data.remote.address import Address, is_remote, parse

_FOLDER = re.compile(r"[0-9a-f]{16}-[0-9a-f]{16}")
"""The name of a folder of copies: that of its address, and that of its content."""


def place(shards: str | Path) -> Path:
    """The folder of a data set: the one that was named, or for an address the one of its copies. That may not
    be there yet, or not have all shards."""
    if not is_remote(shards):
        return Path(shards)
    address = parse(str(shards))
    note = read_note(address)
    return scratch.path() / (note["folder"] if note else digest(address))


def digest(address: Address) -> str:
    """The name of an address in the scratch folder."""
    return hashlib.sha256(address.text.encode()).hexdigest()[:16]


def note_path(address: Address) -> Path:
    """The note of an address: the name of its newest folder, when that was compared, and what it was then."""
    return scratch.path() / f"{digest(address)}.json"


def read_note(address: Address) -> dict[str, Any] | None:
    """The content of the note; None without one. A damaged one counts as none."""
    try:
        note = json.loads(note_path(address).read_text())
        if _FOLDER.fullmatch(note["folder"]) and float(note["checked"]) >= 0:
            return dict(note)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None
