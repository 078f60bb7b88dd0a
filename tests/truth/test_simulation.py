"""Simulated studies: equal arms are equal, the parts are the real ones, and the table counts verdicts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from hpc.search import sampler
from hpc.studies.study import SearchId
from tests.truth import simulated
from tests.truth.simulation import (
    ARMS,
    CHALLENGER,
    REFERENCE,
    SPACE,
    Design,
    Found,
    Judged,
    Truth,
    World,
    judge,
    rate,
    search,
    spread,
)

SMALL = Design(trials=4, folds=3, epochs=4)
CSV = Path(__file__).parents[2] / "results" / "simulated" / "rates.csv"
QUIET = World(fold=0.0, trial=0.0, epoch=0.0, run=0.0, patients=0.0)


def turned(chosen: dict[str, Any]) -> dict[str, Any]:
    """The configuration with each axis turned around."""
    other = {}
    for key, value in chosen.items():
        (form, values), *_ = SPACE[key].items()
        if form == "choice":
            other[key] = values[len(values) - 1 - values.index(value)]
        elif form == "loguniform":
            other[key] = values[0] * values[1] / value
        else:
            other[key] = values[0] + values[1] - value
    return other


def test_for_each_configuration_of_an_arm_the_other_has_an_equally_good_one() -> None:
    truth = Truth(replace(World(), fold=0.0), SMALL, 3)
    study = SMALL.study(3)
    for fold in range(20):
        chosen = sampler.propose(study, SearchId("flat", fold), [])
        one = truth.score(REFERENCE, chosen, 0, "outer")
        assert truth.score(CHALLENGER, turned(chosen), 0, "outer") == pytest.approx(one, abs=1e-9)
        np.testing.assert_allclose(truth.seen(CHALLENGER, turned(chosen)), truth.seen(REFERENCE, chosen))
        assert truth.score(CHALLENGER, chosen, 0, "outer") != pytest.approx(one, abs=1e-4)


def test_the_same_study_is_found_again_and_another_number_is_another_study() -> None:
    assert search(World(), SMALL, 1) == search(World(), SMALL, 1)
    assert search(World(), SMALL, 1).scores != search(World(), SMALL, 2).scores


def test_with_the_same_draws_in_all_folds_they_choose_the_same() -> None:
    """Without noise each search finds its best trial. Folds differ by their draws only."""
    shared = search(QUIET, replace(SMALL, draws="shared"), 1)
    own = search(QUIET, SMALL, 1)
    for arm in ARMS:
        assert len(set(shared.scores[arm])) == 1
        assert len(set(own.scores[arm])) == 3
    assert own.scores[REFERENCE][0] == shared.scores[REFERENCE][0]  # fold 0 has the same draws


def test_one_search_serves_all_folds() -> None:
    found = search(World(), replace(SMALL, draws="one search"), 1)
    assert all(len(set(found.chosen[arm])) == len(set(found.inner[arm])) == 1 for arm in ARMS)
    assert all(len(set(found.scores[arm])) == 3 for arm in ARMS)  # other test images


def test_a_search_finds_better_configurations_with_more_trials() -> None:
    few, many = (
        [
            score
            for number in range(4)
            for score in search(QUIET, replace(SMALL, trials=n), number).scores["flat"]
        ]
        for n in (1, 12)
    )
    assert np.mean(many) > np.mean(few) + 0.02


def test_a_difference_moves_the_mean_and_makes_the_verdict() -> None:
    studies = [search(World(), SMALL, number) for number in range(3)]
    for found in studies:
        none, some, much = (judge(found, World(), by) for by in (0.0, 0.05, 0.9))
        assert some.mean - none.mean == pytest.approx(0.05)
        assert some.sd == pytest.approx(none.sd)
        assert much.verdict == "better"
        assert judge(found, World(), -0.9).verdict == "worse"


def test_a_rate_has_the_interval_of_wilson() -> None:
    judged = [Judged("better", 0.1, 0.1)] * 7 + [Judged("inconclusive", 0.0, 0.1)] * 93
    found = rate(judged, "better", "worse")
    assert (found.times, found.studies, found.share) == (7, 100, 0.07)
    exact = binomtest(7, 100).proportion_ci(method="wilson")
    assert found[3:] == pytest.approx((exact.low, exact.high))


def test_the_spread_of_correlated_folds_is_found() -> None:
    rng = np.random.default_rng(0)
    common, own = rng.normal(0, 0.01, (20000, 1)), rng.normal(0, 0.02, (20000, 5))
    judged = [Judged("", row.mean(), row.std(ddof=1)) for row in common + own]
    found = spread(judged, 5)
    assert found.sd == pytest.approx(0.02, rel=0.02)
    assert found.correlation == pytest.approx(0.2, abs=0.02)


def test_a_second_call_continues_and_the_table_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulated, "WORK", tmp_path)
    kinds = {"own-5-fold": simulated.Scenario(World(), SMALL, 3)}
    monkeypatch.setattr(simulated, "SCENARIOS", kinds)
    known = Found(1, {arm: [0.5, 0.6, 0.7] for arm in ARMS}, {arm: [0.5] * 3 for arm in ARMS}, {})
    (tmp_path / "own-5-fold.jsonl").write_text(json.dumps(known._asdict()) + "\n" + '{"number": 2, "sco')
    monkeypatch.setattr(simulated, "ProcessPoolExecutor", _Here)
    simulated.searched(["own-5-fold"], 1.0, 1)
    studies = simulated.stored("own-5-fold")
    assert [found.number for found in studies] == [0, 1, 2]
    assert studies[1] == known
    simulated.write(tmp_path / "out", {"own-5-fold": studies})
    table = pd.read_csv(tmp_path / "out" / "rates.csv")
    wrong = [judge(found, World()).verdict in ("better", "worse") for found in studies]
    assert table.loc[table["kind"] == "as trained", "false"].item() == pytest.approx(np.mean(wrong), abs=1e-5)
    page = (tmp_path / "out" / "README.md").read_text()
    assert "| own optimum | 4 | own draws of each fold | 3 |" in page
    assert "| `run` | 0.02 |" in page


class _Here:
    """A pool that works in this process."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __enter__(self) -> _Here:
        return self

    def __exit__(self, *_: object) -> None: ...

    def submit(self, call: Any, *given: Any) -> Any:
        from concurrent.futures import Future

        future: Future[Any] = Future()
        future.set_result(call(*given))
        return future


def test_with_own_draws_at_most_one_study_in_twenty_is_wrong() -> None:
    """The committed table: each kind has 1,000 studies or more. Each interval ends below 5 %."""
    table = pd.read_csv(CSV)
    own = table[(table["kind"] == "as trained") & (table["draws"] == simulated.DRAWS["fold"])]
    assert len(own)
    assert own["studies"].min() >= 1000
    assert own["high"].max() <= 0.05
