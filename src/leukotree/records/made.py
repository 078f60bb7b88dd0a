"""made.json: the commands that made a manifest or a packed folder.

The commands are not part of a data set's fingerprint: the same images packed by another command are the same
data.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from leukotree import files
from leukotree.records.commands import typed

FILE = "made.json"
"""In a packed folder."""
_DAMAGED = (OSError, ValueError, KeyError, TypeError, RecursionError)
"""Errors of a damaged file. The commands are then unknown; this is no reason to stop."""


def note_manifest(manifest: Path, words: Sequence[str]) -> None:
    """Note the command that wrote a manifest, in a hidden file beside it. An OSError is ignored."""
    with suppress(OSError):
        note = _command(words, manifest.parent) | {"sha256": files.sha256(manifest)}
        files.write_atomic(_beside(manifest), json.dumps(note, indent=1))


def note_shards(shards: Path, manifests: Iterable[Path], words: Sequence[str]) -> None:
    """Note in a packed folder the commands that wrote its manifests, and the one that packed it, unless there
    is a note. A manifest that was changed after its command has none. An OSError is ignored."""
    if (shards / FILE).exists():
        return
    notes = []
    for manifest in manifests:
        with suppress(*_DAMAGED):
            note = _read(_beside(manifest))
            if note["sha256"] == files.sha256(manifest):
                folder = os.path.relpath(manifest.parent / note["folder"], shards)
                notes.append({"words": _words(note), "folder": folder})
    with suppress(OSError):
        files.write_atomic(
            shards / FILE, json.dumps({"commands": [*notes, _command(words, shards)]}, indent=1)
        )


def note_deal(shards: Path, words: Sequence[str]) -> None:
    """Add to the note of a packed folder the command that dealt its samples to folds again. A folder without
    a note, or with a damaged one, gets none. An OSError is ignored."""
    with suppress(*_DAMAGED):
        note = _read(shards / FILE)
        note["commands"] = [*note["commands"], _command(words, shards)]
        files.write_atomic(shards / FILE, json.dumps(note, indent=1))


def commands(shards: Path) -> list[tuple[list[str], bool]]:
    """(words, whether it was given in the current folder) of each command that made a packed folder, in their
    order; [] if they are unknown."""
    commands: list[tuple[list[str], bool]] = []
    with suppress(*_DAMAGED):
        for note in _read(shards / FILE)["commands"]:
            here = (shards / note["folder"]).resolve() == Path.cwd().resolve()
            commands.append((_words(note), here))
        return commands
    return []


def _read(path: Path) -> dict[str, Any]:
    """The note in a file. Raises one of _DAMAGED if there is none."""
    if not path.is_file():  # reading a pipe would wait
        raise FileNotFoundError(path)
    note = json.loads(path.read_text())
    if not isinstance(note, dict):
        raise TypeError(path)
    return note


def _words(note: dict[str, Any]) -> list[str]:
    """The words of the command in a note. Raises TypeError if there are none."""
    words = note["words"]
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise TypeError(words)
    return words


def _command(words: Sequence[str], folder: Path) -> dict[str, Any]:
    """A note: the words, and the path from `folder` to the current folder."""
    return {"words": [typed(word) for word in words], "folder": os.path.relpath(Path.cwd(), folder.resolve())}


def _beside(manifest: Path) -> Path:
    return manifest.with_name(f".{manifest.name}.{FILE}")
