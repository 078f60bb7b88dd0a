"""Tables of text."""

from __future__ import annotations


def align(rows: list[list[str]]) -> list[str]:
    """A line of text for each row. The cells of a column begin under each other."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
