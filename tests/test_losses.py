"""Focal loss against other libraries, class weights, and the masked sum over decisions."""

import kornia
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from leukotree import losses
from leukotree.errors import InputError
from leukotree.taxonomy import Taxonomy

TREE = Taxonomy.paper()
WIDTHS = [len(children) for children in TREE.decisions.values()]
ONES = [torch.ones(width) for width in WIDTHS]


@st.composite
def problems(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (N, K) and targets (N,)."""
    n, k, seed = draw(st.integers(1, 16)), draw(st.integers(2, 9)), draw(st.integers(0, 2**31))
    generator = torch.Generator().manual_seed(seed)
    scale = draw(st.sampled_from([0.1, 1.0, 5.0]))
    return scale * torch.randn(n, k, generator=generator, dtype=torch.float64), torch.randint(k, (n,), generator=generator)


@given(problems(), st.floats(0, 5))
def test_focal_is_kornias_none_reduction_summed_over_classes(problem: tuple[torch.Tensor, torch.Tensor], gamma: float) -> None:
    logits, target = problem
    oracle = kornia.losses.focal_loss(logits, target, alpha=None, gamma=gamma, reduction="none").sum(dim=1)
    torch.testing.assert_close(losses.focal(logits, target, gamma), oracle, atol=1e-6, rtol=1e-6)


@given(problems())
def test_at_gamma_zero_focal_is_weighted_cross_entropy(problem: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, target = problem
    alpha = torch.rand(logits.shape[1], dtype=torch.float64) + 0.1
    torch.testing.assert_close(
        losses.focal(logits, target, 0.0), F.cross_entropy(logits, target, reduction="none"), atol=1e-6, rtol=0
    )
    oracle = F.cross_entropy(logits, target, weight=alpha, reduction="none")
    torch.testing.assert_close(losses.focal(logits, target, 0.0, alpha), oracle, atol=1e-6, rtol=0)


@pytest.mark.parametrize("gamma", [0.1, 0.5, 1.0, 2.0, 5.0])
def test_gradients_stay_finite_where_a_sample_is_perfectly_right_or_wrong(gamma: float) -> None:
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    losses.focal(logits, torch.tensor([0, 0]), gamma).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_a_single_alpha_is_refused_since_it_would_depend_on_the_order_of_classes() -> None:
    with pytest.raises(InputError, match="one weight per class"):
        losses.focal(torch.zeros(2, 3), torch.tensor([0, 1]), 2.0, torch.tensor(0.25))


@given(st.lists(st.integers(1, 10_000), min_size=2, max_size=9), st.floats(0, 1))
def test_class_weights_have_mean_one_and_favour_the_rare(counts: list[int], tau: float) -> None:
    weights = losses.class_weights(counts, tau)
    assert weights.mean() == pytest.approx(1)
    assert (np.diff(weights[np.argsort(counts)]) <= 1e-9).all()
    assert losses.class_weights(counts, 0) == pytest.approx(1)


def test_a_class_without_images_has_no_weight() -> None:
    with pytest.raises(InputError, match="no training images"):
        losses.class_weights([3, 0], 0.5)


@pytest.mark.parametrize("leaf", TREE.leaves)
def test_a_leaf_never_touches_a_decision_that_it_does_not_reach(leaf: str) -> None:
    """Exactly zero gradient, and the same loss whatever those logits are."""
    choices = torch.from_numpy(TREE.choices[[TREE.leaves.index(leaf)]])
    logits = torch.randn(1, sum(WIDTHS), requires_grad=True)
    counts = (choices >= 0).sum(dim=0)
    losses.masked_focal(logits, choices, WIDTHS, counts, 2.0, ONES).backward()
    assert logits.grad is not None
    for gradient, choice in zip(logits.grad.split(WIDTHS, dim=1), choices[0], strict=True):
        assert (gradient != 0).any() == bool(choice >= 0)


@settings(deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 4))
def test_shares_of_a_batch_add_up_to_the_loss_of_the_whole(seed: int, parts: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    leaves = torch.randint(len(TREE.leaves), (12,), generator=generator)
    logits = torch.randn(12, sum(WIDTHS), generator=generator, dtype=torch.float64)
    targets = torch.from_numpy(TREE.choices)[leaves]
    counts = (targets >= 0).sum(dim=0)
    alphas = [alpha.double() for alpha in ONES]
    whole = losses.masked_focal(logits, targets, WIDTHS, counts, 2.0, alphas)
    shares = zip(logits.chunk(parts), targets.chunk(parts), strict=True)
    summed = sum(losses.masked_focal(part, target, WIDTHS, counts, 2.0, alphas) for part, target in shares)
    torch.testing.assert_close(summed, whole)
    by_hand = sum(
        losses.focal(part[target >= 0], target[target >= 0], 2.0).mean()
        for part, target in zip(logits.split(WIDTHS, dim=1), targets.T, strict=True)
        if (target >= 0).any()
    )
    torch.testing.assert_close(whole, torch.as_tensor(by_hand, dtype=torch.float64))
