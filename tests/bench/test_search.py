"""Replays of searches: each strategy finds a good configuration, again and again in the same number of
epochs; the surrogate of recorded curves knows what it has not seen; the command prints its table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from hpc.studies.study import load

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))

import pairs  # noqa: E402
import problems  # noqa: E402
import strategies  # noqa: E402
from replay import Job, epochs_until_good  # noqa: E402

LIMIT = 300


class Best:
    """Trains the best of 500 random configurations of a problem, one after another."""

    def __init__(self, problem: problems.Problem) -> None:
        points = np.random.default_rng(0).uniform(size=(500, len(problems.AXES)))
        order = np.argsort(-problem.mean(points)[:, -1])
        self.jobs = [Job(number, problems.decoded(points[at])) for number, at in enumerate(order)]

    def next(self) -> Job | None:
        return self.jobs.pop(0) if self.jobs else None

    def report(self, number: int, epoch: int, score: float) -> bool:
        return epoch < problems.EPOCHS


class Ending(Best):
    """As Best, with the worst one only."""

    def __init__(self, problem: problems.Problem) -> None:
        super().__init__(problem)
        self.jobs = self.jobs[-1:]


def test_a_point_of_the_cube_and_its_configuration_are_the_same() -> None:
    for point in np.random.default_rng(1).uniform(size=(20, len(problems.AXES))):
        configuration = problems.decoded(point)
        assert problems.decoded(problems.encoded(configuration)) == pytest.approx(configuration)


def test_a_search_that_knows_the_truth_needs_a_first_rung_and_one_that_ends_the_limit() -> None:
    problem = problems.Synthetic(0)
    assert epochs_until_good(Best(problem), problem, 0, slots=1, limit=LIMIT) == problems.GRACE
    assert epochs_until_good(Best(problem), problem, 0, slots=4, limit=LIMIT) <= 4 * problems.GRACE
    assert epochs_until_good(Ending(problem), problem, 0, slots=4, limit=LIMIT) == LIMIT


def test_a_curve_follows_from_the_configuration_and_the_seed() -> None:
    problem, configuration = problems.Synthetic(0), problems.decoded(np.full(len(problems.AXES), 0.3))
    curve = problem.curve(configuration, 1)
    assert curve.shape == (problems.EPOCHS,)
    assert (curve == problems.Synthetic(0).curve(dict(reversed(configuration.items())), 1)).all()
    assert (curve != problem.curve(configuration, 2)).any()


@pytest.mark.parametrize("slots", [1, 8])
def test_each_strategy_takes_the_same_epochs_again(slots: int, tmp_path: Path) -> None:
    problem = problems.Synthetic(3)
    for name, make in {
        "suite": lambda folder: strategies.Suite(5, folder),
        "asha": lambda folder: strategies.RandomAsha(5),
        "tpe": lambda folder: strategies.OptunaTpe(5),
    }.items():
        first, second = (
            epochs_until_good(make(tmp_path / f"{name}{time}"), problem, 5, slots, limit=LIMIT)
            for time in range(2)
        )
        assert first == second, name


def test_the_rungs_are_those_of_a_study() -> None:
    assert strategies.study(0).grace() == problems.GRACE
    assert strategies.study(0).search.reduction_factor == strategies.ETA


@pytest.mark.parametrize(
    "file", sorted((ROOT / "results" / "curves").glob("*.yaml")), ids=lambda file: file.stem
)
def test_the_recorded_studies_have_the_space_of_the_replay(file: Path) -> None:
    study = load(file)
    assert study.base.optim.epochs == problems.EPOCHS
    assert yaml.safe_load(file.read_text())["search"]["space"] == problems.SPACE


def table(configurations: int) -> pd.DataFrame:
    """A table of synthetic curves, as curves.py writes it: two outer folds of two inner folds."""
    problem, rows = problems.Synthetic(1), []
    points = np.random.default_rng(2).uniform(size=(configurations, len(problems.AXES)))
    for number, point in enumerate(points):
        for inner in range(2):
            configuration = problems.decoded(point)
            curve = problem.curve(configuration, inner)
            of_fold = {
                "data": "made",
                "variant": "flat",
                "outer_fold": number % 2,
                "configuration": number // 2,
            }
            rows += [
                {**of_fold, **configuration, "inner_fold": inner, "epoch": epoch + 1, "macro_f1": score}
                for epoch, score in enumerate(curve)
            ]
    return pd.DataFrame(rows)


def test_a_surrogate_foretells_curves_that_it_has_not_seen() -> None:
    surrogate = problems.Recorded(table(60), restarts=0)
    assert surrogate.error["r2"] > 0.7
    assert surrogate.told().startswith("Gaussian process, Matern 5/2, on 60 curves; held-out error")
    truth, points = problems.Synthetic(1), np.random.default_rng(4).uniform(size=(200, len(problems.AXES)))
    assert np.corrcoef(truth.mean(points)[:, -1], surrogate.mean(points)[:, -1])[0, 1] > 0.8
    good = [surrogate.is_good(problems.decoded(point)) for point in points]
    assert sum(good) < 20


def test_a_ratio_of_medians_has_an_interval_around_it() -> None:
    made = pairs.Comparison("", "", "", "", {"ratio": "<= 0.5"}, [1.0, 2, 3], [4.0, 5, 9], unpaired=True)
    assert made.medians == {"ratio": 0.4, "ours": 2, "other": 5}
    low, high = made.ratios
    assert low < 0.4 < high
    assert made.missed == []


@pytest.mark.slow("imports Ray and Optuna in a process of its own")
def test_the_command_prints_a_line_per_rival_and_continues(tmp_path: Path) -> None:
    words = ["--only", "synthetic", "--seeds", "2", "--slots", "4", "--no-save", "--limit", "100"]
    command = [sys.executable, str(HERE / "search.py"), *words, "--folder", str(tmp_path)]
    within = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    lines = []
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=within)
        assert done.returncode == 0, done.stderr
        lines.append(done.stdout.splitlines())
    assert lines[0] == lines[1]
    assert len(lines[0]) == 2
    assert "Ray Tune, random and ASHA" in lines[0][0]
    assert "Optuna, TPE and Hyperband" in lines[0][1]
    kept = [json.loads(file.read_text()) for file in tmp_path.glob("*.json")]
    assert len(kept) == 6
    assert all(1 <= epochs <= 100 for epochs in kept)
