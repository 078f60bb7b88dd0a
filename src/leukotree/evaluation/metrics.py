"""Scores as functions of arrays: true and predicted leaf indices, and log p(child | parent).

Scores are over all L leaves of the taxonomy. A leaf that is never predicted, or has no samples, counts as 0
in the macro averages. The balanced accuracy is the mean recall of the leaves that have samples.

SciPy is imported in functions, so that a run does not wait a second for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np

from leukotree.evaluation import decide
from leukotree.taxonomy import Taxonomy

Rule = Literal["mode", "mean_probability", "mean_log_probability"]
RULES: tuple[Rule, ...] = get_args(Rule)
"""Rules from a patient's images to one prediction. `decide.RULES` are those from log-probabilities to a
leaf."""
FLOOR = 5
"""With fewer groups a proportion is `not estimable`."""


class LeafScores(NamedTuple):
    """Precision, recall and F1 of each leaf in 0..1, and its number of samples. All arrays are (L,)."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray


class Proportion(NamedTuple):
    """A share `value` of `n` samples; NaN where n is 0."""

    value: float
    n: int


class Groups(NamedTuple):
    """G groups of images, each of one patient and one true leaf."""

    patient: np.ndarray
    """(G,) names."""
    images: np.ndarray
    """(G,) number of images."""
    true: np.ndarray
    """(G,) leaf indices."""
    predicted: np.ndarray
    """(G,) leaf indices."""
    logp: np.ndarray
    """(G, E) log p(child | parent) of the mean of the images' leaf probabilities. Under
    `mean_log_probability` it is the geometric mean."""


def macro_f1(
    true: np.ndarray, predicted: np.ndarray, n_leaves: int, leaves: np.ndarray | None = None
) -> float:
    """Mean F1 over all leaves, or over `leaves`. true, predicted: (N,) leaf indices. NaN if N is 0."""
    if not len(true):
        return float("nan")
    f1 = per_leaf(true, predicted, n_leaves).f1
    return float((f1 if leaves is None else f1[leaves]).mean())


def confusion(true: np.ndarray, predicted: np.ndarray, n_leaves: int) -> np.ndarray:
    """(L, L) counts: rows are true leaves, columns are predicted leaves."""
    pairs = np.asarray(true, dtype=np.int64) * n_leaves + predicted
    return np.bincount(pairs, minlength=n_leaves * n_leaves).reshape(n_leaves, n_leaves)


def per_leaf(true: np.ndarray, predicted: np.ndarray, n_leaves: int) -> LeafScores:
    """Precision, recall, F1 and support of each leaf. A quotient 0 / 0 counts as 0."""
    table = confusion(true, predicted, n_leaves)
    right, support, given = np.diagonal(table), table.sum(axis=1), table.sum(axis=0)

    def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        return part / np.where(whole > 0, whole, 1)

    return LeafScores(share(right, given), share(right, support), share(2 * right, given + support), support)


def summary(
    true: np.ndarray, predicted: np.ndarray, n_leaves: int, leaves: np.ndarray | None = None
) -> dict[str, float]:
    """accuracy, balanced_accuracy, macro_precision, macro_recall and macro_f1, in 0..1; NaN without samples.
    The macro averages are over all leaves, or over `leaves`, the leaves that samples can have."""
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
    """Decision -> accuracy of its most probable child, over the samples whose true leaf is below the
    decision.

    A sample counts at a decision also if a decision above it was wrong. logp: (N, E).
    """
    problems = decide.at_decisions(true, logp, taxonomy)
    return {decision: _share(logs.argmax(axis=1) == target) for decision, target, logs in problems}


def level_accuracy(true: np.ndarray, predicted: np.ndarray, taxonomy: Taxonomy) -> list[Proportion]:
    """Share of samples whose path is correct from the root down to depth 1, 2, ... The last one is the
    accuracy of the leaves.

    A leaf also counts at all greater depths, so that each depth scores every sample.
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
    """One prediction per (patient, true leaf) from all its images. Images without a patient are left out.

    A patient may have images of several leaves (cells of several types). One prediction for all of them would
    have no single correct answer, so each leaf is a group.

    Args:
        patient: N names, "" where unknown.
        true: (N,) leaf indices.
        logp: (N, E) log p(child | parent).
        rule: `mode` takes the leaf that `decision` gives most images; of equal ones the leaf with the higher
            mean probability, then the first in preorder. `mean_probability` and `mean_log_probability` take
            the arithmetic or geometric mean of the leaf probabilities, and then `decision` as for an image.
    """
    names, leaves = np.asarray(patient, dtype=str), np.asarray(true, dtype=np.int64)
    known = np.char.str_len(names) > 0
    names, leaves, logp = names[known], leaves[known], np.asarray(logp)[known]
    patients, patient_of = np.unique(names, return_inverse=True)
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
    return Groups(patients[keys[:, 0]], images, keys[:, 1], predicted, edges)


def wilson(
    successes: float, n: int, confidence: float = 0.95, floor: int = FLOOR
) -> tuple[float, float] | None:
    """Wilson score interval of successes / n (Wilson 1927), or None (`not estimable`) with fewer than `floor`
    groups.

    `successes` may be fractional: a mean over seeds on the same n groups. More seeds do not raise n.
    """
    from scipy.stats import norm

    if n < max(floor, 1):
        return None
    z, p = norm.ppf(0.5 + confidence / 2), successes / n
    centre = p + z * z / (2 * n)
    spread = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = (centre - spread) / (1 + z * z / n), (centre + spread) / (1 + z * z / n)
    return max(0.0, float(low)), min(1.0, float(high))


def _share(correct: np.ndarray) -> Proportion:
    return Proportion(float(correct.mean()) if len(correct) else float("nan"), len(correct))
