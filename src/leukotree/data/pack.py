"""Manifest -> a folder of shards per fold, an index and a description: resized once, restartable, the same bytes each time."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from leukotree.data import folds as fold_module
from leukotree.data import manifest as manifests
from leukotree.data import partial as working
from leukotree.data.dataset import Dataset
from leukotree.data.doubts import Doubt, settle
from leukotree.data.partial import Options
from leukotree.errors import InputError
from leukotree.taxonomy import Taxonomy


@dataclass(frozen=True)
class PackSummary:
    """What stands in the folder now; `written` is False where it already stood there."""

    dataset: Dataset
    written: bool
    doubts: tuple[Doubt, ...] = ()
    """About the ids of patients."""

    def lines(self) -> list[str]:
        """For people, a few lines."""
        data, description = self.dataset, self.dataset.description
        per_fold = data.index.groupby("fold").agg(images=("key", "size"), groups=("group", "nunique"))
        kept = "written" if self.written else "already packed from the same manifest with the same options"
        counts = ", ".join(f"{leaf} {n}" for leaf, n in description.counts.items())
        lines = [
            f"{data.folder}: {kept}",
            f"{len(data)} images of {data.size} x {data.size}, {description.patients} patients: {counts}",
            f"{data.folds} folds that keep each {data.group} together: images {list(per_fold['images'])}, "
            f"{data.group}s {list(per_fold['groups'])}; {data.index['shard'].nunique()} shards",
        ]
        if description.dropped:
            lines.append(f"left out, broken: {working.named((item.image, item.reason) for item in description.dropped)}")
        return [*lines, *(doubt.line() for doubt in self.doubts)]


def pack(
    manifest: Path,
    out: Path,
    *,
    folds: int = 5,
    size: int = 384,
    seed: int = 0,
    drop_broken: bool = False,
    taxonomy: Taxonomy | None = None,
    samples_per_shard: int = 1000,
    quality: int = 95,
    workers: int | None = None,
    similar_ids: str | None = None,
    patients_across_sources: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> PackSummary:
    """Pack a manifest into the folder `out`, `size` in pixels, with `workers` threads (None: one per available core).

    Works in a hidden folder beside `out` that takes its name when all is written; a killed run continues from there. Raises
    InputError for bad rows or broken images (nothing is left behind), a folder packed otherwise, or a full disk.

    `similar_ids` says what ids that look alike are: "join", one patient; "keep", several. `patients_across_sources`: an id is the
    same patient in every source. `tell` is called with each warning before anything is written.
    """
    out, workers = Path(out), len(os.sched_getaffinity(0)) if workers is None else workers
    if workers < 1:
        raise InputError(f"workers {workers}: at least 1")
    taxonomy = taxonomy or Taxonomy.paper()
    options = Options(folds, size, seed, drop_broken, samples_per_shard, quality, similar_ids, patients_across_sources)
    frame, doubts = settle(manifests.read(manifest, taxonomy), similar_ids, patients_across_sources)
    table = _table(frame)
    identity = _identity(table, options, taxonomy)
    if out.is_dir() and any(out.iterdir()):
        return replace(_existing(out, identity), doubts=doubts)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; name a folder")
    taxonomy.prune(table["leaf"].unique())
    table["fold"] = fold_module.assign(table, folds, seed)  # like pruning, refuses before anything is decoded or written
    for doubt in doubts:
        if doubt.warns:
            tell(doubt.line())
    _write(out, table, options, taxonomy, identity, workers)
    return PackSummary(Dataset.open(out), written=True, doubts=doubts)


def _write(out: Path, table: pd.DataFrame, options: Options, taxonomy: Taxonomy, identity: dict[str, Any], workers: int) -> None:
    """Fill the working folder beside `out` and give it its name. Bad input leaves nothing, a full disk what is finished."""
    partial = out.absolute().with_name(f".{out.absolute().name}.partial")
    created = [folder for folder in partial.parents if not folder.exists()]
    try:
        with working.claim(partial, identity), warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")  # `images` decides what is broken, with a reason
            try:
                working.fill(partial, table, options, taxonomy, workers)
            except InputError:
                shutil.rmtree(partial)
                for folder in created:
                    folder.rmdir()
                raise
            os.rename(partial, out)
            working.leave(out)
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror}; mend that and run again to go on") from error


def _table(frame: pd.DataFrame) -> pd.DataFrame:
    """The manifest with a `key` per image, the id of its group as `group`, and the kind of group as `kind`."""
    stems = [re.sub(r"[^A-Za-z0-9_-]+", "-", Path(name).stem)[:40] for name in frame["name"]]
    table = frame[["image", "name", "leaf", "patient", "source"]].reset_index(drop=True)
    return table.assign(
        key=[f"{row:07d}-{stem}" for row, stem in enumerate(stems)], group=frame["group_id"].array, kind=frame["group"].array
    )


def _identity(table: pd.DataFrame, options: Options, taxonomy: Taxonomy) -> dict[str, Any]:
    """A digest of all rows and file sizes, the options and the tree: equal identity, equal bytes."""
    digest = hashlib.sha256()
    columns = [table[name].tolist() for name in ("image", "name", "leaf", "patient", "source", "kind", "group")]
    for path, *row in zip(*columns, strict=True):
        try:
            digest.update(json.dumps([*row, os.stat(path).st_size]).encode())
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}; take its row out of the manifest") from error
    return {"manifest": digest.hexdigest(), "options": options.stored(), "tree": taxonomy.nested()}


def _existing(out: Path, identity: dict[str, Any]) -> PackSummary:
    """What `out` holds, if packing would write the same again."""
    if not (out / "dataset.json").exists():
        raise InputError(f"{out}: is not empty and no packed data set; choose another folder")
    packed = Dataset.open(out)
    working.compare(out, packed.description.model_extra or {}, identity)
    working.leave(out)  # left by a run killed just after the folder took its final name
    return PackSummary(packed, written=False)
