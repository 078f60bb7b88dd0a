"""What losses add up: one weight per decision, and the same class weights and means in every kind.

Some tests fit to labels alone: logits are free parameters, the same for all images, so that the best model is
known exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leukotree.models.objective import Objective
from leukotree.models.probabilities import edge_log_probabilities
from leukotree.models.stages import stages
from leukotree.models.terms import Decisions
from leukotree.spec import RunSpec, Variant
from leukotree.taxonomy import Taxonomy
from tests.helpers.objectives import close, draw, objective, whole
from tests.helpers.trees import trees

PAPER = Taxonomy.paper()
KINDS: dict[str, dict[str, Any]] = {
    "focal": {"kind": "focal", "gamma": 0.0},
    "conditional": {"kind": "conditional"},
    "marginal": {"kind": "marginal"},
    "soft": {"kind": "soft", "beta": 1e6},
}
"""Each kind where it is a likelihood: without a focal exponent, and with the leaf alone as target."""
FITS: list[tuple[Variant, str]] = [
    *(("multilabel", kind) for kind in KINDS),
    *(("flat", kind) for kind in KINDS),
    ("base", "focal"),
    ("base", "conditional"),
]
each_fit = pytest.mark.parametrize(("variant", "kind"), FITS)
normalisations = st.sampled_from(["defined", "all"])
small_trees = trees(edges=10)
seeds = st.integers(0, 2**31)


def spec_of(variant: Variant, **loss: Any) -> RunSpec:
    if variant == "base":
        loss.pop("normalisation", None)  # all images of a model are below its decision
    return RunSpec().override({"variant": variant, **{f"loss.{key}": value for key, value in loss.items()}})


def minimised(target: Objective, leaves: torch.Tensor) -> torch.Tensor:
    """The (K,) logits of the least loss, if all images have the same."""
    logits = torch.zeros(sum(target.widths), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=500, tolerance_grad=1e-9, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = whole(target, logits.expand(len(leaves), -1), leaves).sum()
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return logits.detach()


def fitted(tree: Taxonomy, variant: Variant, counts: Sequence[int], **loss: Any) -> dict[str, float]:
    """Node -> P(node) of the model that fits best to this many images of each leaf."""
    leaves, numbers = torch.arange(len(tree.leaves)).repeat_interleave(torch.tensor(counts)), np.array(counts)
    spec, logits = spec_of(variant, **loss), []
    for stage in stages(variant, tree):
        target = Objective(stage, tree, spec, np.where(stage.trains_on, numbers, 0)).double()
        own = leaves[torch.from_numpy(stage.trains_on)[leaves]]
        logits.append(minimised(target, own)[None])
    edges = edge_log_probabilities(variant, tree, [part.double() for part in logits])[0]
    logp = dict(zip(tree.edges, edges.tolist(), strict=True))
    return {node: math.exp(sum(logp[edge] for edge in tree.path(node))) for node in tree.edges}


def images(tree: Taxonomy, counts: Sequence[int]) -> dict[str, int]:
    """Node -> its number of images."""
    return dict(zip(tree.edges, (tree.leaves_below @ np.array(counts)).tolist(), strict=True))


@st.composite
def labelled(draw_value: st.DrawFn) -> tuple[Taxonomy, list[int]]:
    """A ragged tree, with the number of images of each leaf."""
    tree = draw_value(small_trees)
    count = len(tree.leaves)
    return tree, draw_value(st.lists(st.integers(1, 9), min_size=count, max_size=count))


@each_fit
@pytest.mark.parametrize("alpha", [0.1, 0.4])
@given(problem=labelled(), normalisation=normalisations)
@settings(deadline=None, max_examples=8)
def test_with_hxe_every_node_gets_its_true_probability(
    variant: Variant, kind: str, alpha: float, problem: tuple[Taxonomy, list[int]], normalisation: str
) -> None:
    tree, counts = problem
    hxe = {} if kind == "soft" else {"weighting": "hxe", "hxe_alpha": alpha}
    loss = {**KINDS[kind], **hxe, "tau": 0.0, "normalisation": normalisation}
    p = fitted(tree, variant, counts, **loss)
    for node, number in images(tree, counts).items():
        assert p[node] == pytest.approx(number / sum(counts), abs=0.005)


@each_fit
def test_with_hxe_leukemia_gets_its_true_probability_in_the_tree_of_the_paper(
    variant: Variant, kind: str
) -> None:
    """With a weight for each child it would get exp(-2 alpha) 0.53 / (0.47 + exp(-2 alpha) 0.53) = 0.34."""
    counts = [25, 22, 14, 12, 9, 10, 8]
    for alpha in (0.1, 0.4):
        hxe = {} if kind == "soft" else {"weighting": "hxe", "hxe_alpha": alpha}
        p = fitted(PAPER, variant, counts, **KINDS[kind], **hxe, tau=0.0)
        assert p["leukemia"] == pytest.approx(0.53, abs=0.005)


@each_fit
@given(problem=labelled(), normalisation=normalisations, tau=st.sampled_from([0.5, 1.0]))
@settings(deadline=None, max_examples=8)
def test_class_weights_tilt_every_kind_in_the_same_way(
    variant: Variant, kind: str, problem: tuple[Taxonomy, list[int]], normalisation: str, tau: float
) -> None:
    """p(child | parent) becomes proportional to n^(1 - tau): with tau 1 all children are equally likely. Only
    the focal loss of `flat` weighs the leaves as one decision."""
    tree, counts = problem
    p = fitted(tree, variant, counts, **KINDS[kind], tau=tau, normalisation=normalisation)
    number = images(tree, counts)
    flat = variant == "flat" and kind == "focal"
    for children in [tree.leaves] if flat else tree.decisions.values():
        tilted = np.array([number[child] for child in children]) ** (1 - tau)
        learned = np.array([p[child] for child in children])
        np.testing.assert_allclose(learned / learned.sum(), tilted / tilted.sum(), atol=1e-4)


def gradients(values: torch.Tensor, logits: torch.Tensor) -> np.ndarray:
    return torch.autograd.grad(values.sum(), logits, retain_graph=True)[0].numpy()


weightings = st.sampled_from([{}, {"weighting": "hxe", "hxe_alpha": 0.3}])
taus = st.sampled_from([0.0, 0.5, 1.0])


@given(small_trees, seeds, taus, normalisations, weightings)
@settings(deadline=None, max_examples=40)
def test_focal_at_gamma_zero_is_conditional_in_multilabel(
    tree: Taxonomy, seed: int, tau: float, normalisation: str, weighting: dict[str, Any]
) -> None:
    """With equal class weights and means: the same loss of each level, and the same gradients."""
    logits, leaves = draw(tree, "multilabel", seed)
    equal = {"tau": tau, "normalisation": normalisation, **weighting}
    focal = whole(objective(tree, "multilabel", gamma=0.0, **equal), logits, leaves)
    conditional = whole(objective(tree, "multilabel", kind="conditional", **equal), logits, leaves)
    close(focal, conditional.detach().numpy())
    np.testing.assert_allclose(gradients(focal, logits), gradients(conditional, logits), atol=1e-6)


@given(small_trees, seeds, taus, weightings)
@settings(deadline=None, max_examples=30)
def test_focal_at_gamma_zero_is_conditional_in_each_model_of_base(
    tree: Taxonomy, seed: int, tau: float, weighting: dict[str, Any]
) -> None:
    _, leaves = draw(tree, "multilabel", seed)
    for stage in stages("base", tree):
        [width] = map(len, stage.heads.values())
        logits = torch.randn(len(leaves), width, dtype=torch.float64, requires_grad=True)
        focal, conditional = (
            whole(objective(tree, "base", stage, tau=tau, **weighting, **kind), logits, leaves)
            for kind in ({"gamma": 0.0}, {"kind": "conditional"})
        )
        close(focal, conditional.detach().numpy())
        np.testing.assert_allclose(gradients(focal, logits), gradients(conditional, logits), atol=1e-6)


@given(small_trees, seeds)
@settings(deadline=None, max_examples=40)
def test_focal_at_gamma_zero_is_conditional_in_flat_over_all_images_without_class_weights(
    tree: Taxonomy, seed: int
) -> None:
    """Both are the cross-entropy of the leaf."""
    logits, leaves = draw(tree, "flat", seed)
    focal = whole(objective(tree, "flat", gamma=0.0, tau=0.0), logits, leaves)
    conditional = whole(
        objective(tree, "flat", kind="conditional", tau=0.0, normalisation="all"), logits, leaves
    )
    close(focal.sum(), conditional.detach().sum().item())
    np.testing.assert_allclose(gradients(focal, logits), gradients(conditional, logits), atol=1e-6)


@pytest.mark.parametrize("apart", [{"tau": 0.5, "normalisation": "all"}, {"tau": 0.0}])
def test_otherwise_focal_of_flat_is_another_loss_since_it_has_one_decision(apart: dict[str, Any]) -> None:
    logits, leaves = draw(PAPER, "flat", 0)
    focal, conditional = (
        whole(objective(PAPER, "flat", **kind, **apart), logits, leaves).sum().item()
        for kind in ({"gamma": 0.0}, {"kind": "conditional"})
    )
    assert abs(focal - conditional) > 0.01


@given(small_trees, st.sampled_from(["flat", "multilabel"]), seeds, taus, normalisations)
@settings(deadline=None, max_examples=40)
def test_soft_of_a_large_beta_is_conditional(
    tree: Taxonomy, variant: Variant, seed: int, tau: float, normalisation: str
) -> None:
    logits, leaves = draw(tree, variant, seed)
    equal = {"tau": tau, "normalisation": normalisation}
    soft = whole(objective(tree, variant, kind="soft", beta=1e6, **equal), logits, leaves)
    conditional = whole(objective(tree, variant, kind="conditional", **equal), logits, leaves)
    close(soft.sum(), conditional.detach().sum().item())
    np.testing.assert_allclose(gradients(soft, logits), gradients(conditional, logits), atol=1e-6)


@given(small_trees, st.sampled_from(["conditional", "marginal", "soft"]), seeds, taus, normalisations)
@settings(deadline=None, max_examples=40)
def test_flat_and_multilabel_have_the_same_loss_where_they_say_the_same(
    tree: Taxonomy, kind: str, seed: int, tau: float, normalisation: str
) -> None:
    logits, leaves = draw(tree, "flat", seed)
    edges = edge_log_probabilities("flat", tree, [logits.detach()]).double()
    columns = [tree.edges.index(child) for below in tree.decisions.values() for child in below]
    equal = {"kind": kind, "beta": 3.0, "tau": tau, "normalisation": normalisation}
    flat = whole(objective(tree, "flat", **equal), logits, leaves)
    multilabel = whole(objective(tree, "multilabel", **equal), edges[:, columns], leaves)
    np.testing.assert_allclose(flat.detach(), multilabel, rtol=1e-5, atol=1e-6)


def weights_of(tree: Taxonomy, alpha: float) -> dict[str, float]:
    spec = spec_of("multilabel", weighting="hxe", hxe_alpha=alpha)
    decisions = Decisions.of(stages("multilabel", tree)[0], tree, spec)
    return dict(zip(tree.decisions, decisions.height_weights(tree, spec.loss).tolist(), strict=True))


def test_hxe_weighs_a_decision_by_its_height() -> None:
    assert weights_of(PAPER, 0.5) == pytest.approx(
        {"root": math.exp(-1.0), "leukemia": math.exp(-0.5), "acute": 1.0, "chronic": 1.0}
    )
    assert set(weights_of(PAPER, 0.0).values()) == {1.0}


@st.composite
def balanced(draw_value: st.DrawFn) -> Taxonomy:
    """A tree whose leaves have one depth, with 1 to 3 children below each node."""
    depth = draw_value(st.integers(1, 3))
    pairs, rank = [], ["r"]
    for _ in range(depth):
        below = [(node, f"{node}{child}") for node in rank for child in range(draw_value(st.integers(1, 3)))]
        pairs, rank = pairs + below, [child for _, child in below]
    if len(rank) < 2:
        pairs, rank = [("r", "a"), ("r", "b")], ["a", "b"]
    return Taxonomy.from_edges(pairs)


@given(balanced(), st.floats(0, 1))
@settings(deadline=None)
def test_where_all_leaves_have_one_depth_hxe_has_the_published_weights(tree: Taxonomy, alpha: float) -> None:
    """exp(-alpha h(child)) of Bertinetto et al. 2020. Their code divides by the sum of the weights."""
    weights = weights_of(tree, alpha)
    for decision, children in tree.decisions.items():
        for child in children:
            assert weights[decision] == pytest.approx(math.exp(-alpha * tree.heights[child]))


def test_the_mean_is_over_the_images_below_a_decision_or_over_all() -> None:
    leaves = torch.tensor([PAPER.leaves.index(leaf) for leaf in ("normal", "ALL", "AML", "CLL")])
    for kind in ("focal", "conditional", "marginal"):
        defined, all_images = (
            objective(PAPER, "multilabel", kind=kind, normalisation=normalisation)
            for normalisation in ("defined", "all")
        )
        assert defined.counts(leaves).tolist() == [4, 3, 2, 1]
        assert all_images.counts(leaves).tolist() == [4, 4, 4, 4]
    soft = objective(PAPER, "multilabel", kind="soft", beta=2.0)
    # The share of each image's target that lies below a decision.
    similarity = np.exp(-2.0 * PAPER.lca_heights / PAPER.lca_heights.max())
    targets = (similarity / similarity.sum(axis=1, keepdims=True))[leaves]
    expected = [targets[:, PAPER.choices[:, column] >= 0].sum() for column in range(4)]
    np.testing.assert_allclose(soft.counts(leaves), expected, rtol=1e-6)
