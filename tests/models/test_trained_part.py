"""What is frozen has no gradient, keeps no activation, and moves by no bit."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay

from leukotree.errors import InputError
from leukotree.models import classifier, trained_part
from leukotree.models.stages import stages
from leukotree.spec import RunSpec
from leukotree.taxonomy import Taxonomy

NAMES = ("test_vit", "test_convnext", "test_resnet", "test_efficientnet")


def built(name: str, **changes: object) -> classifier.Classifier:
    spec = RunSpec().override({"backbone.name": name, **changes})
    return classifier.build(spec, stages("multilabel", Taxonomy.paper())[0], 48)


@pytest.mark.parametrize("name", NAMES)
def test_of_a_head_alone_nothing_of_the_backbone_moves(name: str) -> None:
    spec = RunSpec().override({"backbone.name": name, "backbone.train": "head"})
    model = built(name, **{"backbone.train": "head"})
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(classifier.parameter_groups(model, spec), fused=True)
    assert model.train().training
    features = model.backbone(torch.rand(3, 3, 48, 48))
    assert features.grad_fn is None, "no activation is kept"
    model(torch.rand(3, 3, 48, 48)).square().sum().backward()
    optimizer.step()
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {f"heads.{name}" for name, _ in model.heads.named_parameters()}


def test_only_parts_without_a_weight_that_trains_rest() -> None:
    backbone = timm.create_model("test_resnet", num_classes=0)
    assert list(trained_part.resting(backbone)) == []
    backbone.requires_grad_(False)
    assert list(trained_part.resting(backbone)) == [backbone]
    backbone.layer4.requires_grad_(True)
    rest = list(trained_part.resting(backbone))
    assert backbone.layer3 in rest
    assert not {backbone, backbone.layer4, backbone.act1} & {*rest}


@pytest.mark.parametrize("name", NAMES)
def test_layers_have_the_rates_that_timm_gives_them(name: str) -> None:
    changes = {"optim.layer_decay": 0.7, "optim.lr": 1e-3, "optim.head_lr_multiplier": 3.0}
    model = built(name)
    groups = classifier.parameter_groups(model, RunSpec().override({"backbone.name": name, **changes}))
    oracle = param_groups_layer_decay(
        model.backbone, 0.05, tuple(getattr(model.backbone, "no_weight_decay", set)()), layer_decay=0.7
    )
    wanted = {
        parameter: (1e-3 * group["lr_scale"], group["weight_decay"])
        for group in oracle
        for parameter in group["params"]
    } | {head: (3e-3, 0.05 if head.ndim > 1 else 0.0) for head in model.heads.parameters()}
    made = {
        parameter: (group["peak"], group["weight_decay"]) for group in groups for parameter in group["params"]
    }
    assert made.keys() == wanted.keys()
    for parameter, (rate, decay) in wanted.items():
        assert made[parameter] == (pytest.approx(rate), decay)


@pytest.mark.parametrize("name", ["test_vit", "test_convnext"])
def test_a_branch_has_the_rates_of_the_blocks_that_it_was(name: str) -> None:
    spec = RunSpec().override({"backbone.name": name, "optim.layer_decay": 0.5, "optim.lr": 1.0})
    loss = {"loss.isolation": "branched", "loss.branch_blocks": 2}
    cut, whole = built(name, **loss), built(name)
    rates = {
        parameter: group["peak"]
        for model in (cut, whole)
        for group in classifier.parameter_groups(model, spec)
        for parameter in group["params"]
    }
    of_whole = {value.sum().item(): rates[value] for value in whole.backbone.parameters() if value.ndim > 1}
    parameters = [*cut.backbone.parameters(), *cut.branches.parameters()]
    compared = [(rates[value], of_whole[value.sum().item()]) for value in parameters if value.ndim > 1]
    assert len({wanted for _, wanted in compared}) > 3
    assert all(rate == wanted for rate, wanted in compared)


def test_layers_that_timm_does_not_know_have_no_rates_of_their_own() -> None:
    with pytest.raises(InputError, match=r"optim\.layer_decay: timm does not know the layers of pit_ti_224"):
        classifier.build(
            RunSpec().override({"backbone.name": "pit_ti_224", "optim.layer_decay": 0.9}),
            stages("flat", Taxonomy.paper())[0],
            224,
        )
