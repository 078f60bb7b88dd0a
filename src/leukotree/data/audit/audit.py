"""The audit of a packed data set: leakage between folds, copies, confounded sources, and simple baselines."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from leukotree import progress
from leukotree.data import alike, deals, shards
from leukotree.data.audit import appearance, near_duplicates, shortcuts
from leukotree.data.audit.near_duplicates import SimilarImages
from leukotree.data.audit.shortcuts import Score
from leukotree.data.dataset import Dataset
from leukotree.data.images import codec
from leukotree.data.patients import doubts, identities
from leukotree.data.patients.doubts import Doubt
from leukotree.errors import InputError, one_line

_SHOWN = 3
"""Largest number of examples in a message."""


@dataclass(frozen=True)
class Audit:
    """The result of an audit.

    After `errors` no score on this data set is valid. The `warnings` limit the conclusions.
    """

    dataset: Dataset
    errors: tuple[str, ...]
    warnings: tuple[str, ...]
    shortcuts: Mapping[str, Score]
    """Name -> how well answers that need no morphology guess the leaf, learnt on the other folds."""
    of_source: Mapping[str, float]
    """Name -> macro-F1 of guessing the source. Empty for one source."""
    near_duplicates: SimilarImages
    unusual: Mapping[str, tuple[str, ...]]
    """Kind of unusual appearance, such as `nearly black` -> names of all such images in the manifest."""
    doubts: tuple[Doubt, ...] = ()
    """Doubts about the ids of patients, with all cases. Those that warn are among `warnings`, too."""
    deals: tuple[Dataset, ...] = ()
    """The data set in its other deals to folds, of the repeats above 0. Their leaks are among `errors`."""

    @property
    def baselines(self) -> pd.Series:
        """Name of the shortcut -> macro-F1 over all leaves."""
        return pd.Series({name: one.macro_f1 for name, one in self.shortcuts.items()}, name="macro_f1")

    @property
    def per_leaf(self) -> dict[str, dict[str, float]]:
        """Name of the shortcut -> leaf -> F1; without leaves that no fold has."""
        leaves = self.dataset.taxonomy.leaves
        return {
            name: {
                leaf: float(value)
                for leaf, value in zip(leaves, one.per_leaf, strict=True)
                if not np.isnan(value)
            }
            for name, one in self.shortcuts.items()
        }

    @property
    def ok(self) -> bool:
        """False for leakage, or if the shards differ from the index."""
        return not self.errors

    def lines(self) -> list[str]:
        """Return lines for people: images per fold, errors, warnings, baselines, and a verdict."""
        data = self.dataset
        table = pd.crosstab(data.index["fold"], data.index["leaf"]).reindex(
            columns=list(data.taxonomy.leaves)
        )
        per_fold = [
            f"fold {fold}: " + ", ".join(f"{leaf} {n}" for leaf, n in row.items())
            for fold, row in table.iterrows()
        ]
        baselines = ", ".join(f"{name} {value:.3f}" for name, value in self.baselines.items())
        return [
            f"{data.name}: {len(data)} images, {data.size} x {data.size} pixels, {data.groups}",
            *per_fold,
            *(f"repeat {deal.repeat}: a deal of its own to {deal.folds} folds" for deal in self.deals),
            *(f"ERROR {text}" for text in self.errors),
            *(f"warning: {text}" for text in self.warnings),
            *(doubt.line() for doubt in self.doubts if not doubt.warns),
            f"macro-F1 without morphology, over the {data.folds} folds: {baselines}",
            *(
                f"  {name}, F1 of each leaf: {_listed(leaves)}"
                for name, leaves in self.per_leaf.items()
                if name != shortcuts.COMMONEST and leaves
            ),
            *([f"macro-F1 of guessing the source: {_listed(self.of_source)}"] if self.of_source else []),
            "ok: no leakage found" if self.ok else f"NOT OK: {len(self.errors)} error(s)",
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return the same for scripts, with the names of all images, groups and patients."""
        data = self.dataset
        counted = pd.crosstab(data.index["fold"], data.index["leaf"]).to_dict("index")
        return {
            "shards": data.name,
            "fingerprint": data.fingerprint,
            "images": len(data),
            "size": data.size,
            "group": data.group,
            "folds": {
                str(fold): {str(leaf): int(n) for leaf, n in row.items()} for fold, row in counted.items()
            },
            "ok": self.ok,
            "errors": list(self.errors),
            "warnings": list(self.warnings),
            "in_several_folds": {word: names for word, names in _in_several_folds(data)},
            "repeats": [
                {
                    "repeat": deal.repeat,
                    "fingerprint": deal.fingerprint,
                    "in_several_folds": {word: names for word, names in _in_several_folds(deal)},
                }
                for deal in self.deals
            ],
            **self.near_duplicates.as_dict(),
            "unusual": {kind: list(names) for kind, names in self.unusual.items()},
            "ids": [doubt.as_dict() for doubt in self.doubts],
            "baselines": {
                str(name): None if np.isnan(value) else float(value) for name, value in self.baselines.items()
            },
            "baselines_per_leaf": self.per_leaf,
            "of_source": dict(self.of_source),
        }


def audit(folder: Path | str) -> Audit:
    """Read every shard of a packed folder, or of an address, once and check it.

    Raises InputError if the folder is no packed data set.
    """
    data = Dataset.open(folder, ends=False)  # `_read` checks the shards sample by sample
    contents = _read(data)
    progress.step("comparing the images with each other, and fitting the models that see no morphology")
    similar = near_duplicates.compare(data.index, contents.names, contents.thumbnails, contents.decoded)
    slides = (data.description.model_extra or {}).get("slides") or {}
    similar_ids, across_sources = data.pack_option("similar_ids"), data.patients_across_sources
    about_ids = doubts.find(data.index, similar_ids, across_sources, slides=slides)
    unusual = appearance.unusual(contents.names, contents.decoded, contents.colours, contents.thumbnails)
    errors = [*contents.errors, *_leaks(data), *similar.errors()]
    repeats, of_repeats = [], []
    for repeat in deals.numbers(data.folder):
        try:
            dealt = Dataset.open(folder, ends=False, repeat=repeat)
        except InputError as error:
            errors.append(str(error))
            continue
        repeats.append(dealt)
        in_deal = replace(similar, index=similar.index.assign(fold=dealt.index["fold"]))
        errors += [f"repeat {repeat}: {text}" for text in [*_leaks(dealt), *in_deal.across_folds()]]
        of_repeats += [f"repeat {repeat}: {text}" for text in in_deal.near_across_folds()]
    warnings = [doubt.text() for doubt in about_ids if doubt.warns]
    warnings += [*similar.warnings(), *of_repeats, *_confounded(data)]
    if data.pack_option("pseudonyms"):
        warnings.append(
            "patients have numbers instead of names: only `leukotree pack` reports ids that look alike"
        )
    if data.group != "patient":
        warnings.append(
            f"the folds keep each {data.group} together, not each patient: no claim about new patients holds"
        )
    warnings += [f"{len(names)} image(s) are {kind}: {_examples(names)}" for kind, names in unusual.items()]
    found, of_source = _shortcuts(data, contents)
    return Audit(
        data, tuple(errors), tuple(warnings), found, of_source, similar, unusual, about_ids, tuple(repeats)
    )


@dataclass(frozen=True)
class _Contents:
    """What the shards hold, a row per sample of the index."""

    errors: list[str]
    """Differences between the shards and the index."""
    names: list[str]
    """(N,) names in the manifest. They are read from the shards, since an older index lacks them."""
    decoded: np.ndarray
    """(N,) bool."""
    colours: np.ndarray
    """(N, 6): mean and standard deviation of R, G and B in levels."""
    thumbnails: np.ndarray
    """(N, S, S, 3) uint8, where S is `alike.THUMBNAIL`."""


def _read(data: Dataset) -> _Contents:
    """Read every sample once."""
    count, side = len(data), alike.THUMBNAIL
    contents = _Contents(
        errors=[],
        names=data.index["image"].tolist(),
        decoded=np.zeros(count, dtype=bool),
        colours=np.zeros((count, 6)),
        thumbnails=np.zeros((count, side, side, 3), dtype=np.uint8),
    )
    errors = contents.errors
    with progress.Bar("audit", count, "image") as bar:
        for shard, rows in data.index.groupby("shard").indices.items():
            unread = dict(zip(data.index["key"].iloc[rows], rows, strict=True))
            try:
                data.fetch(str(shard))
                for sample in shards.samples(data.folder / str(shard)):
                    row = unread.pop(sample.key, None)
                    if row is None:
                        errors.append(f"{shard}: sample {sample.key} is not in the index, or is there twice")
                    else:
                        bar.advance()
                        _add(contents, data, row, sample)
            except InputError as error:
                errors.append(str(error))
            if unread:
                errors.append(
                    f"{shard}: {len(unread)} sample(s) of the index cannot be read, {_examples(unread)}"
                )
    return contents


def _add(contents: _Contents, data: Dataset, row: int, sample: shards.Sample) -> None:
    """Add one sample to the contents, in place."""
    contents.names[row] = one_line(sample.fields.get("image", contents.names[row]))
    try:
        pixels = codec.decode(sample.jpeg)
    except codec.BrokenImage as error:
        shard = data.index["shard"].iloc[row]
        contents.errors.append(f"{shard}: sample {sample.key} does not decode: {error}")
        return
    contents.errors.extend(_differences(data, row, sample, pixels))
    contents.decoded[row] = True
    contents.colours[row] = [*pixels.mean(axis=(0, 1)), *pixels.std(axis=(0, 1))]
    contents.thumbnails[row] = alike.thumbnail(pixels)


def _differences(data: Dataset, row: int, sample: shards.Sample, pixels: np.ndarray) -> list[str]:
    """Return an error if a sample of the shard differs from the index, else nothing."""
    known = data.index.iloc[row]
    names = ("leaf", "patient", "source", "group")
    wrong = [name for name in names if sample.fields.get(name) != known[name]]
    if hashlib.sha256(sample.jpeg).hexdigest() != known["sha256"]:
        wrong.append("sha256")
    if (sample.offset, len(sample.jpeg)) != (known["offset"], known["length"]):
        wrong.append("place in the shard")
    if pixels.shape[:2] != (data.size, data.size):
        wrong.append("size in pixels")
    if not wrong:
        return []
    return [f"{known['shard']}: sample {sample.key} disagrees with the index: {', '.join(wrong)}"]


def _leaks(data: Dataset) -> list[str]:
    """Return an error for groups, and one for patients, that are in several folds."""
    return [
        f"leakage: {len(names)} {word}(s) are in several folds, {_examples(names)}"
        for word, names in _in_several_folds(data)
        if names
    ]


def _in_several_folds(data: Dataset) -> list[tuple[str, list[Any]]]:
    """Return (what, names in several folds) for groups and for patients, in any spelling of their ids."""
    columns = {name: identities.normal_column(data.index[name]) for name in ("patient", "source")}
    persons = identities.persons(data.index.assign(**columns), data.patients_across_sources)
    results: list[tuple[str, list[Any]]] = []
    for word, ids in (("group", data.index["group"]), (_patient_word(data), persons[persons != ""])):
        folds = data.index["fold"].groupby(ids).nunique()
        results.append((word, folds.index[folds > 1].tolist()))
    return results


def _patient_word(data: Dataset) -> str:
    """Return the word for the column `patient`, which may also hold ids of slides."""
    return "slide(s) or patient" if data.group == "slide" else "patient"


def _confounded(data: Dataset) -> list[str]:
    """Return a warning about leaves from only one of several sources: the camera shows the leaf."""
    if data.index["source"].nunique() < 2:
        return []
    sources = data.index.groupby("leaf")["source"].unique()
    alone = [f"{leaf} from {sources[leaf][0]!r}" for leaf in data.taxonomy.leaves if len(sources[leaf]) == 1]
    return [f"source = class for {', '.join(alone)}: score within a source, not over all"] if alone else []


def _shortcuts(data: Dataset, contents: _Contents) -> tuple[dict[str, Score], dict[str, float]]:
    """Return how well the leaf, and the source, are guessed without morphology."""
    fold_ids, truth = data.index["fold"].to_numpy(), data.leaf_ids
    columns = shortcuts.columns(data.index)
    guesses = {
        shortcuts.COMMONEST: shortcuts.commonest(truth),
        shortcuts.COLOUR: shortcuts.linear(contents.colours, truth),
        **{name: shortcuts.by_value(codes, truth) for name, codes in columns.items()},
    }
    n_leaves = len(data.taxonomy.leaves)
    found = {name: shortcuts.score(guess, truth, fold_ids, n_leaves) for name, guess in guesses.items()}
    others = {name: codes for name, codes in columns.items() if "source" not in name.split()}
    sources, groups = data.index["source"].tolist(), data.index["group"].tolist()
    of_source = shortcuts.of_source(sources, groups, {shortcuts.COLOUR: contents.colours, **others})
    return found, of_source


def _listed(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in scores.items())


def _examples(items: Iterable[object]) -> str:
    names = [str(item) for item in items]
    return "e.g. " + "; ".join(names[:_SHOWN])
