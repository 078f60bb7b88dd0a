"""The commands that made the runs of a study: commands.jsonl, and copies of the files that were given.

A study's file can be edited or lost after the runs. The copies stay. A report prints the commands from here.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from leukotree import files
from leukotree.errors import InputError, RunFailed, one_line
from leukotree.records.origin import DIGITS

FILE = "commands.jsonl"
"""In the study's folder: a line for each different command."""
COPIES = "given"
"""In the study's folder: copies of the files that were given, named by their digests."""
_DIGEST = re.compile(rf"[0-9a-f]{{{DIGITS}}}")


@dataclass(frozen=True)
class Given:
    """The words of a command that change a result."""

    verb: str
    file: str
    """Path of the study, or of the run's spec, as it was typed. The home folder is ~."""
    overrides: tuple[str, ...] = ()
    """key=value words."""
    digest: str = ""
    """Digest of the file's bytes."""
    runs: tuple[str, ...] = ()
    """Names of the runs of the command; empty for a search."""

    def words(self, file: str) -> list[str]:
        """The words of the command, for a file with the same bytes."""
        return ["leukotree", self.verb, file, *self.overrides]


def given(verb: str, file: str, overrides: Sequence[str], runs: Iterable[str] = ()) -> Given:
    """The command of this process. Raises InputError for a file that cannot be read."""
    return Given(verb, typed(file), tuple(overrides), digest(_bytes(Path(file))), tuple(runs))


def keep(root: Path, command: Given) -> None:
    """Write a command and its file into the study's folder, unless they are there. Raises InputError for a
    file that cannot be read, RunFailed for a folder that cannot be written."""
    content = _bytes(Path(command.file).expanduser())
    copy = root / COPIES / f"{digest(content)}.yaml"
    try:
        if not copy.exists():
            files.write_atomic(copy, content)
        if command not in kept(root):
            row = {
                "verb": command.verb,
                "file": command.file,
                "overrides": command.overrides,
                "digest": command.digest,
            }
            files.append_lines(root / FILE, [json.dumps(row | {"runs": command.runs})])
    except OSError as error:
        if files.is_full(error):
            raise RunFailed(
                f"{root}: no room left on its disk; make room and run it again", "disk"
            ) from error
        raise RunFailed(f"{root}: cannot be written: {one_line(error)}") from error


def kept(root: Path) -> list[Given]:
    """The commands in the order of their first use. Damaged lines are left out."""
    commands: dict[Given, None] = {}
    for row in files.read_json_lines(root / FILE):
        words, runs = row.get("overrides"), row.get("runs")
        texts = [row.get(key) for key in ("verb", "file", "digest")]
        if not (
            isinstance(words, list)
            and isinstance(runs, list)
            and all(isinstance(word, str) for word in (*texts, *words, *runs))
        ):
            continue
        if _DIGEST.fullmatch(row["digest"]) and "\0" not in row["file"]:  # both become a part of a path
            commands[Given(row["verb"], row["file"], tuple(words), row["digest"], tuple(runs))] = None
    return list(commands)


def content(root: Path, command: Given) -> bytes | None:
    """The bytes of the file of a command; None if there is no copy."""
    try:
        return (root / COPIES / f"{command.digest}.yaml").read_bytes()
    except OSError:
        return None


def digest(content: bytes) -> str:
    """The first DIGITS hex digits of the sha256 of a file's bytes."""
    return hashlib.sha256(content).hexdigest()[:DIGITS]


def typed(word: str) -> str:
    """A word of a command, with ~ for the home folder, which a shell had expanded."""
    home = str(Path.home())
    return f"~{word.removeprefix(home)}" if home != "/" and word.startswith(f"{home}/") else word


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
