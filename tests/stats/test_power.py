"""The power of a study: simulated verdicts are those of the rule, and their rates are the known ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import nct
from scipy.stats import t as student_t

from leukotree import seeds, stats
from leukotree.stats import power
from leukotree.stats.power import VERDICTS, Design, Spread

DESIGN = Design(folds=5, repeats=1, seeds=3, patients=84)
SPREAD = Spread(patients=0.15, training=0.01, method=0.01)


def _judged(differences: np.ndarray, ratio: float, rope: float) -> list[str]:
    """The verdicts of one study by the functions of a report. differences: (M, J)."""
    tests = [stats.nadeau_bengio(values, ratio) for values in differences]
    adjusted = stats.holm([test.p if test else math.nan for test in tests])
    return [
        stats.judge(values, stats.correlated_t(values, ratio, rope), p)[0]
        for values, p in zip(differences, adjusted, strict=True)
    ]


@pytest.mark.parametrize(("pairs", "folds", "rope"), [(1, 5, 0.01), (3, 4, 0.0), (2, 10, 0.02), (2, 2, 0.01)])
def test_all_studies_are_judged_as_each_of_them_is(pairs: int, folds: int, rope: float) -> None:
    rng = np.random.default_rng(folds)
    differences = rng.normal(size=(300, pairs, folds)) * 0.02 + rng.normal(size=(300, pairs, 1)) * 0.04
    differences[:40] *= 0.02  # equivalent ones
    differences[40, 0], differences[41, 0] = 0.0, 0.1
    together = power.verdicts(differences, 1 / (folds - 1), rope)
    one_by_one = [_judged(study, 1 / (folds - 1), rope) for study in differences]
    assert [[VERDICTS[code] for code in study] for study in together] == one_by_one
    assert {name for study in one_by_one for name in study} >= {"better", "worse", "inconclusive"}


def test_one_fold_is_not_estimable() -> None:
    assert (power.verdicts(np.ones((3, 2, 1)), 1.0, 0.01) == VERDICTS.index("not estimable")).all()


def test_families_are_adjusted_as_each_of_them_is() -> None:
    p = np.random.default_rng(0).random((200, 4)) ** 3
    p[0, 2] = np.nan
    assert np.allclose(stats.holm(p), [stats.holm(row) for row in p], equal_nan=True)


@pytest.mark.parametrize("effect", [0.02, 0.05, -0.05])
@pytest.mark.parametrize("design", [DESIGN, Design(5, 3, 3, 84), Design(10, 2, 1, 200)])
def test_power_is_that_of_the_noncentral_t(design: Design, effect: float) -> None:
    """With the correlation that the test assumes, its statistic has exactly a t distribution."""
    spread = SPREAD.of_fold(design)
    folds = design.folds * design.repeats
    shared = 1 / design.folds
    centre = abs(effect) / (spread * math.sqrt(shared + (1 - shared) / folds))
    known = nct.sf(student_t.ppf(0.975, folds - 1), folds - 1, centre)
    found = power.power(design, SPREAD, effect, rope=0.0, draws=20_000)
    assert abs(found.value - known) < 0.012
    assert found.low <= found.value <= found.high


def test_other_pairs_of_the_family_take_some_power() -> None:
    for dependence in ("independent", "correlated"):
        values = [power.power(DESIGN, SPREAD, 0.1, 0.01, pairs, dependence).value for pairs in (1, 2, 4)]  # type: ignore[arg-type]
        assert values == sorted(values, reverse=True)
        assert values[0] > values[2] + 0.05


def test_power_grows_with_seeds_repeats_patients_and_the_effect() -> None:
    spread = Spread(patients=0.1, training=0.04, method=0.01)
    values = [
        power.power(Design(5, r, s, n), spread, effect, 0.01).value
        for r, s, n, effect in ((1, 1, 84, 0.04), (1, 3, 84, 0.04), (2, 3, 84, 0.04), (2, 3, 168, 0.04))
    ]
    assert values == sorted(values)
    assert power.power(Design(5, 2, 3, 168), spread, 0.06, 0.01).value > values[-1]


@pytest.mark.parametrize("repeats", [1, 2, 5])
def test_the_noise_has_the_variances_that_are_stated(repeats: int) -> None:
    design = Design(5, repeats, 2, 50)
    rng = np.random.default_rng(0)
    spread = Spread(0.1, 0.02, 0.01)
    for dependence, mean_variance in (
        # The patients are the same in all repeats: only their number makes their part small.
        ("independent", 0.1**2 / 50 + (0.02**2 / 2 + 0.01**2) / (5 * repeats)),
        ("correlated", spread.of_fold(design) ** 2 * (1 / 5 + 4 / 5 / (5 * repeats))),
    ):
        found = power.simulate(design, spread, [0.0, 0.1], dependence, 20_000, rng)  # type: ignore[arg-type]
        assert found.shape == (20_000, 2, 5 * repeats)
        assert np.allclose(found.mean(axis=(0, 2)), [0, 0.1], atol=0.001)
        assert np.allclose(found.std(axis=0), spread.of_fold(design), rtol=0.03)
        means = found.mean(axis=-1)
        assert means.var(axis=0) == pytest.approx([mean_variance] * 2, rel=0.05)
        assert np.corrcoef(means.T)[0, 1] == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("repeats", [1, 2, 5, 10])
@pytest.mark.parametrize(
    "spread",
    [Spread(0.1, 0, 0), Spread(0.1, 0.02, 0.01), Spread(0, 0.03, 0)],
    ids=["patients", "all", "runs"],
)
@pytest.mark.parametrize("dependence", ["independent", "correlated"])
def test_repeats_give_no_false_verdicts(repeats: int, spread: Spread, dependence: power.Dependence) -> None:
    """J - 1 degrees of freedom for J = folds x repeats: false `better` or `worse` in at most 5 % of studies
    with equal arms, without a region of equivalence, however often the same patients are dealt again."""
    design = Design(5, repeats, 1, 84)
    draws = 8000
    differences = power.simulate(design, spread, [0.0], dependence, draws, seeds.generator(repeats, "false"))
    decided = np.isin(power.verdicts(differences, design.ratio, 0.0)[:, 0], [0, 1]).mean()
    assert decided < 0.05 + 2.6 * math.sqrt(0.05 * 0.95 / draws)
    if dependence == "independent":
        assert decided < 0.05


@pytest.mark.parametrize("rate", [0.05, 0.5])
def test_repeats_with_real_patients_give_no_false_verdicts(rate: float) -> None:
    """Thirty patients, each with a difference of -1, 0 or 1 that every repeat tests again: the worst case, in
    which repeats average nothing. Their number, not that of the folds, limits what is known."""
    rng, studies, repeats = np.random.default_rng(1), 4000, 8
    effects = rng.choice([-1.0, 0.0, 1.0], p=[rate / 2, 1 - rate, rate / 2], size=(studies, 1, 30))
    dealt = rng.permuted(np.repeat(effects, repeats, axis=1), axis=2)
    differences = dealt.reshape(studies, repeats * 5, 6).mean(axis=2)[:, None]
    decided = np.isin(power.verdicts(differences, 1 / 4, 0.0)[:, 0], [0, 1]).mean()
    assert decided < 0.05 + 2.6 * math.sqrt(0.05 * 0.95 / studies)


def test_the_assumed_spread_of_patients_is_that_of_larger_data() -> None:
    """Twice the patients: the spread of one patient stays. Images of the same patient count less."""
    leaves = [12] * 7
    one = power.spread_of_patients(leaves, [40 * n for n in leaves], 4, 0.85, 0.3, 0.5, draws=2000)
    twice = power.spread_of_patients([24] * 7, [40 * 24] * 7, 4, 0.85, 0.3, 0.5, draws=2000)
    assert one == pytest.approx(twice, rel=0.1)
    loose = power.spread_of_patients(leaves, [40 * n for n in leaves], 4, 0.85, 0.05, 0.5)
    assert loose < 0.7 * one
    assert power.spread_of_patients(leaves, [40 * n for n in leaves], 4, 0.85, 0.3, 0.95) < 0.5 * one
    assert power.spread_of_patients([5, 1], [5, 1], 5, 0.8, 0.0, 0.0) > 0  # single images, a leaf of one


def test_a_pilot_gives_the_variances_that_made_it() -> None:
    truth, design = Spread(0.1, 0.03, 0.02), Design(400, 1, 3, 400 * 20)
    rng = np.random.default_rng(0)
    of_folds = rng.normal(size=(400, 1)) * math.hypot(0.1 / math.sqrt(20), 0.02)
    differences = of_folds + rng.normal(size=(400, 3)) * 0.03
    found = power.measured(differences, 0.1 / math.sqrt(design.tested), design.tested)
    assert found == pytest.approx(truth, rel=0.12)
    with pytest.raises(ValueError, match="two folds"):
        power.measured(differences[:1], 0.1, 20)


def test_the_upper_limit_holds_in_four_of_five_pilots() -> None:
    values = np.random.default_rng(0).normal(size=(20_000, 5)).std(axis=1, ddof=1)
    assert (values * power.upper_limit(4) >= 1).mean() == pytest.approx(0.8, abs=0.01)
