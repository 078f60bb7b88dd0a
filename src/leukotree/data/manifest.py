"""The manifest, one row per image with its leaf, patient and source: read and write CSV and Parquet.

Columns:

* `image`: path relative to the manifest's folder.
* `leaf`: a leaf of the taxonomy.
* `patient`: the patient's id within the source, or empty. If `group` is `slide`, it is the slide's id. All
  spellings of an id become one (see `identities`).
* `source`: where the image comes from: a data set, a hospital, a scanner.
* `mask` (optional): path of a mask of the white cell, relative like `image`.
* `box` (optional): the part of the file that is the image, see `boxes`. A file may have several rows, each
  with another box, and all of one patient.
* `group` (optional): what the folds keep together: `patient`, `slide` or `image`. The default is `patient` if
  there is an id, else `image`.
* `root` (optional): the folder, relative to the manifest, that holds the row's files. The default is the
  manifest's folder.
* `site`, `scanner`, `reader:<name>` (optional): see `described`. Such a column without a value is as if it
  were not there.

Further columns are ignored. A CSV may have any form that spreadsheets save (see `csvfile`). It is written
with commas, in UTF-8.
"""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path

import pandas as pd

from leukotree import csvfile, files
from leukotree.data import boxes, described, manifest_table
from leukotree.data.manifest_table import CONTROL, REQUIRED
from leukotree.data.patients import identities
from leukotree.errors import InputError
from leukotree.taxonomy import Taxonomy

GROUPS = ("patient", "slide", "image")
"""What the folds can keep together, from the strongest to the weakest."""
WRITTEN = (".csv", ".parquet")
"""Endings of manifests that are written. Those of `csvfile.ENDINGS` are read, too."""


def read(path: str | Path, taxonomy: Taxonomy) -> pd.DataFrame:
    """Return the checked rows of a manifest in their order; all columns are text, except `row`.

    Columns:

    * image, mask: absolute paths, links resolved; mask may be empty.
    * box: the part of the file, in one spelling; "" for the whole file.
    * name: the file's path below its root, which does not depend on where the data lie.
    * leaf, patient, source.
    * group: `patient`, `slide` or `image`.
    * group_id: what the folds keep together, unique over sources.
    * row: line of the CSV, or number of the Parquet row from 1.
    * site, scanner, reader:<name>: those in which a row has a value; a reader's value is a node of the tree.

    Raises InputError naming the file, the first wrong row, its value, and how many more rows are wrong in the
    same way.
    """
    path = Path(path)
    frame = manifest_table.read(path)
    if frame.empty:
        raise InputError(f"{path}: no rows; a manifest has at least one image")
    extra = described.present(frame)
    for column in ("leaf", "patient", "source", "group", *extra):
        frame[column] = frame[column].str.strip()
    _refuse_control(path, frame)
    for column in ("leaf", "patient", "source", *extra):
        frame[column] = identities.normal_column(frame[column])
    leaves = taxonomy.leaves
    frame["leaf"] = frame["leaf"].replace({identities.normal(leaf): leaf for leaf in leaves})
    filled = ["image", "leaf", "source"]
    empty = (frame[filled] == "").any(axis=1)
    _refuse(path, frame, empty, lambda row: f"{next(name for name in filled if not row[name])} is empty")
    unknown = ~frame["leaf"].isin(leaves)
    _refuse(
        path,
        frame,
        unknown,
        lambda row: f"unknown leaf {row['leaf']!r}; the taxonomy has {', '.join(leaves)}",
    )
    _check_readings(path, frame, taxonomy)
    _refuse_nobody(path, frame)
    _fill_group(path, frame)
    _parse_boxes(path, frame)
    _locate(path, frame)
    frame["group_id"] = identities.group_ids(frame)
    columns = ["image", "mask", "box", "name", "leaf", "patient", "source", "group", "group_id", "row"]
    return frame[[*columns, *extra]]


def read_images(path: str | Path, leaf: bool = False) -> pd.DataFrame:
    """Return the images of a manifest that are not to be trained on, in their order; all columns are text,
    except `row`.

    Only the column `image` is needed. Columns: `image` (absolute path), `box`, `shown` (the path as it is
    written, with the box), `patient`, `source` and `leaf` ("" where unknown, and not compared with a tree),
    `row`, and those of `described`.

    Args: leaf: whether each image must have a leaf.

    Raises InputError as `read`.
    """
    path = Path(path)
    frame = manifest_table.read(path, ("image", "leaf") if leaf else ("image",))
    if frame.empty:
        raise InputError(f"{path}: no rows; it needs at least one image")
    extra = described.present(frame)
    names = ["patient", "source", "leaf", *extra]
    for column in names:
        frame[column] = identities.normal_column(frame[column].str.strip())
    frame["mask"] = ""
    _refuse_control(path, frame)
    for column in ("image", "leaf") if leaf else ("image",):
        _refuse(path, frame, frame[column] == "", functools.partial(_empty, column))
    _refuse_nobody(path, frame)
    _parse_boxes(path, frame)
    frame["shown"] = boxes.names(frame["image"].tolist(), frame["box"].tolist())
    _locate(path, frame)
    return frame[["image", "box", "shown", *names, "row"]]


def _empty(column: str, row: pd.Series) -> str:
    return f"{column} is empty"


def keys(names: Iterable[str]) -> list[str]:
    """The keys of a manifest's images in shards: the position of each, and its file's name."""
    return [f"{row:07d}-{files.plain_stem(name, 40)}" for row, name in enumerate(names)]


def write(frame: pd.DataFrame, path: str | Path, root: str | Path | None = None) -> None:
    """Write a manifest atomically, as CSV or Parquet according to the path's ending.

    `image` and `mask` are absolute or relative to `root`, which is by default the manifest's folder. They are
    written relative to the manifest, with a column `root` if that is another folder.

    Raises InputError for another ending, or if the file cannot be written.
    """
    path = Path(path)
    csvfile.check_ending(path, WRITTEN)
    folder = os.path.realpath(path.parent)
    home = os.path.realpath(root) if root is not None else folder
    columns = [*REQUIRED, *(name for name in ("group", "mask") if name in frame)]
    columns += ["box"] if "box" in frame and frame["box"].fillna("").astype(bool).any() else []
    columns += described.present(frame)
    table = frame[columns].fillna("").astype(str)
    for column in table.columns.intersection(["image", "mask"]):
        paths = (os.path.join(home, text) if text else "" for text in table[column])
        table[column] = [os.path.relpath(full, folder) if full else "" for full in paths]
    if home != folder:
        table["root"] = os.path.relpath(home, folder)
    if path.suffix.lower() == ".parquet":
        buffer = io.BytesIO()
        table.to_parquet(buffer, index=False)
        data = buffer.getvalue()
    else:
        data = table.to_csv(index=False, lineterminator="\n").encode()
    try:
        files.write_atomic(path, data)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error


def _refuse_control(path: Path, frame: pd.DataFrame) -> None:
    columns = ["image", "mask", "leaf", "patient", "source", *described.present(frame)]
    rows = zip(*(frame[column].tolist() for column in columns), strict=True)
    wrong = pd.Series([CONTROL.search("".join(texts)) is not None for texts in rows])

    def message(row: pd.Series) -> str:
        column = next(name for name in columns if CONTROL.search(row[name]))
        return f"{column} {row[column]!r} has a line break or control character"

    _refuse(path, frame, wrong, message)


def _check_readings(path: Path, frame: pd.DataFrame, taxonomy: Taxonomy) -> None:
    """Refuse a reading that is no node of the tree. The root is no reading: every image is below it."""
    spelled = {identities.normal(node): node for node in taxonomy.edges}
    for column in described.readers(frame):
        frame[column] = frame[column].replace(spelled)

        def message(row: pd.Series, column: str = column) -> str:
            return (
                f"{column} {row[column]!r} is no leaf and no inner node of the taxonomy, which has "
                f"{', '.join(taxonomy.edges)}; leave the cell empty where the reader gave none"
            )

        _refuse(path, frame, ~frame[column].isin(["", *taxonomy.edges]), message)


def _refuse_nobody(path: Path, frame: pd.DataFrame) -> None:
    """Refuse a patient id that means "no patient", such as nan."""
    texts = [text for text in frame["patient"].unique() if identities.names_nobody(text)]

    def message(row: pd.Series) -> str:
        return (
            f"patient {row['patient']!r} names nobody, and all such images would be one patient's; "
            "leave the cell empty"
        )

    _refuse(path, frame, frame["patient"].isin(texts), message)


def _fill_group(path: Path, frame: pd.DataFrame) -> None:
    """Fill in and check the column `group`, in place."""
    default = frame["patient"].map(lambda patient: "patient" if patient else "image")
    frame["group"] = frame["group"].where(frame["group"] != "", default)
    unknown = ~frame["group"].isin(GROUPS)
    _refuse(
        path, frame, unknown, lambda row: f"unknown group {row['group']!r}; it is one of {', '.join(GROUPS)}"
    )

    def message(row: pd.Series) -> str:
        return f"group is {row['group']!r} but patient is empty; give its id, or group by image"

    _refuse(path, frame, (frame["group"] != "image") & (frame["patient"] == ""), message)


def _parse_boxes(path: Path, frame: pd.DataFrame) -> None:
    """Bring the column `box` to one spelling, in place. Refuse what is no box."""
    faults: dict[str, str] = {}
    spelled = {"": ""}
    for text in frame["box"].str.strip().unique():
        try:
            spelled |= {text: str(boxes.parse(text))} if text else {}
        except ValueError as error:
            faults[text] = str(error)
    frame["box"] = frame["box"].str.strip()
    _refuse(
        path, frame, frame["box"].isin(list(faults)), lambda row: f"box {row['box']!r} {faults[row['box']]}"
    )
    frame["box"] = frame["box"].map(spelled)


def _locate(path: Path, frame: pd.DataFrame) -> None:
    """Make `image` and `mask` absolute and add `name`, in place.

    Paths that are absolute, outside of their root, missing or repeated are refused.
    """
    base = os.path.realpath(path.parent)
    realpath = functools.cache(os.path.realpath)

    def locate(text: str, root: str) -> tuple[str, str, str]:
        """Return (absolute path, path below the root, fault), all empty for an empty path."""
        if not text or os.path.isabs(text):
            return "", "", "absolute" if text else ""
        folder, name = os.path.split(os.path.join(base, text))
        try:
            home = realpath(os.path.join(base, root))
            full = os.path.join(realpath(folder), name)
            full = realpath(full) if os.path.islink(full) else full
        except ValueError:  # a NUL or a lone surrogate: no file has such a name
            return "", "", "missing"
        below = home.rstrip("/") + "/"
        if not full.startswith(below):
            return "", "", "outside"
        return full, full.removeprefix(below), "" if os.path.isfile(full) else "missing"

    for column in ("image", "mask"):
        paths = zip(frame[column].tolist(), frame["root"].tolist(), strict=True)
        rows = [locate(text, root) for text, root in paths]
        located = pd.DataFrame(rows, columns=["full", "name", "fault"], dtype=str)
        _refuse_faults(path, frame, column, located["fault"], base)
        if column == "image":
            _refuse_repeated(path, frame, located["full"])
            frame["name"] = located["name"]
        frame[column] = located["full"]


def _refuse_repeated(path: Path, frame: pd.DataFrame, full: pd.Series) -> None:
    """Refuse two rows with one file and box, under one name or through a link, and two boxes of one file with
    different patients. The message names what differs."""
    if not full.duplicated().any():
        return
    first = frame.index.to_series().groupby(full).transform("first").to_dict()
    part = frame.index.to_series().groupby([full, frame["box"]]).transform("first").to_dict()

    def message(row: pd.Series, there: dict[Hashable, int] = part) -> str:
        other = frame.loc[there[row.name]]
        linked = os.path.normpath(row["image"]) != os.path.normpath(other["image"])
        how = f" as {other['image']!r}, by a link" if linked else ""
        names = [name for name in ("leaf", "patient", "source") if row[name] != other[name]]
        differences = "".join(f"; {name} {row[name]!r} here, {other[name]!r} there" for name in names)
        box = f" with box {row['box']!r}" if row["box"] == other["box"] and row["box"] else ""
        return f"image {row['image']!r}{box} is already in row {other['row']}{how}{differences}"

    _refuse(path, frame, pd.DataFrame({"file": full, "box": frame["box"]}).duplicated(), message)
    owners = [name for name in ("patient", "source", "group") if name in frame]
    torn = (frame[owners] != frame.loc[full.index.map(first), owners].set_axis(frame.index)).any(axis=1)
    _refuse(path, frame, torn, lambda row: f"{message(row, first)}; all boxes of a file are of one patient")


def _refuse_faults(path: Path, frame: pd.DataFrame, column: str, faults: pd.Series, base: str) -> None:
    def absolute(row: pd.Series) -> str:
        return f"{column} {row[column]!r} is absolute; write it relative to the manifest"

    def outside(row: pd.Series) -> str:
        home = f"its root {row['root']!r}" if row["root"] else "the manifest's folder"
        return (
            f"{column} {row[column]!r} lies outside {home}; name the folder that holds it in a column 'root'"
        )

    def missing(row: pd.Series) -> str:
        return f"{column} {row[column]!r} is not a file; paths start at {base}"

    for fault, message in (("absolute", absolute), ("outside", outside), ("missing", missing)):
        _refuse(path, frame, faults == fault, message)


def _refuse(path: Path, frame: pd.DataFrame, wrong: pd.Series, message: Callable[[pd.Series], str]) -> None:
    """Raise InputError if a row is wrong: the message for the first such row, and the count of the others."""
    if wrong.any():
        first = frame[wrong].iloc[0]
        others = int(wrong.sum()) - 1
        count = f" (and {others} more)" if others else ""
        raise InputError(f"{path} row {first['row']}: {message(first)}{count}")
