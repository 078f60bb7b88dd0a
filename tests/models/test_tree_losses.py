"""The losses of a stage against their formulas, one image and one node at a time, on random trees."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from leukotree.models import weighting
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


def class_weight(tree: Taxonomy, child: str, tau: float) -> float:
    """(inverse frequency)^tau among the children of its decision. Leaf i has i + 1 training images."""

    def weight(node: str) -> float:
        below = [1 + place for place, leaf in enumerate(tree.leaves) if node in tree.path(leaf)]
        return float(sum(below) ** -tau)

    siblings = tree.children[tree.parent_of[child]]
    return weight(child) * len(siblings) / sum(map(weight, siblings))


def path_parts(
    tree: Taxonomy, p: dict[str, float], leaf: str, alpha: float, tau: float
) -> Iterator[tuple[int, str, float]]:
    """(level, decision, loss) for each decision on the path of a leaf: with class weights and a weight of the
    decision, of -log p(child | parent)."""
    level = 0
    for node in tree.path(leaf):
        parent = tree.parent_of[node]
        if len(tree.children[parent]) > 1:
            level += 1
            weight = math.exp(-alpha * (height(tree, parent) - 1)) * class_weight(tree, node, tau)
            yield level, parent, -weight * math.log(p[node] / p[parent])


def below(tree: Taxonomy, decision: str, leaves: Sequence[str]) -> int:
    """The number of leaves (with repetition) below a decision."""
    return sum(decision in (tree.root, *tree.path(leaf)[:-1]) for leaf in leaves)


normalisations = st.sampled_from(["defined", "all"])
taus = st.sampled_from([0.0, 0.5, 1.0])


@given(small_trees, st.sampled_from(["flat", "multilabel"]), seeds, st.floats(0, 1), taus, normalisations)
@settings(deadline=None, max_examples=40)
def test_conditional_follows_the_formula_and_splits_by_level(
    tree: Taxonomy, variant: Variant, seed: int, alpha: float, tau: float, normalisation: str
) -> None:
    logits, leaves = draw(tree, variant, seed)
    hxe = {"weighting": "hxe", "hxe_alpha": alpha}
    target = objective(tree, variant, kind="conditional", tau=tau, normalisation=normalisation, **hxe)
    expected = dict.fromkeys(target.levels, 0.0)
    names = [tree.leaves[leaf] for leaf in leaves.tolist()]
    for row, leaf in zip(logits.tolist(), names, strict=True):
        p = node_probabilities(tree, variant, row)
        for level, decision, part in path_parts(tree, p, leaf, alpha, tau):
            expected[level] += part / (len(names) if normalisation == "all" else below(tree, decision, names))
    close(whole(target, logits, leaves), list(expected.values()))


@given(small_trees, seeds, st.floats(0, 1), taus)
@settings(deadline=None, max_examples=30)
def test_the_models_of_base_share_conditional_among_them(
    tree: Taxonomy, seed: int, alpha: float, tau: float
) -> None:
    """Each model has its decision, as a mean over the images that it trains on."""
    logits, leaves = draw(tree, "multilabel", seed)
    parts = logits.split([len(children) for children in tree.decisions.values()], dim=1)
    reached = torch.from_numpy(tree.choices >= 0)[leaves]
    equal = {"kind": "conditional", "weighting": "hxe", "hxe_alpha": alpha, "tau": tau}
    total, over_all = 0.0, 0.0
    for stage, part, trains in zip(stages("base", tree), parts, reached.T, strict=True):
        target = objective(tree, "base", stage, **equal)
        [loss] = whole(target, part, leaves)
        [same] = whole(target, part[trains], leaves[trains])
        close(loss, same.item())
        total += loss.item()
        over_all += loss.item() * int(trains.sum()) / len(leaves)
    close(whole(objective(tree, "multilabel", **equal), logits, leaves).sum(), total)
    joined = objective(tree, "multilabel", **equal, normalisation="all")
    close(whole(joined, logits, leaves).sum(), over_all)


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
    over_all = {"tau": 0.0, "normalisation": "all"}
    plain = whole(objective(tree, variant, kind="conditional", **over_all), logits, leaves)
    hxe = objective(tree, variant, kind="conditional", weighting="hxe", **over_all)
    assert torch.equal(whole(hxe, logits, leaves), plain)
    close(plain.sum(), expected)
    close(whole(objective(tree, variant, kind="soft", beta=1e6, **over_all), logits, leaves), [expected])


@given(small_trees, st.sampled_from(["flat", "multilabel"]), seeds, st.floats(0.1, 10), taus, normalisations)
@settings(deadline=None, max_examples=40)
def test_soft_is_conditional_for_each_leaf_by_its_share_of_the_target(
    tree: Taxonomy, variant: Variant, seed: int, beta: float, tau: float, normalisation: str
) -> None:
    """Without class weights and over all images it is cross-entropy with softened targets. The mean over the
    images below a decision counts an image by the share of its target that lies below."""
    logits, leaves = draw(tree, variant, seed)
    p = [node_probabilities(tree, variant, row) for row in logits.tolist()]
    soft = weighting.soft_targets(tree.lca_heights, beta)[leaves]
    sums, shares = dict.fromkeys(tree.decisions, 0.0), dict.fromkeys(tree.decisions, 0.0)
    for row, targets in zip(p, soft.tolist(), strict=True):
        for leaf, share in zip(tree.leaves, targets, strict=True):
            for _, decision, part in path_parts(tree, row, leaf, 0.0, tau):
                sums[decision] += share * part
                shares[decision] += share
    counts = dict.fromkeys(shares, len(leaves)) if normalisation == "all" else shares
    expected = sum(sums[decision] / max(1.0, counts[decision]) for decision in sums)
    target = objective(tree, variant, kind="soft", beta=beta, tau=tau, normalisation=normalisation)
    close(whole(target, logits, leaves), [expected])
    plain = objective(tree, variant, kind="soft", beta=beta, tau=0.0, normalisation="all")
    leaf_p = np.array([[row[leaf] for leaf in tree.leaves] for row in p])
    close(whole(plain, logits, leaves), [-(soft * np.log(leaf_p)).sum(axis=1).mean()])


@given(small_trees, st.sampled_from(["flat", "multilabel"]), seeds, st.floats(0, 1), taus, normalisations)
@settings(deadline=None, max_examples=40)
def test_marginal_is_a_cross_entropy_at_each_depth_that_divides(
    tree: Taxonomy, variant: Variant, seed: int, alpha: float, tau: float, normalisation: str
) -> None:
    """With class weights -log P(node) is split into its -log p(child | parent)."""
    logits, leaves = draw(tree, variant, seed)
    names = [tree.leaves[leaf] for leaf in leaves.tolist()]
    depths = max(len(tree.path(leaf)) for leaf in tree.leaves)
    cross_entropy, expected = np.zeros(depths), np.zeros(depths)
    for row, leaf in zip(logits.tolist(), names, strict=True):
        p, path = node_probabilities(tree, variant, row), tree.path(leaf)
        for depth in range(depths):
            node = path[min(depth, len(path) - 1)]
            cross_entropy[depth] -= math.log(p[node]) / len(leaves)
            for _, decision, part in path_parts(tree, p, node, 0.0, tau):
                count = len(names) if normalisation == "all" else below(tree, decision, names)
                expected[depth] += math.exp(-alpha * (depths - 1 - depth)) * part / count
    # How many nodes the leaves of the tree lie at or below: where none is added, the depth repeats the one
    # above.
    parts = [len({path[: depth + 1][-1] for path in map(tree.path, tree.leaves)}) for depth in range(depths)]
    divides = [here > above for here, above in zip(parts, [1, *parts], strict=False)]
    hxe = {"kind": "marginal", "weighting": "hxe", "hxe_alpha": alpha}
    target = objective(tree, variant, tau=tau, normalisation=normalisation, **hxe)
    assert target.levels == tuple(1 + depth for depth, new in enumerate(divides) if new)
    close(whole(target, logits, leaves), expected[divides])
    plain = objective(tree, variant, kind="marginal", tau=0.0, normalisation="all")
    close(whole(plain, logits, leaves), cross_entropy[divides])


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
