"""What a packed data set gives away: leakage between folds, duplicates, confounded sources, and how far shortcuts go."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from leukotree.data import appearance, doubts, identities, images, shards
from leukotree.data.dataset import Dataset
from leukotree.data.doubts import Doubt
from leukotree.errors import InputError

_THUMBNAIL = 9
"""Side of the thumbnails that are compared, in pixels: 9 x 8 brightness differences make a hash of 64 bits."""
_BITS = 2
"""Near duplicates differ in at most this many bits of their hashes ..."""
_LEVELS = 4.0
"""... and by at most this many of 255 levels between thumbnails, on average over pixels and channels."""
_SHOWN = 3


@dataclass(frozen=True)
class Audit:
    """Findings: `errors` make any score on this data set worthless, `warnings` limit what one may conclude."""

    dataset: Dataset
    errors: tuple[str, ...]
    warnings: tuple[str, ...]
    baselines: pd.Series
    """Macro-F1 over all leaves, each fold scored by what the others taught, by name of the baseline."""
    unusual: Mapping[str, tuple[str, ...]]
    """What is unusual about how images look, as `nearly black` -> all such images by their names in the manifest."""
    doubts: tuple[Doubt, ...] = ()
    """About the ids of patients, with every case; those that warn are among `warnings`, too."""

    @property
    def ok(self) -> bool:
        """False for leakage, or for shards that are not what the index says."""
        return not self.errors

    def lines(self) -> list[str]:
        """For people: the errors, the warnings, what a network gets for free, and a verdict."""
        data = self.dataset
        table = pd.crosstab(data.index["fold"], data.index["leaf"]).reindex(columns=list(data.taxonomy.leaves))
        per_fold = [f"fold {fold}: " + ", ".join(f"{leaf} {n}" for leaf, n in row.items()) for fold, row in table.iterrows()]
        free = ", ".join(f"{name} {value:.3f}" for name, value in self.baselines.items())
        return [
            f"{data.folder}: {len(data)} images, {data.size} x {data.size} pixels, {data.index['group'].nunique()} {data.group}s",
            *per_fold,
            *(f"ERROR {text}" for text in self.errors),
            *(f"warning: {text}" for text in self.warnings),
            *(doubt.line() for doubt in self.doubts if not doubt.warns),
            f"macro-F1 for free, over the {data.folds} folds: {free}",
            "ok: no leakage found" if self.ok else f"NOT OK: {len(self.errors)} error(s)",
        ]


def audit(folder: Path) -> Audit:
    """Read every shard of a packed folder once and check it. Raises InputError if the folder is no packed data set."""
    data = Dataset.open(folder, ends=False)  # what the shards hold is told sample by sample
    errors, names, colours, thumbnails = _read(data)
    errors += [*_leaks(data), *_duplicates(data.index)]
    about_ids = doubts.find(data.index, data.chosen("similar_ids"), data.patients_across_sources)
    warnings = [doubt.text() for doubt in about_ids if doubt.warns]
    warnings += [*_near_duplicates(data.index, thumbnails), *_confounded(data)]
    if data.group != "patient":
        warnings.append(f"the folds keep each {data.group} together, not each patient: no claim about new patients holds")
    unusual = appearance.unusual(names, colours, thumbnails)
    warnings += [f"{len(named)} image(s) are {kind}: {_some(named)}" for kind, named in unusual.items()]
    return Audit(data, tuple(errors), tuple(warnings), _baselines(data, colours), unusual, about_ids)


def _read(data: Dataset) -> tuple[list[str], list[str], np.ndarray, np.ndarray]:
    """Where shards and index disagree; per sample its name in the manifest ("" if it does not decode), (N, 6) mean and standard
    deviation of R, G and B, and a thumbnail (N, 9, 9, 3) uint8."""
    errors: list[str] = []
    names = [""] * len(data)
    colours = np.zeros((len(data), 6))
    thumbnails = np.zeros((len(data), _THUMBNAIL, _THUMBNAIL, 3), dtype=np.uint8)
    progress = tqdm(total=len(data), desc="audit", unit=" images", disable=None)
    for shard, rows in data.index.groupby("shard").indices.items():
        expected = dict(zip(data.index["key"].iloc[rows], rows, strict=True))
        try:
            for sample in shards.samples(data.folder / str(shard)):
                row = expected.pop(sample.key, None)
                if row is None:
                    errors.append(f"{shard}: sample {sample.key} is not in the index, or is there twice")
                    continue
                progress.update()
                try:
                    pixels = images.decode(sample.jpeg)
                except images.BrokenImage as error:
                    errors.append(f"{shard}: sample {sample.key} does not decode: {error}")
                    continue
                errors += _disagreements(data, row, sample, pixels)
                names[row] = str(sample.fields.get("image") or sample.key)
                colours[row] = [*pixels.mean(axis=(0, 1)), *pixels.std(axis=(0, 1))]
                thumbnails[row] = np.asarray(Image.fromarray(pixels).resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX))
        except InputError as error:
            errors.append(str(error))
        if expected:
            errors.append(f"{shard}: {len(expected)} sample(s) of the index cannot be read, {_some(expected)}")
    progress.close()
    return errors, names, colours, thumbnails


def _disagreements(data: Dataset, row: int, sample: shards.Sample, pixels: np.ndarray) -> list[str]:
    """What the shard says otherwise than the index about one sample."""
    known = data.index.iloc[row]
    wrong = [name for name in ("leaf", "patient", "source", "group") if sample.fields.get(name) != known[name]]
    if hashlib.sha256(sample.jpeg).hexdigest() != known["sha256"]:
        wrong.append("sha256")
    if (sample.offset, len(sample.jpeg)) != (known["offset"], known["length"]):
        wrong.append("place in the shard")
    if pixels.shape[:2] != (data.size, data.size):
        wrong.append("size in pixels")
    return [f"{known['shard']}: sample {sample.key} disagrees with the index: {', '.join(wrong)}"] if wrong else []


def _leaks(data: Dataset) -> list[str]:
    """Groups, and patients whatever the spelling of their id, that stand in several folds."""
    errors = []
    spelt = data.index.assign(**{name: identities.normal_column(data.index[name]) for name in ("patient", "source")})
    persons = identities.persons(spelt, data.patients_across_sources)
    for word, ids in (("group", data.index["group"]), ("patient", persons[persons != ""])):
        spread = data.index["fold"].groupby(ids).nunique()
        if len(leaking := spread[spread > 1]):
            errors.append(f"leakage: {len(leaking)} {word}(s) stand in several folds, {_some(leaking.index)}")
    return errors


def _duplicates(index: pd.DataFrame) -> list[str]:
    """The same picture, byte for byte, in several folds."""
    spread = index.groupby("sha256")["fold"].nunique()
    copies = index[index["sha256"].isin(spread[spread > 1].index)].sort_values("sha256")
    return [f"leakage: {len(copies)} images have an exact copy in another fold, {_some(copies['key'])}"] if len(copies) else []


def _near_duplicates(index: pd.DataFrame, thumbnails: np.ndarray) -> list[str]:
    """Copies within a fold, and images that look the same in several folds."""
    found = []
    if repeated := int(index.duplicated(["fold", "sha256"]).sum()):
        found.append(f"{repeated} image(s) repeat another of their fold byte for byte")
    fold_ids, digests = index["fold"].to_numpy(), index["sha256"].to_numpy()
    pairs = [
        (one, other) for one, other in _alike(thumbnails) if fold_ids[one] != fold_ids[other] and digests[one] != digests[other]
    ]
    if pairs:
        shown = [f"{index['key'].iloc[one]} and {index['key'].iloc[other]}" for one, other in pairs[:_SHOWN]]
        found.append(f"{len(pairs)} pair(s) of near duplicates across folds (look at them), {_some(shown)}")
    return found


def _alike(thumbnails: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of rows with nearly the same thumbnail, ascending. (N, 9, 9, 3) uint8.

    Hashes that differ in at most `_BITS` bits agree in one of `_BITS` + 1 bands of bits, so that only images that share
    a band are compared.
    """
    grey = thumbnails[:, :-1].astype(np.int64) @ [299, 587, 114]  # (N, 8, 9) luma times 1000
    bits = (np.diff(grey, axis=2) > 0).reshape(len(grey), -1)  # (N, 64)
    flat = thumbnails.reshape(len(thumbnails), -1).astype(np.int16)
    pairs: set[tuple[int, int]] = set()
    for band in range(_BITS + 1):  # bits from all over the image: a dark border would fill a band of neighbours
        _, bucket = np.unique(np.packbits(bits[:, band :: _BITS + 1], axis=1), axis=0, return_inverse=True)
        for rows in _groups(bucket.ravel()):
            for place, one in enumerate(rows[:-1]):
                others = rows[place + 1 :]
                others = others[(bits[others] != bits[one]).sum(axis=1) <= _BITS]
                others = others[np.abs(flat[others] - flat[one]).mean(axis=1) <= _LEVELS]
                pairs.update((int(one), int(other)) for other in others)
    return sorted(pairs)


def _groups(labels: np.ndarray) -> list[np.ndarray]:
    """Rows of each label that occurs more than once, ascending."""
    order = np.argsort(labels, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    return [part for part in parts if len(part) > 1]


def _confounded(data: Dataset) -> list[str]:
    """Leaves that only one of several sources feeds: a network can tell them by the camera."""
    if data.index["source"].nunique() < 2:
        return []
    sources = data.index.groupby("leaf")["source"].unique()
    alone = [f"{leaf} from {sources[leaf][0]!r}" for leaf in data.taxonomy.leaves if len(sources[leaf]) == 1]
    return [f"source = class for {', '.join(alone)}: score within a source, not over all"] if alone else []


def _baselines(data: Dataset, colours: np.ndarray) -> pd.Series:
    """Macro-F1, mean over folds, of guessing the commonest leaf and of linear models that see no morphology."""
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
            per_fold.append(f1_score(truth[held_out], guess, labels=labels, average="macro", zero_division=0.0))
        scores[name] = float(np.mean(per_fold)) if per_fold else float("nan")
    return pd.Series(scores, name="macro_f1")


def _some(items: Iterable[object]) -> str:
    names = [str(item) for item in items]
    return "e.g. " + "; ".join(names[:_SHOWN])
