"""Power before a study: the rate at which simulated studies come out `better` by the rule of `verdict.judge`.

A study is simulated by the differences of its folds: a true effect, and four kinds of chance (`Spread`). The
verdict on them is that of a real study: corrected t-test, region of practical equivalence, and Holm over the
declared pairs. All draws of a design are judged at once.

How folds depend on each other is not known before a study. `simulate` knows two cases. `independent`: folds
share nothing but the patients whom repeats test again. `correlated`: any two folds have the correlation that
the test assumes, n_test / (n_test + n_train) (Nadeau and Bengio 2003), or a given one. Neither
gives less power for every design, so a plan asks for the power in both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from leukotree import seeds
from leukotree.evaluation import metrics
from leukotree.stats.clusters import macro_f1
from leukotree.stats.comparing import ROUNDING, holm
from leukotree.stats.verdict import ALPHA, CERTAIN

Dependence = Literal["independent", "correlated"] | float
"""How folds depend on each other. A number is the correlation of any two folds' differences."""
VERDICTS = ("better", "worse", "equivalent", "inconclusive", "not estimable")
DRAWS = 4000
"""Simulated studies of a design: the 95 % interval of a power of 0.8 is 0.79 to 0.81."""
RATES_DRAWS = 400
"""Simulated test folds for the spread over patients."""


class Spread(NamedTuple):
    """Standard deviations of the difference of two arms, in units of the score (0 to 1)."""

    patients: float
    """One test patient's part: a fold of n test patients has this over sqrt(n)."""
    training: float
    """The part of the two trainings with one seed. A mean over S seeds has this over sqrt(S)."""
    method: float
    """Between folds, by what neither seeds nor test patients remove: the chosen values, the training
    patients."""

    def of_fold(self, design: Design) -> float:
        """The standard deviation of a fold's difference."""
        return math.sqrt(self.patients**2 / design.tested + self.training**2 / design.seeds + self.method**2)

    def scaled(self, factor: float) -> Spread:
        """All standard deviations times a factor."""
        return Spread(*(factor * value for value in self))


class Design(NamedTuple):
    """What a study spends."""

    folds: int
    repeats: int
    seeds: int
    patients: int

    @property
    def tested(self) -> float:
        """Test patients of a fold."""
        return self.patients / self.folds

    @property
    def runs(self) -> int:
        """Runs of an arm."""
        return self.folds * self.repeats * self.seeds

    @property
    def ratio(self) -> float:
        """n_test / n_train of a fold."""
        return 1 / (self.folds - 1)

    def __str__(self) -> str:
        repeats = f" x {self.repeats} repeats" if self.repeats > 1 else ""
        seeds = f"{self.seeds} seed{'' if self.seeds == 1 else 's'}"
        return f"{self.folds} folds{repeats} x {seeds} x {self.patients} patients"


class Power(NamedTuple):
    """A rate of simulated studies with its 95 % interval by Wilson, which is about the simulation alone."""

    value: float
    low: float
    high: float


def power(
    design: Design,
    spread: Spread,
    effect: float,
    rope: float,
    pairs: int = 1,
    dependence: Dependence = "correlated",
    draws: int = DRAWS,
    seed: int = 0,
) -> Power:
    """The probability that the first of `pairs` declared comparisons is `better` (with a negative effect
    `worse`). The other pairs have no effect, so that Holm's procedure helps the first one least."""
    rng = seeds.generator(seed, "power", *design)
    effects = np.zeros(pairs)
    effects[0] = effect
    differences = simulate(design, spread, effects, dependence, draws, rng)
    wanted = VERDICTS.index("better" if effect > 0 else "worse")
    hits = int((verdicts(differences, design.ratio, rope)[:, 0] == wanted).sum())
    bounds = metrics.wilson(hits, draws)
    assert bounds is not None
    return Power(hits / draws, *bounds)


def simulate(
    design: Design,
    spread: Spread,
    effects: Sequence[float] | np.ndarray,
    dependence: Dependence,
    draws: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """(draws, M, J) differences of J = folds x repeats folds for M pairs with the same reference arm.

    Each arm has half of the variance of a difference, so that two pairs are correlated by their reference as
    in a study (0.5).
    """
    shape = draws, len(effects) + 1
    if dependence == "independent":
        of_arms = _independent(design, spread, shape, rng) / math.sqrt(2)
    else:
        shared = 1 / design.folds if dependence == "correlated" else float(dependence)
        of_arms = _correlated(design, spread, shape, shared, rng) / math.sqrt(2)
    differences = of_arms[:, 1:] - of_arms[:, :1]
    return differences + np.asarray(effects)[:, None]


def _independent(
    design: Design, spread: Spread, shape: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """(*shape, J) noise of folds. Trainings are independent. The patients are the same in all repeats.

    With patients dealt to folds at random, the mean over the folds of a repeat is that of all patients, the
    same for all repeats, and the folds spread around it with a sum of zero.
    """
    folds, repeats = design.folds, design.repeats
    within = rng.standard_normal((*shape, repeats, folds)) * (spread.patients / math.sqrt(design.tested))
    within -= within.mean(axis=-1, keepdims=True)
    overall = rng.standard_normal((*shape, 1, 1)) * (spread.patients / math.sqrt(design.patients))
    of_runs = math.hypot(spread.training / math.sqrt(design.seeds), spread.method)
    trained = rng.standard_normal((*shape, repeats, folds)) * of_runs
    return (within + overall + trained).reshape(*shape, folds * repeats)


def _correlated(
    design: Design, spread: Spread, shape: tuple[int, int], shared: float, rng: np.random.Generator
) -> np.ndarray:
    """(*shape, J) noise of folds, each pair of them with the correlation `shared`."""
    common = rng.standard_normal((*shape, 1)) * math.sqrt(shared)
    own = rng.standard_normal((*shape, design.folds * design.repeats)) * math.sqrt(1 - shared)
    return (common + own) * spread.of_fold(design)


def verdicts(differences: np.ndarray, ratio: float, rope: float) -> np.ndarray:
    """(D, M) int64 positions in VERDICTS: the verdicts of D studies, each with a family of M pairs over J
    folds, as `verdict.judge` gives them. differences: (D, M, J)."""
    from scipy.stats import t as student_t

    folds = differences.shape[-1]
    if folds < 2:
        return np.full(differences.shape[:2], VERDICTS.index("not estimable"))
    mean, df = differences.mean(axis=-1), folds - 1
    se = differences.std(axis=-1, ddof=1) * math.sqrt(1 / folds + ratio)
    flat = np.ptp(differences, axis=-1) < ROUNDING
    se = np.where(flat, 1.0, se)
    p = np.where(flat, np.nan, 2 * student_t.sf(np.abs(mean) / se, df))
    better = student_t.sf((rope - mean) / se, df)
    worse = student_t.cdf((-rope - mean) / se, df)
    same = np.maximum(0.0, 1 - better - worse)
    significant = holm(p) < ALPHA
    names = {name: VERDICTS.index(name) for name in VERDICTS}
    result = np.full(mean.shape, names["inconclusive"])
    result[significant & (better >= CERTAIN) & (better > worse)] = names["better"]
    result[significant & (worse >= CERTAIN) & (worse >= better)] = names["worse"]
    result[same >= CERTAIN] = names["equivalent"]
    equal = np.abs(differences).max(axis=-1) < ROUNDING
    result[flat] = np.where(equal[flat], names["inconclusive"], names["not estimable"])
    return result


def spread_of_patients(
    patients: Sequence[int],
    images: Sequence[int],
    folds: int,
    score: float,
    icc: float,
    agreement: float,
    draws: int = RATES_DRAWS,
    seed: int = 0,
) -> float:
    """The assumed `Spread.patients` of the macro F1 of images, by simulated test folds of a data set.

    A patient has a rate of right images from a beta distribution with the mean `score` and the correlation
    `icc` between its images, so that images of a patient count less than images of several. Wrong images go
    to the other leaves with equal probability.

    Args:
        patients: of each of L leaves.
        images: of each of L leaves.
        folds: a fold tests 1 / folds of each leaf's patients, at least one.
        score: probability that an image is right, in every leaf and both arms.
        icc: correlation between images of a patient, from 0 up to below 1.
        agreement: probability that both arms have the same result for a patient. It is the correlation of
            their results.
    """
    rng, leaves = seeds.generator(seed, "spread"), len(patients)
    tested = np.maximum(1, np.rint(np.asarray(patients) / folds)).astype(np.int64)
    each = np.maximum(1, np.rint(np.asarray(images) / np.asarray(patients))).astype(np.int64)
    confusion = np.zeros((2, draws, leaves, leaves))
    for leaf in range(leaves):
        first, other = (
            _right(rng, (draws, int(tested[leaf])), int(each[leaf]), score, icc) for _ in range(2)
        )
        second = np.where(rng.random(first.shape) < agreement, first, other)
        for arm, right in enumerate((first, second)):
            confusion[arm, :, leaf, leaf] = right.sum(axis=1)
        total = int(tested[leaf] * each[leaf])
        elsewhere = np.delete(np.arange(leaves), leaf)
        same = (first == second).all(axis=1)
        for arm in range(2):
            wrong = total - confusion[arm, :, leaf, leaf].astype(np.int64)
            spread = rng.multinomial(wrong, np.full(leaves - 1, 1 / (leaves - 1)))
            confusion[arm][:, leaf, elsewhere] = spread
        confusion[1][same, leaf] = confusion[0][same, leaf]
    difference = macro_f1(confusion[1]) - macro_f1(confusion[0])
    return float(difference.std(ddof=1) * math.sqrt(tested.sum()))


def _right(
    rng: np.random.Generator, shape: tuple[int, int], images: int, score: float, icc: float
) -> np.ndarray:
    """Numbers of right images of patients with `images` images each."""
    if icc <= 0:
        return rng.binomial(images, score, shape)
    scale = (1 - icc) / icc
    return rng.binomial(images, rng.beta(score * scale, (1 - score) * scale, shape))


def measured(differences: np.ndarray, of_patients: float, tested: float) -> Spread:
    """The spread of a pilot study.

    The variance of the folds' mean differences is divided: into the part of the test patients, which is
    given; that of the trainings, from the spread between seeds; and the rest, at least 0. With one seed the
    rest holds the trainings, too.

    Args:
        differences: (J, S) of J folds and S seeds, challenger minus reference.
        of_patients: standard deviation of a fold's difference over other test patients, for the trained
            models.
        tested: test patients of a fold.

    Raises ValueError for fewer than two folds.
    """
    folds, of_seeds = differences.shape
    if folds < 2:
        raise ValueError("a spread needs two folds")
    training = float(np.sqrt(differences.var(axis=1, ddof=1).mean())) if of_seeds > 1 else 0.0
    total = float(differences.mean(axis=1).var(ddof=1))
    rest = max(0.0, total - of_patients**2 - training**2 / of_seeds)
    return Spread(of_patients * math.sqrt(tested), training, math.sqrt(rest))


def upper_limit(df: int, confidence: float = 0.8) -> float:
    """The factor from a standard deviation with `df` degrees of freedom to its one-sided upper limit. Browne
    (1995) plans with the limit of 80 %: then the planned power is reached in 80 % of the cases."""
    from scipy.stats import chi2

    return math.sqrt(df / float(chi2.ppf(1 - confidence, df)))
