"""The predictions of a study's runs for another data set: `<study>/external/<name>/`.

`about.json` says which images they are. `<run>.parquet` has `key, patient, source, leaf`, `person` if sources
share patients, `site`, `scanner` and `reader:<name>` where the data set has them, and `logp:<child>` for each
edge of the run's tree, as the predictions of the run itself. Its metadata has the fingerprints of the images
and of the run.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from leukotree import files
from leukotree.data import described
from leukotree.errors import InputError, one_line
from leukotree.records import runfolder
from leukotree.records.predictions import PERSON
from leukotree.taxonomy import Taxonomy

EXTERNAL = "external"
"""Name of the folder in a study's folder."""
ABOUT = "about.json"
LOCK = ".lock"
IDENTITY = ["key", "patient", "source", "leaf"]
IMAGES, RUN = "images", "run"
"""Fingerprints in a file's metadata: of the images with their leaves and patients, and of the run."""
_METADATA = b"leukotree"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


class About(NamedTuple):
    """Which images a set of predictions is for. The content of about.json."""

    given: str
    """The shards or the manifest, as it was typed."""
    fingerprint: str
    """See `fingerprint`."""
    images: int
    left_out: dict[str, int]
    """Reason -> number of images that were left out."""
    notes: list[str]


class Stored(NamedTuple):
    """The predictions of one run for N images."""

    frame: pd.DataFrame
    """N rows: IDENTITY, and the columns of PERSON and `described` that are there."""
    logp: np.ndarray
    """(N, E) float32 log p(child | parent)."""


def folder(study: Path, name: str) -> Path:
    """The folder of a set of images in a study's folder. Raises InputError for a name that is a path."""
    if not _NAME.fullmatch(name):
        raise InputError(f"--name {name!r}: give a name of letters, digits, '.', '_' and '-'")
    return study / EXTERNAL / name


def names(study: Path) -> list[str]:
    """The names of the sets that a study was evaluated on, sorted. A folder with another kind of name, such
    as a copy by hand, is none."""
    named = (path.parent.name for path in (study / EXTERNAL).glob(f"*/{ABOUT}"))
    return sorted(name for name in named if _NAME.fullmatch(name))


def fingerprint(table: pd.DataFrame) -> str:
    """sha256 hex of the images (their `sha256`) and of what is known about each, in their order."""
    columns = ["sha256", *(name for name in (*IDENTITY[1:], *described.present(table)) if name in table)]
    rows = [columns, *table[columns].astype(str).to_numpy().tolist()]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def of_run(run: Path) -> str:
    """The fingerprint of a run: sha256 hex of its own predictions, which other weights would change."""
    return files.sha256(run / runfolder.PREDICTIONS)


def locked(place: Path) -> contextlib.AbstractContextManager[None]:
    """The context in which this process writes into the folder of a set. Raises Busy."""
    place.mkdir(parents=True, exist_ok=True)
    return files.locked(place / LOCK, f"{place}: another `evaluate` writes there; wait for it")


def write_about(place: Path, about: About) -> None:
    """Write about.json. Raises InputError if the folder is about other images, and OSError."""
    before = read_about(place)
    if before is not None and before.fingerprint != about.fingerprint:
        raise InputError(
            f"{place}: has predictions of other images, or of other labels ({before.given}); give another "
            "--name, or remove that folder"
        )
    files.write_atomic(place / ABOUT, json.dumps(about._asdict(), indent=1))


def read_about(place: Path) -> About | None:
    """The content of about.json; None without one. Raises InputError for a damaged one."""
    try:
        content = json.loads((place / ABOUT).read_text(encoding="utf-8"))
        about = About(**content)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{place / ABOUT}: cannot be read: {one_line(error)[:200]}; remove it") from error
    plain = isinstance(about.fingerprint, str) and isinstance(about.given, str)
    if not plain or not isinstance(about.left_out, dict) or not isinstance(about.notes, list):
        raise InputError(f"{place / ABOUT}: is damaged; remove it")
    return about


def is_done(place: Path, run: Path, images: str) -> bool:
    """Whether the predictions of a run for these images are there, by their fingerprints."""
    marks = _marks(place / f"{run.name}.parquet")
    return marks == {IMAGES: images, RUN: of_run(run)}


def write(place: Path, run: Path, stored: Stored, taxonomy: Taxonomy, images: str) -> None:
    """Write the predictions of a run. `images`: their fingerprint. Raises OSError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = pd.DataFrame(stored.logp, columns=[f"logp:{edge}" for edge in taxonomy.edges])
    table = pa.Table.from_pandas(pd.concat([stored.frame, columns], axis=1), preserve_index=False)
    marks = json.dumps({IMAGES: images, RUN: of_run(run)}).encode()
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({**(table.schema.metadata or {}), _METADATA: marks}), buffer)
    files.write_atomic(place / f"{run.name}.parquet", buffer.getvalue())


def read(place: Path, run: Path, taxonomy: Taxonomy, about: About) -> Stored | None:
    """The predictions of a run. None where they are missing, or were made by other weights or for other
    images.

    Args: taxonomy: the tree of the run. Raises InputError for a damaged file.
    """
    path = place / f"{run.name}.parquet"
    if not is_done(place, run, about.fingerprint):
        return None
    try:
        frame = pd.read_parquet(path)
        logp = frame[[f"logp:{edge}" for edge in taxonomy.edges]].to_numpy(np.float32)
        more = [*frame.columns.intersection([PERSON]), *described.present(frame)]
        stored = Stored(frame[[*IDENTITY, *more]], logp)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: cannot be read: {one_line(error)[:200]}; remove it") from error
    if np.isnan(logp).any() or not stored.frame["leaf"].isin(taxonomy.leaves).all():
        raise InputError(f"{path}: is damaged; remove it, and evaluate again")
    return stored


def _marks(path: Path) -> Mapping[str, str] | None:
    """The fingerprints in the metadata of a file; None where there are none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_schema(path).metadata or {}
        marks = json.loads(metadata.get(_METADATA, b"null"))
    except (OSError, ValueError, pa.ArrowException):
        return None
    return marks if isinstance(marks, dict) else None
