"""Adapters are drawn from the seed of a run, train on weights that stay, and can be merged into these."""

from __future__ import annotations

import pytest
import torch
from peft.tuners.lora import LoraLayer

from leukotree.models import classifier, lora
from leukotree.models.stages import stages
from leukotree.spec import RunSpec
from leukotree.taxonomy import Taxonomy

[STAGE] = stages("multilabel", Taxonomy.paper())


def built(name: str, **changes: object) -> classifier.Classifier:
    spec = RunSpec().override({"backbone.name": name, "backbone.train": "lora", **changes})
    return classifier.build(spec, STAGE, 48)


def adapted(model: torch.nn.Module) -> set[str]:
    """The last names of the layers with an adapter."""
    return {name.rpartition(".")[2] for name, part in model.named_modules() if isinstance(part, LoraLayer)}


@pytest.mark.parametrize(
    ("name", "targets", "layers"),
    [
        ("test_vit", "attention", {"qkv", "proj"}),
        ("test_vit", "mlp", {"fc1", "fc2"}),
        ("test_vit", "both", {"qkv", "proj", "fc1", "fc2"}),
        ("test_convnext", "mlp", {"fc1", "fc2"}),
        ("test_convnext", "both", {"fc1", "fc2"}),
    ],
)
def test_the_targets_get_adapters(name: str, targets: str, layers: set[str]) -> None:
    model = built(name, **{"backbone.lora.targets": targets, "backbone.lora.rank": 3})
    assert adapted(model) == layers
    trained = [key for key, value in model.backbone.named_parameters() if value.requires_grad]
    assert trained
    assert all("lora_" in key for key in trained)
    ranks = {value.shape[0] for key, value in model.named_parameters() if "lora_A" in key}
    assert ranks == {3}


def test_adapters_have_numbers_of_their_own_and_begin_at_zero() -> None:
    model, again, other = built("test_vit"), built("test_vit"), built("test_vit", seed=1)
    whole = classifier.build(RunSpec().override({"backbone.name": "test_vit"}), STAGE, 48)
    states = [dict(one.named_parameters()) for one in (model, again, other)]
    downs = [key for key in states[0] if "lora_A" in key]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not any(torch.equal(states[0][key], states[2][key]) for key in downs)
    assert len({states[0][key].sum().item() for key in downs}) == len(downs)
    images = torch.rand(2, 3, 48, 48)
    with torch.no_grad():
        assert torch.equal(model.eval()(images), whole.eval()(images)), "the rest is that of the other arms"


@pytest.mark.parametrize("isolation", ["shared", "branched"])
@pytest.mark.parametrize("name", ["test_vit", "test_convnext"])
def test_merged_adapters_give_the_same_answers_on_a_plain_model(name: str, isolation: str) -> None:
    changes = {"backbone.lora.alpha": 4.0, "loss.isolation": isolation}
    model = built(name, **changes).eval()
    images = torch.rand(3, 3, 48, 48)
    with torch.no_grad():
        before = model(images)
        for key, value in model.named_parameters():
            if "lora_B" in key:
                value.normal_(std=0.3)
            if key.endswith(".gamma"):  # of ConvNeXt: else its blocks hardly count
                value.fill_(1.0)
        after = model(images)
        lora.merge(model)
        merged = model(images)
    assert (after - before).abs().max() > 0.01
    assert torch.allclose(merged, after, atol=1e-5)
    spec = RunSpec().override({"backbone.name": name, "loss.isolation": isolation})
    plain = classifier.build(spec, STAGE, 48)
    plain.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(plain.eval()(images), merged)


def test_a_model_without_adapters_stays_as_it_is() -> None:
    model = built("test_vit", **{"backbone.train": "head"})
    before = {key: value.clone() for key, value in model.state_dict().items()}
    lora.merge(model)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
