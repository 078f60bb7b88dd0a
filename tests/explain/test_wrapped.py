"""One tensor for all variants: its two halves agree with the probabilities of the run."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from leukotree.explain.targets import PATH, targets, views
from leukotree.explain.wrapped import Outputs, Probability, Weighted, Whole
from leukotree.models.classifier import build
from leukotree.models.stages import stages
from leukotree.spec import RunSpec
from leukotree.taxonomy import Taxonomy

TREES = {
    "paper": Taxonomy.paper(),
    "two leaves": Taxonomy.from_nested({"root": ["a", "b"]}),
    "only children": Taxonomy.from_nested({"root": {"x": {"y": {"a": None, "b": None}}, "c": None}}),
}


@pytest.fixture(params=TREES, ids=str)
def tree(request: pytest.FixtureRequest) -> Taxonomy:
    return TREES[request.param]


@pytest.mark.parametrize("variant", ["flat", "base", "multilabel", "ensemble"])
def test_outputs_are_the_conditional_logits_and_log_probabilities(variant: str, tree: Taxonomy) -> None:
    spec = RunSpec().override({"variant": variant, "backbone.name": "test_resnet"})
    parts = stages(spec.variant, tree)
    models = [build(spec, stage, 32).eval() for stage in parts]
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        outputs = [Outputs(spec.variant, tree, *pair)(pixels) for pair in zip(parts, models, strict=True)]
        logp = Whole(spec.variant, tree, models)(pixels)
    count = len(tree.edges)
    for part, stage in zip(outputs, parts, strict=True):
        assert part.shape == (3, 2 * count)
        own = tree.decisions if variant in ("flat", "ensemble") else stage.heads
        for decision in tree.decisions:
            columns = tree.columns[decision]
            if decision in own:
                torch.testing.assert_close(part[:, columns].log_softmax(1), part[:, count + columns])
            else:
                assert not part[:, columns].any()
                assert not part[:, count + columns].any()
    if variant == "ensemble":  # the mean of the members' leaf probabilities
        leaf = torch.stack([part[:, count:] @ torch.tensor(tree.path_matrix.T).float() for part in outputs])
        mean = leaf.exp().mean(0).log()
        torch.testing.assert_close(mean, logp @ torch.tensor(tree.path_matrix.T).float())
    else:
        torch.testing.assert_close(sum(part[:, count:] for part in outputs), logp)


def test_targets_are_the_decisions_of_the_path_and_the_path(tree: Taxonomy) -> None:
    spec = RunSpec().override({"variant": "multilabel", "backbone.name": "test_resnet"})
    parts = stages(spec.variant, tree)
    models = [build(spec, stage, 32).eval() for stage in parts]
    seen = views(spec.variant, tree, parts, models)
    with torch.no_grad():
        outputs, logp = seen[0].module(torch.zeros(1, 3, 32, 32))[0], Whole("multilabel", tree, models)
        logp = logp(torch.zeros(1, 3, 32, 32))[0]
    for row, leaf in enumerate(tree.leaves):
        found = targets(tree, leaf, seen)
        on_path = [tree.parent_of[node] for node in tree.path(leaf)]
        assert [target.decision for target in found] == [
            *(name for name in on_path if name in tree.decisions),
            PATH,
        ]
        assert found[-1].node == leaf
        path = float(Weighted(found[-1].columns)(outputs))
        assert path == pytest.approx(float(logp.numpy() @ tree.path_matrix[row]), abs=1e-5)
        assert float(Probability(found[-1].edges)(logp)) == pytest.approx(np.exp(path), rel=1e-5)
