"""Each variant gives a distribution over the edges of the tree."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leukotree.evaluation import decide
from leukotree.models import probabilities
from leukotree.models.stages import stages
from leukotree.spec import VARIANTS
from leukotree.taxonomy import Taxonomy
from tests.helpers.objectives import draw_logits
from tests.helpers.trees import trees

TREES = [
    Taxonomy.paper(),
    Taxonomy.paper().prune(["normal", "reactive", "AML", "APML"]),
    Taxonomy.from_nested({"all": {"a": ["b", "c", "d"], "e": {"f": ["g", "h"], "i": None}, "j.k": None}}),
]


@pytest.mark.parametrize("variant", VARIANTS)
@settings(deadline=None, max_examples=30)
@given(tree=st.sampled_from(TREES), seed=st.integers(0, 2**31), scale=st.sampled_from([0.1, 3.0, 30.0]))
def test_leaf_probabilities_sum_to_one_and_so_do_siblings(
    variant, tree: Taxonomy, seed: int, scale: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = [
        scale * torch.randn(5, sum(map(len, stage.heads.values())), generator=generator)
        for stage in stages(variant, tree)
    ]
    edges = probabilities.edge_log_probabilities(variant, tree, logits).numpy()
    assert edges.shape == (5, len(tree.edges))
    assert (edges <= 0).all()
    np.testing.assert_allclose(np.exp(decide.leaf_logp(edges, tree)).sum(axis=1), 1, atol=1e-5)
    for children in tree.children.values():
        columns = [tree.edges.index(child) for child in children]
        np.testing.assert_allclose(np.exp(edges[:, columns].astype(float)).sum(axis=1), 1, atol=1e-4)


def test_flat_marginalises_its_leaves() -> None:
    tree = Taxonomy.paper()
    logits = torch.randn(4, 7)
    leaf = logits.softmax(dim=1)
    edges = probabilities.edge_log_probabilities("flat", tree, [logits]).exp()
    acute, chronic = leaf[:, 2:5].sum(dim=1), leaf[:, 5:7].sum(dim=1)
    torch.testing.assert_close(edges[:, tree.edges.index("leukemia")], acute + chronic)
    torch.testing.assert_close(edges[:, tree.edges.index("acute")], acute / (acute + chronic))
    torch.testing.assert_close(edges[:, tree.edges.index("CLL")], leaf[:, 5] / chronic)


@given(trees(), st.integers(0, 2**31), st.sampled_from([0.1, 1.0, 30.0]))
def test_leaf_probabilities_of_a_conditional_softmax_sum_to_one(
    tree: Taxonomy, seed: int, scale: float
) -> None:
    widths = [len(children) for children in tree.decisions.values()]
    log_p = probabilities.conditionals(draw_logits(seed, 3, sum(widths), scale), widths).numpy()
    columns = [child for children in tree.decisions.values() for child in children]
    leaves = [log_p[:, [column in tree.path(leaf) for column in columns]].sum(axis=1) for leaf in tree.leaves]
    np.testing.assert_allclose(np.exp(leaves).sum(axis=0), 1, atol=1e-12)


@given(trees(), st.integers(0, 2**31), st.sampled_from([0.1, 1.0, 30.0]))
def test_flat_marginals_are_the_sums_of_their_leaves(tree: Taxonomy, seed: int, scale: float) -> None:
    leaf = draw_logits(seed, 3, len(tree.leaves), scale).log_softmax(dim=1)
    nodes = probabilities.marginals(leaf, torch.from_numpy(tree.leaves_below)).exp().numpy()
    for column, node in enumerate(tree.edges):
        below = [place for place, name in enumerate(tree.leaves) if node in tree.path(name)]
        np.testing.assert_allclose(nodes[:, column], leaf.exp().numpy()[:, below].sum(axis=1), rtol=1e-9)


@given(trees(), st.integers(0, 2**31), st.sampled_from([0.1, 1.0, 10.0]))
def test_conditionals_of_leaves_are_ratios_of_marginals(tree: Taxonomy, seed: int, scale: float) -> None:
    leaf = draw_logits(seed, 4, len(tree.leaves), scale).log_softmax(dim=1)
    tables = (torch.from_numpy(table) for table in (tree.leaves_below, probabilities.leaves_of_parents(tree)))
    edges = probabilities.leaf_conditionals(leaf, *tables).exp()
    assert (edges <= 1).all()
    p = leaf.exp() @ torch.from_numpy(tree.leaves_below.T).double()
    of = {tree.root: torch.ones(4, dtype=torch.float64), **dict(zip(tree.edges, p.T, strict=True))}
    for column, node in enumerate(tree.edges):
        parent = tree.parent_of[node]
        torch.testing.assert_close(edges[:, column], of[node] / of[parent])
        assert len(tree.children[parent]) > 1 or (edges[:, column] == 1).all()


@given(trees(), st.integers(1, 5), st.integers(0, 2**31), st.sampled_from([0.1, 1.0, 10.0]))
def test_an_ensemble_is_the_mean_of_its_members_leaf_probabilities(
    tree: Taxonomy, members: int, seed: int, scale: float
) -> None:
    logits = [draw_logits(seed + number, 3, len(tree.leaves), scale).float() for number in range(members)]
    edges = probabilities.edge_log_probabilities("ensemble", tree, logits)
    mean = torch.stack([part.double().softmax(dim=1) for part in logits]).mean(dim=0).numpy()
    np.testing.assert_allclose(np.exp(decide.leaf_logp(edges.double().numpy(), tree)), mean, atol=1e-5)
    if members == 1:
        assert torch.equal(edges, probabilities.edge_log_probabilities("flat", tree, logits))
