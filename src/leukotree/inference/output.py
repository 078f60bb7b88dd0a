"""Write a prediction as CSV, JSON or Parquet, and show its first lines."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from leukotree import files
from leukotree.errors import InputError, RunFailed
from leukotree.inference.answers import LOW_SCORE, PATH, PREDICTED, SET, STOP, TRAINED, VOTE, Answers
from leukotree.inference.download import is_address
from leukotree.records import runfolder

SUFFIXES = (".csv", ".json", ".parquet")
LINES = 20
"""Most rows of a table on the screen."""
WIDTH = 60
"""Most characters of a cell on the screen."""


def check(path: Path, given: Sequence[str] = ()) -> None:
    """Raises InputError for an ending that is not written, for a file of a run, and for one of the `given`
    images or manifests; OSError for a folder that cannot be written. Nothing is written."""
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: ends in {path.suffix!r}; --out takes {', '.join(SUFFIXES)}")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file")
    if (path.parent / runfolder.SPEC).is_file():
        raise InputError(f"{path}: would lie in the folder of a run; name another folder with --out")
    inputs = {Path(word).resolve() for word in given if not is_address(word)}
    for place in (path, _beside(path)):
        if place.resolve() in inputs:
            raise InputError(
                f"{place}: would replace the images that are given; name another file with --out"
            )
    files.require_writable(path.parent)


def write(answers: Answers, path: Path) -> list[Path]:
    """Write the tables; the files. JSON has all in one file. In the other formats the patients are in a file
    of their own, `<name>-patients`. Raises RunFailed for a file that cannot be written."""
    suffix = path.suffix.lower()
    if suffix == ".json":
        contents: dict[Path, str | bytes] = {path: _json(answers)}
    else:
        tables = {path: answers.images, _beside(path): answers.patients}
        contents = {place: _content(table, suffix) for place, table in tables.items() if table is not None}
    for place, content in contents.items():
        try:
            files.write_atomic(place, content)
        except OSError as error:
            raise RunFailed(f"{place}: cannot be written: {error.strerror}", "disk") from error
    return list(contents)


def _beside(path: Path) -> Path:
    """The file of the patients."""
    return path.with_name(f"{path.stem}-patients{path.suffix}")


def _content(table: pd.DataFrame, suffix: str) -> bytes:
    if suffix == ".csv":
        return table.to_csv(index=False, lineterminator="\n").encode()
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()


def _json(answers: Answers) -> str:
    """A JSON object: `about`, `images`, and `patients` (null without ids). A number that JSON lacks, such as
    log 0, is null."""

    def rows(table: pd.DataFrame) -> str:
        text: str = table.to_json(orient="records", double_precision=15)
        return text

    patients = "null" if answers.patients is None else rows(answers.patients)
    return (
        f'{{"about": {json.dumps(answers.about)},\n"images": {rows(answers.images)},\n'
        f'"patients": {patients}}}\n'
    )


def lines(answers: Answers) -> list[list[str]]:
    """The first rows for a screen: a header, then cells. Patients, where they are known, instead of
    images."""
    table = answers.images if answers.patients is None else answers.patients
    first = ["image"] if answers.patients is None else ["source", "patient", "images"]
    names = [name for name in (*first, PREDICTED, VOTE, PATH, STOP, SET) if name in table]
    marks = [name for name in (LOW_SCORE, TRAINED) if name in table and table[name].any()]
    rows = table[[*names, *marks]].head(LINES)
    cells = [[_cell(value) for value in row] for row in rows.itertuples(index=False)]
    return [[*names, *marks], *cells]


def counts(answers: Answers) -> str:
    """How many images, and patients, have each leaf."""
    parts = [_counted("images", answers.images[PREDICTED])]
    if answers.patients is not None:
        parts.append(_counted("patients", answers.patients[PREDICTED]))
    return "; ".join(parts)


def _counted(what: str, leaves: Sequence[str] | pd.Series) -> str:
    each = pd.Series(leaves).value_counts()
    listed = ", ".join(
        f"{leaf} {n}" for leaf, n in sorted(each.items(), key=lambda item: (-item[1], item[0]))
    )
    return f"{len(leaves)} {what}: {listed}"


def _cell(value: object) -> str:
    text = "".join(letter if letter.isprintable() else "?" for letter in str(value))
    return text if len(text) <= WIDTH else f"...{text[3 - WIDTH :]}"
