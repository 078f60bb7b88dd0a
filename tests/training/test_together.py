"""Heads that are trained in one computation: each as if it were alone, and as torch trains it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from leukotree import signals
from leukotree.errors import Preempted
from leukotree.records import predictions
from leukotree.records.runfolder import read_metrics, read_status
from leukotree.runtime import Runtime
from leukotree.spec import TRAINED, RunSpec
from leukotree.training import run, together
from leukotree.training.checkpoint import load_latest
from leukotree.training.stage_trainer import StageTrainer
from tests.helpers.specs import tiny_spec

pytestmark = pytest.mark.slow("trains runs")

ONE = Runtime(threads=1, quiet=True)
SETTINGS = {
    "backbone.name": "test_resnet",
    "backbone.train": "head",
    "augment.views": 2,
    "optim.epochs": 3,
    "optim.lr": 1e-2,
    "optim.batch_size": 16,
    "optim.head_lr_multiplier": 2.0,
    "optim.weight_decay": 0.2,
}
KINDS = [
    {"variant": "flat"},
    {"variant": "base"},
    {"variant": "multilabel"},
    {"variant": "ensemble"},
    {"variant": "multilabel", "loss.gamma": 0.0, "loss.tau": 1.0, "loss.normalisation": "all"},
    {"variant": "multilabel", "loss.kind": "conditional", "loss.weighting": "hxe", "loss.hxe_alpha": 0.4},
    {"variant": "flat", "loss.kind": "soft"},
    {"variant": "flat", "loss.kind": "marginal"},
]


@pytest.fixture
def spec(shards: Path, weights: Path) -> RunSpec:
    return tiny_spec(shards, {**SETTINGS, "backbone.weights": str(weights)})


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of heads of each step that was done together."""
    counts: list[int] = []
    step = together.Bank._step

    def counting(bank: together.Bank, stages: Any) -> None:
        counts.append(len(stages))
        step(bank, stages)

    monkeypatch.setattr(together.Bank, "_step", counting)
    return counts


def places(spec: RunSpec) -> list[RunSpec]:
    """Runs that differ in images and seeds, not in settings: the inner folds of a trial, and one of
    another fold."""
    inner = [spec.override({"data.inner": {"folds": 3, "fold": fold}}) for fold in range(3)]
    return [*inner, spec.override({"data.test_fold": 2, "seed": 7})]


def train(specs: list[RunSpec], root: Path, each_epoch: bool = True) -> None:
    for _ in run.lockstep(specs, root, ONE, each_epoch=each_epoch):
        pass


def left(root: Path, spec: RunSpec) -> tuple[np.ndarray, list[Any]]:
    """What a run leaves: predictions, and the losses of all steps."""
    folder = root / spec.run_name
    losses = [row for row in read_metrics(folder) if row["kind"] == "step"]
    return predictions.read(folder)[1], losses


@pytest.mark.parametrize("changes", KINDS, ids=lambda changes: " ".join(map(str, changes.values())))
def test_the_bits_of_a_head_do_not_depend_on_those_beside_it(
    spec: RunSpec, changes: dict[str, Any], tmp_path: Path, counted: list[int]
) -> None:
    specs = places(spec.override(changes))
    train(specs, tmp_path / "beside")
    assert max(counted) == len(specs)
    for one in specs:
        train([one], tmp_path / "alone")
        beside, alone = left(tmp_path / "beside", one), left(tmp_path / "alone", one)
        assert np.array_equal(beside[0], alone[0])
        assert beside[1] == alone[1]


@pytest.mark.parametrize("changes", KINDS, ids=lambda changes: " ".join(map(str, changes.values())))
def test_they_are_trained_as_torch_trains_them(
    spec: RunSpec, changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same heads on the same features, one by one, by autograd and torch's AdamW."""
    spec = spec.override(changes)
    train([spec], tmp_path / "together")
    with monkeypatch.context() as patch:
        patch.setattr(together, "fits", lambda stage: False)
        train([spec], tmp_path / "torch")
    ours, theirs = left(tmp_path / "together", spec), left(tmp_path / "torch", spec)
    np.testing.assert_allclose(ours[0], theirs[0], atol=1e-5)
    for our, their in zip(ours[1], theirs[1], strict=True):
        assert our == {**their, "loss": our["loss"], **({"levels": our["levels"]} if "levels" in our else {})}
        assert our["loss"] == pytest.approx(their["loss"], abs=1e-5)


@pytest.mark.parametrize("variant", TRAINED)
def test_an_interrupted_trial_continues_bit_for_bit(
    spec: RunSpec, variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = [
        spec.override({"variant": variant, "data.inner": {"folds": 3, "fold": fold}}) for fold in range(3)
    ]
    train(specs, tmp_path / "whole")
    stop_at(monkeypatch, 12)
    with signals.watched(), pytest.raises(Preempted):
        train(specs, tmp_path / "cut")
    monkeypatch.undo()
    signals._received = None
    saved = [load_latest(tmp_path / "cut" / one.run_name / "checkpoints") for one in specs]
    assert any(saved)
    train(specs, tmp_path / "cut")
    for one in specs:
        assert np.array_equal(left(tmp_path / "cut", one)[0], left(tmp_path / "whole", one)[0])
        assert left(tmp_path / "cut", one)[1] == left(tmp_path / "whole", one)[1]


def stop_at(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Ask this process to stop at a step."""
    keep: Callable[[StageTrainer, torch.Tensor], None] = StageTrainer.keep
    kept: list[None] = []

    def stopping(stage: StageTrainer, losses: torch.Tensor) -> None:
        keep(stage, losses)
        kept.append(None)
        if len(kept) == count:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(StageTrainer, "keep", stopping)


@pytest.mark.parametrize(
    "changes",
    [
        {"optim.batch_size": 12},
        {"optim.clip": 1.0},
        {"engine.precision": "bf16"},
        {"variant": "multilabel", "loss.isolation": "chained"},
        {"variant": "multilabel", "loss.weighting": "uncertainty"},
        {"engine.micro_batch": 8},
    ],
    ids=str,
)
def test_other_heads_are_trained_one_by_one(
    spec: RunSpec, changes: dict[str, Any], tmp_path: Path, counted: list[int]
) -> None:
    spec = spec.override(changes)
    train([spec], tmp_path)
    assert not counted
    assert read_status(tmp_path / spec.run_name)["state"] == "done"


def test_hours_and_speed_are_shared_between_the_runs(spec: RunSpec, tmp_path: Path) -> None:
    specs = [spec.override({"data.inner": {"folds": 3, "fold": fold}}) for fold in range(3)]
    train(specs, tmp_path)
    for one in specs:
        epochs = [row for row in read_metrics(tmp_path / one.run_name) if row["kind"] == "epoch"]
        assert all(row["seconds"] > 0 and row["images_per_s"] > 0 for row in epochs)
        hours = [row["core_hours"] for row in epochs]
        assert hours == sorted(hours)
        assert hours[0] > 0
