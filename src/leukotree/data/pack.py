"""Manifest -> a folder of shards per fold, an index and a description: resized once, restartable, the same
bytes each time."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from leukotree import progress, signals
from leukotree.data import duplicates
from leukotree.data import folds as fold_module
from leukotree.data import manifest as manifests
from leukotree.data import pack_folder as working
from leukotree.data.dataset import Dataset
from leukotree.data.images import digests, encoding
from leukotree.data.pack_folder import Options
from leukotree.data.patients.doubts import Doubt, settle
from leukotree.data.patients.pseudonyms import Numbers
from leukotree.errors import InputError, Preempted
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
            f"{data.folds} folds of {data.groups}: images {list(per_fold['images'])}, "
            f"{data.group_word}s {list(per_fold['groups'])}; {data.index['shard'].nunique()} shards",
        ]
        if copies := int(data.index["sha256"].duplicated().sum()):
            lines.append(f"{copies} image(s) are exact copies of another of their group, with the same leaf")
        if description.dropped:
            lines.append(
                f"left out, broken: {working.named((item.image, item.reason) for item in description.dropped)}"
            )
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
    group_duplicates: bool = False,
    pseudonyms: str | Path | None = None,
    similar_ids: str | None = None,
    patients_across_sources: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> PackSummary:
    """Pack a manifest into the folder `out`, `size` in pixels, with `workers` threads (None: one per
    available core).

    Every image is read once before the first is decoded: its bytes belong to what is compared when `out` is
        there already.
    `group_duplicates` makes one group of those that share a picture, where they are refused without it.
    `pseudonyms` is the
    table with the numbers that stand for patients, slides and images in all that is written to `out`; it is
    written if absent.

    Works in a hidden folder beside `out` that takes its name when all is written; a killed run continues from
    there. Raises InputError for bad rows, broken images or copies (nothing is left behind), a folder packed
    otherwise, or a full disk.

    `similar_ids` says what ids that look alike are: "join", one patient; "keep", several.
    `patients_across_sources`: an id is the
    same patient in every source. `tell` is called with each warning before anything is written.
    """
    out, workers = Path(out), len(os.sched_getaffinity(0)) if workers is None else workers
    if workers < 1:
        raise InputError(f"workers {workers}: at least 1")
    taxonomy = taxonomy or Taxonomy.paper()
    options = Options(
        folds,
        size,
        seed,
        drop_broken,
        samples_per_shard,
        quality,
        similar_ids,
        patients_across_sources,
        group_duplicates,
        pseudonyms is not None,
    )
    numbers = Numbers(pseudonyms, out, _working(out)) if pseudonyms is not None else None
    frame, doubts = settle(manifests.read(manifest, taxonomy), similar_ids, patients_across_sources)
    table = _table(frame)
    table["digest"] = digests.of_files(table["image"].tolist(), workers)
    table = table if numbers is None else numbers.apply(table, patients_across_sources)
    identity = _identity(table, options, taxonomy)
    if out.is_dir() and any(out.iterdir()):
        with _silent():
            return replace(_existing(out, table, identity, options, workers), doubts=doubts)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; name a folder")
    taxonomy.prune(table["leaf"].unique())
    progress.step("dealing the patients to folds")
    with _silent():
        table["group"] = _grouped(table, options, workers)
    table["fold"] = fold_module.assign(table, folds, seed)  # like pruning, refuses before anything is written
    for doubt in doubts:
        if doubt.warns:
            tell(doubt.line())
    if numbers is not None:
        numbers.save()
    _write(out, table, options, taxonomy, identity, workers)
    return PackSummary(Dataset.open(out), written=True, doubts=doubts)


def _write(
    out: Path,
    table: pd.DataFrame,
    options: Options,
    taxonomy: Taxonomy,
    identity: dict[str, Any],
    workers: int,
) -> None:
    """Fill the working folder beside `out` and give it its name. Bad input leaves nothing, a full disk what
    is finished."""
    partial = _working(out)
    created = [folder for folder in partial.parents if not folder.exists()]
    try:
        with working.claim(partial, identity), _silent():
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
        raise InputError(
            f"{out}: cannot be written: {error.strerror}; mend that and run again to go on"
        ) from error


@contextmanager
def _silent() -> Iterator[None]:
    """No warnings of Pillow: `images` decides what is broken, with a reason."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def _working(out: Path) -> Path:
    """The hidden folder beside `out` where it is written."""
    return out.absolute().with_name(f".{out.absolute().name}.partial")


def _table(frame: pd.DataFrame) -> pd.DataFrame:
    """The manifest with a `key` per image, the id of its group as `group`, the kind of group as `kind`, and
    what messages call an image as `shown`."""
    stems = [re.sub(r"[^A-Za-z0-9_-]+", "-", Path(name).stem)[:40] for name in frame["name"]]
    table = frame[["image", "name", "leaf", "patient", "source"]].reset_index(drop=True)
    keys = [f"{row:07d}-{stem}" for row, stem in enumerate(stems)]
    return table.assign(
        key=keys, group=frame["group_id"].array, kind=frame["group"].array, shown=table["name"]
    )


def _identity(table: pd.DataFrame, options: Options, taxonomy: Taxonomy) -> dict[str, Any]:
    """Digests of all rows and of all bytes of the images, the options and the tree: equal identity, equal
    bytes."""
    contents = hashlib.sha256("".join(f"{digest}\n" for digest in table["digest"]).encode()).hexdigest()
    rows = zip(*_columns(table), strict=True)
    return {
        "manifest": _digest(rows),
        "bytes": contents,
        "options": options.identity(),
        "tree": taxonomy.nested(),
    }


def _columns(table: pd.DataFrame) -> list[list[str]]:
    return [table[name].tolist() for name in ("name", "leaf", "patient", "source", "kind", "group")]


def _digest(rows: Iterable[tuple[object, ...]]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()


def _grouped(table: pd.DataFrame, options: Options, workers: int) -> pd.Series:
    """The groups; those that share a file's bytes are one where that is asked for. Raises InputError for
    copies otherwise."""
    sets = duplicates.differing(table, duplicates.copies(table["digest"]), "leaf", "group")
    first = table.iloc[[int(rows[0]) for rows in sets]]
    made = encoding.encode_files(
        first["image"].tolist(), first["digest"].tolist(), options.size, options.quality, workers
    )
    pictures = [
        rows for rows, result in zip(sets, made, strict=True) if isinstance(result, bytes)
    ]  # empty files are alike, too
    apart = duplicates.resolve(table, pictures, join=options.group_duplicates)
    return duplicates.join_groups(table["group"], apart) if apart else table["group"]


def _existing(
    out: Path, table: pd.DataFrame, identity: dict[str, Any], options: Options, workers: int
) -> PackSummary:
    """What `out` holds, if packing would write the same again."""
    if not (out / "dataset.json").exists():
        raise InputError(f"{out}: is not empty and no packed data set; choose another folder")
    packed = Dataset.open(out)
    before = packed.description.model_extra or {}
    if "bytes" in before:
        working.compare(out, before, identity)
    else:
        sizes = [os.stat(path).st_size for path in table["image"]]
        older = {"manifest": _digest(zip(*_columns(table), sizes, strict=True)), "tree": identity["tree"]}
        working.compare(out, before, {**older, "options": identity["options"]})
        _compare_images(packed, table, options, workers)
    working.leave(out)  # left by a run killed just after the folder took its final name
    return PackSummary(packed, written=False)


def _compare_images(packed: Dataset, table: pd.DataFrame, options: Options, workers: int) -> None:
    """Raises InputError unless the images give what stands in a folder that an older version packed, without
    digests of them."""
    known = packed.index.set_index("key")["sha256"].to_dict()
    made = encoding.encode_files(
        table["image"].tolist(), table["digest"].tolist(), options.size, options.quality, workers
    )
    results = progress.over(made, "compare", len(table), "image")
    for key, name, result in zip(table["key"], table["shown"], results, strict=True):
        if signals.requested():
            raise Preempted(f"{packed.folder}: not all images are compared")
        if known.get(key) != (hashlib.sha256(result).hexdigest() if isinstance(result, bytes) else None):
            raise InputError(
                f"{packed.folder}: packed by an older version, which kept no digest of the images, and {name!r} gives other "
                "bytes now: it was changed, or held metadata that no shard gets any more; remove the folder or choose another one"
            )
