"""Backbones with heads: their weights, what is refused, and their groups of parameters."""

import re

import pytest
import timm
import torch

from leukotree.errors import InputError
from leukotree.models import backbones, classifier
from leukotree.models.stages import stages
from leukotree.spec import BackboneSpec, RunSpec
from leukotree.taxonomy import Taxonomy


def test_every_fold_starts_from_weights_of_its_own() -> None:
    """The same weights in all folds would add the same luck to each, which their spread does not show."""
    [stage] = stages("flat", Taxonomy.paper())
    spec = RunSpec().override({"variant": "flat", "backbone.name": "test_vit"})
    changes = [
        {},
        {"data.test_fold": 1},
        *({"data.test_fold": fold, "data.repeat": 1} for fold in range(2)),
        *({"data.inner": {"folds": 3, "fold": fold}} for fold in range(2)),
        {"seed": 1},
    ]
    first = [classifier.build(spec.override(change), stage, 48).heads[0].weight for change in changes]
    for number, weight in enumerate(first):
        assert torch.equal(
            weight, classifier.build(spec.override(changes[number]), stage, 48).heads[0].weight
        )
        assert not any(torch.equal(weight, other) for other in first[:number])


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_efficientnet"])
def test_any_timm_backbone_takes_the_size_of_the_data_and_its_own_seed(name: str) -> None:
    spec = RunSpec().override({"backbone.name": name})
    stage = stages("multilabel", Taxonomy.paper())[0]
    built, again, other = (classifier.build(s, stage, 48) for s in (spec, spec, spec.override({"seed": 1})))
    assert built(torch.zeros(2, 3, 48, 48)).shape == (2, 10)
    states = [torch.cat([p.flatten() for p in m.parameters()]) for m in (built, again, other)]
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_weights_load_from_a_file_without_their_classifier(tmp_path) -> None:
    donor = timm.create_model("test_convnext", num_classes=5)
    file = tmp_path / "weights.pth"
    torch.save(donor.state_dict(), file)
    spec = RunSpec().override({"backbone.name": "test_convnext", "backbone.weights": str(file)})
    built = classifier.build(spec, stages("flat", Taxonomy.paper())[0], 48)
    loaded = dict(built.backbone.named_parameters())
    assert all(torch.equal(value, loaded[name]) for name, value in donor.named_parameters() if name in loaded)
    assert len(loaded) == len(
        [name for name, _ in donor.named_parameters() if not name.startswith("head.fc")]
    )


@pytest.mark.parametrize(
    ("backbone", "says"),
    [
        ({"name": "vit_smal_patch16_384"}, "no model 'vit_smal_patch16_384'; near: vit_small_patch16"),
        ({"name": "test_vit", "weights": "nowhere.pth"}, "no file 'nowhere.pth'"),
        ({"name": "test_vit.nobody", "weights": "hub"}, "no pretrained weights"),
    ],
)
def test_what_timm_does_not_have_is_named(backbone: dict[str, str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        backbones.check(BackboneSpec(**backbone))


def test_weights_of_another_model_or_with_code_inside_are_refused(tmp_path) -> None:
    other, code = tmp_path / "other.pth", tmp_path / "code.pth"
    torch.save(timm.create_model("test_vit", num_classes=0).state_dict(), other)
    torch.save({"state_dict": print}, code)
    stage = stages("flat", Taxonomy.paper())[0]
    for file, says in ((other, "backbone test_convnext"), (code, "code.pth: holds more than tensors")):
        spec = RunSpec().override({"backbone.name": "test_convnext", "backbone.weights": str(file)})
        with pytest.raises(InputError, match=says) as error:
            classifier.build(spec, stage, 48)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("lost", ["all", "weight", "statistic"])
def test_weights_that_a_file_lacks_do_not_stay_random_unsaid(lost: str, tmp_path) -> None:
    """timm loads the weights that fit, and leaves the others random."""
    donor = timm.create_model("test_resnet", num_classes=0)
    statistics = [name for name, _ in donor.named_buffers() if "running" in name]
    names = [*(name for name, _ in donor.named_parameters()), *statistics]
    state = donor.state_dict()
    one = statistics[0] if lost == "statistic" else names[0]
    kept = {f"net.{name}": value for name, value in state.items()}
    kept = kept if lost == "all" else {name: value for name, value in state.items() if name != one}
    file = tmp_path / "part.pth"
    torch.save(kept, file)
    spec = RunSpec().override({"backbone.name": "test_resnet", "backbone.weights": str(file)})
    count = len(names) if lost == "all" else 1
    says = f"part.pth: lacks {count} of the {len(names)} weights of test_resnet, such as {one}"
    with pytest.raises(InputError, match=re.escape(says)):
        classifier.build(spec, stages("flat", Taxonomy.paper())[0], 48)


@pytest.mark.parametrize(
    ("larger", "name", "block"),
    [
        ("resnet34", "resnet18", "layer1.2"),
        ("efficientnet_b1", "efficientnet_b0", "blocks.0.1"),
    ],
)
def test_a_deeper_model_of_the_same_width_is_not_cut_short_unsaid(
    larger: str, name: str, block: str, tmp_path
) -> None:
    """timm leaves out the blocks that its model does not have."""
    file = tmp_path / "larger.pth"
    torch.save(timm.create_model(larger).state_dict(), file)
    spec = BackboneSpec(name=name, weights=str(file))
    with pytest.raises(InputError, match=f"of blocks that {name} does not have, such as {re.escape(block)}"):
        backbones.create(spec, 64)


def test_weight_decay_spares_norms_and_biases_and_heads_get_their_own_rate() -> None:
    spec = RunSpec().override({"backbone.name": "test_vit", "optim.lr": 1e-3, "optim.head_lr_multiplier": 10})
    built = classifier.build(spec, stages("multilabel", Taxonomy.paper())[0], 48)
    groups = classifier.parameter_groups(built, spec)
    assert sum(len(group["params"]) for group in groups) == len(list(built.parameters()))
    heads = {id(parameter) for parameter in built.heads.parameters()}
    for group in groups:
        assert group["peak"] == pytest.approx(1e-2 if id(group["params"][0]) in heads else 1e-3)
        if group["weight_decay"]:
            assert all(parameter.ndim > 1 for parameter in group["params"])
