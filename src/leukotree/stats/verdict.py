"""Is one arm better than another? The rule that was declared before any result."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from leukotree.stats.clusters import Clusters, macro_f1, pool, voted_right
from leukotree.stats.comparing import (
    ROUNDING,
    McNemar,
    Probabilities,
    correlated_t,
    holm,
    mcnemar,
    nadeau_bengio,
    smallest_detectable,
)
from leukotree.stats.resampling import DRAWS, Statistic, difference_interval

Verdict = Literal["better", "worse", "equivalent", "inconclusive", "not estimable"]
CERTAIN = 0.95
"""A part of the three-part verdict holds from this posterior probability on."""
ALPHA = 0.05
"""Family-wise error of `better` and `worse`."""


class Fold(NamedTuple):
    """What an arm did on one outer test fold."""

    score: float
    """Averaged over seeds."""
    clusters: Clusters


@dataclass(frozen=True)
class Comparison:
    """Challenger minus reference, over the folds that both have. NaN or None where a number is not
    estimable."""

    challenger: str
    reference: str
    folds: int
    mean: float
    """Of the fold-wise differences of the score."""
    interval: tuple[float, float] | None
    """95 %, Nadeau-Bengio: of methods that are trained again."""
    bootstrap: tuple[float, float] | None
    """95 %, of the statistic pooled over folds: of these trained models on other patients."""
    p: float
    """Two-sided, Nadeau-Bengio."""
    p_holm: float
    """The same, adjusted for all comparisons of the family."""
    probabilities: Probabilities | None
    """P(worse), P(same), P(better) by more than the region of practical equivalence."""
    detectable: float
    """Smallest true difference that this rule would call with a chance of 80 %, see `smallest_detectable`."""
    mcnemar: McNemar | None
    """Patients that only the challenger, only the reference has right. None where images have no patient."""
    clusters: int
    """Patients; an image without one counts as one."""
    alone: int
    """Images without a patient."""
    verdict: Verdict
    reason: str
    """One line."""


def compare(
    arms: Mapping[str, Mapping[int, Fold]],
    pairs: Sequence[tuple[str, str]],
    ratio: float,
    rope: float = 0.01,
    statistic: Statistic = macro_f1,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[Comparison]:
    """One row per pair (challenger, reference), in their order. All pairs are one family, declared before;
    see `judge`.

    Args:
        arms: name -> outer fold -> its score and clusters. An arm may be missing, or lack folds.
        ratio: n_test / n_train of a fold.
        rope: half width of the region of practical equivalence, in units of the score.
        statistic: the same score as a function of confusion matrices, for the bootstrap.
    """
    common = [sorted(set(arms.get(mine, {})) & set(arms.get(other, {}))) for mine, other in pairs]
    differences = [
        [arms[mine][fold].score - arms[other][fold].score for fold in folds]
        for (mine, other), folds in zip(pairs, common, strict=True)
    ]
    tests = [nadeau_bengio(values, ratio) for values in differences]
    adjusted = holm([test.p if test else math.nan for test in tests]).tolist()
    rows = []
    for (mine, other), folds, values, test, p_holm in zip(
        pairs, common, differences, tests, adjusted, strict=True
    ):
        probabilities = correlated_t(values, ratio, rope)
        detectable = smallest_detectable(values, ratio, rope=rope, family=len(pairs), alpha=ALPHA)
        mean, p = float(np.mean(values)) if values else math.nan, test.p if test else math.nan
        bootstrap, paired, clusters, alone = None, None, 0, 0
        if folds:
            first, second = (pool([arms[name][fold].clusters for fold in folds]) for name in (mine, other))
            bootstrap, clusters, alone = (
                difference_interval(first, second, statistic, draws, seed),
                len(first.names),
                first.alone,
            )
            paired = None if alone else mcnemar(voted_right(first), voted_right(second))
        rows.append(
            Comparison(
                mine,
                other,
                len(folds),
                mean,
                (test.low, test.high) if test else None,
                bootstrap,
                p,
                p_holm,
                probabilities,
                math.nan if detectable is None else detectable,
                paired,
                clusters,
                alone,
                *judge(values, probabilities, p_holm),
            )
        )
    return rows


def judge(
    differences: Sequence[float], probabilities: Probabilities | None, p_holm: float
) -> tuple[Verdict, str]:
    """The verdict on J fold-wise differences, and why in one line.

    `better`: P(better) >= 0.95 and the Holm-adjusted p < 0.05; `worse` likewise. `equivalent`: P(same) >=
    0.95. Else
    `inconclusive`, as are equal scores in all folds. `not estimable`: fewer than two folds, or one and the
    same difference in all
    of them, which has no spread to judge it by.
    """
    folds = len(differences)
    if folds < 2:
        return "not estimable", f"{folds} common fold{'' if folds == 1 else 's'}; a spread needs two"
    if probabilities is None:
        if np.abs(differences).max() < ROUNDING:
            # The posterior would be a point at 0 and say equivalent; but the spread is unknown, not 0.
            return "inconclusive", f"equal scores in all {folds} folds; no spread to judge by"
        return "not estimable", f"the same difference in all {folds} folds; no spread to judge it by"
    worse, same, better = probabilities
    if same >= CERTAIN:
        return "equivalent", f"P(same) {same:.3f}"
    side: Verdict = "better" if better > worse else "worse"
    certainty = max(better, worse)
    if certainty < CERTAIN:
        return (
            "inconclusive",
            f"P(worse) {worse:.3f}, P(same) {same:.3f}, P(better) {better:.3f}: none reaches {CERTAIN}",
        )
    if p_holm >= ALPHA:
        return (
            "inconclusive",
            f"P({side}) {certainty:.3f}, but the Holm-adjusted p {p_holm:.3f} is not below {ALPHA}",
        )
    return side, f"P({side}) {certainty:.3f}, Holm-adjusted p {p_holm:.3g}"
