"""The table of all images that a pack writes: the rows of the manifests, with digests and joined groups."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from leukotree.data import boxes, consensus, described, duplicates, joined
from leukotree.data.images import codec, digests, encoding
from leukotree.data.images.formats import BrokenImage
from leukotree.data.manifest import keys
from leukotree.data.pack_options import Options
from leukotree.data.patients.doubts import Doubt, settle
from leukotree.data.patients.pseudonyms import Numbers
from leukotree.taxonomy import Taxonomy


def read(
    manifests: Sequence[Path],
    taxonomy: Taxonomy,
    options: Options,
    numbers: Numbers | None,
    workers: int,
) -> tuple[pd.DataFrame, tuple[Doubt, ...]]:
    """Return the table for `pack_folder.fill`, without folds, and the doubts about the ids of patients.

    Raises InputError as `joined.read` and `settle`.
    """
    across_sources = options.patients_across_sources
    rows, shared = joined.read(manifests, taxonomy)
    if options.label_from:
        rows = consensus.relabel(rows, options.label_from, taxonomy)
    frame, doubts = settle(rows, options.similar_ids, across_sources)
    doubts = (*shared, *doubts)
    extra = [
        *described.present(frame),
        *frame.columns.intersection([consensus.MANIFEST_LEAF, consensus.ORIGIN]),
    ]
    table = frame[["image", "name", "leaf", "patient", "source", *extra]].reset_index(drop=True)
    if (frame["box"] != "").any():
        table["box"] = frame["box"].array
        table["name"] = boxes.names(table["name"].tolist(), table["box"].tolist())
    table["key"] = keys(frame["name"])
    table["group"] = frame["group_id"].array
    table["kind"] = frame["group"].array
    table["shown"] = table["name"]
    table["digest"] = _digests(table["image"], workers)
    if "box" in table:
        table["cut"] = _reach_the_edge(table, workers)
    return (table if numbers is None else numbers.apply(table, across_sources)), doubts


def _digests(images: pd.Series, workers: int) -> list[str]:
    """The digest of each row's file. A file of several rows is read once."""
    files = images.drop_duplicates().tolist()
    return images.map(dict(zip(files, digests.of_files(files, workers), strict=True))).tolist()


def _reach_the_edge(table: pd.DataFrame, workers: int) -> list[bool]:
    """Whether the box of each row reaches the edge of its file. False if the file's header is damaged."""
    files = table["image"][table["box"] != ""].unique().tolist()
    with encoding.no_pillow_warnings(), ThreadPoolExecutor(workers, "header") as pool:
        sizes = dict(zip(files, pool.map(codec.upright_size, files), strict=True))
    pairs = zip(table["image"], table["box"], strict=True)
    return [
        bool(text) and (size := sizes[file]) is not None and boxes.parse(text).is_cut(*size)
        for file, text in pairs
    ]


def joined_groups(table: pd.DataFrame, options: Options, workers: int) -> pd.Series:
    """Return the group of each row, with groups joined that share a file's bytes if the options say so.

    Raises InputError for such groups otherwise.
    """
    pictures = table["digest"] + " " + table["box"] if "box" in table else table["digest"]
    apart = _apart(table, pictures, options, workers)
    if "box" in table:
        # Two parts of one file may have two leaves. They are of one person all the same.
        apart += _apart(table.assign(leaf=""), table["digest"], options, workers)
    return duplicates.join_groups(table["group"], apart) if apart else table["group"]


def _apart(table: pd.DataFrame, digests: pd.Series, options: Options, workers: int) -> list[np.ndarray]:
    """Return the sets of rows with equal digests in different groups. Raises as `duplicates.resolve`."""
    sets = duplicates.differing(table, duplicates.copies(digests), "leaf", "group")
    results = encoded(table.iloc[[int(rows[0]) for rows in sets]], options, workers)
    # Broken files may be equal without being copies of a picture: all empty files are.
    whole = [rows for rows, result in zip(sets, results, strict=True) if isinstance(result, bytes)]
    return duplicates.resolve(table, whole, options.group_duplicates, options.group_near_duplicates)


def encoded(table: pd.DataFrame, options: Options, workers: int) -> Iterator[bytes | BrokenImage]:
    """Yield the JPEG of each row, or why it is broken."""
    paths, known = table["image"].tolist(), table["digest"].tolist()
    cells = table["box"].tolist() if "box" in table else None
    return encoding.encode_files(paths, known, options.size, options.quality, workers, cells, options.crop)


def identity(table: pd.DataFrame, options: Options, taxonomy: Taxonomy) -> dict[str, Any]:
    """Return digests of all rows and of all bytes of the images, the options and the tree.

    Equal identities give equal bytes of the packed folder.
    """
    contents = hashlib.sha256("".join(f"{digest}\n" for digest in table["digest"]).encode()).hexdigest()
    return {
        "manifest": digest_of(zip(*columns(table), strict=True)),
        "bytes": contents,
        "options": options.identity(),
        "tree": taxonomy.nested(),
    }


def columns(table: pd.DataFrame) -> list[list[str]]:
    """Return what the identity of the rows is made of, a list per column."""
    # Columns that older packs did not have are digested with their names, and only where they are there.
    names = [*described.present(table), *table.columns.intersection([consensus.MANIFEST_LEAF, "box"])]
    extra = [[f"{name}={text}" for text in table[name]] for name in names]
    return [
        *(table[name].tolist() for name in ("name", "leaf", "patient", "source", "kind", "group")),
        *extra,
    ]


def digest_of(rows: Iterable[tuple[object, ...]]) -> str:
    """Return the SHA-256 of the rows."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()
