"""The check that no search could have seen the images on which its values are tested. It reads the files of
the search. The outer folds and the report use no value without it."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hpc.launching import stale
from hpc.studies.study import Study
from leukotree import yamlfile
from leukotree.errors import InputError, one_line
from leukotree.records.runfolder import PREDICTIONS, SPEC
from leukotree.records.searchfolder import BEST, REPEAT, SETTINGS, TEST_FOLD, begun_runs

if TYPE_CHECKING:
    import pandas as pd

    from leukotree.data.dataset import Dataset

_TEST_FOLD = re.compile(r"^  test_fold: (\d+)$", re.MULTILINE)
_REPEAT = re.compile(r"^  repeat: (\d+)$", re.MULTILINE)
_INNER = re.compile(r"^  inner:$", re.MULTILINE)


@dataclass(frozen=True)
class HeldOut:
    """What the trials of a search must not have seen."""

    fold: int
    """The outer test fold."""
    repeat: int = 0
    """Its repeat."""
    keys: frozenset[str] = frozenset()
    """Keys of its images. Empty where the shards are not here."""
    patients: frozenset[str] = frozenset()
    """Its patients whose images the folds keep together, named as by `identities.persons`."""
    across_sources: bool = False
    """Whether an id is the same patient in every source."""

    def __str__(self) -> str:
        return _named(self.fold, self.repeat)


def _named(fold: object, repeat: int) -> str:
    return f"fold {fold} of repeat {repeat}" if repeat else f"fold {fold}"


def check(study: Study) -> None:
    """Raises InputError for a patient in two outer folds, for a search of other data or weights than those of
    today, and for a search that could have seen its outer test fold.

    Such a search is known by the fold in its search.yaml or best.yaml, by the spec of a run of its trials, or
    by an image or a patient in such a run's predictions. Without the shards, as in a copy of the results, an
    image is known by the fold noted with it.
    """
    from leukotree.data.dataset import Dataset
    from leukotree.data.remote.place import place

    shards = study.base.data.shards
    datasets: dict[int, Dataset] = {}
    if place(shards).is_dir():
        datasets = {repeat: Dataset.open(shards, repeat=repeat) for repeat in range(study.folds.repeats)}
    for dataset in datasets.values():
        check_index(dataset)
    for search_id in study.search_ids if study.search.trials else ():
        folder = study.search_folder(search_id)
        if datasets:
            stale.check_search(folder, shards)
        held_out = HeldOut(search_id.test_fold, search_id.repeat)
        if datasets:
            held_out = _held_out(datasets[search_id.repeat], search_id.test_fold)
        problem = _wrong_fold(folder, held_out, study.search.nested) or _first_problem(folder, held_out)
        if problem:
            raise InputError(
                f"{problem}: the search of {search_id} could see its test fold; move its folder away and run "
                f"`{study.command('sweep')}` again"
            )


def check_index(dataset: Dataset) -> None:
    """Raises InputError if a group, or a patient whose images the folds must keep together, is in two
    folds."""
    for name, ids in (
        ("group", dataset.index["group"]),
        ("patient", dataset.persons[_kept_together(dataset)]),
    ):
        folds = dataset.index["fold"].groupby(ids).nunique()
        if (folds > 1).any():
            raise InputError(
                f"{dataset.name}: {name} {folds.index[folds > 1][0]!r} is in two folds, so a model would "
                "be tested on what it was trained on; pack the manifest into an empty folder"
            )


def _kept_together(dataset: Dataset) -> pd.Series:
    """(N,) bool: whether the folds keep all images of an image's patient together. Where some images were
    dealt one by one (group `image`), they do so for a patient who is one group."""
    named = dataset.index["patient"] != ""
    if dataset.group != "image":
        return named
    return named & (dataset.index["group"].groupby(dataset.persons).transform("nunique") == 1)


def _held_out(dataset: Dataset, fold: int) -> HeldOut:
    index = dataset.index
    inside = index["fold"] == fold
    patients = frozenset(dataset.persons[inside & _kept_together(dataset)])
    keys = frozenset(index["key"][inside])
    return HeldOut(fold, dataset.repeat, keys, patients, dataset.patients_across_sources)


def _wrong_fold(folder: Path, held_out: HeldOut, nested: bool) -> str | None:
    """The file of a search that names another test fold than the held-out one, as a problem; None if there is
    none."""
    fold, repeat = held_out.fold, held_out.repeat
    for path in (folder / SETTINGS, folder / BEST):
        tree = yamlfile.load(path) if path.exists() else {TEST_FOLD: fold, REPEAT: repeat}
        if not isinstance(tree, dict):
            tree, nested = {}, True
        named = tree.get(TEST_FOLD, None if nested else fold)
        if (named, tree.get(REPEAT, 0)) != (fold, repeat):
            return f"{path}: left out {_named(named, tree.get(REPEAT, 0))}, not {held_out}"
    return None


def _first_problem(folder: Path, held_out: HeldOut) -> str | None:
    with ThreadPoolExecutor() as pool:
        return next(filter(None, pool.map(partial(_problem, held_out=held_out), begun_runs(folder))), None)


def _problem(run: Path, held_out: HeldOut) -> str | None:
    """What in a run folder shows that the run could see the held-out fold; None if nothing does."""
    spec = run / SPEC
    # A search has thousands of specs. To parse each would take a minute.
    text = spec.read_text(encoding="utf-8")
    named, of_repeat = _TEST_FOLD.search(text), _REPEAT.search(text)
    repeat = int(of_repeat[1]) if of_repeat else 0
    if named is None or (int(named[1]), repeat) != (held_out.fold, held_out.repeat):
        return f"{spec}: leaves out {_named(named[1] if named else 'unknown', repeat)}, not {held_out}"
    if not _INNER.search(text):
        return f"{spec}: scores {held_out} itself"
    path = run / PREDICTIONS
    return _seen(path, held_out) if path.exists() else None


def _seen(path: Path, held_out: HeldOut) -> str | None:
    """The first image or patient of the held-out fold in a run's predictions, as a problem. Raises InputError
    if they cannot be read."""
    import pandas as pd

    from leukotree.data.patients import identities

    try:
        frame = pd.read_parquet(path, columns=["key", "patient", "source", "fold"])
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read: {one_line(error)[:200]}; remove the search's folder and sweep again"
        ) from None
    seen = (frame["fold"] == held_out.fold) | frame["key"].isin(held_out.keys)
    if seen.any():
        return f"{path}: holds image {frame['key'][seen].iloc[0]!r} of {held_out}"
    persons = identities.persons(frame.fillna({"patient": "", "source": ""}), held_out.across_sources)
    seen = persons.isin(held_out.patients)
    if seen.any():
        return f"{path}: holds patient {frame['patient'][seen].iloc[0]!r} of {held_out}"
    return None
