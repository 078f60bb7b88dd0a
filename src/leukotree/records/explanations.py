"""The stored explanations of a run: tables of measures, the parts that they are made of, and panels.

    <run>/explanations.parquet              of the run's own test images
    <run>/explanations-<name>.parquet       of the images of another data set
    <run>/explanations/<identity>/          finished parts of a table
    <run>/explanations/panels/<identity>/   pictures

A table has one row for each run, image, target, method and kind of weights. `leukotree explain` writes them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from leukotree import files
from leukotree.errors import InputError, one_line

FOLDER = "explanations"
PANELS = "panels"
LOCK = ".lock"
PATH = ""
"""In the column `decision`: the path as a whole."""
CENTRE = "centre"
"""In the column `method`: the centre Gaussian, a map that has not seen the image."""
TRAINED, RANDOM = "trained", "random"
"""In the column `weights`: those of the run, or fresh random ones (Adebayo et al. 2018)."""
METHODS = {
    "gradcam": "Grad-CAM",
    "hirescam": "HiResCAM",
    "scorecam": "Score-CAM",
    "rollout": "attention rollout",
    CENTRE: "centre Gaussian",
}
"""Method -> its name in a report."""
MEASURES = ("energy", "pointing", "iou", "road", "stability", "similarity")
"""energy: share of the map in the mask. pointing: 1 if its peak is in the mask or near. iou: of the top fifth
with the mask. road: what the path's probability loses without the best pixels. stability: rank correlation
with the maps of the mirrored and of the darker image. similarity: of a map of random weights, with that of
the trained ones."""
TEXTS = ("run", "key", "patient", "source", "leaf", "decided", "decision", "node", "method", "weights")
"""run: the folder's name. patient: unique over sources, "" where unknown. leaf, decided: the true leaf, and
that of the greedy rule. decision: a decision on the decided path, or PATH. node: the child that it
decides."""
NUMBERS = ("probability", "area", "empty", *MEASURES)
"""probability: of the node given its decision, or of the path. area: share of the image in the mask. empty: 1
where the map has no value above 0, and so no place."""
COLUMNS = (*TEXTS, *NUMBERS)
_NAME = re.compile(r"[A-Za-z0-9._-]{1,60}")


def table(run: Path, name: str = "") -> Path:
    """The file of a table. `name`: of another data set; "" for the run's own test images."""
    return run / (f"{FOLDER}-{name}.parquet" if name else f"{FOLDER}.parquet")


def name_of(folder: str | Path, fingerprint: str) -> str:
    """The name of another data set, from its folder or manifest and its fingerprint: two data sets in folders
    of one name are two. Characters that a file name should not have are "-"."""
    path = Path(folder).resolve()
    name = path.stem if path.suffix in (".csv", ".parquet") else path.name
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:50].strip("-.") or "other"
    return f"{stem}-{fingerprint[:8]}"


def part(run: Path, identity: str, method: str, chunk: int, content: str) -> Path:
    """The file of the measures of one method on one chunk of images.

    Args: identity: of the weights and the data set. content: of the images and masks of the chunk. Equal ones
    give equal measures.
    """
    return run / FOLDER / identity / f"{method}-{chunk:05d}-{content}.parquet"


def panels(run: Path) -> Path:
    return run / FOLDER / PANELS


def panel(run: Path, method: str, key: str) -> Path | None:
    """The picture of a test image, the newest one; None where there is none."""
    found = [path for folder in panels(run).glob("*") if (path := folder / f"{method}-{key}.png").is_file()]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def names(run: Path) -> list[str]:
    """The names of the tables of a run: "" for its own test images first."""
    own = [""] if table(run).exists() else []
    pattern = re.compile(rf"{FOLDER}-(.+)\.parquet")
    others = (pattern.fullmatch(path.name) for path in sorted(run.glob(f"{FOLDER}-*.parquet")))
    return [*own, *(match[1] for match in others if match and _NAME.fullmatch(match[1]))]


def read(path: Path) -> pd.DataFrame:
    """A table or a part: the columns COLUMNS. Raises InputError naming the file if it is none."""
    try:
        frame = pd.read_parquet(path)
        texts = {name: frame[name].fillna("").astype(str) for name in TEXTS}
        numbers = {name: frame[name].astype(float) for name in NUMBERS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: is no table of explanations: {one_line(error)[:200]}; remove it and explain the run "
            "again"
        ) from error
    return pd.DataFrame({**texts, **numbers})


def write(path: Path, parts: Sequence[pd.DataFrame]) -> None:
    """Write parts as one table, atomically. Raises OSError."""
    frame = pd.concat(list(parts), ignore_index=True)[list(COLUMNS)]
    files.write_atomic(path, frame.to_parquet(index=False))
