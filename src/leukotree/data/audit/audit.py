"""What a packed data set gives away: leakage between folds, duplicates, confounded sources, and how far
shortcuts go."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from leukotree import progress
from leukotree.data import shards
from leukotree.data.audit import appearance, near_duplicates
from leukotree.data.audit.near_duplicates import Lookalikes
from leukotree.data.dataset import Dataset
from leukotree.data.images import codec
from leukotree.data.patients import doubts, identities
from leukotree.data.patients.doubts import Doubt
from leukotree.errors import InputError, one_line

_SHOWN = 3


@dataclass(frozen=True)
class Audit:
    """Findings: `errors` make any score on this data set worthless, `warnings` limit what one may
    conclude."""

    dataset: Dataset
    errors: tuple[str, ...]
    warnings: tuple[str, ...]
    baselines: pd.Series
    """Macro-F1 over all leaves, each fold scored by what the others taught, by name of the baseline."""
    near_duplicates: Lookalikes
    unusual: Mapping[str, tuple[str, ...]]
    """What is unusual about how images look, as `nearly black` -> all such images by their names in the
    manifest."""
    doubts: tuple[Doubt, ...] = ()
    """About the ids of patients, with every case; those that warn are among `warnings`, too."""

    @property
    def ok(self) -> bool:
        """False for leakage, or for shards that are not what the index says."""
        return not self.errors

    def lines(self) -> list[str]:
        """For people: the errors, the warnings, what a network gets for free, and a verdict."""
        data = self.dataset
        table = pd.crosstab(data.index["fold"], data.index["leaf"]).reindex(
            columns=list(data.taxonomy.leaves)
        )
        per_fold = [
            f"fold {fold}: " + ", ".join(f"{leaf} {n}" for leaf, n in row.items())
            for fold, row in table.iterrows()
        ]
        free = ", ".join(f"{name} {value:.3f}" for name, value in self.baselines.items())
        return [
            f"{data.folder}: {len(data)} images, {data.size} x {data.size} pixels, {data.groups}",
            *per_fold,
            *(f"ERROR {text}" for text in self.errors),
            *(f"warning: {text}" for text in self.warnings),
            *(doubt.line() for doubt in self.doubts if not doubt.warns),
            f"macro-F1 for free, over the {data.folds} folds: {free}",
            "ok: no leakage found" if self.ok else f"NOT OK: {len(self.errors)} error(s)",
        ]

    def as_dict(self) -> dict[str, Any]:
        """For scripts: what `lines` says, and every image, group and patient that it counts."""
        data = self.dataset
        counted = pd.crosstab(data.index["fold"], data.index["leaf"]).to_dict("index")
        return {
            "shards": str(data.folder),
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
            "in_several_folds": {word: names for word, names in _spread(data)},
            **self.near_duplicates.as_dict(),
            "unusual": {kind: list(names) for kind, names in self.unusual.items()},
            "ids": [doubt.as_dict() for doubt in self.doubts],
            "baselines": {
                str(name): None if np.isnan(value) else float(value) for name, value in self.baselines.items()
            },
        }


def audit(folder: Path) -> Audit:
    """Read every shard of a packed folder once and check it. Raises InputError if the folder is no packed
    data set."""
    data = Dataset.open(folder, ends=False)  # what the shards hold is told sample by sample
    seen = _read(data)
    progress.step("comparing the images with each other, and fitting the models that see no morphology")
    alike = near_duplicates.look(data.index, seen.names, seen.thumbnails, seen.decoded)
    about_ids = doubts.find(data.index, data.chosen("similar_ids"), data.patients_across_sources)
    unusual = appearance.unusual(seen.names, seen.decoded, seen.colours, seen.thumbnails)
    errors = [*seen.errors, *_leaks(data), *alike.errors()]
    warnings = [doubt.text() for doubt in about_ids if doubt.warns]
    warnings += [*alike.warnings(), *_confounded(data)]
    if data.chosen("pseudonyms"):
        warnings.append(
            "patients have numbers instead of names: ids that look alike are named by `leukotree pack` alone"
        )
    if data.group != "patient":
        warnings.append(
            f"the folds keep each {data.group} together, not each patient: no claim about new patients holds"
        )
    warnings += [f"{len(named)} image(s) are {kind}: {_some(named)}" for kind, named in unusual.items()]
    return Audit(
        data, tuple(errors), tuple(warnings), _baselines(data, seen.colours), alike, unusual, about_ids
    )


@dataclass(frozen=True)
class _Seen:
    """What the shards hold, a row per sample of the index."""

    errors: list[str]
    """Where shards and index disagree."""
    names: list[str]
    """In the manifest; an older index does not have them, but the shards do."""
    decoded: np.ndarray
    """(N,) bool."""
    colours: np.ndarray
    """(N, 6): mean and standard deviation of R, G and B."""
    thumbnails: np.ndarray
    """(N, S, S, 3) uint8."""


def _read(data: Dataset) -> _Seen:
    """Read every sample once."""
    errors: list[str] = []
    names = data.index["image"].tolist()
    decoded = np.zeros(len(data), dtype=bool)
    colours = np.zeros((len(data), 6))
    thumbnails = np.zeros(
        (len(data), near_duplicates.THUMBNAIL, near_duplicates.THUMBNAIL, 3), dtype=np.uint8
    )
    bar = progress.Bar("audit", len(data), "image")
    for shard, rows in data.index.groupby("shard").indices.items():
        expected = dict(zip(data.index["key"].iloc[rows], rows, strict=True))
        try:
            for sample in shards.samples(data.folder / str(shard)):
                row = expected.pop(sample.key, None)
                if row is None:
                    errors.append(f"{shard}: sample {sample.key} is not in the index, or is there twice")
                    continue
                bar.advance()
                names[row] = one_line(sample.fields.get("image", names[row]))
                try:
                    pixels = codec.decode(sample.jpeg)
                except codec.BrokenImage as error:
                    errors.append(f"{shard}: sample {sample.key} does not decode: {error}")
                    continue
                errors += _disagreements(data, row, sample, pixels)
                decoded[row] = True
                colours[row] = [*pixels.mean(axis=(0, 1)), *pixels.std(axis=(0, 1))]
                thumbnails[row] = np.asarray(
                    Image.fromarray(pixels).resize(
                        (near_duplicates.THUMBNAIL, near_duplicates.THUMBNAIL), Image.Resampling.BOX
                    )
                )
        except InputError as error:
            errors.append(str(error))
        if expected:
            errors.append(
                f"{shard}: {len(expected)} sample(s) of the index cannot be read, {_some(expected)}"
            )
    bar.close()
    return _Seen(errors, names, decoded, colours, thumbnails)


def _disagreements(data: Dataset, row: int, sample: shards.Sample, pixels: np.ndarray) -> list[str]:
    """What the shard says otherwise than the index about one sample."""
    known = data.index.iloc[row]
    wrong = [
        name for name in ("leaf", "patient", "source", "group") if sample.fields.get(name) != known[name]
    ]
    if hashlib.sha256(sample.jpeg).hexdigest() != known["sha256"]:
        wrong.append("sha256")
    if (sample.offset, len(sample.jpeg)) != (known["offset"], known["length"]):
        wrong.append("place in the shard")
    if pixels.shape[:2] != (data.size, data.size):
        wrong.append("size in pixels")
    return (
        [f"{known['shard']}: sample {sample.key} disagrees with the index: {', '.join(wrong)}"]
        if wrong
        else []
    )


def _leaks(data: Dataset) -> list[str]:
    """Groups and patients that stand in several folds."""
    return [
        f"leakage: {len(names)} {word}(s) stand in several folds, {_some(names)}"
        for word, names in _spread(data)
        if names
    ]


def _spread(data: Dataset) -> list[tuple[str, list[Any]]]:
    """The names of all groups that stand in several folds, and of all such patients, whatever the spelling of
    their id."""
    spelt = data.index.assign(
        **{name: identities.normal_column(data.index[name]) for name in ("patient", "source")}
    )
    persons = identities.persons(spelt, data.patients_across_sources)
    spread: list[tuple[str, list[Any]]] = []
    for word, ids in (("group", data.index["group"]), (_patients(data), persons[persons != ""])):
        folds = data.index["fold"].groupby(ids).nunique()
        spread.append((word, folds.index[folds > 1].tolist()))
    return spread


def _patients(data: Dataset) -> str:
    """What the column `patient` names: ids of slides stand there, too."""
    return "slide(s) or patient" if data.group == "slide" else "patient"


def _confounded(data: Dataset) -> list[str]:
    """Leaves that only one of several sources feeds: a network can tell them by the camera."""
    if data.index["source"].nunique() < 2:
        return []
    sources = data.index.groupby("leaf")["source"].unique()
    alone = [f"{leaf} from {sources[leaf][0]!r}" for leaf in data.taxonomy.leaves if len(sources[leaf]) == 1]
    return [f"source = class for {', '.join(alone)}: score within a source, not over all"] if alone else []


def _baselines(data: Dataset, colours: np.ndarray) -> pd.Series:
    """Macro-F1, mean over folds, of guessing the commonest leaf and of linear models that see no
    morphology."""
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    linear = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=2000))
    sources = pd.get_dummies(data.index["source"]).to_numpy(float)
    models = {"commonest leaf": (DummyClassifier(), colours), "colour only": (linear, colours)}
    if sources.shape[1] > 1:
        models["source only"] = (linear, sources)
    fold_ids, truth, labels = data.index["fold"].to_numpy(), data.leaf_ids, range(len(data.taxonomy.leaves))
    scores = {}
    for name, (model, features) in models.items():
        per_fold = []
        for fold in np.unique(fold_ids):
            held_out = fold_ids == fold
            if len(np.unique(truth[~held_out])) < 2:
                continue  # a damaged index: no model can be fitted
            guess = model.fit(features[~held_out], truth[~held_out]).predict(features[held_out])
            per_fold.append(
                f1_score(truth[held_out], guess, labels=labels, average="macro", zero_division=0.0)
            )
        scores[name] = float(np.mean(per_fold)) if per_fold else float("nan")
    return pd.Series(scores, name="macro_f1")


def _some(items: Iterable[object]) -> str:
    names = [str(item) for item in items]
    return "e.g. " + "; ".join(names[:_SHOWN])
