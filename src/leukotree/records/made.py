"""How a manifest or a packed folder was made: the words of the commands, in a file beside it that decides
nothing.

It is no part of a data set's identity: the same images packed by other words are the same data.
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
"""What a file raises that holds no note; how data were made is then not known, and nothing else is wrong."""


def note_manifest(manifest: Path, words: Sequence[str]) -> None:
    """Note the command that has written a manifest, in a hidden file beside it. Nothing where that cannot be
    written."""
    with suppress(OSError):
        note = _command(words, manifest.parent) | {"sha256": files.sha256(manifest)}
        files.write_atomic(_beside(manifest), json.dumps(note, indent=1))


def note_shards(shards: Path, manifests: Iterable[Path], words: Sequence[str]) -> None:
    """Note in a packed folder the command that has packed it, after those that have written its manifests,
    unless one is noted. A manifest that was changed since it was written has none."""
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


def commands(shards: Path) -> list[tuple[list[str], bool]]:
    """The commands that made a packed folder, in their order: the words, and whether they were given in the
    current folder. None where they are not known."""
    found: list[tuple[list[str], bool]] = []
    with suppress(*_DAMAGED):
        for note in _read(shards / FILE)["commands"]:
            here = (shards / note["folder"]).resolve() == Path.cwd().resolve()
            found.append((_words(note), here))
        return found
    return []


def _read(path: Path) -> dict[str, Any]:
    """Raises one of _DAMAGED for what is no note."""
    if not path.is_file():  # a pipe would make us wait
        raise FileNotFoundError(path)
    found = json.loads(path.read_text())
    if not isinstance(found, dict):
        raise TypeError(path)
    return found


def _words(note: dict[str, Any]) -> list[str]:
    """The words of a command. Raises TypeError for anything else."""
    words = note["words"]
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise TypeError(words)
    return words


def _command(words: Sequence[str], folder: Path) -> dict[str, Any]:
    """The words, and where they were given, as seen from a folder."""
    return {"words": [typed(word) for word in words], "folder": os.path.relpath(Path.cwd(), folder.resolve())}


def _beside(manifest: Path) -> Path:
    return manifest.with_name(f".{manifest.name}.{FILE}")
