"""The working folder of a pack: planned from the manifest, filled shard by shard, taken up again after a
kill."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from leukotree import progress, signals
from leukotree.data import dataset, duplicates, folds, shards
from leukotree.data.images import codec, encoding
from leukotree.data.index import COLUMNS, OPTIONAL
from leukotree.data.patients import pseudonyms
from leukotree.data.patients.identities import SIMILAR, persons
from leukotree.errors import InputError, Preempted
from leukotree.files import locked, write_atomic
from leukotree.taxonomy import Taxonomy

STATE = "pack.json"
LOCK = ".lock"
"""In the working folder: the identity of the pack, the shards that are finished, and the images dropped so
far."""
KINDS = ("image", "slide", "patient")
"""What folds can keep together, the weakest promise first."""
_NAMED = 5
_LATER = ("similar_ids", "patients_across_sources", "group_duplicates", "pseudonyms")
"""Options that came after the first packs."""


@dataclass(frozen=True)
class Options:
    """What decides the bytes of a packed folder, beside the manifest."""

    folds: int = 5
    size: int = 384
    """Width and height in pixels."""
    seed: int = 0
    """Of the folds, and of the order within a shard."""
    drop_broken: bool = False
    """Leave out images that do not decode, instead of refusing the manifest."""
    samples_per_shard: int = 1000
    """At most."""
    quality: int = 95
    """Of the JPEGs, from 1 to 100."""
    similar_ids: str | None = None
    """What ids that look alike are, of `identities.SIMILAR`; None: patients of their own, with a warning."""
    patients_across_sources: bool = False
    """Whether an id is the same patient in every source."""
    group_duplicates: bool = False
    """Keep groups together that share a picture, instead of refusing them."""
    pseudonyms: bool = False
    """Patients, slides and images have numbers instead of names."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("size", 8, 8192),
            ("samples_per_shard", 1, 10**6),
            ("quality", 1, 100),
            ("seed", 0, 2**31 - 1),
        ):
            if not low <= getattr(self, name) <= high:
                raise InputError(f"{name} {getattr(self, name)}: must be from {low} to {high}")
        if self.similar_ids not in (None, *SIMILAR):
            raise InputError(f"similar_ids {self.similar_ids!r}: must be one of {', '.join(SIMILAR)}")

    def identity(self) -> dict[str, Any]:
        """What stands in dataset.json. Options that older packs do not know are left out while they are
        off."""
        return {name: value for name, value in asdict(self).items() if name not in _LATER or value}


def named(broken: Iterable[tuple[str, str]]) -> str:
    """The first few (image, reason), and how many more."""
    items = list(broken)
    shown = "; ".join(f"{name} ({reason})" for name, reason in items[:_NAMED])
    return shown + (f"; and {len(items) - _NAMED} more" if len(items) > _NAMED else "")


@contextmanager
def claim(partial: Path, identity: dict[str, Any]) -> Iterator[None]:
    """Make the working folder, or take up one that a killed run left; one process at a time. Raises
    InputError if it was begun with another identity, and leaves it alone then."""
    partial.mkdir(parents=True, exist_ok=True)
    with locked(partial / LOCK, f"{partial}: another `leukotree pack` is writing there; wait for it"):
        if (partial / STATE).exists():
            compare(partial, _state(partial), identity)
        else:
            _save(partial, {**identity, "dropped": [], "shards": {}})
        yield


def leave(folder: Path) -> None:
    """Take what belongs to the work away from a folder that is finished."""
    for name in (STATE, LOCK):
        (folder / name).unlink(missing_ok=True)


def compare(folder: Path, found: dict[str, Any], identity: dict[str, Any]) -> None:
    """Raise InputError, saying what differs, unless `found` holds the identity."""
    if {key: found.get(key) for key in identity} == identity:
        return
    before, now = found.get("options"), identity["options"]
    before = before if isinstance(before, dict) else {}
    names = [*now, *(name for name in before if name not in now)]
    off = asdict(Options())
    there, here = ({name: options.get(name, off.get(name)) for name in names} for options in (before, now))
    changed = [f"{name} {there[name]} there, {here[name]} now" for name in names if there[name] != here[name]]
    changed += [f"another {key}" for key in ("manifest", "tree") if found.get(key) != identity[key]]
    if not changed:
        changed = [
            "other bytes in the images"
            if "bytes" in found
            else "an older version, which kept no digest of the images"
        ]
    raise InputError(
        f"{folder}: packed from other input ({', '.join(changed)}); remove it or choose another folder"
    )


def fill(partial: Path, table: pd.DataFrame, options: Options, taxonomy: Taxonomy, workers: int) -> None:
    """Write all shards, the index and the description into a claimed folder.

    `table` has columns key, image (path), name (what the shards call it), shown (what a message calls it),
    digest (of the file's
    bytes), leaf, patient, source, group (id), kind and fold. Where broken images are dropped, or groups turn
    out to share a picture, everything is planned once more, so that the folds are those of a manifest that
    says so. Raises InputError for broken images that are not to be dropped and for copies that may not be
    joined, and OSError if the folder cannot be written.
    """
    state = _state(partial)
    written: dict[str, list[shards.Place]] = {}
    while True:
        remaining = _remaining(table, options, state)
        plan = _plan(remaining, options)
        broken = _write_shards(partial, remaining, plan, options, state, written, workers)
        if broken and not options.drop_broken:
            listed = named((item["shown"], item["reason"]) for item in broken)
            raise InputError(
                f"{len(broken)} broken image(s): {listed}; mend them, or leave them out with --drop-broken"
            )
        if broken:
            stored = [{name: item[name] for name in ("key", "image", "reason")} for item in broken]
            state.update(
                dropped=sorted([*state["dropped"], *stored], key=lambda item: item["key"]), shards={}
            )
        else:
            held = _held(partial, plan, written)
            apart = _apart(remaining, held, options)
            if not apart:
                break
            state.update(joined=[*state.get("joined", []), *apart], shards={})
        _save(partial, state)
    _index(partial, remaining, held)
    _describe(partial, remaining, options, taxonomy, state)
    _clear(partial, plan)


def _remaining(table: pd.DataFrame, options: Options, state: dict[str, Any]) -> pd.DataFrame:
    """The table without what was dropped, with the groups joined that share a picture."""
    if not (state["dropped"] or state.get("joined")):
        return table
    remaining = table[~table["key"].isin([item["key"] for item in state["dropped"]])].reset_index(drop=True)
    if state.get("joined"):
        row = pd.Series(remaining.index, remaining["key"])
        remaining["group"] = duplicates.join_groups(
            remaining["group"], [row[keys].to_numpy() for keys in state["joined"]]
        )
    remaining["fold"] = folds.assign(remaining, options.folds, options.seed)
    return remaining


def _apart(
    table: pd.DataFrame, held: Sequence[tuple[_Shard, shards.Place]], options: Options
) -> list[list[str]]:
    """Keys of the images, a list for each picture, whose groups must be joined: only their pixels show that
    they are copies."""
    digests = table["key"].map({place.key: place.sha256 for _, place in held})
    sets = duplicates.resolve(table, duplicates.copies(digests), join=options.group_duplicates)
    return [table["key"].iloc[rows].tolist() for rows in sets]


def _state(partial: Path) -> dict[str, Any]:
    try:
        state = json.loads((partial / STATE).read_text())
    except ValueError:
        state = None
    if not isinstance(state, dict) or not {"dropped", "shards"} <= state.keys():
        raise InputError(f"{partial / STATE}: damaged; remove {partial}")
    return state


def _save(partial: Path, state: dict[str, Any]) -> None:
    write_atomic(partial / STATE, json.dumps(state))


@dataclass(frozen=True)
class _Shard:
    name: str
    fold: int
    rows: np.ndarray


def _plan(table: pd.DataFrame, options: Options) -> list[_Shard]:
    """All shards: per fold, its rows in a seeded random order, so that whoever reads on finds the classes
    mixed."""
    shards = []
    for fold in range(options.folds):
        order = np.random.default_rng([options.seed, fold]).permutation(np.flatnonzero(table["fold"] == fold))
        parts = np.array_split(order, -(-len(order) // options.samples_per_shard))
        shards += [_Shard(f"fold{fold}-{number:06d}.tar", fold, rows) for number, rows in enumerate(parts)]
    return shards


def _write_shards(
    partial: Path,
    table: pd.DataFrame,
    plan: list[_Shard],
    options: Options,
    state: dict[str, Any],
    written: dict[str, list[shards.Place]],
    workers: int,
) -> list[dict[str, str]]:
    """Write the shards that are not finished yet, and note in `written` what they hold; the broken images
    among them. After the first one images are only checked."""
    pending = [shard for shard in plan if not _intact(partial / shard.name, state["shards"].get(shard.name))]
    rows = [row for shard in pending for row in shard.rows]
    paths, digests = (table[name].iloc[rows].tolist() for name in ("image", "digest"))
    encoded = encoding.encode_files(paths, digests, options.size, options.quality, workers)
    results = progress.over(encoded, "pack", len(rows), "image")
    records = table.to_dict("records")
    broken: list[dict[str, str]] = []

    def whole(shard: _Shard) -> Iterator[shards.Sample]:
        for row, result in zip(shard.rows, results, strict=False):
            if signals.requested():
                raise Preempted(f"{partial}: {len(state['shards'])} of {len(plan)} shards are written")
            sample = records[row]
            if isinstance(result, codec.BrokenImage):
                reason = pseudonyms.anonymous(str(result)) if options.pseudonyms else str(result)
                broken.append(
                    {
                        "key": sample["key"],
                        "image": sample["name"],
                        "shown": sample["shown"],
                        "reason": reason,
                    }
                )
            elif not broken:
                fields = {
                    "image": sample["name"],
                    **{name: sample[name] for name in ("leaf", "patient", "source", "group")},
                }
                yield shards.Sample(sample["key"], result, fields)

    for shard in pending:
        path = partial / shard.name
        written[shard.name] = shards.write(path, whole(shard))
        if broken:
            path.unlink()
        else:
            state["shards"][shard.name] = shards.checksum(path)
            _save(partial, state)
    return broken


def _intact(shard: Path, checksum: str | None) -> bool:
    return checksum is not None and shard.exists() and shards.checksum(shard) == checksum


def _held(
    partial: Path, plan: list[_Shard], written: dict[str, list[shards.Place]]
) -> list[tuple[_Shard, shards.Place]]:
    """What all shards hold, reading those that an earlier run wrote."""
    return [
        (shard, place)
        for shard in plan
        for place in written.get(shard.name) or shards.places(partial / shard.name)
    ]


def _index(partial: Path, table: pd.DataFrame, held: list[tuple[_Shard, shards.Place]]) -> None:
    """Write the index."""
    places = {
        name: [getattr(place, name) for _, place in held] for name in ("key", "offset", "length", "sha256")
    }
    index = pd.DataFrame(
        places | {"shard": [shard.name for shard, _ in held], "fold": [shard.fold for shard, _ in held]}
    )
    known = table.assign(image=table["name"]).set_index("key")[
        ["leaf", "patient", "source", "group", "image"]
    ]
    buffer = io.BytesIO()
    index.join(known, on="key")[[*COLUMNS, *OPTIONAL]].to_parquet(buffer, index=False)
    write_atomic(partial / "index.parquet", buffer.getvalue())


def _describe(
    partial: Path, table: pd.DataFrame, options: Options, taxonomy: Taxonomy, state: dict[str, Any]
) -> None:
    """Write the description."""
    pruned = taxonomy.prune(table["leaf"].unique())
    counts = table["leaf"].value_counts()
    patients = persons(
        table[table["kind"] != "slide"], options.patients_across_sources
    )  # else the column names the slide
    description: dict[str, Any] = {
        "format": dataset.FORMAT,
        "taxonomy": pruned.nested(),
        "size": options.size,
        "folds": options.folds,
        "seed": options.seed,
        "group": min(table["kind"].unique(), key=KINDS.index),
        "counts": {leaf: int(counts[leaf]) for leaf in pruned.leaves},
        "patients": patients[patients != ""].nunique(),
        "dropped": [{"image": item["image"], "reason": item["reason"]} for item in state["dropped"]],
        **{name: state[name] for name in ("manifest", "bytes", "options", "tree")},
    }
    write_atomic(partial / "dataset.json", json.dumps(description, indent=2, ensure_ascii=False))


def _clear(partial: Path, plan: list[_Shard]) -> None:
    """Remove what else lies in a folder that is complete."""
    expected = {STATE, "dataset.json", "index.parquet", *(shard.name for shard in plan)}
    for path in partial.iterdir():
        if path.name not in expected:
            path.unlink()
