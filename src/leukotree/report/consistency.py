"""Checks of a study's runs: they were made from today's data, tree and weights, and they can be compared.

Each check raises an InputError that names the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from leukotree import progress, yamlfile
from leukotree.data import fingerprint
from leukotree.data.dataset import Dataset
from leukotree.errors import InputError
from leukotree.records import compared, predictions, runfolder, searchfolder, tested
from leukotree.records.compared import Inputs, Today
from leukotree.report.damage import damaged
from leukotree.report.summary import Run, StudySummary, decided, identity

ROUNDING = 1e-9
"""Scores that differ by less are equal."""


def compare_with_today(root: Path, names: Sequence[str], shards: str) -> tuple[str, ...]:
    """Compare the finished runs of these names with today's data, tree and weights.

    Returns what is not here, so that nothing could be compared with it. Raises InputError for a run that was
    made from other data, another tree or other weights.
    """
    kinds, changes, now = {Inputs(shards, None): None}, [], Today()
    with progress.Bar("compare", len(names), "run", soon=True) as bar:
        for folder in (root / name for name in names):
            bar.advance()
            if runfolder.read_status(folder).get("state") != "done":
                continue
            spec = compared.spec_text(folder)
            if spec is None or (inputs := Inputs.of_text(spec)) is None:
                continue
            inputs = inputs._replace(shards=shards)
            kinds[inputs] = None
            if change := compared.changed(folder, inputs, now=now, spec=spec):
                changes.append((folder, change))
    compared.refuse(changes, shards)
    return tuple(dict.fromkeys(part for inputs in kinds for part in inputs.absent()))


def check_runs(runs: Sequence[Run], root: Path, shards: str) -> None:
    """Check that the runs of a repeat have the same data set, that the runs of a fold have the same images,
    that no image is in two folds of a repeat, and that all repeats give an image the same leaf and patient.
    Raises InputError otherwise."""
    first_of_repeat: dict[int, Run] = {}
    by_fold: dict[int, list[Run]] = {}
    for run in runs:
        _check_same_data(run, first_of_repeat.setdefault(run.repeat, run), root)
        by_fold.setdefault(run.test_fold, []).append(run)
    datasets = {}
    if runs and fingerprint.packed(shards):
        datasets = {r: Dataset.open(shards, ends=False, repeat=r) for r in first_of_repeat}
    with progress.Bar("check", len(runs), "run", soon=True) as bar:
        for runs_of_fold in by_fold.values():
            if datasets:
                _check_images(runs_of_fold, datasets[runs_of_fold[0].repeat], bar)
            else:
                _check_images_without_dataset(runs_of_fold)
                bar.advance(len(runs_of_fold))
    firsts = [runs_of_fold[0] for runs_of_fold in by_fold.values()]
    for repeat in first_of_repeat:
        keys = pd.concat([run.images["key"] for run in firsts if run.repeat == repeat])
        if keys.duplicated().any():
            key = keys[keys.duplicated()].iloc[0]
            raise InputError(
                f"{root}: image {key!r} is in two test folds; pack into an empty folder and run folds again"
            )
    if len(first_of_repeat) > 1:
        _check_same_images_in_repeats(firsts, root)


def _check_same_images_in_repeats(firsts: Sequence[Run], root: Path) -> None:
    """Raises InputError for an image that has another leaf, patient or source in another repeat. `firsts`:
    one run of each fold."""
    images = pd.concat([_images(run) for run in firsts]).drop_duplicates()
    if images["key"].duplicated().any():
        key = images["key"][images["key"].duplicated()].iloc[0]
        raise InputError(
            f"{root}: image {key!r} has another leaf, patient or source in another repeat; pack into an "
            "empty folder and run folds again"
        )


def _check_same_data(run: Run, first: Run, root: Path) -> None:
    fingerprints = {one.environment["dataset"] for one in (first, run) if one.environment.get("dataset")}
    if len(fingerprints) > 1:
        raise damaged(root / run.name / runfolder.ENVIRONMENT, f"made from other shards than {first.name}")


def _check_images(runs: Sequence[Run], dataset: Dataset, bar: progress.Bar) -> None:
    """Raises InputError for a run whose images or labels are not those of its fold in the data set. `bar`
    counts the runs."""
    fold = runs[0].test_fold - runs[0].repeat * dataset.folds
    rows = tested.whole(dataset, fold)
    right = identity(rows).assign(leaf=rows["leaf"])
    for run in runs:
        bar.advance()
        if difference := tested.difference(_images(run), right):
            problem = f"not the images of test fold {fold} in {dataset.name}: {difference}"
            raise damaged(run.folder / runfolder.PREDICTIONS, problem)


def _check_images_without_dataset(runs: Sequence[Run]) -> None:
    """Raises InputError for a run with another number of images than it recorded, and for a run whose images
    or labels differ from those of the other runs of its fold."""
    for run in runs:
        if lost := (run.tested or len(run.true)) - len(run.true):
            difference = f"{abs(lost)} {'missing' if lost > 0 else 'too many'}"
            raise damaged(
                run.folder / runfolder.PREDICTIONS,
                f"of the {run.tested} images that it was tested on {difference}",
            )
    by_images: dict[bytes, list[Run]] = {}
    for run in runs:
        by_images.setdefault(_digest(run), []).append(run)
    if len(by_images) > 1:
        wrong, right = _wrong_and_right(list(by_images.values()))
        difference = tested.difference(_images(wrong), _images(right))
        raise damaged(
            wrong.folder / runfolder.PREDICTIONS, f"other images or labels than in {right.name}: {difference}"
        )


def _wrong_and_right(groups: Sequence[list[Run]]) -> tuple[Run, Run]:
    """A run with wrong images and a run with right ones, from groups of runs whose images differ.

    The largest group is right. Among groups of equal size, those are right whose predictions have the
    recorded scores. Raises InputError that names two runs where neither decides.
    """
    by_size = sorted(groups, key=len, reverse=True)
    if len(by_size[0]) > len(by_size[1]):
        return next(group for group in groups if group is not by_size[0])[0], by_size[0][0]
    right = [group for group in groups if all(map(_has_recorded_scores, group))]
    if 0 < len(right) < len(groups):
        return next(run for group in groups for run in group if not _has_recorded_scores(run)), right[0][0]
    first, second = groups[0][0], groups[1][0]
    difference = tested.difference(_images(second), _images(first))
    raise InputError(
        f"{second.folder / runfolder.PREDICTIONS}: other images or labels than in "
        f"{first.folder / runfolder.PREDICTIONS} ({difference}), and it is not known which of the two is "
        "damaged; put the packed data set in its place, or remove both folders and run folds again"
    )


def _has_recorded_scores(run: Run) -> bool:
    """Whether the predictions of a run have the scores that the run recorded at its end. True where it
    recorded none."""
    recorded = runfolder.read_status(run.folder)
    scores = predictions.scores_of_leaves(run.true, decided(run, "greedy"), len(run.taxonomy.leaves))
    return all(
        not isinstance(recorded.get(name), float) or abs(recorded[name] - score) < ROUNDING
        for name, score in scores.items()
    )


def _images(run: Run) -> pd.DataFrame:
    """N rows: key, patient, source, leaf."""
    images = run.images.assign(leaf=np.asarray(run.taxonomy.leaves, dtype=object)[run.true])
    return images[tested.COLUMNS]


def _digest(run: Run) -> bytes:
    hashes: Any = pd.util.hash_pandas_object(_images(run), index=False)
    return hashlib.sha256(hashes.to_numpy().tobytes()).digest()


def check_searches(summary: StudySummary) -> None:
    """Check that each search was made from the shards of its runs. Raises InputError otherwise: a search on
    other shards may have used images that are test images here."""
    for run in (run for arm in summary.arms if arm.cell is None for run in arm.runs):
        search = summary.search(run.variant, run.test_fold)
        shards = run.environment.get("dataset")
        if (
            search is None
            or shards is None
            or not (settings := search.folder / searchfolder.SETTINGS).exists()
        ):
            continue
        if yamlfile.load(settings).get(searchfolder.DATASET, shards) != shards:
            raise InputError(
                f"{settings}: searched on other shards than {run.name} was made from; rename the study"
            )
