"""Do the runs of a study belong together, and to the data that are there today? Refused by name where they do
not."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from leukotree import yamlfile
from leukotree.data import fingerprint
from leukotree.data.dataset import Dataset
from leukotree.errors import InputError
from leukotree.records import compared, predictions, runfolder, searchfolder, tested
from leukotree.records.compared import Inputs
from leukotree.report.summary import Run, StudySummary, identity

ROUNDING = 1e-9
"""Scores that differ by less are the same."""


def damaged(path: Path, problem: str) -> InputError:
    return InputError(f"{path}: {problem}; remove the run's folder and run folds again")


def of_today(root: Path, names: Sequence[str], shards: str) -> tuple[str, ...]:
    """Compare the finished ones of these runs with today's data, tree and weights. Returns what is not here
    to be compared with. Raises InputError for one that was made from others."""
    done = [root / name for name in names if runfolder.read_status(root / name).get("state") == "done"]
    found = {folder: inputs._replace(shards=shards) for folder in done if (inputs := Inputs.read(folder))}
    compared.refuse(
        [(folder, change) for folder, one in found.items() if (change := compared.changed(folder, one))],
        shards,
    )
    return tuple(
        dict.fromkeys(lacking for one in [Inputs(shards, None), *found.values()] for lacking in one.absent())
    )


def belong_together(runs: Sequence[Run], root: Path, shards: str) -> None:
    """Comparisons are fair only on the same tree and, within a fold, the same images; folds must not share
    any."""
    for run in runs:
        if list(run.taxonomy.parent_of.items()) != list(
            runs[0].taxonomy.parent_of.items()
        ):  # the order of leaves counts
            raise damaged(root / run.name / runfolder.TAXONOMY, f"differs from that of {runs[0].name}")
        fingerprints = {r.environment["dataset"] for r in (runs[0], run) if r.environment.get("dataset")}
        if len(fingerprints) > 1:
            raise damaged(
                root / run.name / runfolder.ENVIRONMENT, f"made from other shards than {runs[0].name}"
            )
    by_fold: dict[int, list[Run]] = {}
    for run in runs:
        by_fold.setdefault(run.test_fold, []).append(run)
    dataset = Dataset.open(shards, ends=False) if runs and fingerprint.packed(shards) else None
    for fold, mine in by_fold.items():
        _same_images(mine, fold, dataset)
    pooled = (
        pd.concat([mine[0].images["key"] for mine in by_fold.values()]) if by_fold else pd.Series(dtype=str)
    )
    if pooled.duplicated().any():
        twice = pooled[pooled.duplicated()].iloc[0]
        raise InputError(
            f"{root}: image {twice!r} is in two test folds; pack into an empty folder and run folds again"
        )


def _same_images(runs: Sequence[Run], fold: int, dataset: Dataset | None) -> None:
    """Raises InputError for a run whose images or labels are not those of the fold in the data set; without
    one, not as many as it noted, or not those of most runs of the fold."""
    if dataset is not None:
        rows = tested.whole(dataset, fold)
        right = identity(rows).assign(leaf=rows["leaf"])
        for run in runs:
            if told := tested.difference(_images(run), right):
                raise damaged(
                    run.folder / runfolder.PREDICTIONS,
                    f"not the images of test fold {fold} in {dataset.folder}: {told}",
                )
        return
    for run in runs:
        if lost := (run.tested or len(run.true)) - len(run.true):
            told = f"{abs(lost)} {'missing' if lost > 0 else 'too many'}"
            raise damaged(
                run.folder / runfolder.PREDICTIONS, f"of the {run.tested} images that it was tested on {told}"
            )
    kinds: dict[bytes, list[Run]] = {}
    for run in runs:
        kinds.setdefault(_digest(run), []).append(run)
    if len(kinds) > 1:
        wrong, other = _deviant(list(kinds.values()))
        told = tested.difference(_images(wrong), _images(other))
        raise damaged(
            wrong.folder / runfolder.PREDICTIONS, f"other images or labels than in {other.name}: {told}"
        )


def _deviant(kinds: Sequence[list[Run]]) -> tuple[Run, Run]:
    """Of groups of runs that disagree on the images of a fold one run that is wrong, and one that is right.
    Raises InputError naming both where nothing tells which is which."""
    by_size = sorted(kinds, key=len, reverse=True)
    if len(by_size[0]) > len(by_size[1]):
        return next(kind for kind in kinds if kind is not by_size[0])[0], by_size[0][0]
    right = [kind for kind in kinds if all(map(_scores_as_recorded, kind))]
    if 0 < len(right) < len(kinds):
        return next(run for kind in kinds for run in kind if not _scores_as_recorded(run)), right[0][0]
    first, second = kinds[0][0], kinds[1][0]
    told = tested.difference(_images(second), _images(first))
    raise InputError(
        f"{second.folder / runfolder.PREDICTIONS}: other images or labels than in {first.folder / runfolder.PREDICTIONS} ({told}), and nothing here tells which "
        "of the two is damaged; put the packed data set in its place, or remove both folders and run folds again"
    )


def _scores_as_recorded(run: Run) -> bool:
    """Whether a run's predictions have the scores that it noted when it ended; also where it noted none."""
    noted = runfolder.read_status(run.folder)
    scores = predictions.scores(run.true, run.logp, run.taxonomy)
    return all(
        not isinstance(noted.get(name), float) or abs(noted[name] - score) < ROUNDING
        for name, score in scores.items()
    )


def _images(run: Run) -> pd.DataFrame:
    return run.images.assign(leaf=np.asarray(run.taxonomy.leaves, dtype=object)[run.true])


def _digest(run: Run) -> bytes:
    found: Any = pd.util.hash_pandas_object(_images(run), index=False)
    return hashlib.sha256(found.to_numpy().tobytes()).digest()


def searched_on_the_same(summary: StudySummary) -> None:
    """A search on other shards may have seen what is a test image in these. Raises InputError."""
    for run in (run for arm in summary.arms if arm.cell is None for run in arm.runs):
        search = summary.search(run.variant, run.test_fold)
        mine = run.environment.get("dataset")
        if search is None or mine is None or not (settings := search.folder / searchfolder.SETTINGS).exists():
            continue
        if yamlfile.load(settings).get(searchfolder.DATASET, mine) != mine:
            raise InputError(
                f"{settings}: searched on other shards than {run.name} was made from; rename the study"
            )
