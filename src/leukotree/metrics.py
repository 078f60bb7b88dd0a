"""Scores as plain functions of arrays: true and predicted leaf indices, and log p(child | parent).

Every score runs over all L leaves of the taxonomy: a leaf that is never predicted, or has no sample, counts as 0 in the
macro averages (and is left out of the balanced accuracy, which is the mean recall of the leaves that have samples).

SciPy and scikit-learn are imported where they are used: they take a second that a run's first step need not wait for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np

from leukotree import decide
from leukotree.taxonomy import Taxonomy

Rule = Literal["mode", "mean_probability", "mean_log_probability"]
RULES: tuple[Rule, ...] = get_args(Rule)
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
    """One row per group, G of them: (patient, true leaf), images in it, true and predicted leaf index."""

    patient: np.ndarray
    images: np.ndarray
    true: np.ndarray
    predicted: np.ndarray


def macro_f1(true: np.ndarray, predicted: np.ndarray, n_leaves: int) -> float:
    """Mean F1 over all leaves. true, predicted: (N,) leaf indices."""
    from sklearn.metrics import f1_score

    return float(f1_score(true, predicted, labels=np.arange(n_leaves), average="macro", zero_division=0))


def confusion(true: np.ndarray, predicted: np.ndarray, n_leaves: int) -> np.ndarray:
    """(L, L) counts: rows are true leaves, columns predicted ones."""
    from sklearn.metrics import confusion_matrix

    return confusion_matrix(true, predicted, labels=np.arange(n_leaves))


def per_leaf(true: np.ndarray, predicted: np.ndarray, n_leaves: int) -> LeafScores:
    """Precision, recall, F1 and support of each leaf; 0 where a quotient is 0 / 0."""
    from sklearn.metrics import precision_recall_fscore_support

    labels = np.arange(n_leaves)
    return LeafScores(*precision_recall_fscore_support(true, predicted, labels=labels, average=None, zero_division=0))


def summary(true: np.ndarray, predicted: np.ndarray, n_leaves: int) -> dict[str, float]:
    """accuracy, balanced_accuracy, macro_precision, macro_recall, macro_f1; each in 0..1, NaN without samples."""
    names = ("accuracy", "balanced_accuracy", "macro_precision", "macro_recall", "macro_f1")
    if len(true) == 0:
        return dict.fromkeys(names, float("nan"))
    scores = per_leaf(true, predicted, n_leaves)
    values = (np.mean(np.equal(true, predicted)), scores.recall[scores.support > 0].mean(), scores.precision.mean(),
              scores.recall.mean(), scores.f1.mean())  # fmt: skip
    return {name: float(value) for name, value in zip(names, values, strict=True)}


def decision_accuracy(true: np.ndarray, logp: np.ndarray, taxonomy: Taxonomy) -> dict[str, Proportion]:
    """Decision node -> accuracy of its argmax among siblings, over the samples whose true leaf lies below that node.

    Conditional: a sample counts at a node even where a decision above it went wrong. logp: (N, E).
    """
    edge = {name: column for column, name in enumerate(taxonomy.edges)}
    wanted = taxonomy.choices[np.asarray(true, dtype=np.int64)]  # (N, D)
    scores = {}
    for column, (node, children) in enumerate(taxonomy.decisions.items()):
        defined = wanted[:, column] >= 0
        chosen = logp[defined][:, [edge[child] for child in children]].argmax(axis=1)
        scores[node] = _share(chosen == wanted[defined, column])
    return scores


def level_accuracy(true: np.ndarray, predicted: np.ndarray, taxonomy: Taxonomy) -> list[Proportion]:
    """Share of samples whose path is right from the root down to level 1, 2, ...; the last equals the leaf accuracy.

    A leaf above a level stands for itself below (normal stays normal), so each level scores every sample.
    """
    paths = [taxonomy.path(leaf) for leaf in taxonomy.leaves]
    scores = []
    for level in range(max(map(len, paths))):
        names = [path[min(level, len(path) - 1)] for path in paths]
        ancestor = np.array([names.index(name) for name in names])
        scores.append(_share(ancestor[true] == ancestor[predicted]))
    return scores


def by_patient(patient: Sequence[str], true: np.ndarray, logp: np.ndarray, taxonomy: Taxonomy, rule: Rule) -> Groups:
    """One prediction per (patient, true leaf) from all its images; images with an empty patient are left out.

    Where a patient has images of several leaves (cells of several types), one vote over all of them would have no
    single right answer; grouping by leaf as well keeps every image and reduces to plain patients where each has one leaf.

    `mode`: the leaf that most images were given (greedily); a tie goes to the higher mean probability, then to the first
    in preorder. `mean_probability`, `mean_log_probability`: leaf probabilities averaged over the images, arithmetically or
    geometrically, then decided top-down as for an image, so that one image per patient gives the image's prediction.
    """
    names, leaves = np.asarray(patient, dtype=str), np.asarray(true, dtype=np.int64)
    known = np.char.str_len(names) > 0
    names, leaves, logp = names[known], leaves[known], np.asarray(logp)[known]
    found, patient_of = np.unique(names, return_inverse=True)
    keys, group_of, images = np.unique(np.stack([patient_of, leaves], axis=1), axis=0, return_inverse=True, return_counts=True)
    members = np.split(np.argsort(group_of.ravel(), kind="stable"), np.cumsum(images)[:-1])
    leaf_logp, voted = decide.leaf_logp(logp, taxonomy), decide.greedy(logp, taxonomy)
    predicted = np.zeros(len(keys), dtype=np.int64)
    if len(keys) and rule == "mode":
        predicted = np.fromiter((_mode(voted[rows], leaf_logp[rows]) for rows in members), np.int64, len(keys))
    elif len(keys):
        mean = _log_mean if rule == "mean_probability" else _mean_log
        predicted = _top_down(np.stack([mean(leaf_logp[rows]) for rows in members]), taxonomy)
    return Groups(found[keys[:, 0]], images, keys[:, 1], predicted)


def wilson(successes: float, n: int, confidence: float = 0.95, floor: int = FLOOR) -> tuple[float, float] | None:
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


def _mode(voted: np.ndarray, leaf_logp: np.ndarray) -> int:
    votes = np.bincount(voted, minlength=leaf_logp.shape[1])
    probability = np.exp(leaf_logp).mean(axis=0)
    return int(np.where(votes == votes.max(), probability, -1.0).argmax())


def _log_mean(leaf_logp: np.ndarray) -> np.ndarray:
    from scipy.special import logsumexp

    return logsumexp(leaf_logp, axis=0) - np.log(len(leaf_logp))


def _mean_log(leaf_logp: np.ndarray) -> np.ndarray:
    return leaf_logp.mean(axis=0)


def _top_down(leaf_logp: np.ndarray, taxonomy: Taxonomy) -> np.ndarray:
    """(G, L) log leaf probabilities -> (G,) leaf indices: siblings compared by the mass of the leaves below them."""
    from scipy.special import logsumexp

    mass = np.stack([logsumexp(leaf_logp[:, below], axis=1) for below in taxonomy.leaves_below], axis=1)
    return decide.greedy(mass, taxonomy)
