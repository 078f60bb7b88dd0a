"""The working folder of a pack: plan the shards, write them one by one, continue after a kill."""

from __future__ import annotations

import io
import json
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from leukotree import progress, signals
from leukotree.data import by_source, consensus, dataset, described, duplicates, near_images, shards
from leukotree.data.fingerprint import DESCRIPTION, INDEX
from leukotree.data.images import codec, encoding
from leukotree.data.index import COLUMNS, OPTIONAL
from leukotree.data.manifest import GROUPS
from leukotree.data.pack_options import Options
from leukotree.data.patients import pseudonyms
from leukotree.data.patients.identities import persons
from leukotree.errors import InputError, Preempted
from leukotree.files import locked, write_atomic
from leukotree.taxonomy import Taxonomy

STATE = "pack.json"
"""File of the working folder: identity of the pack, finished shards, and images dropped so far."""
LOCK = ".lock"
"""File of the working folder that a running pack locks."""

_NAMED = 5
"""Largest number of broken images in one message."""


def list_broken(broken: Iterable[tuple[str, str]]) -> str:
    """Return a text of the first few (image, reason), and the number of the others."""
    items = list(broken)
    shown = "; ".join(f"{name} ({reason})" for name, reason in items[:_NAMED])
    return shown + (f"; and {len(items) - _NAMED} more" if len(items) > _NAMED else "")


@contextmanager
def claim(working: Path, identity: dict[str, Any]) -> Iterator[None]:
    """Make the working folder, or continue one that a killed run left; lock it for this process.

    Raises InputError, without a change, if the folder was begun with another identity.
    """
    working.mkdir(parents=True, exist_ok=True)
    with locked(working / LOCK, f"{working}: another `leukotree pack` is writing there; wait for it"):
        if (working / STATE).exists():
            compare(working, _state(working), identity)
        else:
            _save(working, {**identity, "dropped": [], "shards": {}})
        yield


def remove_work_files(folder: Path) -> None:
    """Remove the state and the lock from a finished folder."""
    for name in (STATE, LOCK):
        (folder / name).unlink(missing_ok=True)


def compare(folder: Path, stored: dict[str, Any], identity: dict[str, Any]) -> None:
    """Raise InputError naming the differences, unless the stored description or state holds the identity."""
    if {key: stored.get(key) for key in identity} == identity:
        return
    before, now = stored.get("options"), identity["options"]
    before = before if isinstance(before, dict) else {}
    names = [*now, *(name for name in before if name not in now)]
    default = asdict(Options())
    there, here = (
        {name: options.get(name, default.get(name)) for name in names} for options in (before, now)
    )
    changed = [f"{name} {there[name]} there, {here[name]} now" for name in names if there[name] != here[name]]
    changed += [f"another {key}" for key in ("manifest", "tree") if stored.get(key) != identity[key]]
    if not changed and "bytes" in stored:
        changed = ["other bytes in the images"]
    elif not changed:
        changed = ["an older version, which kept no digest of the images"]
    raise InputError(
        f"{folder}: packed from other input ({', '.join(changed)}); remove it or choose another folder"
    )


def fill(working: Path, table: pd.DataFrame, options: Options, taxonomy: Taxonomy, workers: int) -> None:
    """Write all shards, the index and the description into a claimed folder.

    After broken images are dropped, or groups that share a picture are joined, everything is planned again.
    So the folds are those of a manifest without these images, or with the joined groups.

    Args:
        table: columns key, image (path), name (in the shards), shown (name in messages), digest (of the
            file's bytes), leaf, patient, source, group (id), kind, and those of `described`. If a row
            is a part of its file: box, and cut (whether it reaches the file's edge).

    Raises InputError for broken images that may not be dropped and for copies that may not be joined. Raises
    OSError if the folder cannot be written.
    """
    state = _state(working)
    written: dict[str, list[shards.Place]] = {}
    thumbnails: dict[str, np.ndarray] = {}
    while True:
        remaining = _remaining(table, options, state)
        plan = _plan(remaining, options)
        broken = _write_shards(working, remaining, plan, options, state, written, workers)
        if broken:
            _drop(state, broken, options)
        else:
            contents = _contents(working, plan, written)
            joined = _keys_to_join(remaining, contents, options)
            near = []
            if options.group_near_duplicates and not joined:
                places = [(working / shard.name, place) for shard, place in contents]
                near = near_images.sets(remaining, places, thumbnails, workers)
                state.update(near=[*state.get("near", []), *near])
            if not (joined or near):
                break
            state.update(joined=[*state.get("joined", []), *joined, *near], shards={})
        _save(working, state)
    _write_index(working, remaining, contents)
    _write_description(working, table, remaining, options, taxonomy, state)
    _remove_others(working, plan)


def _drop(state: dict[str, Any], broken: list[dict[str, str]], options: Options) -> None:
    """Record broken images as dropped. Raises InputError if they may not be dropped."""
    if not options.drop_broken:
        listed = list_broken((item["shown"], item["reason"]) for item in broken)
        raise InputError(
            f"{len(broken)} broken image(s): {listed}; repair them, or leave them out with --drop-broken"
        )
    stored = [{name: item[name] for name in ("key", "image", "reason")} for item in broken]
    dropped = sorted([*state["dropped"], *stored], key=lambda item: item["key"])
    state.update(dropped=dropped, shards={})


def _remaining(table: pd.DataFrame, options: Options, state: dict[str, Any]) -> pd.DataFrame:
    """Return the rows that are packed: without dropped images, with joined groups, with their folds."""
    remaining = table[~table["key"].isin([item["key"] for item in state["dropped"]])].reset_index(drop=True)
    if state.get("joined"):
        row = pd.Series(remaining.index, remaining["key"])
        sets = [row[keys].to_numpy() for keys in state["joined"]]
        remaining["group"] = duplicates.join_groups(remaining["group"], sets)
    return by_source.arranged(remaining, options)


def _keys_to_join(
    table: pd.DataFrame, contents: Sequence[tuple[_Shard, shards.Place]], options: Options
) -> list[list[str]]:
    """Return the keys of copies whose groups must be joined, a list for each picture.

    These are images of different files that gave the same JPEG.
    """
    digests = table["key"].map({place.key: place.sha256 for _, place in contents})
    copies = duplicates.copies(digests)
    sets = duplicates.resolve(table, copies, options.group_duplicates, options.group_near_duplicates)
    return [table["key"].iloc[rows].tolist() for rows in sets]


def _state(working: Path) -> dict[str, Any]:
    try:
        state = json.loads((working / STATE).read_text())
    except ValueError:
        state = None
    if not isinstance(state, dict) or not {"dropped", "shards"} <= state.keys():
        raise InputError(f"{working / STATE}: damaged; remove {working}")
    return state


def _save(working: Path, state: dict[str, Any]) -> None:
    write_atomic(working / STATE, json.dumps(state))


@dataclass(frozen=True)
class _Shard:
    name: str
    fold: int
    rows: np.ndarray


def _plan(table: pd.DataFrame, options: Options) -> list[_Shard]:
    """Return all shards. Rows of a fold are in seeded random order, so that each shard mixes the leaves."""
    shards = []
    for fold in range(options.folds):
        order = np.random.default_rng([options.seed, fold]).permutation(np.flatnonzero(table["fold"] == fold))
        parts = np.array_split(order, -(-len(order) // options.samples_per_shard))
        shards += [_Shard(f"fold{fold}-{number:06d}.tar", fold, rows) for number, rows in enumerate(parts)]
    return shards


def _write_shards(
    working: Path,
    table: pd.DataFrame,
    plan: list[_Shard],
    options: Options,
    state: dict[str, Any],
    written: dict[str, list[shards.Place]],
    workers: int,
) -> list[dict[str, str]]:
    """Write the unfinished shards; return their broken images.

    `written` gets the places of each written shard. After the first broken image the others are only checked.
    """
    pending = [shard for shard in plan if not _intact(working / shard.name, state["shards"].get(shard.name))]
    rows = [row for shard in pending for row in shard.rows]
    paths, digests = (table[name].iloc[rows].tolist() for name in ("image", "digest"))
    boxes = table["box"].iloc[rows].tolist() if "box" in table else None
    encoded = encoding.encode_once(
        paths, digests, options.size, options.quality, workers, boxes, options.crop, working
    )
    results = progress.over(encoded, "pack", len(rows), "image")
    records = table.to_dict("records")
    broken: list[dict[str, str]] = []

    def samples(shard: _Shard) -> Iterator[shards.Sample]:
        for row, result in zip(shard.rows, results, strict=False):
            if signals.requested():
                raise Preempted(f"{working}: {len(state['shards'])} of {len(plan)} shards are written")
            if isinstance(result, codec.BrokenImage):
                broken.append(_broken(records[row], result, options))
            elif not broken:
                yield _sample(records[row], result)

    for shard in pending:
        path = working / shard.name
        written[shard.name] = shards.write(path, samples(shard))
        if broken:
            path.unlink()
        else:
            state["shards"][shard.name] = shards.checksum(path)
            _save(working, state)
    return broken


def _broken(record: dict[Hashable, Any], error: codec.BrokenImage, options: Options) -> dict[str, str]:
    """Return the record of a broken image."""
    reason = pseudonyms.anonymous(str(error)) if options.pseudonyms else str(error)
    return {"key": record["key"], "image": record["name"], "shown": record["shown"], "reason": reason}


def _sample(record: dict[Hashable, Any], jpeg: bytes) -> shards.Sample:
    """Return the sample for a row of the table."""
    fields = {name: record[name] for name in ("leaf", "patient", "source", "group")}
    return shards.Sample(record["key"], jpeg, {"image": record["name"], **fields})


def _intact(shard: Path, checksum: str | None) -> bool:
    return checksum is not None and shard.exists() and shards.checksum(shard) == checksum


def _contents(
    working: Path, plan: list[_Shard], written: dict[str, list[shards.Place]]
) -> list[tuple[_Shard, shards.Place]]:
    """Return the places of all samples. Shards that an earlier run wrote are read."""
    return [
        (shard, place)
        for shard in plan
        for place in written.get(shard.name) or shards.places(working / shard.name)
    ]


def _write_index(working: Path, table: pd.DataFrame, contents: list[tuple[_Shard, shards.Place]]) -> None:
    columns: dict[str, list[Any]] = {
        name: [getattr(place, name) for _, place in contents]
        for name in ("key", "offset", "length", "sha256")
    }
    columns["shard"] = [shard.name for shard, _ in contents]
    columns["fold"] = [shard.fold for shard, _ in contents]
    named = table.assign(image=table["name"]).set_index("key")
    extra = described.present(table)
    rows = pd.DataFrame(columns).join(
        named[["leaf", "patient", "source", "group", "image", *extra]], on="key"
    )
    buffer = io.BytesIO()
    rows[[*COLUMNS, *OPTIONAL, *extra]].to_parquet(buffer, index=False)
    write_atomic(working / INDEX, buffer.getvalue())


def _write_description(
    working: Path,
    whole: pd.DataFrame,
    table: pd.DataFrame,
    options: Options,
    taxonomy: Taxonomy,
    state: dict[str, Any],
) -> None:
    """Args: whole: all rows of the manifest; table: those that were packed."""
    # An outer test has the tree of the data set, since its models have it.
    pruned = taxonomy if options.outer_test else taxonomy.prune(table["leaf"].unique())
    counts = table["leaf"].value_counts()
    # Images that are grouped by slide have the slide's id in the column `patient`.
    patients = persons(table[table["kind"] != "slide"], options.patients_across_sources)
    description: dict[str, Any] = {
        "format": dataset.FORMAT,
        "taxonomy": pruned.nested(),
        "size": options.size,
        "folds": options.folds,
        "seed": options.seed,
        "group": max(table["kind"].unique(), key=GROUPS.index),
        "counts": {leaf: int(counts.get(leaf, 0)) for leaf in pruned.leaves},
        "patients": patients[patients != ""].nunique(),
        "dropped": [{"image": item["image"], "reason": item["reason"]} for item in state["dropped"]],
        **{name: state[name] for name in ("manifest", "bytes", "options", "tree")},
    }
    if "box" in table and (table["box"] != "").any():
        cells = table[table["box"] != ""]
        files = int(cells["image"].nunique())
        description["boxes"] = {"cells": len(cells), "files": files, "cut": int(cells["cut"].sum())}
    if table["kind"].nunique() > 1:
        slides = table[table["kind"] == "slide"].groupby("source")["group"].nunique()
        description |= {"slides": slides.to_dict()} if len(slides) else {}
    if options.label_from:
        description["labels"] = consensus.summary(table, options.label_from)
    if options.group_near_duplicates:
        keys = {key for one in state.get("near", []) for key in one}
        grouped = table.loc[table["key"].isin(keys), "group"]
        description["near_duplicates"] = {"images": len(grouped), "groups": int(grouped.nunique())}
    if options.folds_by:
        description["fold_sources"] = sorted(table["source"].unique())
    if options.match and not options.outer_test:
        dropped = [item["key"] for item in state["dropped"]]
        description["unmatched"] = by_source.left_out(whole[~whole["key"].isin(dropped)], table)
    write_atomic(working / DESCRIPTION, json.dumps(description, indent=2, ensure_ascii=False))


def check_apart(folders: Sequence[Path]) -> None:
    """Raise InputError if an image of one folder has an exact copy in another one.

    Copies of a file are known before; these are different files that gave the same JPEG.
    """
    indexes = [pd.read_parquet(folder / INDEX, columns=["sha256", "image", "source"]) for folder in folders]
    for place, index in enumerate(indexes[1:], 1):
        earlier = pd.concat(indexes[:place])
        copies = index[index["sha256"].isin(earlier["sha256"])]
        if not copies.empty:
            first = copies.iloc[0]
            other = earlier[earlier["sha256"] == first["sha256"]].iloc[0]
            raise InputError(
                f"--test-source: {len(copies)} image(s) are exact copies of an image that models train on, "
                f"e.g. {first['image']!r} of {first['source']!r} and {other['image']!r} of "
                f"{other['source']!r}; take them out of one manifest"
            )


def _remove_others(working: Path, plan: list[_Shard]) -> None:
    """Remove other files from a complete folder."""
    expected = {STATE, DESCRIPTION, INDEX, *(shard.name for shard in plan)}
    for path in working.iterdir():
        if path.name not in expected:
            path.unlink()
