"""CSV tables as people have them: with or without a BOM, every value kept as text, every fault named by its line."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from leukotree.errors import InputError


@dataclass(frozen=True)
class Table:
    """Columns of text, equally long, and the line of the file (1 is the header) on which each record starts."""

    columns: dict[str, list[str]]
    lines: list[int]


def read(path: str | Path, required: Sequence[str] = ()) -> Table:
    """A comma-separated UTF-8 file with a header. Raises InputError naming the file, and the line or column at fault."""
    header: list[str] = []
    records: list[list[str]] = []
    lines: list[int] = []
    start = 1
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for record in reader:
                if not header:
                    header = [name.strip() for name in record]
                elif record:
                    if len(record) != len(header):
                        raise InputError(f"{path} row {start}: {len(record)} values where the header has {len(header)} columns")
                    records.append(record)
                    lines.append(start)
                start = reader.line_num + 1
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text; save it as CSV in UTF-8") from error
    except csv.Error as error:
        raise InputError(f"{path} row {start}: not valid CSV: {error}") from error
    check_columns(path, header, required)
    return Table({name: [record[i] for record in records] for i, name in enumerate(header)}, lines)


def lookup(path: str | Path, key: str, value: str) -> dict[str, str]:
    """One column of a CSV by another, both stripped. Raises InputError as `read`, and for a key with two values."""
    table = read(path, (key, value))
    found: dict[str, str] = {}
    for name, text, line in zip(table.columns[key], table.columns[value], table.lines, strict=True):
        name, text = name.strip(), text.strip()
        if found.setdefault(name, text) != text:
            raise InputError(f"{path} row {line}: {name!r} is {text!r} here but {found[name]!r} above")
    return found


def check_columns(path: str | Path, names: Sequence[str], required: Sequence[str]) -> None:
    """Raises InputError if a required column is missing or any name stands twice."""
    if missing := [name for name in required if name not in names]:
        present = ", ".join(map(repr, names)) or "none"
        raise InputError(f"{path}: missing column {', '.join(map(repr, missing))}; it has {present}")
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        raise InputError(f"{path}: column {twice[0]!r} stands in the header twice")
