"""Scores of each decision of the tree, and of each depth, as classification problems.

A decision is scored over the samples whose true leaf is below it, also if a decision above it was wrong. A
depth is scored over all samples: a leaf above it counts as a class. The last depth has the leaves.

Macro precision, recall and F1 are means over all classes, as in `metrics`. Average precision and ROC AUC are
means over the classes that have samples, and others that do not belong to them. Undefined scores are NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from leukotree.evaluation import decide, metrics
from leukotree.evaluation.decide import Rule
from leukotree.taxonomy import Taxonomy


class DecisionScores(NamedTuple):
    """Scores of a problem with K classes. The first five are of the predicted class, the next two of the
    order of the probabilities. Errors of the probabilities themselves are in `calibration`."""

    accuracy: float
    balanced_accuracy: float
    macro_precision: float
    macro_recall: float
    macro_f1: float
    average_precision: float
    """Macro, one-vs-rest."""
    roc_auc: float
    """Macro, one-vs-rest."""
    classes: tuple[str, ...]
    support: np.ndarray
    """(K,) number of samples of each class."""
    confusion: np.ndarray
    """(K, K) counts: rows true, columns predicted."""


def per_decision(true: np.ndarray, logp: np.ndarray, taxonomy: Taxonomy) -> dict[str, DecisionScores]:
    """Decision -> scores of its most probable child.

    Args:
        true: (N,) leaf indices.
        logp: (N, E) log p(child | parent).
    """
    problems = decide.at_decisions(true, logp, taxonomy)
    return {
        decision: problem(taxonomy.decisions[decision], target, np.exp(logs), logs.argmax(axis=1))
        for decision, target, logs in problems
    }


def per_depth(
    true: np.ndarray,
    logp: np.ndarray,
    taxonomy: Taxonomy,
    rule: Rule = "greedy",
    decided: np.ndarray | None = None,
) -> list[DecisionScores]:
    """Scores at each depth of `taxonomy.cuts`, of the nodes that `rule` decides. The last are those of the
    leaves. `decided`: as for `decide.per_depth`."""
    probability = np.exp(decide.node_logp(logp, taxonomy))
    picks = decide.per_depth(logp, taxonomy, rule, decided)
    targets = taxonomy.cut_of_leaf[:, np.asarray(true, dtype=np.int64)]
    return [
        problem(cut, targets[depth], probability[:, [taxonomy.place[name] for name in cut]], picks[:, depth])
        for depth, cut in enumerate(taxonomy.cuts)
    ]


def problem(
    classes: tuple[str, ...], target: np.ndarray, probability: np.ndarray, predicted: np.ndarray
) -> DecisionScores:
    """Scores of a classification problem. target, predicted: (n,) class indices. probability: (n, K)."""
    table = metrics.confusion(target, predicted, len(classes))
    return DecisionScores(
        **metrics.summary(target, predicted, len(classes)),
        average_precision=_macro(one_vs_rest(target, probability, average_precision)),
        roc_auc=_macro(one_vs_rest(target, probability, roc_auc)),
        classes=classes,
        support=table.sum(axis=1),
        confusion=table,
    )


def one_vs_rest(
    target: np.ndarray, probability: np.ndarray, score: Callable[[np.ndarray, np.ndarray], float]
) -> np.ndarray:
    """(K,) `score(belongs to the class, probability)` of each class; NaN for a class to which no sample
    belongs, or all do."""
    belongs = np.asarray(target)[:, None] == np.arange(probability.shape[1])
    pairs = zip(belongs.T, probability.T, strict=True)
    return np.array([score(is_class, p) if 0 < is_class.sum() < len(p) else np.nan for is_class, p in pairs])


def average_precision(belongs: np.ndarray, probability: np.ndarray) -> float:
    """The sum over thresholds of the gain in recall times the precision, as scikit-learn's
    `average_precision_score`, which takes ten times as long to check its arguments.

    belongs, probability: (n,). Equal probabilities are one threshold.
    """
    order = np.argsort(-probability, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(probability[order]), -1))
    hits = belongs[order].cumsum()[ends]
    return float((np.diff(hits, prepend=0) * hits / (ends + 1)).sum() / hits[-1])


def roc_auc(belongs: np.ndarray, probability: np.ndarray) -> float:
    """The share of pairs of a sample that belongs and one that does not in the right order. Equal
    probabilities count half (Mann and Whitney), as in scikit-learn's `roc_auc_score`."""
    from scipy.stats import rankdata

    inside, n = int(belongs.sum()), len(belongs)
    ranks = rankdata(probability)[belongs].sum()
    return float((ranks - inside * (inside + 1) / 2) / (inside * (n - inside)))


def _macro(values: np.ndarray) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")
