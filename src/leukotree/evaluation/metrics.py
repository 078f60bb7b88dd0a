"""Scores as plain functions of arrays: true and predicted leaf indices, and log p(child | parent).

Every score runs over all L leaves of the taxonomy: a leaf that is never predicted, or has no sample, counts
as 0 in the macro averages (and is left out of the balanced accuracy, which is the mean recall of the leaves
that have samples).

SciPy and scikit-learn are imported where they are used: they take a second that a run's first step need not
wait for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np

from leukotree.evaluation import decide
from leukotree.taxonomy import Taxonomy

Rule = Literal["mode", "mean_probability", "mean_log_probability"]
RULES: tuple[Rule, ...] = get_args(Rule)
"""How the images of a patient become one prediction. How log-probabilities become a leaf is another matter:
`decide.RULES`."""
FLOOR = 5
"""With fewer groups than this a proportion is `not estimable`."""


class LeafScores(NamedTuple):
    """Per leaf, each (L,): precision, recall and F1 in 0..1, and how many samples truly are of the leaf."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray


class Proportion(NamedTuple):
    """A share `value` of `n` samples; NaN where n is 0."""

    value: float
    n: int


class Groups(NamedTuple):
    """One row per group, G of them: (patient, true leaf), images in it, true and predicted leaf index, and
    (G, E) log p(child | parent) of the mean leaf probabilities (under `mean_log_probability` of the geometric
    mean)."""

    patient: np.ndarray
    images: np.ndarray
    true: np.ndarray
    predicted: np.ndarray
    logp: np.ndarray


def macro_f1(
    true: np.ndarray, predicted: np.ndarray, n_leaves: int, leaves: np.ndarray | None = None
) -> float:
    """Mean F1 over all leaves, or over some; NaN where N is 0. true, predicted: (N,) leaf indices."""
    from sklearn.metrics import f1_score

    if not len(true):
        return float("nan")
    labels = np.arange(n_leaves) if leaves is None else leaves
    return float(f1_score(true, predicted, labels=labels, average="macro", zero_division=0))


def confusion(true: np.ndarray, predicted: np.ndarray, n_leaves: int) -> np.ndarray:
    """(L, L) counts: rows are true leaves, columns predicted ones."""
    pairs = np.asarray(true, dtype=np.int64) * n_leaves + predicted
    return np.bincount(pairs, minlength=n_leaves * n_leaves).reshape(n_leaves, n_leaves)


def per_leaf(true: np.ndarray, predicted: np.ndarray, n_leaves: int) -> LeafScores:
    """Precision, recall, F1 and support of each leaf; 0 where a quotient is 0 / 0."""
    from sklearn.metrics import precision_recall_fscore_support

    labels = np.arange(n_leaves)
    return LeafScores(
        *precision_recall_fscore_support(true, predicted, labels=labels, average=None, zero_division=0)
    )


def summary(
    true: np.ndarray, predicted: np.ndarray, n_leaves: int, leaves: np.ndarray | None = None
) -> dict[str, float]:
    """accuracy, balanced_accuracy, macro_precision, macro_recall, macro_f1; each in 0..1, NaN without
    samples. The macro averages run over all leaves, or over `leaves`, which must be those that samples can be
    of."""
    names = ("accuracy", "balanced_accuracy", "macro_precision", "macro_recall", "macro_f1")
    if len(true) == 0:
        return dict.fromkeys(names, float("nan"))
    scores = per_leaf(true, predicted, n_leaves)
    some = np.arange(n_leaves) if leaves is None else leaves
    values = (
        np.mean(np.equal(true, predicted)),
        scores.recall[scores.support > 0].mean(),
        scores.precision[some].mean(),
        scores.recall[some].mean(),
        scores.f1[some].mean(),
    )
    return {name: float(value) for name, value in zip(names, values, strict=True)}


def decision_accuracy(true: np.ndarray, logp: np.ndarray, taxonomy: Taxonomy) -> dict[str, Proportion]:
    """Decision node -> accuracy of its argmax among siblings, over the samples whose true leaf lies below
    that node.

    Conditional: a sample counts at a node even where a decision above it went wrong. logp: (N, E).
    """
    problems = decide.at_decisions(true, logp, taxonomy)
    return {node: _share(logs.argmax(axis=1) == target) for node, target, logs in problems}


def level_accuracy(true: np.ndarray, predicted: np.ndarray, taxonomy: Taxonomy) -> list[Proportion]:
    """Share of samples whose path is right from the root down to level 1, 2, ...; the last equals the leaf
    accuracy.

    A leaf above a level stands for itself below (normal stays normal), so each level scores every sample.
    """
    cuts = taxonomy.cut_of_leaf
    return [_share(row) for row in cuts[:, np.asarray(true, dtype=np.int64)] == cuts[:, predicted]]


def by_patient(
    patient: Sequence[str],
    true: np.ndarray,
    logp: np.ndarray,
    taxonomy: Taxonomy,
    rule: Rule,
    decision: decide.Rule = "greedy",
) -> Groups:
    """One prediction per (patient, true leaf) from all its images; images with an empty patient are left out.

    Where a patient has images of several leaves (cells of several types), one vote over all of them would
    have no single right answer; grouping by leaf as well keeps every image and reduces to plain patients
    where each has one leaf.

    `mode`: the leaf that most images were given by the rule `decision`; a tie goes to the higher mean
    probability, then to the
    first in preorder. `mean_probability`, `mean_log_probability`: leaf probabilities averaged over the
    images, arithmetically or geometrically, then decided by `decision` as for an image, so that one image per
    patient gives the image's prediction.
    """
    names, leaves = np.asarray(patient, dtype=str), np.asarray(true, dtype=np.int64)
    known = np.char.str_len(names) > 0
    names, leaves, logp = names[known], leaves[known], np.asarray(logp)[known]
    found, patient_of = np.unique(names, return_inverse=True)
    keys, group_of, images = np.unique(
        np.stack([patient_of, leaves], axis=1), axis=0, return_inverse=True, return_counts=True
    )
    members, starts = np.argsort(group_of.ravel(), kind="stable"), np.cumsum(images) - images
    leaf_logp = decide.leaf_logp(logp, taxonomy)[members]
    log_mean = np.logaddexp.reduceat(leaf_logp, starts) - np.log(images)[:, None]
    mean = (
        np.add.reduceat(leaf_logp, starts) / images[:, None] if rule == "mean_log_probability" else log_mean
    )
    edges = decide.edge_logp(mean, taxonomy)
    if rule == "mode":
        n_leaves = len(taxonomy.leaves)
        voted = group_of.ravel() * n_leaves + decide.leaves(logp, taxonomy, decision)
        votes = np.bincount(voted, minlength=len(keys) * n_leaves).reshape(-1, n_leaves)
        predicted = np.where(votes == votes.max(axis=1, keepdims=True), np.exp(log_mean), -1.0).argmax(axis=1)
    else:
        predicted = decide.leaves(edges, taxonomy, decision)
    return Groups(found[keys[:, 0]], images, keys[:, 1], predicted, edges)


def wilson(
    successes: float, n: int, confidence: float = 0.95, floor: int = FLOOR
) -> tuple[float, float] | None:
    """Wilson score interval of successes / n, or None (`not estimable`) below `floor` groups.

    `successes` may be fractional: a mean over seeds on the same n groups, which more seeds do not make more.
    """
    from scipy.stats import norm

    if n < max(floor, 1):
        return None
    z, p = norm.ppf(0.5 + confidence / 2), successes / n
    centre = p + z * z / (2 * n)
    spread = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = (centre - spread) / (1 + z * z / n), (centre + spread) / (1 + z * z / n)
    return max(0.0, float(low)), min(1.0, float(high))


def _share(right: np.ndarray) -> Proportion:
    return Proportion(float(right.mean()) if len(right) else float("nan"), len(right))
