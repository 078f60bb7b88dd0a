"""Tables of text: CSV in UTF-8, or as spreadsheets save it, with `;` or tabs, or in UTF-16.

Every value stays a text. Every error names its line. Nothing is guessed: the separator is the one that gives
the required columns, and encodings other than Unicode are refused.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from leukotree.errors import InputError

SEPARATORS = {",": "a comma", ";": "a semicolon", "\t": "a tab"}
ENDINGS = (".csv", ".tsv", ".txt")
"""Endings of such tables. Spreadsheets save `Unicode text` as .txt."""
SAVE = "save the table as 'CSV UTF-8'"
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16: its mark begins with that of UTF-16
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
OTHERS = {
    b"PK\x03\x04": "a spreadsheet's workbook or a zip file",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"\x1f\x8b": "compressed",
    b"PAR1": "a Parquet file",
}
"""First bytes of files that people rename to .csv."""


@dataclass(frozen=True)
class Table:
    """Columns of text of equal length, and the line of the file on which each record starts. The header is
    line 1."""

    columns: dict[str, list[str]]
    lines: list[int]


def read(
    path: str | Path,
    required: Sequence[str] = (),
    optional: Sequence[str] = (),
    prefixes: Sequence[str] = (),
) -> Table:
    """The named columns of a table, in any order. Columns in `required` and `optional` get these names, also
    if their case differs; the others keep theirs. See `named` for `prefixes`.

    Commas, semicolons or tabs separate the values. Empty rows, and unnamed empty columns, are left out.
    Raises InputError naming the file, and the wrong line or column.
    """
    records = _records(path, *_opened(path, required))
    _, header = next(records, (1, []))
    places = named(path, header, required, optional, prefixes)
    rows: list[list[str]] = []
    lines: list[int] = []
    for line, record in records:
        if len(record) != len(header):
            record = _cut(path, line, record, header)
        rows.append(record)
        lines.append(line)
    return Table({name: [row[place] for row in rows] for name, place in places.items()}, lines)


def lookup(path: str | Path, key: str, value: str) -> dict[str, str]:
    """Value in the column `key` -> value in the column `value`, both stripped. Raises InputError as `read`,
    and for a key with two values."""
    table = read(path, (key, value))
    values: dict[str, str] = {}
    for name, text, line in zip(table.columns[key], table.columns[value], table.lines, strict=True):
        name, text = name.strip(), text.strip()
        if values.setdefault(name, text) != text:
            raise InputError(f"{path} row {line}: {name!r} is {text!r} here but {values[name]!r} above")
    return values


def has_columns(path: str | Path, required: Sequence[str]) -> bool:
    """Whether a file is a table with these columns."""
    try:
        _, header = next(_records(path, *_opened(path, required, errors="replace")), (1, []))
        named(path, header, required)
    except InputError:
        return False
    return True


def check_ending(path: str | Path, endings: Collection[str]) -> None:
    """Raises InputError if a file's name has none of these endings."""
    ending = Path(path).suffix
    if ending.lower() not in endings:
        what = f"ends in {ending!r}" if ending else "has no ending"
        raise InputError(f"{path}: the name {what}; a manifest ends in {' or '.join(endings)}")


def named(
    path: str | Path,
    names: Sequence[str],
    required: Sequence[str],
    optional: Sequence[str] = (),
    prefixes: Sequence[str] = (),
) -> dict[str, int]:
    """Name of a column -> its index. Columns without a name are left out. Case and invisible characters make
    no difference in names of `required` and `optional`, nor in a name's beginning that is one of `prefixes`.
    Raises InputError if a required column is missing, or one of all these is given twice. Of others that are
    given twice the first counts."""
    known = {_plain(name): name for name in (*required, *optional)}
    places: dict[str, int] = {}
    for place, text in enumerate(names):
        prefixed = _prefixed(text, prefixes)
        name = known.get(_plain(text), prefixed or text.strip())
        if name in places and (prefixed or name in known.values()):
            first = names[places[name]]
            how = "" if first == text else f", as {first!r} and as {text!r}"
            raise InputError(f"{path}: column {name!r} is in the header twice{how}")
        if name:
            places.setdefault(name, place)
    if missing := [name for name in required if name not in places]:
        present = ", ".join(map(repr, places)) or "none"
        raise InputError(f"{path}: missing column {', '.join(map(repr, missing))}; it has {present}")
    return places


def _plain(name: str) -> str:
    return _visible(name).casefold()


def _visible(name: str) -> str:
    visible = (sign for sign in unicodedata.normalize("NFKC", name) if unicodedata.category(sign) != "Cf")
    return "".join(visible).strip()


def _prefixed(name: str, prefixes: Sequence[str]) -> str:
    """The name with its beginning as in `prefixes`; "" if it begins with none of them."""
    visible = _visible(name)
    for prefix in prefixes:
        if visible[: len(prefix)].casefold() == prefix:
            return prefix + visible[len(prefix) :].strip()
    return ""


def _cut(path: str | Path, line: int, record: list[str], header: list[str]) -> list[str]:
    """A record with as many values as the header. Only empty values without a name may be missing or too
    many."""
    width = len(header)
    if any(value.strip() for value in record[width:]) or any(name.strip() for name in header[len(record) :]):
        named_columns = sum(bool(name.strip()) for name in header)
        raise InputError(
            f"{path} row {line}: {len(record)} values where the header has {named_columns} columns"
        )
    return (record + [""] * width)[:width]


def _opened(path: str | Path, required: Sequence[str], errors: str = "strict") -> tuple[str, str]:
    """(the text, the separator). A first line `sep=;`, as Excel reads it, gives the separator, and is removed
    from the text."""
    text = _text(path, errors)
    declared = re.match(r'"?sep=(.)"?[,;\t ]*(?=[\r\n]|$)', text, re.IGNORECASE)
    if not declared:
        return text, _separator(path, text, required)
    if declared[1] not in SEPARATORS:
        raise InputError(
            f"{path} row 1: separator {declared[1]!r}; it is one of {', '.join(SEPARATORS.values())}"
        )
    return text[declared.end() :], declared[1]


def _text(path: str | Path, errors: str) -> str:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    for start, what in OTHERS.items():
        if data.startswith(start):
            raise InputError(f"{path}: {what}, no CSV; open it and {SAVE}")
    encoding = next((encoding for mark, encoding in MARKS.items() if data.startswith(mark)), "utf-8")
    if encoding == "utf-8" and b"\0" in data[:4]:
        raise InputError(f"{path}: not UTF-8 text, perhaps UTF-16 without its mark; {SAVE}")
    try:
        return data.decode(encoding, errors)
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise InputError(f"{path}: not {encoding.removesuffix('-sig').upper()} text; {SAVE}") from error
        row = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path} row {row}: not UTF-8 text (byte 0x{data[error.start]:02x}); {SAVE}"
        ) from error


def _separator(path: str | Path, text: str, required: Sequence[str]) -> str:
    """The one separator that gives the required columns. If none does, the most likely one, so that the error
    can name what is missing."""
    headers: dict[str, list[str]] = {}
    for separator in SEPARATORS:
        try:
            _, headers[separator] = next(_records(path, text, separator), (1, []))
        except InputError:  # the quotes do not fit this separator
            continue
    wanted = {_plain(name) for name in required}
    hits = {
        separator: len(wanted & {_plain(name) for name in header}) for separator, header in headers.items()
    }
    fitting = [separator for separator in headers if wanted and hits[separator] == len(wanted)]
    if len({tuple(headers[separator]) for separator in fitting}) > 1:
        raise InputError(
            f"{path}: the header can be read with {' or '.join(SEPARATORS[sign] for sign in fitting)}; {SAVE}"
        )
    if not headers:
        return ","
    return (fitting or sorted(headers, key=lambda sign: (-hits[sign], -len(headers[sign]) if wanted else 0)))[
        0
    ]


def _records(path: str | Path, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """(first line, values) of each record that is not empty."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    start = 1
    try:
        for record in reader:
            if any(value.strip() for value in record):
                yield start, record
            start = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path} row {start}: not valid CSV: {error}") from error
