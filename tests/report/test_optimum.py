"""The posterior of a variant's best values, from the trials of all its searches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from leukotree.report.optimum import posterior
from leukotree.report.summary import Search
from tests.helpers.study_results import SPACE, completed

RATE = list(SPACE).index("optim.lr")


def search(
    fold: int, n: int = 12, level: float = 0.0, seed: int | None = None, best: dict[str, Any] | None = None
) -> Search:
    """A search whose score falls with the distance of the learning rate from 1e-4. `level`: what its fold
    adds."""
    rng = np.random.default_rng(fold if seed is None else seed)
    rate = 10 ** rng.uniform(-6, -3, n)
    trials = pd.DataFrame(
        {
            "loss.gamma": rng.uniform(0, 5, n),
            "optim.lr": rate,
            "optim.batch_size": rng.choice([16, 32, 64], n),
        }
    )
    noise = 0.005 * np.random.default_rng(fold).normal(size=n)
    scores = 0.7 - 0.1 * (np.log10(rate) + 4) ** 2 + level + noise
    table = completed(trials.assign(macro_f1=scores)).astype({"trial": str})
    history = pd.DataFrame(columns=["trial", "epoch", "macro_f1", "seconds"])
    return Search("flat", fold, Path(), table, history, best)


def stopped(one: Search, report: int = 2) -> Search:
    """The same search with every third trial stopped: its score was 0.2 lower then, as that of the others."""
    table = one.trials.copy()
    rows = []
    for row in table.to_dict("records"):
        rows.append((row["trial"], report, row["macro_f1"] - 0.2, 1.0))
        rows.append((row["trial"], 6, row["macro_f1"], 1.0))
    history = pd.DataFrame(rows, columns=["trial", "epoch", "macro_f1", "seconds"])
    third = table.index % 3 == 2
    history = history[~history["trial"].isin(table.loc[third, "trial"]) | (history["epoch"] == report)]
    table.loc[third, "macro_f1"] -= 0.2
    table.loc[third, "epochs"] = report
    table.loc[third, "state"] = "stopped"
    return Search("flat", one.test_fold, Path(), table, history, None)


def rates(searches: list[Search]) -> tuple[float, float]:
    found = posterior(searches, SPACE)
    assert found is not None
    low, high = found.region(found.cube.keys.index("optim.lr")).values
    return low, high


def test_few_draws_are_not_estimable_and_several_searches_are_pooled() -> None:
    assert posterior([], SPACE) is None
    assert posterior([search(0, 9)], SPACE) is None
    low, high = rates([search(0, 6), search(1, 6)])
    assert low < 1e-4 < high


def test_one_draw_of_several_folds_is_one_configuration() -> None:
    """Five folds that drew the same 8 configurations know 8 of them, not 40."""
    assert posterior([search(fold, 8, seed=0) for fold in range(5)], SPACE) is None
    assert posterior([search(fold, 8) for fold in range(5)], SPACE) is not None


def test_a_harder_fold_has_no_effect() -> None:
    low, high = rates([search(fold, level=-0.2 * fold) for fold in range(3)])
    assert 2e-5 < low < 1e-4 < high < 5e-4


def test_trials_that_were_stopped_or_failed_count_too() -> None:
    low, high = rates([stopped(search(fold)) for fold in range(3)])
    assert 2e-5 < low < 1e-4 < high < 5e-4
    bad = search(0, 30)
    diverged = bad.trials["optim.lr"] > 2e-4
    bad.trials.loc[diverged, ["state", "epochs", "macro_f1"]] = ["failed", 0, np.nan]
    low, high = rates([bad])
    assert high < 5e-4


def test_equal_scores_say_nothing() -> None:
    same = search(0, 20)
    same.trials["macro_f1"] = 0.5
    assert posterior([same], SPACE) is None


def test_a_key_that_a_search_lacks_is_left_out() -> None:
    lacking = search(0, 20)
    lacking.trials.drop(columns="loss.gamma", inplace=True)
    found = posterior([lacking, search(1, 20)], SPACE)
    assert found is not None
    assert found.cube.keys == tuple(key for key in SPACE if key != "loss.gamma")


def test_reruns_are_scores_of_their_trial() -> None:
    """Many re-runs of the trial with the lowest rate say that it is by far the best."""
    plain = search(0, 20)
    lowest = str(plain.trials["optim.lr"].idxmin())
    reruns = [{"trial": int(lowest), "scores": [0.9] * 6}]
    best = {"trial": lowest, "rerun_seeds": list(range(6)), "reruns": reruns}
    found = posterior([search(0, 20, best=best)], SPACE)
    assert found is not None
    assert np.median(found.at[:, RATE]) < 0.3
