"""Losses against other libraries and against sums over the tree: focal, class weights, soft labels."""

import kornia
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from leukotree.errors import InputError
from leukotree.models import losses, weighting
from leukotree.taxonomy import Taxonomy
from tests.helpers.objectives import draw_logits
from tests.helpers.trees import trees

TREE = Taxonomy.paper()
WIDTHS = [len(children) for children in TREE.decisions.values()]
ONES = [torch.ones(width) for width in WIDTHS]


@st.composite
def problems(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (N, K) and targets (N,)."""
    n, k, seed = draw(st.integers(1, 16)), draw(st.integers(2, 9)), draw(st.integers(0, 2**31))
    scale = draw(st.sampled_from([0.1, 1.0, 5.0]))
    return draw_logits(seed, n, k, scale), torch.randint(
        k, (n,), generator=torch.Generator().manual_seed(seed)
    )


@given(problems(), st.floats(0, 5))
def test_focal_is_kornias_none_reduction_summed_over_classes(
    problem: tuple[torch.Tensor, torch.Tensor], gamma: float
) -> None:
    logits, target = problem
    oracle = kornia.losses.focal_loss(logits, target, alpha=None, gamma=gamma, reduction="none").sum(dim=1)
    torch.testing.assert_close(losses.focal(logits, target, gamma), oracle, atol=1e-6, rtol=1e-6)


@given(problems())
def test_at_gamma_zero_focal_is_weighted_cross_entropy(problem: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, target = problem
    alpha = torch.rand(logits.shape[1], dtype=torch.float64) + 0.1
    torch.testing.assert_close(
        losses.focal(logits, target, 0.0),
        F.cross_entropy(logits, target, reduction="none"),
        atol=1e-6,
        rtol=0,
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
    weights = weighting.class_weights(counts, tau)
    assert weights.mean() == pytest.approx(1)
    assert (np.diff(weights[np.argsort(counts)]) <= 1e-9).all()
    assert weighting.class_weights(counts, 0) == pytest.approx(1)


def test_a_class_without_images_has_no_weight() -> None:
    with pytest.raises(InputError, match="no training images"):
        weighting.class_weights([3, 0], 0.5)


@pytest.mark.parametrize("leaf", TREE.leaves)
def test_a_leaf_never_touches_a_decision_that_it_does_not_reach(leaf: str) -> None:
    """Its gradient there is exactly zero, and those logits do not change the loss."""
    choices = torch.from_numpy(TREE.choices[[TREE.leaves.index(leaf)]])
    logits = torch.randn(1, sum(WIDTHS), requires_grad=True)
    counts = (choices >= 0).sum(dim=0)
    heads = losses.head_focal(logits, choices, WIDTHS, counts, 2.0, ONES)
    torch.stack(heads).sum().backward()
    assert logits.grad is not None
    for loss, gradient, choice in zip(heads, logits.grad.split(WIDTHS, dim=1), choices[0], strict=True):
        assert (loss != 0) == (choice >= 0)
        assert (gradient != 0).any() == (choice >= 0)


@given(st.integers(0, 2**31))
def test_each_heads_loss_is_the_mean_over_the_samples_that_reach_it(seed: int) -> None:
    leaves = torch.randint(len(TREE.leaves), (12,), generator=torch.Generator().manual_seed(seed))
    logits = draw_logits(seed, 12, sum(WIDTHS))
    targets = torch.from_numpy(TREE.choices)[leaves]
    heads = losses.head_focal(
        logits, targets, WIDTHS, (targets >= 0).sum(dim=0), 2.0, [alpha.double() for alpha in ONES]
    )
    for loss, part, target in zip(heads, logits.split(WIDTHS, dim=1), targets.T, strict=True):
        reached = target >= 0
        mean = (
            losses.focal(part[reached], target[reached], 2.0).mean()
            if reached.any()
            else torch.zeros((), dtype=torch.float64)
        )
        torch.testing.assert_close(loss, mean)


def test_a_term_that_does_not_count_adds_nothing_even_where_it_is_infinite() -> None:
    log_p = torch.tensor([[-torch.inf, -1.0, -2.0]], requires_grad=True)
    terms = torch.tensor([[[0.0, 1.0, 0.5]], [[0.0, 0.0, 0.0]]])
    loss = losses.path_loss(log_p, terms, torch.tensor([0]), torch.tensor([0, 4, 4]))
    assert loss.tolist() == [0.5, 0.0]
    loss.sum().backward()
    assert log_p.grad is not None
    assert log_p.grad.tolist() == [[0.0, -0.25, -0.125]]


@given(trees(), st.floats(0.01, 30))
def test_soft_targets_follow_the_formula_and_fall_with_the_distance(tree: Taxonomy, beta: float) -> None:
    distances = tree.lca_heights
    targets = weighting.soft_targets(distances, beta)
    np.testing.assert_allclose(targets.sum(axis=1), 1)
    for row, distance in zip(targets, distances, strict=True):
        likeness = [np.exp(-beta * d / distances.max()) for d in distance]
        np.testing.assert_allclose(row, [value / sum(likeness) for value in likeness])
        assert (np.diff(row[np.argsort(distance)]) <= 1e-12).all()


@given(trees())
def test_soft_targets_of_a_large_beta_are_the_leaf_alone(tree: Taxonomy) -> None:
    assert (weighting.soft_targets(tree.lca_heights, 1e300) == np.eye(len(tree.leaves))).all()


def test_a_learned_variance_settles_at_twice_the_loss() -> None:
    """The minimum of L / sigma^2 + log sigma."""
    loss = torch.tensor([0.2, 3.0], dtype=torch.float64)
    log_variance = torch.log(2 * loss).requires_grad_()
    weighted = losses.uncertainty(loss, log_variance, 1.0)
    torch.testing.assert_close(weighted, 0.5 + 0.5 * torch.log(2 * loss))
    weighted.sum().backward()
    torch.testing.assert_close(log_variance.grad, torch.zeros(2, dtype=torch.float64))
