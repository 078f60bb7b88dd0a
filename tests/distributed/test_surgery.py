"""Gradient surgery on the backbone: equal to torchjd's on the same Jacobian, the same on every rank, and the
plain sum without conflict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchjd import aggregation

from hpc.launching.ranks import in_ranks
from leukotree import seeds
from leukotree.data.dataset import Dataset
from leukotree.data.stream import Loader
from leukotree.distributed import strategies, surgery
from leukotree.distributed.engine import Engine, start
from leukotree.errors import InputError
from leukotree.models import classifier
from leukotree.models.objective import Objective
from leukotree.models.stages import stages
from leukotree.runtime import Runtime
from leukotree.spec import RunSpec
from leukotree.taxonomy import Taxonomy
from leukotree.training import checkpoint
from leukotree.training.plan import plan_stage
from leukotree.training.stage_trainer import StageTrainer
from tests.helpers.specs import tiny_spec

SURGERIES = ("pcgrad", "cagrad", "upgrad")
STEPS, SAVED = 8, 3
RUNTIME = Runtime(device="cpu", threads=1, workers=0, quiet=True)
HERE = Engine(0, 1, torch.device("cpu"))
TREE = Taxonomy.paper()
[STAGE] = stages("multilabel", TREE)


@st.composite
def jacobians(draw: st.DrawFn) -> torch.Tensor:
    """(G, P) gradients of two to four levels."""
    levels, size, seed = draw(st.integers(2, 4)), draw(st.integers(4, 9)), draw(st.integers(0, 2**31))
    return torch.randn(levels, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def aggregator(name: str, levels: int) -> aggregation.Aggregator:
    """torchjd's aggregator, with torchjd's scale."""
    ones = torch.ones(levels, dtype=torch.float64)
    choices = {
        "pcgrad": aggregation.PCGrad(),
        "cagrad": aggregation.CAGrad(c=0.5),
        "upgrad": aggregation.UPGrad(pref_vector=ones),
    }
    return choices[name]


def oracle(jacobian: torch.Tensor, name: str, seed: int) -> torch.Tensor:
    """(P,) torchjd's step from the whole Jacobian, in float64; of CAGrad the sum instead of the mean."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        step = aggregator(name, len(jacobian))(jacobian.double())
    return step * len(jacobian) if name == "cagrad" else step


@pytest.mark.slow("compares with another library")
@pytest.mark.parametrize("name", SURGERIES)
@settings(deadline=None, max_examples=20)
@given(jacobian=jacobians(), seed=st.integers(0, 2**31))
def test_the_weights_are_torchjds(name: str, jacobian: torch.Tensor, seed: int) -> None:
    mixed = surgery.weights(jacobian @ jacobian.T, name, seed) @ jacobian
    torch.testing.assert_close(mixed, oracle(jacobian, name, seed), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["pcgrad", "upgrad"])
@settings(deadline=None, max_examples=20)
@given(jacobian=jacobians())
def test_without_conflict_it_is_the_plain_sum(name: str, jacobian: torch.Tensor) -> None:
    agreeing = jacobian.abs()
    torch.testing.assert_close(
        surgery.weights(agreeing @ agreeing.T, name, 0), torch.ones(len(agreeing), dtype=torch.float64)
    )


def test_cagrad_begins_at_the_sum_and_goes_half_its_length_further() -> None:
    one = torch.randn(5, dtype=torch.float64)
    agreeing = torch.stack([one, one, one])
    torch.testing.assert_close(surgery.weights(agreeing @ agreeing.T, "cagrad", 0) @ agreeing, 1.5 * 3 * one)


@pytest.mark.parametrize("name", SURGERIES)
@settings(deadline=None, max_examples=20)
@given(jacobian=jacobians(), exponent=st.integers(-12, 12))
def test_the_scale_of_the_gradients_decides_nothing(name: str, jacobian: torch.Tensor, exponent: int) -> None:
    gramian = jacobian @ jacobian.T
    torch.testing.assert_close(
        surgery.weights(gramian * 10.0**exponent, name, 1),
        surgery.weights(gramian, name, 1),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize("name", SURGERIES)
@settings(deadline=None, max_examples=20)
@given(jacobian=jacobians())
def test_a_level_without_images_changes_nothing_for_the_others(name: str, jacobian: torch.Tensor) -> None:
    with_zero = torch.cat([jacobian, torch.zeros(1, jacobian.shape[1], dtype=torch.float64)])
    mixing = surgery.weights(with_zero @ with_zero.T, name, 1)
    torch.testing.assert_close(
        mixing[:-1], surgery.weights(jacobian @ jacobian.T, name, 1), rtol=1e-4, atol=1e-4
    )
    assert mixing.isfinite().all()


@pytest.mark.parametrize("name", SURGERIES)
@pytest.mark.parametrize("length", [1e-2, 1e-3, 1e-4, 1e-6, 1e-9])
def test_a_level_that_is_learned_does_not_stop_the_others(name: str, length: float) -> None:
    """No two levels conflict: the step is at most half the sum's length away from the sum, not nothing."""
    jacobian = torch.diag(torch.tensor([1.0, 1.0, length], dtype=torch.float64))
    step, total = surgery.weights(jacobian @ jacobian.T, name, 0) @ jacobian, jacobian.sum(dim=0)
    assert (step - total).norm() <= (0.5 + 1e-6) * total.norm()


def test_where_no_level_has_a_gradient_each_has_the_weight_one() -> None:
    for name in SURGERIES:
        assert surgery.weights(torch.zeros(3, 3, dtype=torch.float64), name, 0).tolist() == [1, 1, 1]


@settings(deadline=None, max_examples=20)
@given(jacobian=jacobians())
def test_after_upgrad_no_level_is_worse_off(jacobian: torch.Tensor) -> None:
    mixed = surgery.weights(jacobian @ jacobian.T, "upgrad", 0) @ jacobian
    # Where levels all but oppose each other the step is short, and the solver as precise as for one of full
    # length.
    assert ((jacobian @ mixed) >= -1e-2 * jacobian.norm() * jacobian.sum(dim=0).norm()).all()


def spec_of(name: str, **changes: Any) -> RunSpec:
    small = {"optim.batch_size": 8, "optim.epochs": 4}
    return tiny_spec(None, {**small, "loss": {"isolation": "projected", "surgery": name}, **changes})


@pytest.mark.parametrize("name", SURGERIES)
def test_a_step_is_torchjds_on_the_jacobian_of_the_whole_batch(name: str) -> None:
    """In two micro batches: on the backbone its step, on the heads the gradient of the summed losses."""
    spec = spec_of(name, **{"backbone.name": "test_convnext"})
    built = classifier.build(spec, STAGE, 48).to(memory_format=torch.channels_last)
    objective = Objective(STAGE, TREE, spec, np.full(len(TREE.leaves), 5))
    images, leaves = torch.randn(14, 3, 48, 48), torch.arange(14) % 7
    counts = objective.counts(leaves)
    shared, heads = list(built.backbone.parameters()), list(built.heads.parameters())
    losses = objective(built(images), leaves, counts)
    rows = [torch.autograd.grad(loss, shared, retain_graph=True) for loss in losses]
    jacobian = torch.stack([torch.cat([gradient.flatten() for gradient in row]) for row in rows])
    plain = torch.autograd.grad(losses.sum(), heads)

    trained = strategies.choose(built, spec, HERE)
    seen: list[torch.Tensor] = []
    trained.optimizer.register_step_pre_hook(
        lambda *_: seen.extend(p.grad.clone() for p in (*shared, *heads))
    )
    for number, part in enumerate(torch.arange(14).split(7)):
        with trained.micro_batch(last=number == 1):
            trained.backward(objective(trained.forward(images[part]), leaves[part], counts))
    assert trained.update(1.0)
    mixed = torch.cat([gradient.flatten() for gradient in seen[: len(shared)]])
    wanted = oracle(jacobian, name, seeds.integer(spec.seed, "surgery", 0)).float()
    torch.testing.assert_close(mixed, wanted, rtol=1e-3, atol=1e-5)
    for gradient, by_hand in zip(seen[len(shared) :], plain, strict=True):
        torch.testing.assert_close(gradient, by_hand, rtol=1e-4, atol=1e-6)
    assert all(
        gradient.stride() == parameter.stride()
        for gradient, parameter in zip(seen, (*shared, *heads), strict=True)
    )


def test_gradients_that_are_not_finite_move_nothing_and_are_reported() -> None:
    spec = spec_of("upgrad")
    trained = strategies.choose(classifier.build(spec, STAGE, 48), spec, HERE)
    before = checkpoint.snapshot(trained.state())["model"]
    made = []
    for factor in (float("inf"), 1.0):
        logits = trained.forward(torch.ones(2, 3, 48, 48))
        trained.backward(torch.stack([logits[:, column].sum() for column in range(3)]) * factor)
        made.append(trained.update(1.0))
        moved = [not torch.equal(value, before[key]) for key, value in trained.state()["model"].items()]
        made.append(any(moved))
    assert made == [False, False, True, True]


def trainer(shards: Path, engine: Engine, loader: Loader, name: str, **changes: Any) -> StageTrainer:
    spec = spec_of(
        name,
        **{"data.shards": str(shards), "backbone.name": "test_resnet" if changes else "test_vit", **changes},
    )
    rows = np.flatnonzero(loader.dataset.index["fold"] != 0)
    return StageTrainer(spec, plan_stage(spec, STAGE, rows, loader.dataset), engine, loader)


def losses(training: StageTrainer, end: int) -> np.ndarray:
    """(steps, G) losses of the steps before `end` that were not done, summed over the ranks."""
    training.begin()
    training.train_until(end)
    return np.sum(training.engine.gather(training.collect()), axis=0)


def trainings(shards: Path, folder: Path, runtime: Runtime) -> dict[Any, Any]:
    """Losses of each surgery, and of a training resumed from its checkpoint; logits of ranks with
    BatchNorm."""
    results: dict[Any, Any] = {}
    with start(runtime) as engine, Loader(Dataset.open(shards), workers=0) as loader:
        for name in SURGERIES:
            through = trainer(shards, engine, loader, name)
            before = losses(through, SAVED)
            place = folder / f"{name}-{engine.world}"
            if engine.is_main:
                checkpoint.save(place, SAVED, checkpoint.snapshot(through.state()))
            results[name] = np.concatenate([before, losses(through, STEPS)])
            engine.barrier()
            resumed = trainer(shards, engine, loader, name)
            saved = checkpoint.load_latest(place)
            assert saved is not None
            resumed.load(saved[1])
            results[name, "resumed"] = losses(resumed, STEPS)
        normed = trainer(shards, engine, loader, "upgrad", **{"engine.micro_batch": 2, "optim.clip": 0.5})
        results["clipped"] = losses(normed, 3)
        with normed.evaluating(), torch.inference_mode():
            logits = normed.logits(torch.linspace(-1, 1, 3 * 48 * 48).reshape(1, 3, 48, 48))
        results["logits"] = engine.gather(logits.numpy())
    return results


@pytest.fixture(scope="module")
def results(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[Any, Any]]:
    folder = tmp_path_factory.mktemp("surgery")
    return {
        1: trainings(shards, folder, RUNTIME),
        2: in_ranks(trainings, shards, folder, runtime=RUNTIME, ranks=2),
    }


@pytest.mark.parametrize("name", SURGERIES)
@pytest.mark.slow("starts ranks")
def test_two_ranks_train_as_one_does_with_the_whole_batch(
    results: dict[int, dict[Any, Any]], name: str
) -> None:
    assert results[1][name].shape == (STEPS, 3)
    np.testing.assert_allclose(results[2][name], results[1][name], rtol=1e-3)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("name", SURGERIES)
@pytest.mark.slow("starts ranks")
def test_a_resume_has_the_same_bits(results: dict[int, dict[Any, Any]], name: str, ranks: int) -> None:
    """The order in which PCGrad projects is the same too."""
    np.testing.assert_array_equal(results[ranks][name, "resumed"], results[ranks][name][SAVED:])


@pytest.mark.slow("starts ranks")
def test_surgeries_differ(results: dict[int, dict[Any, Any]]) -> None:
    ends = [results[1][name][-1].sum() for name in SURGERIES]
    assert len(set(ends)) == 3


@pytest.mark.slow("starts ranks")
def test_ranks_score_with_the_same_model(results: dict[int, dict[Any, Any]]) -> None:
    first, second = results[2]["logits"]
    np.testing.assert_array_equal(first, second)
    assert np.isfinite(results[2]["clipped"]).all()


def test_its_checkpoints_are_those_of_ddp() -> None:
    spec = spec_of("pcgrad")
    specs = (spec, spec.override({"loss.isolation": "shared"}))
    projected, plain = (strategies.choose(classifier.build(one, STAGE, 48), one, HERE) for one in specs)
    projected.backward(torch.stack([*projected.forward(torch.ones(2, 3, 48, 48)).sum(dim=0)[:3]]))
    projected.update(1.0)
    plain.load(checkpoint.snapshot(projected.state()))
    assert all(
        torch.equal(value, projected.state()["model"][key]) for key, value in plain.state()["model"].items()
    )
    assert {int(moments["step"]) for moments in plain.optimizer.state.values()} == {1}


def test_what_it_needs_is_checked_before_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"engine.compile: not with loss.isolation projected"):
        strategies.check(spec_of("pcgrad", **{"engine.compile": True}))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="projected: torchjd is not installed"):
        strategies.check(spec_of("pcgrad"))
