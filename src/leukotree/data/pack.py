"""Manifest -> a folder of shards per fold, an index and a description: resized once, restartable, the same bytes each time."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from leukotree.data import dataset, folds, images
from leukotree.data.dataset import Dataset
from leukotree.errors import InputError
from leukotree.taxonomy import Taxonomy
from leukotree.yamlfile import write_atomic

KINDS = ("image", "slide", "patient")
"""What folds can keep together, the weakest promise first."""
_NAMED = 3
_STATE = "pack.json"


@dataclass(frozen=True)
class Options:
    """What decides the bytes of a packed folder, beside the manifest."""

    folds: int = 5
    size: int = 384
    seed: int = 0
    drop_broken: bool = False
    samples_per_shard: int = 1000
    quality: int = 95

    def __post_init__(self) -> None:
        for name, low, high in (("size", 8, 8192), ("samples_per_shard", 1, 10**6), ("quality", 1, 100), ("seed", 0, 2**31 - 1)):
            if not low <= getattr(self, name) <= high:
                raise InputError(f"{name} {getattr(self, name)}: must be from {low} to {high}")


@dataclass(frozen=True)
class PackSummary:
    """What stands in the folder now; `written` is False where it already stood there."""

    dataset: Dataset
    written: bool

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
            lines.append(f"left out, broken: {_named([(item.image, item.reason) for item in description.dropped])}")
        return lines


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
) -> PackSummary:
    """Pack a manifest into the folder `out`, `size` in pixels, with `workers` threads (None: one per available core).

    Works in a hidden folder beside `out` that takes its name when all is written; a killed run continues from there. Raises
    InputError for bad rows or broken images (nothing is left behind), a folder packed otherwise, or a full disk.
    """
    from leukotree.data import manifest as manifests

    taxonomy = taxonomy or Taxonomy.paper()
    options = Options(folds, size, seed, drop_broken, samples_per_shard, quality)
    frame = manifests.read(manifest, taxonomy)
    return pack_frame(frame, Path(manifest).parent, Path(out), options, taxonomy, workers)


def pack_frame(
    frame: pd.DataFrame, root: Path, out: Path, options: Options, taxonomy: Taxonomy, workers: int | None = None
) -> PackSummary:
    """`pack` for a checked table: columns image (absolute path), leaf, patient, source, group (kind) and group_id.

    `root` is the folder that image paths are recorded relative to.
    """
    workers = workers if workers is not None else len(os.sched_getaffinity(0))
    if workers < 1:
        raise InputError(f"workers {workers}: at least 1")
    table = _table(frame, root)
    identity = _identity(table, options, taxonomy)
    if out.is_dir() and any(out.iterdir()):
        return _existing(out, identity)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; name a folder")
    folds.assign(table, options.folds, options.seed)  # refuses before anything is decoded or written
    partial = out.absolute().with_name(f".{out.absolute().name}.partial")
    try:
        with _own(partial, identity), warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # refused by `images`, with a reason
            try:
                _fill(partial, table, options, taxonomy, identity, workers)
            except InputError:
                shutil.rmtree(partial)
                raise
            os.rename(partial, out)
            (out / _STATE).unlink()
    except OSError as error:
        raise InputError(
            f"{out}: cannot be written: {error.strerror}; mend that and run again to continue, or remove {partial}"
        ) from error
    return PackSummary(Dataset.open(out), written=True)


# --- what is packed -----------------------------------------------------------------------------------------------------


def _table(frame: pd.DataFrame, root: Path) -> pd.DataFrame:
    """The manifest with `group` as the id that folds keep together, `kind` of it, a `key`, and `name` relative to the root."""
    table = pd.DataFrame({name: frame[name].fillna("").astype(str) for name in ("image", "leaf", "patient", "source")})
    table["kind"] = frame["group"].astype(str)
    table["group"] = frame["group_id"].astype(str)
    table["name"] = [os.path.relpath(path, Path(root).absolute()) for path in table["image"]]
    stems = [re.sub(r"[^A-Za-z0-9_-]+", "-", Path(path).stem)[:40] for path in table["image"]]
    table["key"] = [f"{row:07d}-{stem}" for row, stem in enumerate(stems)]
    return table.reset_index(drop=True)


def _identity(table: pd.DataFrame, options: Options, taxonomy: Taxonomy) -> dict[str, Any]:
    """Options and a digest of all rows and file sizes: equal identity, equal bytes."""
    digest = hashlib.sha256()
    for row in table.itertuples():
        try:
            size = os.stat(str(row.image)).st_size
        except OSError as error:
            raise InputError(f"{row.image}: cannot be read: {error.strerror}; remove its row from the manifest") from error
        digest.update(json.dumps([row.name, row.leaf, row.patient, row.source, row.kind, row.group, size]).encode() + b"\n")
    return {"manifest": digest.hexdigest(), "options": vars(options), "full_taxonomy": taxonomy.nested()}


def _existing(out: Path, identity: dict[str, Any]) -> PackSummary:
    """What `out` holds, if packing would write the same again."""
    if not (out / "dataset.json").exists():
        raise InputError(f"{out}: is not empty and no packed data set; choose another folder")
    packed = Dataset.open(out)
    _compare(out, packed.description.model_extra or {}, identity)
    (out / _STATE).unlink(missing_ok=True)  # a run killed just after it took its final name
    return PackSummary(packed, written=False)


def _compare(folder: Path, found: dict[str, Any], identity: dict[str, Any]) -> None:
    if {key: found.get(key) for key in identity} == identity:
        return
    before, now = found.get("options") or {}, identity["options"]
    changed = [f"{name} {before.get(name)} there, {now[name]} now" for name in now if before.get(name) != now[name]]
    changed += [f"another {word}" for key, word in (("manifest", "manifest"), ("full_taxonomy", "taxonomy")) if found.get(key) != identity[key]]
    raise InputError(f"{folder}: packed with other input ({', '.join(changed)}); remove it or choose another folder")


def _named(broken: list[tuple[str, str]]) -> str:
    shown = "; ".join(f"{name} ({reason})" for name, reason in broken[:_NAMED])
    return shown + (f"; and {len(broken) - _NAMED} more" if len(broken) > _NAMED else "")


# --- how it is written --------------------------------------------------------------------------------------------------


@contextmanager
def _own(partial: Path, identity: dict[str, Any]) -> Iterator[None]:
    """Make the working folder, or take up one that was left with the same identity; one process at a time."""
    partial.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(partial, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{partial}: another `leukotree pack` is writing there; wait for it") from None
        state = partial / _STATE
        if state.exists():
            try:
                _compare(partial, json.loads(state.read_text()), identity)
            except ValueError as error:
                raise error if isinstance(error, InputError) else InputError(f"{state}: damaged; remove {partial}") from error
        else:
            _save(partial, {**identity, "dropped": [], "shards": {}})
        yield
    finally:
        os.close(descriptor)


def _save(partial: Path, state: dict[str, Any]) -> None:
    write_atomic(partial / _STATE, json.dumps(state))


@dataclass(frozen=True)
class _Shard:
    name: str
    fold: int
    rows: np.ndarray


def _plan(table: pd.DataFrame, options: Options) -> list[_Shard]:
    """All shards: per fold, its rows in a seeded random order, so that whoever reads on finds the classes mixed."""
    fold_ids = folds.assign(table, options.folds, options.seed)
    shards = []
    for fold in range(options.folds):
        order = np.random.default_rng([options.seed, fold]).permutation(np.flatnonzero(fold_ids == fold))
        parts = np.array_split(order, -(-len(order) // options.samples_per_shard))
        shards += [_Shard(f"fold{fold}-{number:06d}.tar", fold, rows) for number, rows in enumerate(parts)]
    return shards


def _fill(partial: Path, table: pd.DataFrame, options: Options, workers: int) -> tuple[pd.DataFrame, list[_Shard], list[list[str]]]:
    """Write all shards; the rows that stand in them, the plan, and (image, reason) of what was dropped.

    Where broken images are dropped, everything is planned anew, so that the folds are those of a manifest without them.
    """
    state = json.loads((partial / _STATE).read_text())
    while True:
        remaining = table[~table["name"].isin([name for name, _ in state["dropped"]])].reset_index(drop=True)
        plan = _plan(remaining, options)
        broken = _write_shards(partial, remaining, plan, options, state, workers)
        if not broken:
            return remaining, plan, state["dropped"]
        if not options.drop_broken:
            raise InputError(f"{len(broken)} broken image(s): {_named(broken)}; mend them, or leave them out with --drop-broken")
        state.update(dropped=sorted([*state["dropped"], *broken]), shards={})
        _save(partial, state)


def _write_shards(
    partial: Path, table: pd.DataFrame, plan: list[_Shard], options: Options, state: dict[str, Any], workers: int
) -> list[list[str]]:
    """Write the shards that are not finished yet; the broken images among them. After the first one images are only checked."""
    finished = {name for name, digest in state["shards"].items() if _intact(partial / name, digest)}
    pending = [shard for shard in plan if shard.name not in finished]
    rows = [row for shard in pending for row in shard.rows]
    encoded = _encoded(table["image"].iloc[rows], options, workers)
    broken: list[list[str]] = []

    def whole(shard: _Shard) -> Iterator[shards.Sample]:
        for row, result in zip(shard.rows, encoded, strict=False):
            sample = table.iloc[row]
            if isinstance(result, images.BrokenImage):
                broken.append([sample["name"], str(result)])
            elif not broken:
                fields = {"image": sample["name"], **{name: sample[name] for name in ("leaf", "patient", "source", "group")}}
                yield shards.Sample(sample["key"], result, fields)

    for shard in pending:
        shards.write(partial / shard.name, whole(shard))
        if broken:
            (partial / shard.name).unlink()
        else:
            state["shards"][shard.name] = shards.digest(partial / shard.name)
            _save(partial, state)
    return broken


def _intact(shard: Path, digest: str) -> bool:
    return shard.exists() and shards.digest(shard) == digest


def _encoded(paths: Iterable[str], options: Options, workers: int) -> Iterator[bytes | images.BrokenImage]:
    """Each image as a square JPEG, or why not, in order. At most a few images per worker are in memory.

    Threads, not processes: decoding, resampling and encoding release the interpreter lock.
    """

    def one(path: str) -> bytes | images.BrokenImage:
        try:
            return images.square(path, options.size, options.quality)
        except images.BrokenImage as error:
            return error

    waiting: deque[Future[bytes | images.BrokenImage]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for path in paths:
            waiting.append(pool.submit(one, path))
            if len(waiting) > 4 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
