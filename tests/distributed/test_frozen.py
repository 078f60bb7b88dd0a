"""Models with a frozen part: the same losses under DDP and each stage of ZeRO, the same bits after a resume,
and not a bit of the frozen part moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hpc.deepspeed import settings
from hpc.launching.ranks import in_ranks
from leukotree.data.dataset import Dataset
from leukotree.data.stream import Loader
from leukotree.distributed.engine import Engine, start
from leukotree.errors import InputError
from leukotree.models import trained_part
from leukotree.models.classifier import build
from leukotree.models.stages import stages
from leukotree.runtime import Runtime
from leukotree.training import checkpoint
from leukotree.training.plan import plan_stage
from leukotree.training.stage_trainer import StageTrainer
from tests.helpers.specs import tiny_spec

pytestmark = pytest.mark.slow("starts ranks with DeepSpeed")

STRATEGIES = ("ddp", "zero0", "zero1", "zero2", "zero3")
SAVED, STEPS = 2, 4
RUNTIME = Runtime(device="cpu", threads=1, workers=0, quiet=True, deepspeed=settings.settings())
KINDS: dict[str, dict[str, Any]] = {
    "head": {"backbone.train": "head", "backbone.name": "test_resnet", "optim.lr": 0.03},
    "last": {
        "backbone.train": "last",
        "backbone.last": 2,
        "loss.isolation": "branched",
        "optim.layer_decay": 0.8,
    },
    "lora": {"backbone.train": "lora", "backbone.lora.rank": 2, "optim.lr": 0.01, "optim.clip": 1.0},
}


def trainer(shards: Path, loader: Loader, engine: Engine, name: str, kind: str) -> StageTrainer:
    fields = {"optim.batch_size": 8, "optim.epochs": 4, "engine.strategy": name, **KINDS[kind]}
    spec = tiny_spec(shards, fields)
    [stage] = stages("multilabel", loader.dataset.taxonomy)
    rows = np.flatnonzero(loader.dataset.index["fold"] != 0)
    return StageTrainer(spec, plan_stage(spec, stage, rows, loader.dataset), engine, loader)


def on(trainer: StageTrainer, end: int) -> np.ndarray:
    """The losses of the steps before `end` that were not done, summed over the ranks."""
    trainer.begin()
    trainer.train_until(end)
    return np.sum(trainer.engine.gather(trainer.collect()), axis=(0, 2))


def trained(shards: Path, names: tuple[str, ...], runtime: Runtime) -> dict[Any, Any]:
    """(strategy, kind) -> (losses, losses after a resume, a checkpoint, the weights at the end)."""
    results = {}
    with start(runtime) as engine, Loader(Dataset.open(shards), workers=0) as loader:
        for name in names:
            for kind in KINDS:
                first = trainer(shards, loader, engine, name, kind)
                before = on(first, SAVED)
                [saved, *_] = engine.gather(checkpoint.snapshot(first.state()))
                whole = np.concatenate([before, on(first, STEPS)])
                final = checkpoint.snapshot(first.state(optimizer=False))["model"]
                second = trainer(shards, loader, engine, name, kind)
                second.load(saved)
                results[name, kind] = (whole, on(second, STEPS), saved, final)
    return results


@pytest.fixture(scope="module")
def pair(shards: Path) -> dict[Any, Any]:
    return in_ranks(trained, shards, STRATEGIES, runtime=RUNTIME, ranks=2)


@pytest.fixture(scope="module")
def alone(shards: Path) -> dict[Any, Any]:
    return in_ranks(trained, shards, ("ddp",), runtime=RUNTIME, ranks=1)


@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_have_the_losses_of_one(pair: dict[Any, Any], alone: dict[Any, Any], kind: str) -> None:
    np.testing.assert_allclose(pair["ddp", kind][0], alone["ddp", kind][0], rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", STRATEGIES[1:])
def test_every_stage_of_zero_has_the_losses_of_ddp(pair: dict[Any, Any], name: str, kind: str) -> None:
    np.testing.assert_allclose(pair[name, kind][0], pair["ddp", kind][0], rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_resume_has_the_same_bits(pair: dict[Any, Any], name: str, kind: str) -> None:
    whole, resumed, _, _ = pair[name, kind]
    np.testing.assert_array_equal(resumed, whole[SAVED:])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", STRATEGIES)
def test_what_is_frozen_moves_by_no_bit_and_is_in_no_checkpoint(
    pair: dict[Any, Any], shards: Path, name: str, kind: str
) -> None:
    dataset = Dataset.open(shards)
    spec = tiny_spec(shards, KINDS[kind])
    model = build(spec, stages("multilabel", dataset.taxonomy)[0], dataset.size)
    frozen, before = trained_part.frozen(model), model.state_dict()
    _, _, saved, final = pair[name, kind]
    assert list(final) == list(before)
    assert set(saved["model"]) == set(before) - frozen
    moved = {key for key, value in final.items() if not torch.equal(value, before[key])}
    assert moved == set(before) - frozen
    parameters = {key for key, _ in model.named_parameters()}
    assert len(saved["optimizer"]["state"]) == len(parameters - frozen)


def test_other_frozen_weights_are_no_continuation(shards: Path, alone: dict[Any, Any]) -> None:
    saved = alone["ddp", "head"][2]
    with Loader(Dataset.open(shards), workers=0) as loader:
        engine = Engine(0, 1, torch.device("cpu"))
        other = trainer(shards, loader, engine, "ddp", "head")
        with pytest.raises(InputError, match=r"^backbone\.weights: the frozen weights are not those"):
            other.load({**saved, "frozen": "0" * 32})
