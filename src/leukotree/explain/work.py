"""Which images of a run are explained: its own test images, or those of another data set."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from leukotree import csvfile, files, progress, seeds
from leukotree.data import masks as mask_files
from leukotree.data import unpacked
from leukotree.data.boxes import Crop
from leukotree.data.dataset import Dataset
from leukotree.data.masks import Masks
from leukotree.data.remote.address import is_remote
from leukotree.data.trees import open_data
from leukotree.errors import InputError, RunFailed
from leukotree.inference import known, members
from leukotree.inference.images import Images
from leukotree.inference.loaded import LoadedRun
from leukotree.records import compared, explanations, runfolder
from leukotree.spec import RunSpec
from leukotree.taxonomy import Taxonomy

VERSION = 1
"""Changes with the meaning of a measure. Parts of another version are not used."""
CHUNK = 16
"""Images of a part."""


@dataclass(frozen=True, eq=False)
class Work:
    """The images to explain of one run."""

    folder: Path
    spec: RunSpec
    dataset: Dataset
    rows: np.ndarray
    """(N,) rows of the data set's index, in the order in which they are explained."""
    masks: Masks | None
    name: str
    """The other data set's name; "" for the run's own test images."""

    @cached_property
    def identity(self) -> str:
        stored = files.sha256(self.folder / runfolder.PREDICTIONS)
        return _digest(VERSION, stored, self.dataset.fingerprint)

    def chunks(self, count: int) -> list[np.ndarray]:
        """The first `count` rows in parts of CHUNK."""
        return [self.rows[start : min(start + CHUNK, count)] for start in range(0, count, CHUNK)]

    def part(self, method: str, number: int, rows: np.ndarray, with_road: int) -> Path:
        """The file of a part."""
        masked = self.masks.digest(rows.tolist()) if self.masks else ""
        keys = self.dataset.index["key"].iloc[rows].tolist()
        content = _digest(keys, masked, with_road)
        return explanations.part(self.folder, self.identity, method, number, content)


def work_of(
    folder: Path, loaded: LoadedRun, images: int, masks: Path | None, other: Path | str | None
) -> Work:
    """At most so many images to explain. Raises InputError as `run.explain`."""
    spec = loaded.spec
    if other is None:
        if spec.data.all_folds:
            raise InputError(
                f"{folder}: was trained on all folds, so it has no test images; name another data set with "
                "--data"
            )
        if change := compared.changed(folder, compared.Inputs.of(spec)):
            raise InputError(f"{folder}: {change}")
        dataset, name = open_data(spec), ""
        rows = np.flatnonzero(dataset.index["fold"] == spec.data.test_fold)
    else:
        dataset = _other(other, loaded)
        name = explanations.name_of(other, dataset.fingerprint)
        rows = _unknown(folder, loaded, dataset)
    order = seeds.generator(0, "explain", spec.data.test_fold, spec.data.repeat).permutation(len(rows))
    rows = rows[order]
    known = mask_files.match(masks, dataset) if masks else None
    if known:
        has_mask = np.array([int(row) in known.files for row in rows], bool)
        rows = rows[np.argsort(~has_mask, kind="stable")]  # those with a mask first
    rows = rows[:images]
    if known:
        known, wrong = mask_files.verified(known, dataset, rows.tolist())
        _tell_of_masks(folder, known, wrong, len(rows))
    return Work(folder, spec, dataset, rows, known, name)


def _tell_of_masks(folder: Path, masks: Masks, wrong: int, images: int) -> None:
    """Say which masks do not count. Raises InputError if none does."""
    other = f"{wrong} of its masks belong to images of other bytes than the shards have" if wrong else ""
    if not masks.files:
        reason = other or "it names no mask of these images"
        raise InputError(
            f"{masks.manifest}: {reason} ({folder.name}); give the manifest that the images were packed from"
        )
    lacking = images - len(masks.files)
    if lacking:
        more = f"; {other}" if other else ""
        progress.say(
            f"leukotree explain: {folder.name}: {lacking} of {images} images have no mask in {masks.manifest}"
            f"{more}; they count for ROAD and stability only"
        )


def _other(other: Path | str, loaded: LoadedRun) -> Dataset:
    """A packed data set, or the images of a manifest in the size of the run's."""
    if is_remote(other):
        return Dataset.open(other)
    path = Path(other)
    if path.is_dir() or path.suffix.lower() not in (*csvfile.ENDINGS, ".parquet"):
        return Dataset.open(path)
    prepared = loaded.prepared
    tree = json.dumps(mask_files.tree_of_manifest(loaded.taxonomy).nested())
    state = files.state(path.stat())
    return _of_manifest(path.resolve(), state, prepared.size, prepared.quality, tree, prepared.crop)


@functools.lru_cache(maxsize=1)  # the next run of a study has the same images
def _of_manifest(
    path: Path, state: tuple[int, ...], size: int, quality: int, tree: str, crop: Crop
) -> Dataset:
    return unpacked.open_manifest(path, size, quality, Taxonomy.from_nested(json.loads(tree)), crop)


def _unknown(folder: Path, loaded: LoadedRun, other: Dataset) -> np.ndarray:
    """The rows of another data set whose images and patients are not in the run's own. Raises InputError if
    it has images of another size, or none that are new."""
    if other.size != loaded.prepared.size:
        raise InputError(
            f"{other.name}: has images of {other.size} pixels, {folder} was trained on "
            f"{loaded.prepared.size}; pack it with --size {loaded.prepared.size}"
        )
    images = Images(other.index, other.size, lambda row, buffer: buffer, other.patients_across_sources)
    try:
        same, of_patients, notes = known.in_study(images, members.of_run(folder).runs[0])
    except (InputError, RunFailed) as error:
        progress.say(f"leukotree explain: {folder.name}: {error}")
        return np.arange(len(other))
    for note in notes:
        progress.say(f"leukotree explain: {folder.name}: {note}")
    rows = np.flatnonzero(~(same | of_patients))
    if not len(rows):
        raise InputError(
            f"{other.name}: all of its images, or their patients, are in the data set of {folder}; leave "
            "--data out to explain its test images"
        )
    if len(rows) < len(other):
        progress.say(
            f"leukotree explain: {folder.name}: left out: {same.sum()} images of its data set, and "
            f"{of_patients.sum()} of its patients"
        )
    return rows


def _digest(*content: object) -> str:
    return hashlib.sha256(repr(content).encode()).hexdigest()[:16]
