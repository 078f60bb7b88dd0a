"""What `collect` finds in a study's folder: runs in arms that are compared, and the searches that chose their
values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from leukotree.evaluation.decide import Rule
from leukotree.records import predictions, runfolder, searchfolder
from leukotree.spec import RunSpec
from leukotree.taxonomy import Taxonomy


@dataclass(frozen=True)
class Run:
    """One finished outer-fold run of N test images."""

    arm: str
    """Name of the `Arm` that it belongs to."""
    variant: str
    test_fold: int
    seed: int
    name: str
    folder: Path
    """Its run folder."""
    taxonomy: Taxonomy
    images: pd.DataFrame
    """N rows: key, patient ("" where unknown), source."""
    true: np.ndarray
    """(N,) leaf indices."""
    predicted: np.ndarray
    """(N,) leaf indices, decided by the study's rule."""
    logp: np.ndarray
    """(N, E) log p(child | parent)."""
    epochs: int
    seconds: float
    """Time spent in these epochs."""
    ranks: int
    environment: dict[str, Any]
    """env.json: commit, packages, fingerprint of the data set, GPUs."""
    trained: int | None = None
    """Images that it was trained on, as it noted at its end; None in older runs."""
    tested: int | None = None
    """Images that it was tested on, likewise."""


@dataclass(frozen=True)
class Missing:
    """An expected run without a result, and what its folder says about it."""

    arm: str
    variant: str
    test_fold: int
    seed: int
    name: str
    state: str


@dataclass(frozen=True)
class Arm:
    """What is compared with others on the same outer folds: a variant, or a variant in a cell of a grid."""

    name: str
    """Unique: "flat", or "multilabel isolation=detached" with the values that its variant has more than one
    of."""
    variant: str
    cell: int | None
    """Number of the grid's cell; None for a variant with chosen values (`leukotree folds`)."""
    values: dict[str, Any]
    """Of the cell: dotted key -> value, without the keys that say nothing to the variant. Empty without a
    grid."""
    runs: tuple[Run, ...]
    """The finished ones, by fold and seed."""


@dataclass(frozen=True)
class Validation:
    """A trial's predictions, pooled over its inner folds: each of N images of the outer training folds
    once."""

    images: pd.DataFrame
    """N rows: key, patient ("" where unknown), source."""
    true: np.ndarray
    """(N,) leaf indices."""
    logp: np.ndarray
    """(N, E) log p(child | parent)."""
    taxonomy: Taxonomy


@dataclass(frozen=True)
class Search:
    """The search of one variant on what one outer fold leaves."""

    variant: str
    test_fold: int
    """The outer fold that no trial saw."""
    folder: Path
    trials: pd.DataFrame
    """A row per trial: trial (text), state, epochs (with rungs on folds: inner folds), macro_f1,
    best_macro_f1, seconds, and a column for each searched key."""
    history: pd.DataFrame
    """A row per trial and report: trial, epoch (with rungs on folds: how many inner folds), macro_f1,
    seconds."""
    best: dict[str, Any] | None
    """best.yaml: trial, value, search_value, optimism, chosen, reruns; None if no trial came to its end."""

    @property
    def chosen(self) -> dict[str, Any]:
        """Dotted key -> value; empty if no trial came to its end."""
        return dict(self.best["chosen"]) if self.best else {}

    @property
    def reruns(self) -> pd.DataFrame | None:
        """The best trials again, a row per trial and fresh seed: trial (text), seed, macro_f1 (NaN where it
        failed). None if none was run again."""
        if not self.best or not self.best.get("reruns"):
            return None
        rows = [
            (str(one["trial"]), seed, score)
            for one in self.best["reruns"]
            for seed, score in zip(self.best["rerun_seeds"], one["scores"], strict=True)
        ]
        return pd.DataFrame(rows, columns=["trial", "seed", "macro_f1"]).astype({"macro_f1": float})

    @cached_property
    def validation(self) -> Validation | None:
        """Predictions of the chosen trial; None where its run folders are gone."""
        return self.predictions(str(self.best["trial"])) if self.best and "trial" in self.best else None

    def predictions(self, trial: str) -> Validation | None:
        """Of one completed trial, sorted by key; None where a run folder of it has none. Raises InputError
        for a damaged file."""
        folders = searchfolder.runs_of_trial(self.folder, trial)
        if not folders or not all((folder / runfolder.PREDICTIONS).exists() for folder in folders):
            return None
        frames, parts, taxonomies = zip(*map(predictions.read, folders), strict=True)
        frame: pd.DataFrame = pd.concat(frames, ignore_index=True)
        logp, taxonomy = np.concatenate(parts), taxonomies[0]
        order = np.argsort(frame["key"].to_numpy(), kind="stable")
        frame = frame.iloc[order].reset_index(drop=True)
        true = pd.Index(taxonomy.leaves).get_indexer(pd.Index(frame["leaf"]))
        return Validation(identity(frame), true, logp[order], taxonomy)


def identity(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns of a run's predictions that say which image it is: key, patient and source. A patient's id
    is its own within a source only, so the source is put before it, unless the data set says who is the same
    over sources; an unknown one is ""."""
    found = frame[["key", "patient", "source"]].fillna("").astype(str)
    if predictions.PERSON in frame:
        return found.assign(patient=frame[predictions.PERSON].fillna("").astype(str))
    known = (found["patient"] != "") & (found["source"] != "")
    return found.assign(patient=found["patient"].where(~known, found["source"] + "/" + found["patient"]))


@dataclass(frozen=True)
class StudySummary:
    """Everything that the report is made from."""

    name: str
    study: dict[str, Any]
    base: RunSpec
    variants: tuple[str, ...]
    arms: tuple[Arm, ...]
    """Every arm that is expected, also one without finished runs: variants first, then cells."""
    missing: list[Missing]
    searches: dict[str, dict[int, Search]]
    """Variant -> outer fold -> its search. Without nesting there is one, under the fold that it left out."""
    nested: bool
    """Whether no outer fold took part in a search for its own values: each has one of its own, or there is
    none at all. If not, one search served all folds, and those but `clean_fold` are optimistic."""
    decision: Rule
    """The rule of `decide.RULES`, the same for all."""
    rope: float
    """Half the width of the region of practical equivalence, in macro-F1."""
    primary: tuple[tuple[str, str], ...]
    """The declared comparisons: (challenger, reference), names of arms, of which some may not be there
    yet."""
    redeclared: tuple[str, ...]
    """What of the three the study file says otherwise than before the first run, a text per key."""
    dataset: dict[str, Any] | None
    """dataset.json of the shards, where they are at hand."""
    straddling: int
    """Patients with images in several test folds, of a data set that keeps no patients together; `images`
    names them no more."""
    unchecked: tuple[str, ...] = ()
    """What the finished runs could not be compared with, since it is not here: "the data (data/my is not
    here)"."""

    @property
    def runs(self) -> list[Run]:
        """The finished runs of all arms."""
        return [run for arm in self.arms for run in arm.runs]

    @property
    def taxonomy(self) -> Taxonomy | None:
        return self.runs[0].taxonomy if self.runs else None

    @property
    def clean_fold(self) -> int | None:
        """The test fold that the one search for all never saw. None where every fold is clean: with nested
        searches, or without any."""
        ended = any(search.best for folds in self.searches.values() for search in folds.values())
        return self.base.data.test_fold if ended and not self.nested else None

    @property
    def space(self) -> dict[str, dict[str, Any]]:
        """The searched keys, each with its one form of domain: {uniform | loguniform: [lo, hi]} or {choice:
        [...]}. A key that says nothing to a variant is no column of its trials."""
        space = (self.study.get("search") or {}).get("space") or {}
        return {
            key: {form: values for form, values in domain.items() if values is not None}
            for key, domain in space.items()
        }

    def search(self, variant: str, fold: int) -> Search | None:
        """The search that chose the values of a variant on an outer fold."""
        return self.searches.get(variant, {}).get(fold if self.nested else self.base.data.test_fold)
