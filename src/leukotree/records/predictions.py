"""Predictions of a run: log p(child | parent) of every edge, for every image of a fold."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from leukotree import files
from leukotree.data import described
from leukotree.data.dataset import Dataset
from leukotree.errors import InputError, RunFailed, one_line
from leukotree.evaluation import decide, metrics
from leukotree.records.runfolder import PREDICTIONS, TAXONOMY
from leukotree.taxonomy import Taxonomy

IDENTITY = ["key", "patient", "source", "fold", "leaf"]
PERSON = "person"
"""Column of the patient's name over all sources. It is there if an id is the same patient in every source."""


@dataclass(frozen=True)
class Predictions:
    """Log-probabilities of the edges for N samples."""

    rows: np.ndarray
    """(N,) row numbers of the dataset's index, ascending."""
    logp: np.ndarray
    """(N, E) float32 log p(child | parent), in the order of `taxonomy.edges`."""

    @classmethod
    def join(cls, parts: list[tuple[np.ndarray, np.ndarray]], expected: np.ndarray) -> Predictions:
        """Join the (rows, logp) of the ranks. Raises RuntimeError unless every expected row is there exactly
        once, and RunFailed for NaN."""
        rows = np.concatenate([part[0] for part in parts])
        logp = np.concatenate([part[1] for part in parts])
        order = np.argsort(rows, kind="stable")
        if not np.array_equal(rows[order], np.sort(expected)):
            different = len(np.unique(rows))
            raise RuntimeError(
                f"evaluation has {len(rows)} samples ({different} different), expected {len(expected)}"
            )
        if np.isnan(logp).any():
            raise RunFailed(
                "the model diverged: its outputs are NaN; use a lower learning rate or clip gradients", "nan"
            )
        return cls(rows[order], logp[order])


def write(path: Path, predictions: Predictions, dataset: Dataset) -> None:
    """Write predictions.parquet: `key, patient, source, fold, leaf`, `person` if sources share patients,
    `site`, `scanner` and `reader:<name>` where the data set has them, and a column `logp:<child>` per edge.
    Raises OSError."""
    columns_of_images = [*IDENTITY, *described.present(dataset.index)]
    frame = dataset.index.iloc[predictions.rows][columns_of_images].reset_index(drop=True)
    if dataset.patients_across_sources:
        frame.insert(len(IDENTITY), PERSON, dataset.persons.iloc[predictions.rows].array)
    columns = pd.DataFrame(predictions.logp, columns=[f"logp:{edge}" for edge in dataset.taxonomy.edges])
    files.write_atomic(path, pd.concat([frame, columns], axis=1).to_parquet(index=False))


def read(folder: Path) -> tuple[pd.DataFrame, np.ndarray, Taxonomy]:
    """(columns IDENTITY and those of PERSON and `described` that are there, (N, E) float32 log-probabilities,
    taxonomy) of a run folder. Raises InputError if they cannot be read."""
    try:
        frame = pd.read_parquet(folder / PREDICTIONS)
        taxonomy = Taxonomy.from_nested(json.loads((folder / TAXONOMY).read_text()))
        logp = frame[[f"logp:{edge}" for edge in taxonomy.edges]].to_numpy(np.float32)
        more = [*frame.columns.intersection([PERSON]), *described.present(frame)]
        return frame[[*IDENTITY, *more]], logp, taxonomy
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder}: its predictions cannot be read: {one_line(error)[:200]}") from error


def scores(true: np.ndarray, logp: np.ndarray, taxonomy: Taxonomy) -> dict[str, float]:
    """Accuracy and macro-F1 of the greedy rule. true: (N,) leaf indices. logp: (N, E) log-probabilities."""
    return scores_of_leaves(true, decide.greedy(logp, taxonomy), len(taxonomy.leaves))


def scores_of_leaves(true: np.ndarray, predicted: np.ndarray, n_leaves: int) -> dict[str, float]:
    """Accuracy and macro-F1 of decided leaves; {} without images, as of a run on all folds. true, predicted:
    (N,) leaf indices."""
    if not len(true):
        return {}
    return {
        "accuracy": float((true == predicted).mean()),
        "macro_f1": metrics.macro_f1(true, predicted, n_leaves),
    }
