"""Pseudonyms: numbers that replace the names of patients, slides and images.

The table of numbers is a CSV with the columns `COLUMNS`, which only its owner may read. Numbers are random,
so that they show neither the order of names nor of admission. A later pack with the same table uses the same
numbers, and adds new ones.
"""

from __future__ import annotations

import csv
import io
import re
import secrets
from pathlib import Path

import pandas as pd

from leukotree import csvfile
from leukotree.data.patients import identities
from leukotree.errors import InputError
from leukotree.files import locked, write_atomic

COLUMNS = ("kind", "source", "id", "number")
KINDS = {"patient": "P", "slide": "S", "image": "I"}
"""Kind of thing that gets numbers -> the first letter of its numbers."""
_NUMBER = re.compile(r"[PSI][0-9]{8}")
_COUNT = 10**8
"""How many numbers there are."""
_OWNER_ONLY = 0o600


class Numbers:
    """The table, with the numbers that were added since it was read. Only `save` writes it."""

    def __init__(self, path: str | Path, *apart_from: Path) -> None:
        """Read a table, or begin a new one.

        Raises InputError for a damaged table. It is also raised for a path in a data set, in a run, or in one
        of the folders `apart_from`.
        """
        self.path = Path(path)
        _check_place(self.path, apart_from)
        self._before = _content(self.path)
        self._numbers = _parse(self.path) if self._before is not None else {}
        self._used = set(self._numbers.values())
        self._new = False

    def apply(self, table: pd.DataFrame, across_sources: bool = False) -> pd.DataFrame:
        """Return the table of `pack` with numbers for patients, images, keys and groups.

        Rows are in the order of the images' numbers, since the manifest's order would show that of the names.
        Sources keep their names, and an empty patient stays empty.

        Args:
            table: columns name, patient, source, group and kind.
            across_sources: whether an id means the same patient in every source.
        """
        kinds = table["kind"].where(table["kind"] == "slide", "patient")
        home = table["source"] if not across_sources else pd.Series("", table.index)
        ids = zip(kinds, home, table["patient"], strict=True)
        patients = [self._number(kind, source, name) if name else "" for kind, source, name in ids]
        repeats = table.groupby(["source", "name"]).cumcount()  # the same name below another root
        names = [f"{name} ({n + 1})" if n else name for name, n in zip(table["name"], repeats, strict=True)]
        pairs = zip(table["source"], names, strict=True)
        images = [self._number("image", source, name) for source, name in pairs]
        numbered = table.assign(key=images, name=images, patient=patients)
        groups = identities.group_ids(numbered.assign(group=table["kind"]), across_sources)
        numbered["group"] = groups.groupby(table["group"]).transform("min")
        return numbered.sort_values("key").reset_index(drop=True)

    def save(self) -> None:
        """Write the table if it has new numbers, or if other users can read the file.

        Raises InputError if that fails, or if another process has changed the table since it was read.
        """
        readable = self._before is not None and self.path.stat().st_mode & 0o077
        if not (self._new or self._before is None or readable):
            return
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((*entry, number) for entry, number in sorted(self._numbers.items()))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = self.path.with_name(f".{self.path.name}.lock")
            with locked(lock, f"{self.path}: another `leukotree pack` writes it; wait for it"):
                if _content(self.path) != self._before:
                    raise InputError(
                        f"{self.path}: another `leukotree pack` has changed it; run the same command again"
                    )
                write_atomic(self.path, buffer.getvalue(), _OWNER_ONLY)
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be written: {error.strerror}; choose another place for the table"
            ) from error

    def _number(self, kind: str, source: str, name: str) -> str:
        """Return the number of one thing; a new one is drawn if it has none."""
        entry = (kind, source, name)
        if entry not in self._numbers:
            number = ""
            while not number or number in self._used:
                number = f"{KINDS[kind]}{secrets.randbelow(_COUNT):08d}"
            self._numbers[entry] = number
            self._used.add(number)
            self._new = True
        return self._numbers[entry]


def anonymous(reason: str) -> str:
    """Return why an image is broken without quoted text, which may come from the file."""
    return re.sub(r"b?'[^']*'|b?\"[^\"]*\"", "...", reason)


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def _check_place(path: Path, apart_from: tuple[Path, ...]) -> None:
    """Raise InputError for a table in a folder that other people get."""
    elsewhere = "keep the table of pseudonyms elsewhere"
    if path.suffix.lower() != ".csv":
        raise InputError(f"{path}: the table of pseudonyms is a CSV file; give it a name that ends in .csv")
    parents = path.resolve().parents
    for folder in apart_from:
        if folder.resolve() in parents:
            raise InputError(f"{path}: lies in {folder}, which other people get; {elsewhere}")
    for parent in parents:
        for name, what in (("dataset.json", "a data set"), ("spec.yaml", "a run")):
            if (parent / name).exists():
                raise InputError(f"{path}: lies in the folder of {what}; {elsewhere}")


def _parse(path: Path) -> dict[tuple[str, str, str], str]:
    """Return (kind, source, name) -> number."""
    table = csvfile.read(path, COLUMNS)
    if set(table.columns) != set(COLUMNS):
        columns = ", ".join(COLUMNS)
        raise InputError(
            f"{path}: is no table of pseudonyms, which has the columns {columns}; name another file"
        )
    numbers: dict[tuple[str, str, str], str] = {}
    used: set[str] = set()
    for *entry, number, line in zip(*(table.columns[name] for name in COLUMNS), table.lines, strict=True):
        kind, source, name = entry
        if kind not in KINDS or not _NUMBER.fullmatch(number) or number[0] != KINDS[kind]:
            problem = f"{kind!r} with number {number!r} is no entry of such a table"
            raise InputError(f"{path} row {line}: {problem}; restore the file")
        if (kind, source, name) in numbers or number in used:
            problem = f"{number} or what it stands for is already above"
            raise InputError(f"{path} row {line}: {problem}; restore the file")
        numbers[kind, source, name] = number
        used.add(number)
    return numbers
