"""Could a search have seen the images that its values are tested on? What the files say, before folds and
report trust them."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hpc.launching import stale
from hpc.studies.study import SearchId, Study
from leukotree import yamlfile
from leukotree.errors import InputError, one_line
from leukotree.records.runfolder import PREDICTIONS, SPEC
from leukotree.records.searchfolder import BEST, SETTINGS, TEST_FOLD, begun_runs

if TYPE_CHECKING:
    import pandas as pd

    from leukotree.data.dataset import Dataset

_TEST_FOLD = re.compile(r"^  test_fold: (\d+)$", re.MULTILINE)
_INNER = re.compile(r"^  inner:$", re.MULTILINE)


@dataclass(frozen=True)
class HeldOut:
    """What the trials of a search must not have seen."""

    fold: int
    keys: frozenset[str] = frozenset()
    """Of the images of the outer test fold; none where the shards are not at hand."""
    patients: frozenset[str] = frozenset()
    """Those whose images the folds keep together, as `identities.persons` names them."""
    across_sources: bool = False
    """Whether an id is the same patient in every source."""


def check(study: Study) -> None:
    """Raises InputError for a patient in two outer folds, and for the first search that could have seen the
    outer fold which it is to leave alone: by what its search.yaml or best.yaml names, by the spec of a run of
    its trials, or by an image or a patient in such a run's predictions. Without the shards, as in a copy of
    the results, an image is known by the fold noted beside it.
    """
    from leukotree.data.dataset import Dataset

    shards = Path(study.base.data.shards)
    dataset = Dataset.open(shards) if shards.is_dir() else None
    if dataset is not None:
        check_index(dataset)
    for search_id in study.search_ids if study.search.trials else ():
        folder = study.search_folder(search_id)
        if dataset is not None:
            stale.check_search(folder, str(shards))
        held = HeldOut(search_id.test_fold) if dataset is None else _held_out(dataset, search_id.test_fold)
        problem = _misnamed(folder, search_id, study.search.nested) or _first_problem(folder, held)
        if problem:
            raise InputError(
                f"{problem}: the search of {search_id} could see its test fold; move its folder away and run "
                f"`{study.command('sweep')}` again"
            )


def check_index(dataset: Dataset) -> None:
    """Raises InputError where a group, or a patient whose images the folds are to keep together, stands in
    two folds."""
    for name, ids in (
        ("group", dataset.index["group"]),
        ("patient", dataset.persons[_kept_together(dataset)]),
    ):
        folds = dataset.index["fold"].groupby(ids).nunique()
        if (folds > 1).any():
            raise InputError(
                f"{dataset.folder}: {name} {folds.index[folds > 1][0]!r} stands in two folds, so that a model would be tested on "
                "what it was trained on; pack the manifest into an empty folder"
            )


def _kept_together(dataset: Dataset) -> pd.Series:
    """(N,) bool: images with a patient whom the folds keep together. Where some images were dealt one by one
    (group `image`), a patient is kept together who is one group."""
    named = dataset.index["patient"] != ""
    if dataset.group != "image":
        return named
    return named & (dataset.index["group"].groupby(dataset.persons).transform("nunique") == 1)


def _held_out(dataset: Dataset, fold: int) -> HeldOut:
    index = dataset.index
    inside = index["fold"] == fold
    patients = frozenset(dataset.persons[inside & _kept_together(dataset)])
    return HeldOut(fold, frozenset(index["key"][inside]), patients, dataset.patients_across_sources)


def _misnamed(folder: Path, search_id: SearchId, nested: bool) -> str | None:
    """Which file of a search names another fold than the one that it chooses values for."""
    for path in (folder / SETTINGS, folder / BEST):
        tree = yamlfile.load(path) if path.exists() else {TEST_FOLD: search_id.test_fold}
        named = (
            tree.get(TEST_FOLD, None if nested else search_id.test_fold) if isinstance(tree, dict) else None
        )
        if named != search_id.test_fold:
            return f"{path}: left out fold {named}, not fold {search_id.test_fold}"
    return None


def _first_problem(folder: Path, held: HeldOut) -> str | None:
    with ThreadPoolExecutor() as pool:
        return next(filter(None, pool.map(partial(_problem, held=held), begun_runs(folder))), None)


def _problem(run: Path, held: HeldOut) -> str | None:
    """What of a run shows that it could see the held-out fold; None if nothing does."""
    spec = run / SPEC
    text = spec.read_text(
        encoding="utf-8"
    )  # a search has thousands of them: parsing each would take a minute
    named = _TEST_FOLD.search(text)
    if named is None or int(named[1]) != held.fold:
        return f"{spec}: leaves out fold {named[1] if named else 'unknown'}, not fold {held.fold}"
    if not _INNER.search(text):
        return f"{spec}: scores fold {held.fold} itself"
    path = run / PREDICTIONS
    return _seen(path, held) if path.exists() else None


def _seen(path: Path, held: HeldOut) -> str | None:
    """What predictions hold of the held-out fold. Raises InputError where they cannot be read."""
    import pandas as pd

    from leukotree.data.patients import identities

    try:
        frame = pd.read_parquet(path, columns=["key", "patient", "source", "fold"])
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read: {one_line(error)[:200]}; remove the search's folder and sweep again"
        ) from None
    seen = (frame["fold"] == held.fold) | frame["key"].isin(held.keys)
    if seen.any():
        return f"{path}: holds image {frame['key'][seen].iloc[0]!r} of fold {held.fold}"
    known = identities.persons(frame.fillna({"patient": "", "source": ""}), held.across_sources).isin(
        held.patients
    )
    return (
        f"{path}: holds patient {frame['patient'][known].iloc[0]!r} of fold {held.fold}"
        if known.any()
        else None
    )
