"""The contents of a study's folder, as `collect` reads them: runs in arms, and the searches that chose their
values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from leukotree.data import described
from leukotree.evaluation import decide
from leukotree.evaluation.decide import Rule
from leukotree.evaluation.operating import Operating
from leukotree.records import predictions, runfolder, searchfolder
from leukotree.records.compute import Compute
from leukotree.spec import RunSpec
from leukotree.taxonomy import Taxonomy

FORMS = ("uniform", "loguniform", "choice")
"""The forms of the domain of a searched key."""
LR, BATCH = "optim.lr", "optim.batch_size"
"""The keys of a step size, see `search.step_size` in the reference."""
DEFAULT_FOLDS = 5
"""Outer folds of a study that does not say so."""


class OwnTree(NamedTuple):
    """The label tree that a run was trained on, where the comparison is on another one."""

    taxonomy: Taxonomy
    logp: np.ndarray
    """(N, E) log p(child | parent) on its edges."""


@dataclass(frozen=True)
class Run:
    """One finished outer-fold run of N test images."""

    arm: str
    """The name of its `Arm`."""
    variant: str
    test_fold: int
    """The number of its outer fold, counted through over the repeats: fold k of repeat r of a K-fold
    cross-validation is r K + k. `StudySummary.fold_name` names it."""
    seed: int
    name: str
    folder: Path
    """The run folder."""
    taxonomy: Taxonomy
    """The label tree of the data set, the same for all runs, in whose order leaves and edges are counted."""
    images: pd.DataFrame
    """N rows: key, patient ("" where unknown), source, and the columns of `described` that are there."""
    true: np.ndarray
    """(N,) leaf indices."""
    predicted: np.ndarray
    """(N,) leaf indices, decided by the study's rule on the run's own tree. Other rules: `decided`."""
    logp: np.ndarray
    """(N, E) log p(child | parent) on `taxonomy`."""
    epochs: int
    seconds: float
    """The time that these epochs took."""
    ranks: int
    """The number of processes of the last attempt."""
    environment: dict[str, Any]
    """The content of env.json: commit, packages, fingerprint of the data set, GPUs."""
    trained: int | None = None
    """The number of training images, as the run recorded at its end. None for older runs."""
    tested: int | None = None
    """The number of test images, recorded in the same way."""
    loss: str = "focal"
    """The kind of the loss (`loss.kind` of its spec)."""
    repeat: int = 0
    """The repeat of the cross-validation. Each repeat tests every image once."""
    compute: Compute | None = None
    """Its models, steps, parameters and FLOPs. None for older runs."""
    hours: float | None = None
    """Hours of GPUs, or of cores, scoring included. None for older runs."""
    tree: str | None = None
    """The key `tree` of its spec; None for the tree of the data set."""
    own: OwnTree | None = None
    """None where the run was trained on `taxonomy`."""


@dataclass(frozen=True)
class Missing:
    """An expected run without a result."""

    arm: str
    variant: str
    test_fold: int
    """As in `Run`."""
    seed: int
    name: str
    state: str
    """The state that its folder records."""


@dataclass(frozen=True)
class Arm:
    """One side of a comparison on the outer folds: a variant, or a variant in a cell of a grid."""

    name: str
    """Unique: "flat", or "multilabel isolation=detached" with the values that differ between the variant's
    cells."""
    variant: str
    cell: int | None
    """The number of the grid's cell. None for a variant with chosen values (`leukotree folds`)."""
    values: dict[str, Any]
    """The values of the cell: dotted key -> value, without the keys that have no effect in the variant. Empty
    without a grid."""
    runs: tuple[Run, ...]
    """The finished runs, by fold and seed."""


@dataclass(frozen=True)
class Validation:
    """A trial's predictions, pooled over its inner folds. Each of the N images of the outer training folds
    stands in it once."""

    images: pd.DataFrame
    """N rows: key, patient ("" where unknown), source."""
    true: np.ndarray
    """(N,) leaf indices."""
    logp: np.ndarray
    """(N, E) log p(child | parent) on `taxonomy`."""
    taxonomy: Taxonomy
    """The label tree of the data set, as for `Run`."""
    own: OwnTree | None = None
    """As for `Run`."""


def trained_tree(of: Run | Validation) -> Taxonomy:
    """The label tree that a run was trained on."""
    return of.own.taxonomy if of.own else of.taxonomy


def decided(of: Run | Validation, rule: Rule) -> np.ndarray:
    """(N,) leaf indices that a rule decides on the tree of the run."""
    if of.own is None:
        return decide.leaves(of.logp, of.taxonomy, rule)
    places = decide.leaf_places(of.own.taxonomy, of.taxonomy)
    return places[decide.leaves(of.own.logp, of.own.taxonomy, rule)]


@dataclass(frozen=True)
class Search:
    """The search of one variant on the images outside one outer fold."""

    variant: str
    test_fold: int
    """The outer fold that no trial used, with a number as in `Run`."""
    folder: Path
    trials: pd.DataFrame
    """A row per trial: trial (text), state, epochs (with `rungs: folds`, inner folds), macro_f1,
    best_macro_f1, seconds, and a column for each searched key."""
    history: pd.DataFrame
    """A row per trial and report: trial, epoch (with `rungs: folds`, the number of inner folds), macro_f1,
    seconds."""
    best: dict[str, Any] | None
    """The content of best.yaml: trial, value, search_value, optimism, chosen, reruns. None if no trial
    completed."""
    taxonomy: Taxonomy | None = None
    """The label tree of the data set, on which `predictions` are. None: on that of the trial."""

    @property
    def chosen(self) -> dict[str, Any]:
        """The chosen values: dotted key -> value. Empty if no trial completed."""
        return dict(self.best["chosen"]) if self.best else {}

    @property
    def reruns(self) -> pd.DataFrame | None:
        """The re-runs of the best trials: a row per trial and fresh seed with trial (text), seed, macro_f1
        (NaN for a failed run). None without re-runs."""
        if not self.best or not self.best.get("reruns"):
            return None
        rows = [
            (str(rerun["trial"]), seed, score)
            for rerun in self.best["reruns"]
            for seed, score in zip(self.best["rerun_seeds"], rerun["scores"], strict=True)
        ]
        return pd.DataFrame(rows, columns=["trial", "seed", "macro_f1"]).astype({"macro_f1": float})

    @cached_property
    def validation(self) -> Validation | None:
        """The predictions of the chosen trial. None where its run folders were removed."""
        return self.predictions(str(self.best["trial"])) if self.best and "trial" in self.best else None

    def predictions(self, trial: str) -> Validation | None:
        """The predictions of one completed trial, sorted by key. None where one of its run folders has none.

        Raises InputError for a damaged file.
        """
        return pooled(searchfolder.runs_of_trial(self.folder, trial), self.taxonomy)


def pooled(folders: Sequence[Path], taxonomy: Taxonomy | None) -> Validation | None:
    """The predictions of runs of inner folds, sorted by key. None where one of the folders has none, or has
    other leaves than `taxonomy`.

    Args: taxonomy: the tree that they are on, see `Search.taxonomy`. None for that of the runs.

    Raises InputError for a damaged file.
    """
    if not folders or not all((folder / runfolder.PREDICTIONS).exists() for folder in folders):
        return None
    frames, parts, taxonomies = zip(*map(predictions.read, folders), strict=True)
    frame: pd.DataFrame = pd.concat(frames, ignore_index=True)
    order = np.argsort(frame["key"].to_numpy(), kind="stable")
    frame, logp = frame.iloc[order].reset_index(drop=True), np.concatenate(parts)[order]
    trained, taxonomy = taxonomies[0], taxonomy or taxonomies[0]
    own = None
    if not trained.ordered_as(taxonomy):
        if sorted(trained.leaves) != sorted(taxonomy.leaves):
            return None  # of other data
        own, logp = OwnTree(trained, logp), decide.on_tree(logp, trained, taxonomy)
    true = pd.Index(taxonomy.leaves).get_indexer(pd.Index(frame["leaf"]))
    return Validation(identity(frame), true, logp, taxonomy, own)


def identity(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns of a run's predictions that identify an image: key, patient and source. Then `site`,
    `scanner` and `reader:<name>` where they are there; "" where one has no value.

    A patient's id is unique within its source only. The source is therefore put before the id, unless the
    data set has ids that hold over sources. An unknown patient is "".
    """
    columns = frame[["key", "patient", "source", *described.present(frame)]].fillna("").astype(str)
    if predictions.PERSON in frame:
        return columns.assign(patient=frame[predictions.PERSON].fillna("").astype(str))
    known = (columns["patient"] != "") & (columns["source"] != "")
    with_source = columns["source"] + "/" + columns["patient"]
    return columns.assign(patient=columns["patient"].where(~known, with_source))


def outer_folds(study: Mapping[str, Any]) -> int:
    """The number of outer folds of a repeat, from the fields of a study."""
    return int((study.get("folds") or {}).get("outer") or DEFAULT_FOLDS)


@dataclass(frozen=True)
class StudySummary:
    """Everything that a report is made from."""

    name: str
    study: dict[str, Any]
    base: RunSpec
    variants: tuple[str, ...]
    arms: tuple[Arm, ...]
    """Every expected arm, also one without finished runs. Variants come first, then cells."""
    missing: list[Missing]
    searches: dict[str, dict[int, Search]]
    """Variant -> outer fold -> its search. A study that is not nested has one search, under the fold that it
    left out."""
    nested: bool
    """True where no outer fold took part in the search for its own values: each fold has its own search, or
    there is no search. False where one search chose the values of all folds. Then all folds except
    `clean_fold` are optimistic."""
    decision: Rule
    """The decision rule of all variants, one of `decide.RULES`."""
    rope: float
    """Half the width of the region of practical equivalence, in macro F1 (0 to 1)."""
    primary: tuple[tuple[str, str], ...]
    """The declared comparisons: pairs of arms' names (challenger, reference). An arm may have no runs yet."""
    redeclared: tuple[str, ...]
    """The declared keys that the study file changed after the first run, a text per key."""
    dataset: dict[str, Any] | None
    """The content of the shards' dataset.json. None where the shards are not here."""
    straddling: int
    """The number of patients with images in several test folds, in a data set that was split image by image.
    The runs' `images` no longer contain their ids."""
    planned: dict[str, Any] | None = None
    """The content of plan.json, see `records.planned`. None for a study that was not planned."""
    inner: dict[tuple[str, int], tuple[Path, ...]] = field(default_factory=dict)
    """(variant, outer fold) -> the folders of the finished runs of its inner folds with the chosen values, by
    `leukotree folds STUDY --inner`. Only where all inner folds are finished."""
    taxonomy: Taxonomy | None = None
    """The label tree of the data set. None without a run."""
    unchecked: tuple[str, ...] = ()
    """What is not here, so that the finished runs could not be compared with it: "the data (data/my is not
    here)"."""

    @property
    def runs(self) -> list[Run]:
        """The finished runs of all arms."""
        return [run for arm in self.arms for run in arm.runs]

    @property
    def outer(self) -> int:
        """The number of outer folds of a repeat."""
        return outer_folds(self.study)

    @property
    def repeats(self) -> int:
        """The number of repeats of the outer cross-validation."""
        return int((self.study.get("folds") or {}).get("repeats") or 1)

    @property
    def operating(self) -> Operating:
        """The operating points that the study declares."""
        return Operating.model_validate(self.study.get("operating") or {})

    def fold_name(self, number: int) -> str:
        """The name of an outer fold by its number, see `Run.test_fold`: "2", "2 of repeat 1", or "2 (Delhi)"
        where the folds are sources."""
        repeat, fold = divmod(int(number), self.outer) if self.repeats > 1 else (0, int(number))
        sources = (self.dataset or {}).get("fold_sources")
        if isinstance(sources, list) and fold < len(sources):
            return f"{fold} ({sources[fold]})"
        return f"{fold} of repeat {repeat}" if repeat else str(fold)

    @property
    def clean_fold(self) -> int | None:
        """The test fold that the one search for all folds did not use. None where every fold is clean: with
        nested searches, or without a search."""
        ended = any(search.best for folds in self.searches.values() for search in folds.values())
        return self.base.data.test_fold if ended and not self.nested else None

    @property
    def space(self) -> dict[str, dict[str, Any]]:
        """Searched key -> its domain: {uniform | loguniform: [low, high]} or {choice: [...]}.

        A key that has no effect in a variant is no column of its trials. Where the search models a step size,
        the learning rates are those that its trials can have.
        """
        search = self.study.get("search") or {}
        space = {
            key: {form: domain[form] for form in FORMS if domain.get(form) is not None}
            for key, domain in (search.get("space") or {}).items()
        }
        if search.get("step_size") and space.keys() >= {LR, BATCH}:
            sizes = next(iter(space[BATCH].values()))
            form, ends = next(iter(space[LR].items()))
            factors = [math.sqrt(size / self.base.optim.batch_size) for size in (min(sizes), max(sizes))]
            space[LR] = {form: [end * factor for end, factor in zip(ends, factors, strict=True)]}
        return space

    @cached_property
    def _validations(self) -> dict[tuple[str, int], Validation | None]:
        return {}

    def inner_validation(self, variant: str, fold: int) -> Validation | None:
        """The predictions of the runs of `inner`. None without them. Raises InputError for a damaged file."""
        place = (variant, fold)
        if place not in self._validations:
            self._validations[place] = pooled(self.inner.get(place, ()), self.taxonomy)
        return self._validations[place]

    def search(self, variant: str, fold: int) -> Search | None:
        """The search that chose the values of a variant on an outer fold. None without one."""
        return self.searches.get(variant, {}).get(fold if self.nested else self.base.data.test_fold)
