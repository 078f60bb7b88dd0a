"""Pack a manifest into a folder of shards per fold, an index and a description.

Equal input gives equal bytes. A pack that was killed continues where it stopped.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from leukotree import progress, signals
from leukotree.data import by_source, deals, pack_folder, pack_table
from leukotree.data.dataset import QUALITY, Dataset
from leukotree.data.fingerprint import DESCRIPTION
from leukotree.data.images import encoding
from leukotree.data.pack_options import Options
from leukotree.data.pack_summary import PackSummary
from leukotree.data.patients import identities
from leukotree.data.patients.pseudonyms import Numbers
from leukotree.errors import InputError, Preempted
from leukotree.taxonomy import Taxonomy


def pack(
    manifest: Path | Sequence[Path],
    out: Path,
    *,
    folds: int | None = None,
    size: int = 384,
    seed: int = 0,
    drop_broken: bool = False,
    taxonomy: Taxonomy | None = None,
    samples_per_shard: int = 1000,
    quality: int = QUALITY,
    workers: int | None = None,
    group_duplicates: bool = False,
    group_near_duplicates: bool = False,
    pseudonyms: str | Path | None = None,
    similar_ids: str | None = None,
    patients_across_sources: bool = False,
    repeats: int = 1,
    label_from: str | None = None,
    box_margin: float = 0.0,
    box_square: bool = False,
    folds_by: str | None = None,
    match: str | None = None,
    test_sources: Sequence[str] = (),
    tell: Callable[[str], None] = lambda line: None,
) -> PackSummary:
    """Pack a manifest, or several joined ones, into the folder `out`.

    Every image file is read once before the first is decoded, so that its bytes are compared if `out` already
    holds a packed set. The work is done in a hidden folder beside `out`, which is renamed at the end. After a
    kill the same call continues there.

    Args:
        folds: number of outer folds; None for 5, or for the number of sources with `folds_by`.
        size: width and height of the packed images in pixels.
        workers: threads; None for one per available core.
        group_duplicates: join groups that share a picture; otherwise they are refused.
        group_near_duplicates: join images without a patient that look the same, see `alike`, or are copies.
        pseudonyms: file of the table of numbers that replace the names of patients, slides and images in
            `out`. It is written if it does not exist.
        similar_ids: what ids that look alike mean: "join" for one patient, "keep" for several.
        patients_across_sources: an id means the same patient in every source.
        repeats: deals of the samples to folds. Those after the first are files beside the index, see `deals`.
            They are also written for a folder that is already packed.
        label_from: replace the leaves by the consensus of the readers, see `consensus.relabel`.
        folds_by, match: see `by_source`.
        test_sources: sources in no fold. Their images are packed into `by_source.test_folder(out)`.
        tell: is called with each warning before anything is written.

    The other arguments are those of `Options`.

    Raises InputError for wrong rows, broken images or copies (then nothing is left behind), for a folder that
    was packed from other input, and for a full disk. Raises Preempted after a signal to stop.
    """
    out, workers = Path(out), len(os.sched_getaffinity(0)) if workers is None else workers
    if workers < 1:
        raise InputError(f"workers {workers}: at least 1")
    deals.check_number(repeats)
    if folds_by and repeats > 1:
        raise InputError(f"repeats {repeats}: folds by source have one deal; leave --repeats out")
    taxonomy = taxonomy or Taxonomy.paper()
    options = Options(
        folds=5 if folds is None else folds,
        size=size,
        seed=seed,
        drop_broken=drop_broken,
        samples_per_shard=samples_per_shard,
        quality=quality,
        similar_ids=similar_ids,
        patients_across_sources=patients_across_sources,
        group_duplicates=group_duplicates,
        group_near_duplicates=group_near_duplicates,
        pseudonyms=pseudonyms is not None,
        label_from=label_from,
        box_margin=box_margin,
        box_square=box_square,
        folds_by=folds_by,
        match=match,
        test_sources=tuple(sorted({identities.normal(name) for name in test_sources})),
    )
    folders = [out, by_source.test_folder(out)] if test_sources else [out]
    numbers = (
        Numbers(pseudonyms, *folders, *map(_working_folder, folders)) if pseudonyms is not None else None
    )
    manifests = [Path(manifest)] if isinstance(manifest, str | Path) else [Path(path) for path in manifest]
    table, doubts = pack_table.read(manifests, taxonomy, options, numbers, workers)
    parts = _parts(out, table, options, folds, taxonomy)
    todo = []
    for part in parts:
        if part.out.is_dir() and any(part.out.iterdir()):
            _check_existing(part, workers)
        elif part.out.exists() and not part.out.is_dir():
            raise InputError(f"{part.out}: is a file; name a folder")
        else:
            todo.append(part)
    if todo:
        _join_groups(parts, table, options, workers)
        for doubt in doubts:
            if doubt.warns:
                tell(doubt.line())
        if numbers is not None:
            numbers.save()
        _write(todo, [part for part in parts if part not in todo], workers)
    dataset = Dataset.open(out)
    test = Dataset.open(parts[1].out) if len(parts) > 1 else None
    dealt = dataset.deal(repeats)
    return PackSummary(dataset, bool(todo), doubts, dealt, test)


def deal_again(folder: Path, repeats: int) -> tuple[tuple[int, ...], list[str]]:
    """Write the deals that a packed folder lacks for `repeats` repeats; return the repeats that were dealt
    now, and lines for people. No image is read, and no shard is written. Raises InputError as
    `deals.write`."""
    dataset = Dataset.open(folder)
    new = dataset.deal(repeats)
    named = f"written now: {', '.join(map(str, new))}" if new else "all were there"
    there = ", ".join(map(str, [0, *deals.numbers(dataset.folder)]))
    line = f"{folder}: deals to {dataset.folds} folds of {dataset.groups} for the repeats {there}; {named}"
    return new, [line]


@dataclass
class _Part:
    """A folder that is packed: the data set, or its outer test."""

    out: Path
    table: pd.DataFrame
    options: Options
    taxonomy: Taxonomy
    identity: dict[str, Any]
    """See `pack_table.identity`."""


def _parts(
    out: Path, table: pd.DataFrame, options: Options, folds: int | None, taxonomy: Taxonomy
) -> list[_Part]:
    """Return the data set, and its outer test if there is one.

    Args: folds: the number that was asked for; None for no number.
    """
    tests = options.test_sources
    train, test = by_source.apart(table, tests) if tests else (table, None)
    if options.folds_by:
        sources = train["source"].nunique()
        if folds not in (None, sources):
            raise InputError(
                f"folds {folds}: with --folds-by source there are as many as sources, {sources}; leave it out"
            )
        options = replace(options, folds=sources)
    parts = [_Part(out, train, options, taxonomy, pack_table.identity(train, options, taxonomy))]
    if test is not None:
        of_test = replace(options, folds=1, folds_by=None, outer_test=True)
        learnt = taxonomy.prune(by_source.arranged(train, options)["leaf"].unique())
        test = by_source.known_leaves(test, learnt.leaves, options.match)
        identity = pack_table.identity(test, of_test, learnt)
        parts.append(_Part(by_source.test_folder(out), test, of_test, learnt, identity))
    return parts


def _join_groups(parts: list[_Part], table: pd.DataFrame, options: Options, workers: int) -> None:
    """Join groups that share a file's bytes, in all parts, in place.

    Raises InputError for input that cannot be divided into folds, before anything is written.
    """
    progress.step("assigning the patients to folds")
    with encoding.no_pillow_warnings():
        table["group"] = pack_table.joined_groups(table, options, workers)
    if options.test_sources:
        by_source.apart(table, options.test_sources)  # a joined group may be in both
    group = table.set_index("key")["group"]
    for part in parts:
        part.table["group"] = part.table["key"].map(group).to_numpy()
        arranged = by_source.arranged(part.table, part.options)
        if not part.options.outer_test:
            part.taxonomy.prune(arranged["leaf"].unique())


def _write(parts: list[_Part], existing: list[_Part], workers: int) -> None:
    """Fill the working folder of each part, and rename all of them at the end.

    Nothing is left of wrong input. After a full disk the finished shards are kept.
    """
    working = [_working_folder(part.out) for part in parts]
    created = [folder for path in working for folder in path.parents if not folder.exists()]
    created = sorted(set(created), reverse=True)
    try:
        with ExitStack() as claims:
            claims.enter_context(encoding.no_pillow_warnings())
            for path, part in zip(working, parts, strict=True):
                claims.enter_context(pack_folder.claim(path, part.identity))
            try:
                for path, part in zip(working, parts, strict=True):
                    pack_folder.fill(path, part.table, part.options, part.taxonomy, workers)
                pack_folder.check_apart([*working, *(part.out for part in existing)])
            except InputError:
                for path in working:
                    shutil.rmtree(path)
                for folder in created:
                    folder.rmdir()
                raise
            for path, part in zip(working, parts, strict=True):
                os.rename(path, part.out)
                pack_folder.remove_work_files(part.out)
    except OSError as error:
        raise InputError(
            f"{parts[0].out}: cannot be written: {error.strerror}; fix that and run again to continue"
        ) from error


def _working_folder(out: Path) -> Path:
    """Return the hidden folder beside `out` in which it is written."""
    return out.absolute().with_name(f".{out.absolute().name}.partial")


def _check_existing(part: _Part, workers: int) -> None:
    """Raise InputError if packing into an existing folder would write other bytes than it holds."""
    out, table, identity, options = part.out, part.table, part.identity, part.options
    if not (out / DESCRIPTION).exists():
        raise InputError(f"{out}: is not empty and no packed data set; choose another folder")
    packed = Dataset.open(out)
    before = packed.description.model_extra or {}
    if "bytes" in before:
        pack_folder.compare(out, before, identity)
    else:
        sizes = [os.stat(path).st_size for path in table["image"]]
        older = {
            "manifest": pack_table.digest_of(zip(*pack_table.columns(table), sizes, strict=True)),
            "tree": identity["tree"],
        }
        pack_folder.compare(out, before, {**older, "options": identity["options"]})
        with encoding.no_pillow_warnings():
            _compare_images(packed, table, options, workers)
    # A run that was killed just after the folder got its final name leaves them.
    pack_folder.remove_work_files(out)


def _compare_images(packed: Dataset, table: pd.DataFrame, options: Options, workers: int) -> None:
    """Raise InputError unless the images give the samples of a folder that an older version packed.

    Such a folder has no digests of the image files.
    """
    known = packed.index.set_index("key")["sha256"].to_dict()
    results = progress.over(pack_table.encoded(table, options, workers), "compare", len(table), "image")
    for key, name, result in zip(table["key"], table["shown"], results, strict=True):
        if signals.requested():
            raise Preempted(f"{packed.folder}: not all images are compared")
        if known.get(key) != (hashlib.sha256(result).hexdigest() if isinstance(result, bytes) else None):
            raise InputError(
                f"{packed.folder}: packed by an older version, which kept no digest of the images, and "
                f"{name!r} gives other bytes now: it was changed, or held metadata that is not written any "
                "more; remove the folder or choose another one"
            )
