"""The losses of a stage against their formulas, one image and one node at a time, on random trees."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from leukotree.models import losses
from leukotree.models.stages import stages
from leukotree.spec import Variant
from leukotree.taxonomy import Taxonomy
from tests.helpers.objectives import close, draw, objective, whole
from tests.helpers.trees import trees

small_trees = trees(edges=12)
seeds = st.integers(0, 2**31)


def node_probabilities(tree: Taxonomy, variant: Variant, logits: Sequence[float]) -> dict[str, float]:
    """P(node) of one image, one node at a time."""
    if variant == "flat":
        leaf = [math.exp(value) / sum(map(math.exp, logits)) for value in logits]
        below = {
            node: [p for p, name in zip(leaf, tree.leaves, strict=True) if node in tree.path(name)]
            for node in tree.edges
        }
        return {tree.root: 1.0, **{node: sum(values) for node, values in below.items()}}
    rest, p = list(logits), {tree.root: 1.0}
    conditional = {}
    for children in tree.decisions.values():
        own, rest = rest[: len(children)], rest[len(children) :]
        conditional.update(
            {child: math.exp(z) / sum(map(math.exp, own)) for child, z in zip(children, own, strict=True)}
        )
    for node in tree.edges:  # preorder
        p[node] = p[tree.parent_of[node]] * conditional.get(node, 1.0)
    return p


def height(tree: Taxonomy, node: str) -> int:
    return 1 + max(height(tree, child) for child in tree.children[node]) if node in tree.children else 0


def hxe(tree: Taxonomy, p: dict[str, float], leaf: str, alpha: float) -> dict[int, float]:
    """Level -> its part of -sum over the path of exp(-alpha h(child)) log p(child | parent), of one image."""
    parts: dict[int, float] = {}
    level = 0
    for node in tree.path(leaf):
        parent = tree.parent_of[node]
        if len(tree.children[parent]) > 1:
            level += 1
            parts[level] = -math.exp(-alpha * height(tree, node)) * math.log(p[node] / p[parent])
    return parts


@given(small_trees, st.sampled_from(["flat", "multilabel"]), seeds, st.floats(0, 1))
@settings(deadline=None, max_examples=40)
def test_conditional_is_hxe_by_the_formula_and_splits_by_level(
    tree: Taxonomy, variant: Variant, seed: int, alpha: float
) -> None:
    logits, leaves = draw(tree, variant, seed)
    target = objective(tree, variant, kind="conditional", weighting="hxe", hxe_alpha=alpha)
    expected = dict.fromkeys(target.levels, 0.0)
    for row, leaf in zip(logits.tolist(), leaves.tolist(), strict=True):
        for level, part in hxe(
            tree, node_probabilities(tree, variant, row), tree.leaves[leaf], alpha
        ).items():
            expected[level] += part / len(leaves)
    close(whole(target, logits, leaves), list(expected.values()))


@given(small_trees, seeds, st.floats(0, 1))
@settings(deadline=None, max_examples=30)
def test_the_models_of_base_share_hxe_among_them(tree: Taxonomy, seed: int, alpha: float) -> None:
    """Each model has the edges of its decision, as a mean over the samples that it trains on."""
    logits, leaves = draw(tree, "multilabel", seed)
    parts = logits.split([len(children) for children in tree.decisions.values()], dim=1)
    reached = torch.from_numpy(tree.choices >= 0)[leaves]
    total = 0.0
    for stage, part, trains in zip(stages("base", tree), parts, reached.T, strict=True):
        target = objective(tree, "base", stage, kind="conditional", weighting="hxe", hxe_alpha=alpha)
        [loss] = whole(target, part, leaves)
        [same] = whole(target, part[trains], leaves[trains])
        close(loss, same.item())
        total += loss.item() * int(trains.sum())
    joined = objective(tree, "multilabel", kind="conditional", weighting="hxe", hxe_alpha=alpha)
    close(whole(joined, logits, leaves).sum(), total / len(leaves))


@given(small_trees, st.sampled_from(["flat", "multilabel"]), seeds)
@settings(deadline=None, max_examples=40)
def test_hxe_of_alpha_zero_is_the_cross_entropy_of_the_leaf(
    tree: Taxonomy, variant: Variant, seed: int
) -> None:
    """The conditionals of a path multiply to P(leaf); soft labels of a large beta are the leaf alone."""
    logits, leaves = draw(tree, variant, seed)
    p = [
        node_probabilities(tree, variant, row)[tree.leaves[leaf]]
        for row, leaf in zip(logits.tolist(), leaves, strict=True)
    ]
    expected = -np.log(p).mean()
    if variant == "flat":
        close(F.cross_entropy(logits, leaves), expected)
    plain = whole(objective(tree, variant, kind="conditional"), logits, leaves)
    assert torch.equal(
        whole(objective(tree, variant, kind="conditional", weighting="hxe"), logits, leaves), plain
    )
    close(plain.sum(), expected)
    close(whole(objective(tree, variant, kind="soft", beta=1e6), logits, leaves), [expected])


@given(small_trees, st.sampled_from(["flat", "multilabel"]), seeds, st.floats(0.1, 10))
@settings(deadline=None, max_examples=40)
def test_soft_is_cross_entropy_with_softened_targets(
    tree: Taxonomy, variant: Variant, seed: int, beta: float
) -> None:
    logits, leaves = draw(tree, variant, seed)
    p = [[node_probabilities(tree, variant, row)[leaf] for leaf in tree.leaves] for row in logits.tolist()]
    soft = losses.soft_targets(tree.lca_heights, beta)[leaves]
    close(
        whole(objective(tree, variant, kind="soft", beta=beta), logits, leaves),
        [-(soft * np.log(p)).sum(axis=1).mean()],
    )


@given(small_trees, st.sampled_from(["flat", "multilabel"]), seeds, st.floats(0, 1))
@settings(deadline=None, max_examples=40)
def test_marginal_is_a_cross_entropy_at_each_depth_that_divides(
    tree: Taxonomy, variant: Variant, seed: int, alpha: float
) -> None:
    logits, leaves = draw(tree, variant, seed)
    expected = np.zeros(max(len(tree.path(leaf)) for leaf in tree.leaves))
    for row, leaf in zip(logits.tolist(), leaves.tolist(), strict=True):
        p, path = node_probabilities(tree, variant, row), tree.path(tree.leaves[leaf])
        for depth in range(len(expected)):
            node = path[min(depth, len(path) - 1)]
            expected[depth] -= math.exp(-alpha * height(tree, node)) * math.log(p[node]) / len(leaves)
    # How many nodes the leaves of the tree lie at or below: where none is added, the depth repeats the one
    # above.
    parts = [
        len({path[: depth + 1][-1] for path in map(tree.path, tree.leaves)}) for depth in range(len(expected))
    ]
    divides = [here > above for here, above in zip(parts, [1, *parts], strict=False)]
    target = objective(tree, variant, kind="marginal", weighting="hxe", hxe_alpha=alpha)
    assert target.levels == tuple(1 + depth for depth, new in enumerate(divides) if new)
    values = whole(target, logits, leaves)
    close(values, expected[divides])
    if variant == "flat" and divides[-1]:
        close(values[-1], F.cross_entropy(logits, leaves).item())


@given(small_trees, st.sampled_from(["flat", "multilabel"]), seeds)
@settings(deadline=None, max_examples=30)
def test_focal_without_gamma_and_class_weights_is_cross_entropy(
    tree: Taxonomy, variant: Variant, seed: int
) -> None:
    [stage] = stages(variant, tree)
    logits, leaves = draw(tree, variant, seed)
    target = objective(tree, variant, gamma=0.0, tau=0.0)
    targets = torch.from_numpy(stage.targets)[leaves]
    parts = zip(logits.split(target.widths, dim=1), targets.T, strict=True)
    heads = [
        F.cross_entropy(part, own, ignore_index=-1) if (own >= 0).any() else logits.new_zeros(())
        for part, own in parts
    ]
    close(whole(target, logits, leaves).sum(), torch.stack(heads).sum().item())
