"""Numbers in place of the names of patients, slides and images; the table of them stays with the owner of the
data.

The table is a CSV that only its owner may read, with the columns of `COLUMNS`. Numbers are drawn at random,
so that they tell neither an order of names nor of admission; a later pack with the same table uses the same
numbers and adds new ones.
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
"""What has numbers, and the letter that they begin with."""
_NUMBER = re.compile(r"[PSI][0-9]{8}")
_DRAWN = 10**8
_OWNER_ONLY = 0o600


class Numbers:
    """The table, and the numbers that were drawn since it was read. Nothing is written before `save`."""

    def __init__(self, path: str | Path, *apart_from: Path) -> None:
        """Read a table, or begin one. Raises InputError for a damaged table, and for a place in a data set, a
        run or one of the folders `apart_from`."""
        self.path = Path(path)
        _check_place(self.path, apart_from)
        self._before = _content(self.path)
        self._numbers = _parse(self.path) if self._before is not None else {}
        self._taken = set(self._numbers.values())
        self._new = False

    def apply(self, table: pd.DataFrame, across_sources: bool = False) -> pd.DataFrame:
        """The table of `pack` with numbers for patients, images, keys and groups, in the order of the images'
        numbers.

        Args: table: columns name, patient, source, group and kind; an empty patient stays empty. Sources keep
            their names. across_sources: whether an id is the same patient in every source.
        """
        kinds = table["kind"].where(table["kind"] == "slide", "patient")
        home = table["source"] if not across_sources else pd.Series("", table.index)
        named = zip(kinds, home, table["patient"], strict=True)
        patients = [self._number(*one) if one[2] else "" for one in named]
        again = table.groupby(["source", "name"]).cumcount()  # the same name below another root
        names = [f"{name} ({n + 1})" if n else name for name, n in zip(table["name"], again, strict=True)]
        images = [
            self._number("image", source, name) for source, name in zip(table["source"], names, strict=True)
        ]
        numbered = table.assign(key=images, name=images, patient=patients)
        own = identities.group_ids(numbered.assign(group=table["kind"]), across_sources)
        numbered["group"] = own.groupby(table["group"]).transform("min")
        return numbered.sort_values("key").reset_index(
            drop=True
        )  # rows in the manifest's order would tell that of the names

    def save(self) -> None:
        """Write the table where it has new numbers or others could read it. Raises InputError if that fails,
        or where another process wrote it meanwhile."""
        readable = self._before is not None and self.path.stat().st_mode & 0o077
        if not (self._new or self._before is None or readable):
            return
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((*one, number) for one, number in sorted(self._numbers.items()))
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
        one = (kind, source, name)
        if one not in self._numbers:
            number = ""
            while not number or number in self._taken:
                number = f"{KINDS[kind]}{secrets.randbelow(_DRAWN):08d}"
            self._numbers[one] = number
            self._taken.add(number)
            self._new = True
        return self._numbers[one]


def anonymous(reason: str) -> str:
    """Why an image is broken, without what the reason quotes: a decoder may quote text of the file."""
    return re.sub(r"b?'[^']*'|b?\"[^\"]*\"", "...", reason)


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def _check_place(path: Path, apart_from: tuple[Path, ...]) -> None:
    parents = path.resolve().parents
    if path.suffix.lower() != ".csv":
        raise InputError(f"{path}: the table of pseudonyms is a CSV file; let its name end in .csv")
    for folder in apart_from:
        if folder.resolve() in parents:
            raise InputError(
                f"{path}: lies in {folder}, which others are given; keep the table of pseudonyms elsewhere"
            )
    for parent in parents:
        for name in ("dataset.json", "spec.yaml"):
            if (parent / name).exists():
                what = "a data set" if name == "dataset.json" else "a run"
                raise InputError(
                    f"{path}: lies in the folder of {what}; keep the table of pseudonyms elsewhere"
                )


def _parse(path: Path) -> dict[tuple[str, str, str], str]:
    table = csvfile.read(path, COLUMNS)
    if set(table.columns) != set(COLUMNS):
        raise InputError(
            f"{path}: is no table of pseudonyms, which has the columns {', '.join(COLUMNS)}; name another file"
        )
    numbers: dict[tuple[str, str, str], str] = {}
    taken: set[str] = set()
    for *one, number, line in zip(*(table.columns[name] for name in COLUMNS), table.lines, strict=True):
        kind, source, name = one
        if kind not in KINDS or not _NUMBER.fullmatch(number) or number[0] != KINDS[kind]:
            raise InputError(
                f"{path} row {line}: {kind!r} with number {number!r} is no entry of such a table; restore the file"
            )
        if (kind, source, name) in numbers or number in taken:
            raise InputError(
                f"{path} row {line}: {number} or what it stands for is already above; restore the file"
            )
        numbers[kind, source, name] = number
        taken.add(number)
    return numbers
