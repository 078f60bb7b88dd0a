"""Tables as files and in a page: the value that a cell has among others, CSV, and LaTeX.

A cell is a text. Files have the numbers in it in columns of their own: `84.3 (80.1 to 88.0)` is three.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from leukotree.report.blocks import Section, Table

FOLDER = "tables"
"""The folder of the files, beside the report."""
MISSING = frozenset({"", "–", "not estimable", "no spread", "unknown", "not read", "reference"})
_NUMBER = r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?"
_UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0}
_SHAPES = (
    (re.compile(rf"({_NUMBER})(?: %)?"), ("",)),
    (re.compile(rf"({_NUMBER})(?: ± ({_NUMBER}))?"), ("", " sd")),
    (re.compile(rf"({_NUMBER}) to ({_NUMBER})"), (" low", " high")),
    (re.compile(rf"({_NUMBER})(?: \((?:({_NUMBER}) to ({_NUMBER})|[a-z ]+)\))?"), ("", " low", " high")),
)
"""The shapes of the cells of a column, and the endings of the names of its columns in a file."""
_FORMULA = tuple("=+-@\t\r")
"""First letters with which a spreadsheet takes a text for a formula."""
_LATEX = {
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
    "×": r"$\times$",
    "<": r"$<$",
    ">": r"$>$",
}


@dataclass(frozen=True)
class Named:
    """A table with the name of its files, without the suffix."""

    name: str
    table: Table


def named(section: Section) -> list[Named]:
    """The tables of a section, with their own names or with the section's and a number."""
    tables = [block for block in section.flat if isinstance(block, Table)]
    return [
        Named(table.file or f"{section.anchor}-{number}", table) for number, table in enumerate(tables, 1)
    ]


def files(tables: Sequence[Named]) -> dict[str, bytes]:
    """Path below the report's folder -> content: a CSV file of each table, and a LaTeX file of the main
    ones."""
    written = {f"{FOLDER}/{one.name}.csv": as_csv(one.table).encode() for one in tables}
    main = [one for one in tables if one.table.file]
    return written | {f"{FOLDER}/{one.name}.tex": as_latex(one.table, one.name).encode() for one in main}


def values(table: Table) -> list[list[float | None]]:
    """The numbers by which the cells are sorted. A column of labels has some only where all its cells are
    numbers: a name may begin with one."""
    plain = [
        column >= table.labels or all(_is_number(row[column]) for row in table.rows)
        for column in range(len(table.header))
    ]
    return [
        [value(cell) if is_number else None for cell, is_number in zip(row, plain, strict=True)]
        for row in table.rows
    ]


def _is_number(cell: str) -> bool:
    return cell.strip() in MISSING or re.fullmatch(_NUMBER, cell.strip()) is not None


def value(cell: str) -> float | None:
    """The first number of a cell, times in seconds. None without a number. `< 0.001` is below 0.001."""
    text = cell.strip()
    found = re.match(rf"(<|over)? ?({_NUMBER})(?: (s|min|h)\b)?", text)
    if text in MISSING or found is None:
        return None
    number = float(found[2]) * _UNITS.get(found[3] or "", 1.0)
    return math.nextafter(number, {"<": -math.inf, "over": math.inf}.get(found[1] or "", number))


def as_csv(table: Table) -> str:
    """The table with a header. Numbers have columns of their own; a missing one is empty."""
    columns = [column for place in range(len(table.header)) for column in _columns(table, place)]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([name for name, _ in columns])
    writer.writerows(zip(*(cells for _, cells in columns), strict=True))
    return out.getvalue()


def _columns(table: Table, place: int) -> Iterator[tuple[str, list[str]]]:
    """The columns of a file that a column of the table becomes, each with its name and cells."""
    name = table.header[place]
    cells = [row[place].strip() for row in table.rows]
    known = [cell for cell in cells if cell not in MISSING]
    if place >= table.labels and known:
        for shape, endings in _SHAPES:
            if all(shape.fullmatch(cell) for cell in known):
                for group, ending in enumerate(endings, 1):
                    yield f"{name}{ending}", [_part(shape, cell, group) for cell in cells]
                return
    yield _text(name), [_text(cell) for cell in cells]


def _part(shape: re.Pattern[str], cell: str, group: int) -> str:
    found = shape.fullmatch(cell)
    return (found[group] or "").removeprefix("+") if found else ""


def _text(cell: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    is_formula = cell.startswith(_FORMULA) and not re.fullmatch(_NUMBER, cell)
    return f"'{cell}" if is_formula else cell


def as_latex(table: Table, name: str) -> str:
    """The table as a LaTeX `table` with rules of booktabs, its caption and a label."""
    aligned = "l" * table.labels + "r" * (len(table.header) - table.labels)
    rows = ["  " + " & ".join(map(_latex, row)) + r" \\" for row in (table.header, *table.rows)]
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{_latex(table.caption)}}}",
        rf"  \label{{tab:{name}}}",
        rf"  \begin{{tabular}}{{{aligned}}}",
        r"  \toprule",
        rows[0],
        r"  \midrule",
        *rows[1:],
        r"  \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _latex(text: str) -> str:
    """A text in which LaTeX finds no commands. `backticks` are the typewriter's font."""
    escaped = "".join(_LATEX.get(letter, letter) for letter in " ".join(text.split()))
    return re.sub(r"`([^`]+)`", r"\\texttt{\1}", escaped)
