"""Difficult images: confident errors, and near ties between two leaves."""

from __future__ import annotations

import numpy as np
import pandas as pd

from leukotree.evaluation import decide
from leukotree.taxonomy import Taxonomy

MOST = 6
"""Images of each kind."""
CLOSE = 0.1
"""Two leaves are a near tie if their probabilities differ by less."""
ERROR, TIE = "confident error", "near tie"


def answers(
    keys: np.ndarray, true: np.ndarray, decided: np.ndarray, logp: np.ndarray, taxonomy: Taxonomy
) -> pd.DataFrame:
    """A row for each of N images: `key`, `true`, `decided`, `second` (leaves), and the raw probabilities
    `p_decided`, `p_true`, `p_first`, `p_second`.

    First and second are the two most probable leaves. `second` is the more probable one that was not decided.

    Args:
        true, decided: (N,) leaf indices.
        logp: (N, E) log p(child | parent).
    """
    leaves = np.asarray(taxonomy.leaves, dtype=object)
    p = np.exp(decide.leaf_logp(logp, taxonomy))
    rows = np.arange(len(p))
    first, second = np.argsort(-p, axis=1, kind="stable")[:, :2].T
    return pd.DataFrame(
        {
            "key": keys,
            "true": leaves[true],
            "decided": leaves[decided],
            "second": leaves[np.where(first == decided, second, first)],
            "p_decided": p[rows, decided],
            "p_true": p[rows, true],
            "p_first": p[rows, first],
            "p_second": p[rows, second],
        }
    )


def chosen(rows: pd.DataFrame, most: int = MOST) -> pd.DataFrame:
    """The rows of `answers` that are worth a look, with their `kind`: `most` errors with the largest
    probability, and `most` images with the closest two leaves."""
    errors = rows[rows["true"] != rows["decided"]].sort_values(
        ["p_decided", "key"], ascending=[False, True], kind="stable"
    )
    ties = rows.assign(gap=rows["p_first"] - rows["p_second"]).sort_values(["gap", "key"], kind="stable")
    close = ties[ties["gap"] < CLOSE].drop(columns="gap")
    return pd.concat([errors.head(most).assign(kind=ERROR), close.head(most).assign(kind=TIE)])
