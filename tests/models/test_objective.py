"""The losses of a stage: parts add up, levels and heads stay apart, numbers stay finite, and nothing waits
for the device."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leukotree.errors import InputError
from leukotree.models import losses, weighting
from leukotree.models.objective import Objective
from leukotree.models.stages import Stage, stages
from leukotree.spec import RunSpec, Variant
from leukotree.taxonomy import Taxonomy
from tests.helpers.objectives import close, draw, objective, whole
from tests.helpers.trees import trees

PAPER = Taxonomy.paper()
SETTINGS: list[tuple[Variant, dict[str, Any]]] = [
    ("multilabel", {}),
    ("multilabel", {"weighting": "hxe", "hxe_alpha": 0.3}),
    ("multilabel", {"weighting": "uncertainty"}),
    ("multilabel", {"gamma": 0.5, "tau": 1.0, "level_weights": [1.0, 0.5, 2.0]}),
    ("multilabel", {"kind": "conditional", "weighting": "hxe", "hxe_alpha": 0.3}),
    ("multilabel", {"kind": "conditional", "normalisation": "all", "tau": 0.0}),
    ("multilabel", {"kind": "soft", "beta": 2.0}),
    ("multilabel", {"kind": "marginal", "weighting": "uncertainty"}),
    ("multilabel", {"kind": "marginal", "weighting": "hxe", "hxe_alpha": 0.3, "normalisation": "all"}),
    ("flat", {}),
    ("flat", {"kind": "conditional", "weighting": "hxe", "hxe_alpha": 0.3}),
    ("flat", {"kind": "conditional", "weighting": "uncertainty"}),
    ("flat", {"kind": "soft", "beta": 2.0}),
    ("flat", {"kind": "soft", "beta": 2.0, "normalisation": "all", "tau": 1.0}),
    ("flat", {"kind": "marginal", "level_weights": [1.0, 0.0, 2.0]}),
    ("multilabel", {"normalisation": "all"}),
    ("ensemble", {}),
    ("ensemble", {"kind": "marginal"}),
    ("base", {"weighting": "hxe", "hxe_alpha": 0.3}),
    ("base", {"kind": "conditional", "weighting": "hxe", "hxe_alpha": 0.3}),
]
"""Each kind, weighting and variant, on the tree of the paper."""
each_setting = pytest.mark.parametrize(("variant", "loss"), SETTINGS)
small_trees = trees(edges=12)
seeds = st.integers(0, 2**31)


def variances(target: Objective, loss: dict[str, Any]) -> torch.Tensor | None:
    """(G,) values where they are learned, else None."""
    return (
        torch.linspace(-1, 1, len(target.levels), dtype=torch.float64)
        if loss.get("weighting") == "uncertainty"
        else None
    )


def masked_focal(
    stage: Stage, target: Objective, logits: torch.Tensor, leaves: torch.Tensor, gamma: float
) -> torch.Tensor:
    """The sum over heads of the mean focal loss over the samples that are defined there, as one scalar."""
    total = logits.sum() * 0.0
    targets = torch.from_numpy(stage.targets)[leaves]
    for column, (part, alpha) in enumerate(
        zip(logits.split(target.widths, dim=1), target.alphas, strict=True)
    ):
        choice = targets[:, column]
        each = losses.focal(part, choice.clamp(min=0), gamma, alpha)
        total = total + torch.where(choice >= 0, each, 0.0).sum() / (choice >= 0).sum().clamp(min=1)
    return total


def test_levels_are_those_of_the_decisions_and_of_the_depths() -> None:
    def of(variant: Variant, **loss: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
        target = objective(PAPER, variant, **loss)
        return target.levels, target.head_levels

    assert of("multilabel") == of("multilabel", kind="conditional") == ((1, 2, 3), (1, 2, 3, 3))
    assert of("multilabel", kind="soft") == ((1,), (1, 2, 3, 3))
    assert of("flat") == of("flat", kind="soft") == of("base") == ((1,), (1,))
    assert of("flat", kind="conditional") == of("flat", kind="marginal") == ((1, 2, 3), (1,))
    chronic = stages("base", PAPER)[3]
    assert objective(PAPER, "base", chronic, kind="conditional").levels == (1,)


@given(small_trees, st.sampled_from(["flat", "multilabel"]), seeds)
@settings(deadline=None, max_examples=40)
def test_the_default_trains_as_the_masked_focal_loss_bit_for_bit(
    tree: Taxonomy, variant: Variant, seed: int
) -> None:
    """Gradients are equal. The sum over levels may round differently from a sum over heads."""
    [stage] = stages(variant, tree)
    target = objective(tree, variant).float()
    logits, leaves = draw(tree, variant, seed)
    logits = logits.detach().float().requires_grad_()
    loss_sum, expected = whole(target, logits, leaves).sum(), masked_focal(stage, target, logits, leaves, 2.0)
    torch.testing.assert_close(loss_sum, expected)
    assert torch.equal(*(torch.autograd.grad(loss, logits)[0] for loss in (loss_sum, expected)))


@each_setting
@given(seed=seeds, share=st.lists(st.integers(0, 3), min_size=9, max_size=9))
@settings(deadline=None, max_examples=15)
def test_any_partition_of_a_batch_adds_up_to_it(
    variant: Variant, loss: dict[str, Any], seed: int, share: list[int]
) -> None:
    target = objective(PAPER, variant, **loss)
    logits, leaves = draw(PAPER, variant, seed)
    counts = target.counts(leaves)
    variance = variances(target, loss)
    summed = torch.zeros(len(target.levels), dtype=torch.float64)
    for part in range(4):
        own = torch.tensor(share) == part
        summed = summed + target(logits[own], leaves[own], counts, variance, own.double().mean().item())
    torch.testing.assert_close(summed, whole(target, logits, leaves, variance))


@each_setting
def test_gradients_are_those_of_finite_differences(variant: Variant, loss: dict[str, Any]) -> None:
    target = objective(PAPER, variant, **loss)
    logits, leaves = draw(PAPER, variant, 0, rows=4, scale=1.0)
    counts = target.counts(leaves)
    variance = variances(target, loss)
    if variance is not None:
        variance.requires_grad_()
    assert torch.autograd.gradcheck(lambda z, s: target(z, leaves, counts, s, 0.5), (logits, variance))


@each_setting
@pytest.mark.parametrize("scale", [1e2, 1e4])
def test_losses_and_gradients_stay_finite_at_probabilities_of_zero_and_one(
    variant: Variant, loss: dict[str, Any], scale: float
) -> None:
    target = objective(PAPER, variant, **loss).float()
    logits, leaves = draw(PAPER, variant, 1, rows=64, scale=scale)
    logits = logits.detach().float().requires_grad_()
    values = whole(target, logits, leaves)
    assert values.isfinite().all()
    values.sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@each_setting
def test_nothing_waits_for_the_device(variant: Variant, loss: dict[str, Any]) -> None:
    """Tensors without data raise wherever the host needs a value."""
    target = objective(PAPER, variant, **loss).to("meta")
    logits, leaves = (tensor.to("meta") for tensor in draw(PAPER, variant, 0))
    variance = variances(target, loss)
    values = whole(target, logits, leaves, None if variance is None else variance.to("meta"))
    assert values.shape == (len(target.levels),)


@pytest.mark.parametrize("kind", ["focal", "conditional"])
@given(tree=small_trees, seed=seeds)
@settings(deadline=None, max_examples=30)
def test_a_levels_loss_reaches_its_own_heads_and_of_them_those_on_the_path(
    kind: str, tree: Taxonomy, seed: int
) -> None:
    """Elsewhere the gradient is exactly zero, and other logits there change no bit of the loss."""
    target = objective(tree, "multilabel", kind=kind)
    logits, leaves = draw(tree, "multilabel", seed, rows=1)
    values = whole(target, logits, leaves)
    owner = torch.tensor(target.head_levels).repeat_interleave(torch.tensor(target.widths))
    reached = torch.from_numpy(tree.choices[leaves[0]] >= 0).repeat_interleave(torch.tensor(target.widths))
    for level, loss in zip(target.levels, values, strict=True):
        own = (owner == level) & reached
        [gradient] = torch.autograd.grad(loss, logits, retain_graph=True)
        assert ((gradient[0] != 0) == own).all()
        elsewhere = torch.where(own, logits, torch.randn_like(logits))
        assert torch.equal(whole(target, elsewhere, leaves)[level - 1], loss)


@each_setting
def test_every_logit_stays_in_the_graph_of_a_share_without_a_sample(
    variant: Variant, loss: dict[str, Any]
) -> None:
    """If the backward pass of a rank skipped a parameter, the others would wait for it."""
    target = objective(PAPER, variant, **loss)
    logits, leaves = draw(PAPER, variant, 0)
    target(logits[:0], leaves[:0], target.counts(leaves)).sum().backward()
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_a_sample_that_a_stage_does_not_train_on_adds_nothing() -> None:
    chronic = stages("base", PAPER)[3]
    logits = torch.randn(2, 2, dtype=torch.float64)
    leaves = torch.tensor([PAPER.leaves.index("CML"), PAPER.leaves.index("normal")])
    for kind in ("focal", "conditional"):
        target = objective(PAPER, "base", chronic, kind=kind)
        assert target.counts(leaves).tolist() == [1]
        assert torch.equal(whole(target, logits, leaves), whole(target, logits[:1], leaves[:1]))
        assert whole(target, logits[1:], leaves[1:]).tolist() == [0.0]


@pytest.mark.parametrize("variant", ["flat", "multilabel"])
@pytest.mark.parametrize("kind", ["focal", "conditional", "marginal"])
def test_level_weights_multiply_the_levels_losses(variant: Variant, kind: str) -> None:
    plain = objective(PAPER, variant, kind=kind)
    weights = [0.5, 0.0, 3.0][-len(plain.levels) :]
    logits, leaves = draw(PAPER, variant, 0)
    weighted = whole(objective(PAPER, variant, kind=kind, level_weights=weights), logits, leaves)
    close(weighted, (whole(plain, logits, leaves).detach() * torch.tensor(weights)).numpy())
    with pytest.raises(
        InputError, match=rf"level_weights: 4 numbers, but {kind} of {variant} has {len(plain.levels)} levels"
    ):
        objective(PAPER, variant, kind=kind, level_weights=[1, 1, 1, 1])


def test_focal_weighs_classes_by_their_images_and_hxe_decisions_by_their_height() -> None:
    chronic = objective(PAPER, "multilabel", tau=1.0).alphas[3]
    close(chronic, weighting.class_weights([6, 7], 1.0))
    heights = [
        weighted / plain
        for weighted, plain in zip(
            objective(PAPER, "multilabel", hxe_alpha=0.5, weighting="hxe").alphas,
            objective(PAPER, "multilabel").alphas,
            strict=True,
        )
    ]
    for ratio, weight in zip(heights, [math.exp(-1.0), math.exp(-0.5), 1.0, 1.0], strict=True):
        close(ratio, [weight] * len(ratio))


def test_uncertainty_learns_from_each_levels_loss() -> None:
    logits, leaves = draw(PAPER, "multilabel", 0)
    plain = whole(objective(PAPER, "multilabel"), logits, leaves).detach()
    target = objective(PAPER, "multilabel", weighting="uncertainty")
    variance = torch.tensor([0.0, -1.0, 2.0], dtype=torch.float64, requires_grad=True)
    values = target(logits, leaves, target.counts(leaves), variance, 1.0)
    torch.testing.assert_close(values, plain / variance.exp() + variance / 2)
    values.sum().backward()
    torch.testing.assert_close(variance.grad, 0.5 - plain / variance.detach().exp())


@pytest.mark.parametrize(
    ("kind", "other"),
    [
        ("focal", {"beta": 1.0, "hxe_alpha": 2.0, "variance_lr": 1.0}),
        ("conditional", {"gamma": 5.0, "beta": 1.0, "hxe_alpha": 2.0}),
        ("soft", {"gamma": 5.0}),
        ("marginal", {"gamma": 0.0, "beta": 1.0}),
    ],
)
@pytest.mark.parametrize("variant", ["flat", "multilabel"])
def test_a_field_of_another_kind_or_weighting_changes_nothing(
    variant: Variant, kind: str, other: dict[str, float]
) -> None:
    logits, leaves = draw(PAPER, variant, 0)
    first, second = (
        whole(objective(PAPER, variant, kind=kind, **more), logits, leaves) for more in ({}, other)
    )
    assert torch.equal(first, second)


@pytest.mark.parametrize("kind", ["focal", "conditional"])
def test_a_class_without_a_training_image_is_named_with_its_decision(kind: str) -> None:
    spec = RunSpec().override({"loss.kind": kind})
    [stage] = stages("multilabel", PAPER)
    counts = np.array([3, 3, 3, 3, 3, 0, 3])
    with pytest.raises(
        InputError, match=r"^no training image of 'CLL' for the decision 'chronic'; use fewer folds$"
    ):
        Objective(stage, PAPER, spec, counts)
