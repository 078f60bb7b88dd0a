"""Maps are what their papers say: known evidence is found, and formulas are computed a second time."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from leukotree.explain import maps
from leukotree.explain.layers import Tokens, extent
from leukotree.explain.targets import PATH, View, targets, views
from leukotree.explain.wrapped import Weighted
from leukotree.models.classifier import build
from leukotree.models.stages import stages
from leukotree.spec import RunSpec
from leukotree.taxonomy import Taxonomy
from tests.helpers import spots

TREE = Taxonomy.paper()


def of_run(variant: str, backbone: str, size: int = 64, **changes: object) -> list[View]:
    """The views of random models of a run."""
    spec = RunSpec().override({"variant": variant, "backbone.name": backbone, **changes})
    parts = stages(spec.variant, TREE)
    models = [build(spec, stage, size).eval().requires_grad_(False) for stage in parts]
    return views(spec.variant, TREE, parts, models)


def images(count: int = 2, size: int = 64) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def scaled(values: np.ndarray, size: int) -> np.ndarray:
    values = values - values.min()
    return cv2.resize(np.float32(values / (values.max() + 1e-7)), (size, size))


@pytest.mark.parametrize("method", ["gradcam", "hirescam", "scorecam"])
@pytest.mark.parametrize("leaf", ["red", "blue"])
def test_evidence_in_a_known_corner_is_found(method: str, leaf: str) -> None:
    view, pixels = spots.seen(), spots.image()
    (found,) = maps.compute(method, view, pixels, [(0, spots.wanted(leaf, view))])
    own, other = found[:8, :8].sum(), found[-8:, -8:].sum()
    own, other = (own, other) if leaf == "red" else (other, own)
    # Outside is the seam of the bilinear resize. Score-CAM weighs by a softmax, so no channel gets weight 0.
    assert own / found.sum() > (0.5 if method == "scorecam" else 0.8)
    assert own > (1.5 if method == "scorecam" else 1e6) * other


@pytest.mark.parametrize("backbone", ["test_vit", "test_convnext", "test_resnet"])
@pytest.mark.parametrize("method", ["gradcam", "hirescam"])
def test_gradients_give_the_formula_of_the_paper(method: str, backbone: str) -> None:
    (view,), pixels = of_run("flat", backbone), images()
    wanted = [
        (place, target)
        for place, leaf in enumerate(["AML", "normal"])
        for target in targets(TREE, leaf, [view])
    ]
    found = maps.compute(method, [view], pixels, wanted)
    caught: list[torch.Tensor] = []
    handle = view.layer.module.register_forward_hook(lambda _, __, output: caught.append(output))
    outputs = view.module(pixels.clone().requires_grad_())
    handle.remove()
    reshape = view.layer.reshape or (lambda output: output)
    for (place, target), values in zip(wanted, found, strict=True):
        goal = Weighted(target.columns)(outputs[place])
        (gradient,) = torch.autograd.grad(goal, caught[0], retain_graph=True)
        features, slopes = reshape(caught[0])[place].detach(), reshape(gradient)[place]
        weights = slopes.mean(dim=(1, 2), keepdim=True) if method == "gradcam" else slopes
        expected = (weights * features).sum(dim=0).clamp(min=0).numpy()
        if expected.max() > 0:
            values, expected = (part / part.max() for part in (values, scaled(expected, 64)))
            np.testing.assert_allclose(values, expected, atol=1e-3)
        else:
            assert not values.any()


def test_score_cam_is_that_of_the_library() -> None:
    from pytorch_grad_cam import ScoreCAM

    (view,), pixels = of_run("flat", "test_vit"), images()
    wanted = [(place, target) for place in (1, 0) for target in targets(TREE, "AML", [view])]
    found = maps.compute("scorecam", [view], pixels, wanted)
    library = ScoreCAM(view.module, [view.layer.module], view.layer.reshape)
    for (place, target), values in zip(wanted, found, strict=True):
        (expected,) = library(pixels[[place]], [Weighted(target.columns)])
        np.testing.assert_allclose(values, expected, atol=1e-4)


@pytest.mark.parametrize("pooled", ["token", "avg"])
def test_rollout_multiplies_the_attention_of_all_blocks(pooled: str) -> None:
    """A second computation, block by block, from the queries and keys."""
    (view,), pixels = of_run("flat", "test_vit"), images()
    backbone = view.module.model.backbone
    if pooled == "avg":
        view = View(view.module, layer_of(view, Tokens((4, 4), 1, "avg")), view.decisions)
    flow = torch.eye(17)
    tokens = backbone.norm_pre(backbone.patch_drop(backbone._pos_embed(backbone.patch_embed(pixels))))
    for block in backbone.blocks:
        attention = block.attn
        query, key, _ = (
            attention.qkv(block.norm1(tokens))
            .reshape(2, 17, 3, attention.num_heads, attention.head_dim)
            .permute(2, 0, 3, 1, 4)
        )
        query, key = attention.q_norm(query), attention.k_norm(key)
        weights = (query @ key.transpose(-2, -1) * attention.head_dim**-0.5).softmax(-1).mean(1)
        flow = (0.5 * weights + 0.5 * torch.eye(17)) @ flow
        tokens = block(tokens)
    read = flow[:, 0] if pooled == "token" else flow[:, 1:].mean(dim=1)
    found = maps.rollout(view.module, view.layer, pixels)
    for values, expected in zip(found, read[:, 1:].reshape(2, 4, 4).detach().numpy(), strict=True):
        np.testing.assert_allclose(values, scaled(expected, 64), atol=1e-4)
    assert all(block.attn.fused_attn for block in backbone.blocks)


def layer_of(view: View, tokens: Tokens):  # type: ignore[no-untyped-def]
    from dataclasses import replace

    return replace(view.layer, tokens=tokens)


def test_patches_keep_their_places() -> None:
    tokens = torch.arange(7.0)[None, :, None]  # a class token and 2 x 3 patches
    assert Tokens((2, 3), 1)(tokens)[0, 0].tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize("variant", ["base", "ensemble"])
def test_a_map_is_that_of_the_models_that_decide(variant: str) -> None:
    """`base`: of one model for a decision. `ensemble`: the mean over the members. The path: all."""
    view, pixels = of_run(variant, "test_vit"), images(1)
    for target in targets(TREE, "AML", view):
        models = 3 if target.decision == PATH or variant == "ensemble" else 1
        models = 4 if variant == "ensemble" else models
        assert len(target.views) == models
        (found,) = maps.compute("gradcam", view, pixels, [(0, target)])
        alone = [
            maps.compute("gradcam", [view[place]], pixels, [(0, target_at_0(target))])[0]
            for place in target.views
        ]
        np.testing.assert_allclose(found, np.mean(alone, axis=0), atol=1e-6)


def target_at_0(target):  # type: ignore[no-untyped-def]
    from dataclasses import replace

    return replace(target, views=(0,))


@pytest.mark.parametrize("backbone", ["test_vit", "test_convnext", "test_resnet"])
def test_each_level_of_a_branched_model_is_seen_in_its_branch(backbone: str) -> None:
    view = of_run("multilabel", backbone, **{"loss.isolation": "branched"})
    assert [sorted(one.decisions) for one in view] == [["root"], ["leukemia"], ["acute", "chronic"]]
    module = view[0].module
    for one, branch in zip(view, module.model.branches, strict=True):
        assert any(part is one.layer.module for part in branch.modules())
        assert extent(one.module, [one.layer], 64) == [(4, 4) if backbone == "test_vit" else (2, 2)]
    if backbone == "test_vit":
        assert {len(one.layer.attentions) for one in view} == {6}
    decisions = targets(TREE, "AML", view)[:3]
    found = maps.compute("hirescam", view, images(1), [(0, target) for target in decisions])
    found = [values for values in found if values.any()]  # with random weights some are empty
    assert len({values.tobytes() for values in found}) == len(found) > 0


@pytest.mark.parametrize("isolation", ["detached", "chained"])
def test_maps_follow_connections_that_training_cuts(isolation: str) -> None:
    """No gradient of the third level reaches the backbone in training. Its decision depends on it all the
    same."""
    (view,) = of_run("multilabel", "test_vit", **{"loss.isolation": isolation})
    pixels = images(1).requires_grad_()
    edge = TREE.edges.index("AML")
    view.module(pixels)[0, edge].backward()
    assert pixels.grad is not None
    assert float(pixels.grad.abs().max()) > 0
    if isolation == "chained":  # through the probabilities of the decision above, too
        model = view.module.model
        closed = images(1).requires_grad_()
        heads = dict(zip(stages("multilabel", TREE)[0].heads, model.heads, strict=True))
        assert heads["acute"].in_features > heads["root"].in_features
        start = sum(len(TREE.decisions[name]) for name in ("root", "leukemia"))
        model(closed)[0, start + TREE.decisions["acute"].index("AML")].backward()
        assert closed.grad is not None
        assert not torch.allclose(closed.grad, pixels.grad)


def test_the_hooks_are_gone_and_the_weights_have_no_gradient() -> None:
    (view,) = of_run("flat", "test_convnext")
    for method in ("gradcam", "hirescam", "scorecam"):
        maps.compute(method, [view], images(1), [(0, targets(TREE, "CML", [view])[0])])
    assert not any(part._forward_hooks for part in view.module.modules())
    assert all(weight.grad is None for weight in view.module.parameters())


@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext", "test_efficientnet"])
def test_small_images_have_a_finer_layer(backbone: str) -> None:
    """The last feature map has a stride of 32: 3 x 3 places at 96 pixels, 5 x 5 at 160."""
    spec = RunSpec().override({"variant": "flat", "backbone.name": backbone})
    (stage,) = stages("flat", TREE)
    model = build(spec, stage, 96).eval()
    places = {}
    for size in (96, 160):
        (view,) = views("flat", TREE, [stage], [model], size)
        places[size] = extent(view.module, [view.layer], size)[0]
    assert places == {96: (6, 6), 160: (5, 5)}
    (last,) = views("flat", TREE, [stage], [model])
    assert last.layer.module is view.layer.module


def test_rollout_needs_attention() -> None:
    assert not maps.suits("rollout", of_run("flat", "test_convnext"))
    assert maps.suits("rollout", of_run("base", "test_vit"))


def test_a_map_without_evidence_is_empty() -> None:
    view = spots.seen()
    (found,) = maps.compute("gradcam", view, torch.zeros(1, 3, 32, 32), [(0, spots.wanted("red", view))])
    assert not found.any()
