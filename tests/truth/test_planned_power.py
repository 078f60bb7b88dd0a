"""The power that `leukotree plan` computes is the rate of `better` in simulated studies."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from leukotree.stats import power
from leukotree.stats.power import Dependence, Design, Spread
from tests.truth.simulation import ARMS, Found, World, judge, rate

ROPE = 0.01
CHOICE = 0.012
"""Standard deviation of an arm's true score over the folds, by the values that each fold's search chose."""
RESULTS = Path(__file__).parents[2] / "results" / "simulated"


def _searched(number: int, folds: int) -> Found:
    """A study whose searches chose values of these true scores."""
    rng = np.random.default_rng((7, number))
    scores = {arm: (0.7 + CHOICE * rng.normal(size=folds)).tolist() for arm in ARMS}
    return Found(number, scores, {}, {})


@pytest.mark.slow("simulates studies")
@pytest.mark.parametrize("patients", [0.0, 0.008])
@pytest.mark.parametrize("difference", [0.05, 0.08])
def test_the_planned_power_is_the_rate_of_simulated_studies(difference: float, patients: float) -> None:
    """An arm has the variance of its choices, of its runs, and of what all folds share (`patients`)."""
    world, folds, studies = replace(World(), patients=patients), 5, 700
    found = rate((judge(_searched(number, folds), world, difference) for number in range(studies)), "better")
    of_fold = Spread(0.0, math.sqrt(2) * world.run, math.sqrt(2) * math.hypot(CHOICE, patients))
    shared = patients**2 / (CHOICE**2 + world.run**2 + patients**2)
    dependence: Dependence = shared if patients else "independent"
    planned = power.power(Design(folds, 1, 1, 84), of_fold, difference, ROPE, 1, dependence, draws=20_000)
    assert 0.1 < planned.value < 0.99
    assert found.low <= planned.value <= found.high


@pytest.mark.parametrize("difference", ["0.06", "0.1"])
def test_the_planned_power_is_the_rate_of_studies_with_searches(difference: str) -> None:
    """The committed table: studies that went through the sampler, the scheduler, the choice and the verdict.
    The spread and the correlation of their folds are those of the table with no difference."""
    rates, table = pd.read_csv(RESULTS / "rates.csv"), pd.read_csv(RESULTS / "power.csv")
    for row in table.to_dict("records"):
        kind = rates[(rates["arms"] == row["arms"]) & (rates["trials"] == row["trials"])]
        null = kind[(kind["kind"] == "as trained") & kind["draws"].str.startswith("own draws")].iloc[0]
        shared = max(0.0, float(null["correlation"]))
        of_fold = Spread(0.0, 0.0, float(null["sd"]) / math.sqrt(1 - shared))
        found = power.power(Design(5, 1, 1, 84), of_fold, float(difference), ROPE, 1, shared, draws=20_000)
        assert row[f"{difference} low"] - 0.01 <= found.value <= row[f"{difference} high"] + 0.01
