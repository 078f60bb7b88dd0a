"""Which runs have not trained on an image, nor on another image of its patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from leukotree.data.dataset import Dataset
from leukotree.data.patients import identities
from leukotree.errors import InputError, RunFailed
from leukotree.inference.images import Images
from leukotree.inference.members import Member
from leukotree.records import compared, predictions, runfolder


@dataclass(frozen=True)
class Known:
    """What the data set of some runs says about N images. R is the number of runs."""

    row: np.ndarray
    """(N,) int64: the row of the image in the index of the data set, by the sha256 of its JPEG; -1 for
    another image."""
    trained: np.ndarray
    """(N, R) bool: whether a run trained on the image or on its patient."""
    notes: tuple[str, ...] = ()
    """What could not be compared."""
    unsure: np.ndarray | None = None
    """(N,) bool: whether it is not known of a run, whose data set is not here. None: it is known of all."""

    @property
    def everywhere(self) -> np.ndarray:
        """(N,) bool: whether every run trained on the image or on its patient."""
        return np.asarray(self.trained.all(axis=1))

    @property
    def usable(self) -> np.ndarray:
        """(N, R) bool: whether a run may predict an image. An image that all runs trained on has all runs."""
        return np.asarray(~self.trained | self.everywhere[:, None])

    def order(self, rows: np.ndarray) -> list[np.ndarray]:
        """The rows in two parts: images of the data set in the order of its index, then the others. Equal
        batches of a test fold give equal bits, whatever the order of the command was."""
        known = rows[self.row[rows] >= 0]
        parts = [known[np.argsort(self.row[known], kind="stable")], rows[self.row[rows] < 0]]
        return [part for part in parts if len(part)]


def compare(images: Images, members: Sequence[Member]) -> Known:
    """Compare images with the data sets of the runs.

    A patient is known by the id within its source. An id without a source is compared with all sources.
    Where a data set was split image by image, a patient may be in several folds. Then an image of the data
    set itself counts as known by its bytes alone, as in the report.
    """
    trained = np.zeros((len(images.table), len(members)), dtype=bool)
    row = np.full(len(images.table), -1, dtype=np.int64)
    unsure = np.zeros(len(images.table), dtype=bool)
    notes: dict[str, None] = {}
    of_data: dict[tuple[str, int], _Folds | None] = {}
    for place, member in enumerate(members):
        data = member.spec.data
        key = (data.shards, data.repeat)
        if key not in of_data:
            same = [one for one in members if (one.spec.data.shards, one.spec.data.repeat) == key]
            of_data[key] = _folds(member, images, notes) or _by_patients(same, images, notes)
        if (folds := of_data[key]) is not None:
            row = folds.row
            trained[:, place] = folds.beside(None if data.all_folds else data.test_fold)
        unsure |= True if folds is None else folds.unsure
    return Known(row, trained, tuple(notes), unsure)


def in_study(images: Images, member: Member) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """(N,) bool: the images that are in the data set of a run, and the others whose patient is in it; and
    what could not be compared. Raises InputError where the data set is not here, or another one than the
    run's: then this is not known."""
    notes: dict[str, None] = {}
    folds = _folds(member, images, notes)
    if folds is None:
        raise InputError(f"{next(iter(notes))}; put the data set of the study there")
    known = folds.row >= 0
    return known, folds.beside(None) & ~known, tuple(notes)


@dataclass(frozen=True)
class _Folds:
    """The folds of a data set with N images and their patients."""

    row: np.ndarray
    """(N,) as in `Known`."""
    folds: np.ndarray
    """(N, K) bool: whether the image, or its patient, is in a fold."""
    unsure: np.ndarray
    """(N,) bool: whether it may be in a fold that is not known."""

    def beside(self, test_fold: int | None) -> np.ndarray:
        """(N,) bool: whether it is in another fold than this one; None: in any fold."""
        others = np.arange(self.folds.shape[1]) != test_fold
        return np.asarray(self.folds[:, others].any(axis=1))


def _folds(member: Member, images: Images, notes: dict[str, None]) -> _Folds | None:
    """None where the data set is not here, or another one than the run's."""
    spec = member.spec
    shards, unknown = spec.data.shards, "so it is not known which of these images the runs have seen"
    try:
        dataset = Dataset.open(shards, ends=False, repeat=spec.data.repeat)
    except (InputError, RunFailed):
        notes[f"{shards} is not here, {unknown}"] = None
        return None
    if runfolder.read_environment(member.folder).get(compared.DATA) != dataset.fingerprint:
        notes[f"{shards} is another data set than the runs had, {unknown}"] = None
        return None
    if dataset.pack_option("pseudonyms"):
        notes[f"{shards} has pseudonyms: images are compared, and not the ids of patients"] = None
    return _compared(dataset, images)


def _by_patients(members: Sequence[Member], images: Images, notes: dict[str, None]) -> _Folds | None:
    """As `_folds`, from the patients that the runs themselves have tested: what a copy of the results without
    the data set still knows. None without patients."""
    frames = [predictions.read(member.folder)[0] for member in members]
    tested = pd.concat(frames, ignore_index=True).fillna("")
    fold, across = tested["fold"].to_numpy(dtype=np.int64), predictions.PERSON in tested
    pairs = _pairs(images, tested, across or images.across_sources)
    known = np.zeros((len(images.table), int(fold.max(initial=0)) + 1), dtype=bool)
    for theirs, ours in pairs:
        known |= _present(theirs, ours, fold, known.shape[1])
    if not (tested["patient"] != "").any():
        return None
    notes["patients are compared with those of the test folds of the runs"] = None
    unsure = np.asarray(~known.any(axis=1))
    return _Folds(np.full(len(images.table), -1, dtype=np.int64), known, unsure)


def _compared(dataset: Dataset, images: Images) -> _Folds:
    fold, n_folds = dataset.index["fold"].to_numpy(), dataset.folds
    row = _rows(images.table["sha256"], dataset.index["sha256"])
    by_image = _present(images.table["sha256"], dataset.index["sha256"], fold, n_folds)
    by_patient = np.zeros_like(by_image)
    across = dataset.patients_across_sources or images.across_sources
    for theirs, ours in _pairs(images, dataset.index, across):
        by_patient |= _present(theirs, ours, fold, n_folds)
    apart = by_patient.sum(axis=1) > 1
    straddling = apart & (row >= 0) & (dataset.group == "image")
    known = by_image | (by_patient & ~straddling[:, None])
    return _Folds(row, known, np.zeros(len(row), dtype=bool))


def _pairs(images: Images, ours: pd.DataFrame, across: bool) -> list[tuple[pd.Series, pd.Series]]:
    """Pairs (ids of the images, ids of `ours`) to compare; "" is no id. `across`: an id means the same
    patient in every source."""
    table = images.table
    persons = [identities.persons(frame, across) for frame in (table, ours)]
    if across:
        return [(persons[0], persons[1])]
    alone = table["patient"].where(table["source"] == "", "")
    return [(persons[0].where(table["source"] != "", ""), persons[1]), (alone, ours["patient"])]


def _rows(theirs: pd.Series, ours: pd.Series) -> np.ndarray:
    """(N,) position in `ours` of each text of `theirs`; -1 without. Equal texts are paired in their order,
    and those that are too many have the first one."""

    def numbered(texts: pd.Series) -> pd.MultiIndex:
        return pd.MultiIndex.from_arrays([texts.to_numpy(), texts.groupby(texts).cumcount().to_numpy()])

    index = numbered(ours)
    exact = index.get_indexer(numbered(theirs))
    firsts = pd.MultiIndex.from_arrays([theirs.to_numpy(), np.zeros(len(theirs), dtype=np.int64)])
    return np.where(exact >= 0, exact, index.get_indexer(firsts)).astype(np.int64)


def _present(theirs: pd.Series, ours: pd.Series, fold: np.ndarray, n_folds: int) -> np.ndarray:
    """(N, K) bool: whether a text of `theirs` is in a fold of `ours`. "" is in none."""
    codes, names = pd.factorize(ours)
    table = np.zeros((len(names) + 1, n_folds), dtype=bool)
    table[codes, fold] = True
    table[:-1][pd.Index(names) == ""] = False
    place = pd.Index(names).get_indexer(pd.Index(theirs))
    return table[place]  # -1, for no such text, is the last row, which is False
