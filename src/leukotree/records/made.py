"""made.json: the commands that made a manifest or a packed folder, and what the import left out.

These are not part of a data set's fingerprint: the same images packed by another command are the same data.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from leukotree import files
from leukotree.records.commands import typed

FILE = "made.json"
"""In a packed folder."""
WITHHELD = "reasons withheld, since they may name patients"
_DAMAGED = (OSError, ValueError, KeyError, TypeError, RecursionError)
"""Errors of a damaged file. The commands are then unknown; this is no reason to stop."""


class Imported(NamedTuple):
    """What one import wrote into a manifest, and what it left out."""

    images: int
    skipped: dict[str, int]
    """Reason -> files that were left out."""


def note_manifest(manifest: Path, words: Sequence[str], imported: Imported | None = None) -> None:
    """Note the command that wrote a manifest, and what it imported, in a hidden file beside it. An OSError is
    ignored."""
    with suppress(OSError):
        note = _command(words, manifest.parent) | {"sha256": files.sha256(manifest)}
        if imported is not None:
            note["imported"] = imported._asdict()
        files.write_atomic(_beside(manifest), json.dumps(note, indent=1))


def note_shards(
    shards: Path, manifests: Iterable[Path], words: Sequence[str], anonymous: bool = False
) -> None:
    """Note in a packed folder the commands that wrote its manifests, what they imported, and the command that
    packed it, unless there is a note. A manifest that was changed after its command has none. An OSError is
    ignored.

    Args: anonymous: leave out the commands of the manifests and the reasons of what was left out, since they
    may name patients.
    """
    if (shards / FILE).exists():
        return
    notes, imports = [], []
    for manifest in manifests:
        with suppress(*_DAMAGED):
            note = _read(_beside(manifest))
            if note["sha256"] != files.sha256(manifest):
                continue
            if not anonymous:
                folder = os.path.relpath(manifest.parent / note["folder"], shards)
                notes.append({"words": _words(note), "folder": folder})
            if "imported" in note:
                imported = _imported(note["imported"])
                reasons = {WITHHELD: sum(imported.skipped.values())} if anonymous else imported.skipped
                imports.append(imported._replace(skipped=reasons)._asdict())
    content = {"commands": [*notes, _command(words, shards)], "imported": imports}
    with suppress(OSError):
        files.write_atomic(shards / FILE, json.dumps(content, indent=1))


def imported(shards: Path) -> list[Imported]:
    """What the imports of a packed folder's manifests left out; [] if it is not recorded. It is not for data
    sets of older versions, and for manifests that were written or changed by hand."""
    with suppress(*_DAMAGED):
        return [_imported(note) for note in _read(shards / FILE)["imported"]]
    return []


def _imported(note: Mapping[str, Any]) -> Imported:
    """Raises one of _DAMAGED for a damaged note."""
    skipped = {str(reason): int(count) for reason, count in dict(note["skipped"]).items()}
    return Imported(int(note["images"]), skipped)


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
