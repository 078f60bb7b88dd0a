"""The verdict on two arms: better, worse, equivalent, inconclusive or not estimable."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from leukotree.stats.clusters import Clusters, macro_f1, majority_is_correct, pool
from leukotree.stats.comparing import (
    ROUNDING,
    McNemar,
    Probabilities,
    correlated_t,
    detectable_range,
    holm,
    mcnemar,
    nadeau_bengio,
    smallest_detectable,
)
from leukotree.stats.resampling import DRAWS, Statistic, difference_interval

Verdict = Literal["better", "worse", "equivalent", "inconclusive", "not estimable"]
CERTAIN = 0.95
"""Smallest posterior probability for `better`, `worse` and `equivalent`."""
ALPHA = 0.05
"""Family-wise error of `better` and `worse`."""


class Fold(NamedTuple):
    """The result of an arm on one outer test fold."""

    score: float
    """Mean over seeds."""
    clusters: Clusters
    repeat: int = 0
    """The repeat of this fold. Within a repeat each patient is tested once."""


@dataclass(frozen=True)
class Comparison:
    """The comparison of a challenger with a reference over the folds that both have. A number that is not
    estimable is NaN or None."""

    challenger: str
    reference: str
    folds: int
    mean: float
    """Mean of the fold-wise differences of the score: for the methods, trained again."""
    interval: tuple[float, float] | None
    """95 % interval of `mean` by Nadeau and Bengio."""
    pooled: float
    """Difference of the scores of all test images together: for these trained models. It is another number
    than `mean`: a macro F1 is no mean over images."""
    bootstrap: tuple[float, float] | None
    """95 % interval of `pooled` by the bootstrap: on other patients."""
    p: float
    """Two-sided p value by Nadeau and Bengio."""
    p_holm: float
    """`p`, adjusted for all comparisons of the family by Holm."""
    probabilities: Probabilities | None
    """P(worse), P(same) and P(better), with the region of practical equivalence as `same`."""
    detectable: float
    """Smallest true difference that this rule detects with a probability of 80 %, see
    `smallest_detectable`."""
    detectable_range: tuple[float, float] | None
    """95 % interval of `detectable`: the spread between few folds is poorly known, see
    `comparing.detectable_range`."""
    of_spread: int
    """Degrees of freedom of the spread between folds: those of one repeat."""
    mcnemar: McNemar | None
    """Patients that only the challenger, or only the reference, predicts correctly. None if images have no
    patient."""
    clusters: int
    """Number of patients. An image without a patient counts as one."""
    alone: int
    """Number of images without a patient."""
    verdict: Verdict
    reason: str
    """Why, in one line."""


class Judged(NamedTuple):
    """The part of a `Comparison` that is about the methods, trained again: their differences over folds."""

    folds: int
    mean: float
    interval: tuple[float, float] | None
    """95 % interval by Nadeau and Bengio; None where it is not estimable."""
    p: float
    p_holm: float
    """`p`, adjusted for all of the family by Holm."""
    probabilities: Probabilities | None
    verdict: Verdict
    reason: str


def judged(family: Sequence[Sequence[float]], ratio: float, rope: float) -> list[Judged]:
    """A verdict for each list of J fold-wise differences of one family.

    Args:
        ratio: n_test / n_train of a fold.
        rope: half width of the region of practical equivalence.
    """
    tests = [nadeau_bengio(values, ratio) for values in family]
    adjusted = holm([test.p if test else math.nan for test in tests]).tolist()
    rows = []
    for values, test, p_holm in zip(family, tests, adjusted, strict=True):
        probabilities = correlated_t(values, ratio, rope)
        verdict, reason = judge(values, probabilities, p_holm)
        rows.append(
            Judged(
                folds=len(values),
                mean=float(np.mean(values)) if len(values) else math.nan,
                interval=(test.low, test.high) if test else None,
                p=test.p if test else math.nan,
                p_holm=p_holm,
                probabilities=probabilities,
                verdict=verdict,
                reason=reason,
            )
        )
    return rows


def compare(
    arms: Mapping[str, Mapping[int, Fold]],
    pairs: Sequence[tuple[str, str]],
    ratio: float,
    rope: float = 0.01,
    statistic: Statistic = macro_f1,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[Comparison]:
    """One comparison for each pair (challenger, reference), in their order. All pairs are one family, which
    was declared before; see `judge`.

    Args:
        arms: name -> outer fold -> its result. Arms and folds may be missing. With repeats, the folds of all
            repeats are numbered through.
        ratio: n_test / n_train of a fold.
        rope: half width of the region of practical equivalence, in units of the score.
        statistic: the same score as a function of confusion matrices, for the bootstrap.
    """
    common = [
        sorted(set(arms.get(challenger, {})) & set(arms.get(reference, {})))
        for challenger, reference in pairs
    ]
    differences = [
        [arms[challenger][fold].score - arms[reference][fold].score for fold in folds]
        for (challenger, reference), folds in zip(pairs, common, strict=True)
    ]
    rows = []
    for (challenger, reference), folds, values, over_folds in zip(
        pairs, common, differences, judged(differences, ratio, rope), strict=True
    ):
        detectable = smallest_detectable(values, ratio, rope=rope, family=len(pairs), alpha=ALPHA)
        of_spread = _of_spread([arms[challenger][fold].repeat for fold in folds])
        between = detectable_range(
            values, ratio, rope=rope, family=len(pairs), alpha=ALPHA, of_spread=of_spread
        )
        first, second = (
            [arms[name][fold] for fold in folds] if folds else [] for name in (challenger, reference)
        )
        rows.append(
            Comparison(
                challenger=challenger,
                reference=reference,
                **over_folds._asdict(),
                detectable=math.nan if detectable is None else detectable,
                detectable_range=between,
                of_spread=of_spread,
                **_over_patients(first, second, statistic, draws, seed),
            )
        )
    return rows


def _of_spread(repeats: Sequence[int]) -> int:
    """Degrees of freedom of the spread between folds, from the repeat of each: those of the largest repeat.

    Other repeats test the same patients again.
    """
    return max(Counter(repeats).values(), default=0) - 1


def _over_patients(
    challenger: Sequence[Fold], reference: Sequence[Fold], statistic: Statistic, draws: int, seed: int
) -> dict[str, Any]:
    """The fields of a comparison that are about the trained models on other patients, from their folds."""
    if not challenger:
        return {"pooled": math.nan, "bootstrap": None, "mcnemar": None, "clusters": 0, "alone": 0}
    first, second = (
        pool([fold.clusters for fold in folds], [fold.repeat for fold in folds])
        for folds in (challenger, reference)
    )
    score, other = (statistic(arm.counts.sum(axis=0)) for arm in (first, second))
    return {
        "pooled": float(score - other),
        "bootstrap": difference_interval(first, second, statistic, draws, seed),
        "mcnemar": None if first.alone else mcnemar(majority_is_correct(first), majority_is_correct(second)),
        "clusters": len(first.names),
        "alone": first.alone,
    }


def judge(
    differences: Sequence[float], probabilities: Probabilities | None, p_holm: float
) -> tuple[Verdict, str]:
    """The verdict on J fold-wise differences, and its reason in one line.

    `better`: P(better) >= 0.95 and the Holm-adjusted p < 0.05. `worse`: the same for P(worse). `equivalent`:
    P(same) >= 0.95. `not estimable`: fewer than two folds, or the same difference, not 0, in all folds,
    which has no spread. All others are `inconclusive`, also equal scores in all folds.
    """
    folds = len(differences)
    if folds < 2:
        return "not estimable", f"{folds} common fold{'' if folds == 1 else 's'}; a spread needs two"
    if probabilities is None:
        if np.abs(differences).max() < ROUNDING:
            # The posterior would be a point at 0, and the verdict equivalent. But the spread is unknown.
            return "inconclusive", f"equal scores in all {folds} folds; no spread to judge by"
        return "not estimable", f"the same difference in all {folds} folds; no spread to judge by"
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
