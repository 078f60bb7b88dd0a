"""Import public data sets: one module for each layout, and what they share."""

from pathlib import Path

SOURCES = tuple(
    path.stem
    for path in sorted(Path(__file__).parent.glob("[a-z]*.py"))  # not the hidden files of an editor
    if "\ndef scan(" in path.read_text(encoding="utf-8")
)
"""Names on the command line: the modules of this package with a function `scan(root, options) -> Scan`.

Each also has `OPTIONS`, the names of the `Options` that it uses. The modules are not imported here, to keep
the start fast.
"""
