"""The log variances of `loss.weighting: uncertainty` reach their optimum at a rate of their own, whatever the
backbone's, also after an interruption and with two ranks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hpc.launching import runs
from hpc.launching.place import Place
from leukotree.records.runfolder import read_metrics
from leukotree.runtime import Runtime
from leukotree.spec import RunSpec
from leukotree.training import checkpoint, run
from tests.helpers.specs import tiny_spec

pytestmark = pytest.mark.slow("trains a few hundred steps")

RUNTIME = Runtime(device="cpu", threads=1, workers=0, quiet=True)
LEVELS = ("1", "2", "3")


@pytest.fixture
def spec(shards: Path) -> RunSpec:
    """300 steps at the learning rate of the paper, in which the model hardly changes."""
    paper = {"optim.lr": 1e-6, "optim.batch_size": 21, "optim.epochs": 50}
    return tiny_spec(shards, {**paper, "loss.weighting": "uncertainty"})


def learned(folder: Path) -> np.ndarray:
    """(3,) the log variances at the end of a run."""
    latest = checkpoint.load_latest(folder / "checkpoints")
    assert latest is not None
    values: np.ndarray = latest[1]["stages"]["tree"]["model"]["log_variance"].numpy()
    return values


def steps(folder: Path) -> np.ndarray:
    """(steps, 3) the weighted losses of the levels."""
    rows = [row["levels"] for row in read_metrics(folder) if row["kind"] == "step"]
    return np.array([[row[level] for level in LEVELS] for row in rows])


def optimum(folder: Path, values: np.ndarray) -> np.ndarray:
    """(3,) log(2 loss) of the levels, with their mean loss in the last tenth of the steps.

    There the learning rate has fallen so far that the log variances stay. loss = exp(s) (weighted - s / 2).
    """
    weighted = steps(folder)
    weighted = weighted[-len(weighted) // 10 :].mean(axis=0)
    losses: np.ndarray = np.exp(values) * (weighted - values / 2)
    return np.log(2 * losses)


def test_they_reach_their_optimum_in_a_few_hundred_steps(spec: RunSpec, tmp_path: Path) -> None:
    result = run.run(spec, tmp_path, RUNTIME)
    values = learned(result.folder)
    best = optimum(result.folder, values)
    assert len(steps(result.folder)) == 300
    assert np.abs(best).max() > 0.5  # they had a way to go
    assert (np.abs(values - best) < 0.15 * np.abs(best).max()).all()
    slow = spec.override({"loss.variance_lr": 1e-6, "optim.epochs": 2})  # the rate of the backbone
    assert (np.abs(learned(run.run(slow, tmp_path, RUNTIME).folder)) <= 12e-6).all()


def test_an_interruption_changes_no_bit_of_them(spec: RunSpec, tmp_path: Path) -> None:
    spec = spec.override({"optim.epochs": 2})
    whole = run.run(spec, tmp_path / "whole", RUNTIME)
    stopped = run.lockstep([spec], tmp_path / "stopped", RUNTIME, each_epoch=False)
    next(stopped)
    stopped.close()
    again = run.run(spec, tmp_path / "stopped", RUNTIME)
    assert (learned(again.folder) == learned(whole.folder)).all()
    assert (learned(whole.folder) != 0).all()
    assert (steps(again.folder) == steps(whole.folder)).all()


@pytest.mark.slow("starts ranks")
def test_two_ranks_learn_the_same_as_one(spec: RunSpec, tmp_path: Path) -> None:
    spec = spec.override({"optim.epochs": 4, "optim.batch_size": 20})
    one, two = (
        runs.run_spec(spec, tmp_path / str(ranks), Place(ranks=ranks), runtime=RUNTIME) for ranks in (1, 2)
    )
    np.testing.assert_allclose(learned(two.folder), learned(one.folder), rtol=1e-3)
    assert (np.abs(learned(two.folder)) > 0.02).all()
