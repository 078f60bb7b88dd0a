"""One model of a run: its schedule, the samples it learns from, the weights of its classes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leukotree.data.dataset import Dataset
from leukotree.data.stream import Loader
from leukotree.distributed.engine import Engine
from leukotree.errors import RunFailed
from leukotree.models.classifier import build, parameter_groups
from leukotree.models.losses import focal
from leukotree.models.stages import Stage, stages
from leukotree.models.weighting import class_weights
from leukotree.spec import COMPARED, TRAINED, OptimSpec, RunSpec
from leukotree.training import checkpoint
from leukotree.training.plan import StagePlan, plan_stage
from leukotree.training.stage_trainer import StageTrainer, learning_rate_factor
from tests.helpers.specs import tiny_spec

HERE = Engine(0, 1, torch.device("cpu"))


@given(st.integers(1, 500), st.floats(0, 0.9))
def test_the_learning_rate_rises_in_a_line_then_falls_along_a_cosine(total: int, warmup: float) -> None:
    factors = np.array([learning_rate_factor(step, total, warmup) for step in range(total)])
    rise = round(warmup * total)
    np.testing.assert_allclose(factors[:rise], np.arange(1, rise + 1) / rise if rise else [])
    assert (factors > 0).all()
    assert factors.max() <= 1
    assert (np.diff(factors[rise:]) < 0).all()
    if rise < total:
        assert factors[rise] == 1


def test_after_the_warm_up_it_is_torchs_cosine() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    oracle = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=90)
    for step in range(10, 100):
        assert learning_rate_factor(step, 100, 0.1) == pytest.approx(oracle.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        oracle.step()


@pytest.fixture
def spec(shards: Path) -> RunSpec:
    return tiny_spec(shards, {"optim.epochs": 2, "optim.batch_size": 8})


@pytest.fixture
def loader(shards: Path) -> Iterator[Loader]:
    with Loader(Dataset.open(shards), workers=1) as loader:
        yield loader


def stage_trainer(spec: RunSpec, stage: Stage, rows: np.ndarray, loader: Loader) -> StageTrainer:
    return StageTrainer(spec, plan_stage(spec, stage, rows, loader.dataset), HERE, loader)


@pytest.mark.parametrize("variant", TRAINED)
def test_a_stage_learns_from_the_training_samples_that_reach_its_decisions(
    spec: RunSpec, loader: Loader, variant: str
) -> None:
    dataset = loader.dataset
    rows = np.flatnonzero(dataset.index["fold"] != 0)
    spec = spec.override({"variant": variant})
    below = {"root": set(dataset.taxonomy.leaves), "leukemia": {"ALL", "AML", "APML", "CLL", "CML"}}
    below |= {"acute": {"ALL", "AML", "APML"}, "chronic": {"CLL", "CML"}}
    for stage in stages(spec.variant, dataset.taxonomy):
        trainer = stage_trainer(spec, stage, rows, loader)
        leaves = set(dataset.index["leaf"].iloc[trainer.order.rows])
        assert leaves == set().union(*(below.get(head, below["root"]) for head in stage.heads))
        assert set(trainer.order.rows) <= set(rows)


def test_stages_that_see_the_same_images_see_the_same_batches(spec: RunSpec, loader: Loader) -> None:
    """Arms of a fold are paired: order, crops and colours. A part of the images keeps the common order."""
    rows = np.flatnonzero(loader.dataset.index["fold"] != 0)
    trainers = {
        (variant, stage.name): stage_trainer(spec.override({"variant": variant}), stage, rows, loader)
        for variant in COMPARED
        for stage in stages(variant, loader.dataset.taxonomy)
    }
    batches = {}
    for name, trainer in trainers.items():
        trainer.begin()
        batches[name] = next(trainer._batches)[1][0]
    whole = batches["flat", "leaves"]
    for name in (("multilabel", "tree"), ("base", "root")):
        for column in ("images", "numbers"):
            assert torch.equal(getattr(batches[name], column), getattr(whole, column))
    part = trainers["base", "acute"].order
    common = trainers["flat", "leaves"].order
    seen, all_seen = (
        np.concatenate([order.batch(step).rows for step in range(order.steps_before(1) + 1)])[
            : len(order.rows)
        ]
        for order in (part, common)
    )
    assert seen.tolist() == [row for row in all_seen if row in set(part.rows)]


def test_class_weights_come_from_the_training_samples_only(spec: RunSpec, loader: Loader) -> None:
    dataset = loader.dataset
    rows = np.flatnonzero(
        (dataset.index["fold"] != 0) & ~((dataset.index["leaf"] == "CML") & (dataset.index["fold"] > 1))
    )
    [stage] = stages("multilabel", dataset.taxonomy)
    trainer = stage_trainer(spec.override({"loss.tau": 1.0}), stage, rows, loader)
    counts = [int((dataset.index["leaf"].iloc[rows] == leaf).sum()) for leaf in ("CLL", "CML")]
    assert counts[0] > counts[1]
    chronic = list(stage.heads).index("chronic")
    np.testing.assert_allclose(
        trainer.objective.alphas[chronic].numpy(), class_weights(counts, 1.0), rtol=1e-6
    )


def test_a_shared_step_is_that_of_heads_on_a_backbone_with_masked_losses(
    spec: RunSpec, loader: Loader
) -> None:
    """Bit by bit, over some steps: the default has no part in how other levels are isolated or weighted."""
    dataset = loader.dataset
    [stage] = stages("multilabel", dataset.taxonomy)
    trainer = stage_trainer(spec, stage, np.flatnonzero(dataset.index["fold"] != 0), loader)
    plain = build(spec, stage, dataset.size).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(parameter_groups(plain, spec), fused=True)
    batches = loader.train(trainer.order, range(4))
    expected = []
    for step, (_, [batch]) in enumerate(batches):
        features = plain.backbone(trainer.inputs(batch))
        targets = torch.from_numpy(stage.targets[dataset.leaf_ids[batch.rows]])
        total = torch.zeros(())
        for head, target, alpha in zip(plain.heads, targets.T, trainer.objective.alphas, strict=True):
            losses = focal(head(features), target.clamp(min=0), spec.loss.gamma, alpha)
            total = total + torch.where(target >= 0, losses, 0.0).sum() / (target >= 0).sum().clamp(min=1)
        total.backward()
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * learning_rate_factor(step, trainer.total_steps, spec.optim.warmup)
        optimizer.step()
        optimizer.zero_grad()
        expected.append(float(total.detach()))
    trainer.begin()
    trainer.train_until(4)
    np.testing.assert_allclose(trainer.collect().sum(axis=1), expected, rtol=1e-6)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, trainer.model.state_dict()[name]), name


def test_an_epoch_without_a_step_is_an_epoch(spec: RunSpec, loader: Loader) -> None:
    """A stage of `base` may have fewer samples than a batch: then some epochs end between two steps."""
    dataset = loader.dataset
    chronic = stages("base", dataset.taxonomy)[3]
    few = np.concatenate([np.flatnonzero(dataset.index["leaf"] == leaf)[:2] for leaf in ("CLL", "CML")])
    trainer = stage_trainer(spec.override({"optim.epochs": 4}), chronic, few, loader)
    trainer.begin()
    steps = []
    for epoch in range(4):
        trainer.train_until(trainer.order.steps_before(epoch + 1))
        steps.append(len(trainer.collect()))
    assert steps == [1, 0, 1, 0]
    assert trainer.total_steps == 2


@given(st.integers(1, 40), st.data())
def test_steps_are_divided_evenly_over_the_epochs(epochs: int, data: st.DataObject) -> None:
    steps = data.draw(st.integers(epochs, 400))
    optim = OptimSpec(epochs=epochs, steps=steps)
    plan = StagePlan(None, None, None, 7, RunSpec(), None, None)  # type: ignore[arg-type] # the images do not count
    parts = np.diff([plan.steps_before(epoch, optim) for epoch in range(epochs + 1)])
    assert parts.sum() == steps
    assert parts.min() >= 1
    assert parts.max() - parts.min() <= 1


@pytest.mark.parametrize("steps", [None, 20])
def test_each_member_of_an_ensemble_has_the_steps_of_a_model_of_base(
    spec: RunSpec, loader: Loader, steps: int | None
) -> None:
    rows = np.flatnonzero(loader.dataset.index["fold"] != 0)
    spec = spec.override({"optim.epochs": 3, "optim.steps": steps})
    base, members = (
        [
            stage_trainer(spec.override({"variant": variant}), stage, rows, loader)
            for stage in stages(variant, loader.dataset.taxonomy)
        ]
        for variant in ("base", "ensemble")
    )
    for epoch in range(4):
        expected = [trainer.steps_before(epoch) for trainer in base]
        assert [trainer.steps_before(epoch) for trainer in members] == expected
    assert all(len(member.order.rows) == len(rows) for member in members)
    assert [trainer.total_steps for trainer in base] == [trainer.total_steps for trainer in members]
    if steps is None:
        assert members[0].total_steps > members[3].total_steps
    else:
        assert {member.total_steps for member in members} == {steps}


def test_the_first_member_of_an_ensemble_is_flat_and_the_others_differ(spec: RunSpec, loader: Loader) -> None:
    rows = np.flatnonzero(loader.dataset.index["fold"] != 0)
    spec = spec.override({"backbone.drop_path": 0.3})
    trainers = [
        stage_trainer(spec.override({"variant": variant}), stage, rows, loader)
        for variant in ("flat", "ensemble")
        for stage in stages(variant, loader.dataset.taxonomy)
    ]
    for trainer in trainers:
        trainer.begin()
        trainer.train_until(2)
    flat, *losses = [trainer.collect() for trainer in trainers]
    assert np.array_equal(losses[0], flat)
    assert len({tuple(loss[:, 0]) for loss in losses}) == 4


@pytest.mark.parametrize("done", [5, 16])
def test_a_step_begun_late_has_the_loss_of_one_reached_in_training(
    spec: RunSpec, loader: Loader, done: int
) -> None:
    """What a resume does, in the middle of an epoch and after one: the state, and the batches from there
    on."""
    [stage] = stages("multilabel", loader.dataset.taxonomy)
    rows = np.flatnonzero(loader.dataset.index["fold"] != 0)
    spec = spec.override({"augment.stain": 0.1, "backbone.drop_path": 0.3})
    through, late = (stage_trainer(spec, stage, rows, loader) for _ in range(2))
    through.begin()
    seen: list[int] = []
    through.train_until(done, lambda: seen.append(through.step))
    assert seen == list(range(1, done + 1))
    assert len(through.collect()) == done
    late.load(checkpoint.snapshot(through.state()))
    late.begin()
    for trainer in (through, late):
        trainer.train_until(done + 4)
    losses = late.collect()
    assert len(losses) == 4
    assert np.array_equal(through.collect(), losses)


def test_a_loss_that_is_not_finite_is_named_with_its_step_and_its_batch(
    spec: RunSpec, loader: Loader
) -> None:
    [stage] = stages("flat", loader.dataset.taxonomy)
    trainer = stage_trainer(
        spec.override({"optim.batch_size": 12}), stage, np.arange(len(loader.dataset)), loader
    )
    trainer.step = 6
    trainer.check(np.ones((3, 1)))
    with pytest.raises(
        RunFailed,
        match=r"the loss of leaves is nan at step 4 with learning rate 0.00097, on \S+, .* and 4 more$",
    ) as error:
        trainer.check(np.array([[1.0], [np.nan], [1.0]]))
    assert error.value.kind == "nan"
    assert error.value.details is not None
    assert (
        error.value.details["keys"] == loader.dataset.index["key"].iloc[trainer.order.batch(4).rows].tolist()
    )


def test_the_rows_of_an_epoch_name_its_steps(spec: RunSpec, loader: Loader) -> None:
    [stage] = stages("flat", loader.dataset.taxonomy)
    trainer = stage_trainer(spec, stage, np.arange(len(loader.dataset)), loader)
    first = trainer.order.steps_before(1)
    rows = trainer.metrics(1, np.array([[0.5], [0.25]]))
    assert [(row["step"], row["loss"], row["epoch"]) for row in rows] == [
        (first, 0.5, 1),
        (first + 1, 0.25, 1),
    ]
    assert rows[0]["lr"] == spec.optim.lr * learning_rate_factor(
        first, trainer.total_steps, spec.optim.warmup
    )
    assert "levels" not in rows[0]


def test_the_rows_of_a_model_with_levels_say_what_each_adds(spec: RunSpec, loader: Loader) -> None:
    [stage] = stages("multilabel", loader.dataset.taxonomy)
    trainer = stage_trainer(spec, stage, np.arange(len(loader.dataset)), loader)
    [row] = trainer.metrics(0, np.array([[0.5, 0.25, 1.0]]))
    assert row["loss"] == 1.75
    assert row["levels"] == {"1": 0.5, "2": 0.25, "3": 1.0}
    assert trainer.collect().shape == (0, 3)
