"""Variants give one thing: a proper distribution over the edges of the tree."""

import re

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leukotree.errors import InputError
from leukotree.evaluation import decide
from leukotree.models import classifier
from leukotree.spec import VARIANTS, BackboneSpec, RunSpec
from leukotree.taxonomy import Taxonomy

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
        for stage in classifier.stages(variant, tree)
    ]
    edges = classifier.edge_log_probabilities(variant, tree, logits).numpy()
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
    edges = classifier.edge_log_probabilities("flat", tree, [logits]).exp()
    acute, chronic = leaf[:, 2:5].sum(dim=1), leaf[:, 5:7].sum(dim=1)
    torch.testing.assert_close(edges[:, tree.edges.index("leukemia")], acute + chronic)
    torch.testing.assert_close(edges[:, tree.edges.index("acute")], acute / (acute + chronic))
    torch.testing.assert_close(edges[:, tree.edges.index("CLL")], leaf[:, 5] / chronic)


def test_the_variants_train_what_the_paper_says() -> None:
    tree = Taxonomy.paper()
    assert [len(classifier.stages(variant, tree)) for variant in VARIANTS] == [1, 4, 1]
    chronic = classifier.stages("base", tree)[3]
    assert [leaf for leaf, trains in zip(tree.leaves, chronic.trains_on, strict=True) if trains] == [
        "CLL",
        "CML",
    ]
    assert len(classifier.stages("multilabel", tree)[0].heads) == 4


def test_every_fold_starts_from_weights_of_its_own() -> None:
    """Else a lucky start would be the same luck in all folds, and the spread over them could not tell of
    it."""
    [stage] = classifier.stages("flat", Taxonomy.paper())
    spec = RunSpec().override({"variant": "flat", "backbone.name": "test_vit"})
    changes = [
        {},
        {"data.test_fold": 1},
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
    stage = classifier.stages("multilabel", Taxonomy.paper())[0]
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
    built = classifier.build(spec, classifier.stages("flat", Taxonomy.paper())[0], 48)
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
        classifier.check_backbone(BackboneSpec(**backbone))


def test_weights_of_another_model_or_with_code_inside_are_refused(tmp_path) -> None:
    other, code = tmp_path / "other.pth", tmp_path / "code.pth"
    torch.save(timm.create_model("test_vit", num_classes=0).state_dict(), other)
    torch.save({"state_dict": print}, code)
    stage = classifier.stages("flat", Taxonomy.paper())[0]
    for file, says in ((other, "backbone test_convnext"), (code, "code.pth: holds more than tensors")):
        spec = RunSpec().override({"backbone.name": "test_convnext", "backbone.weights": str(file)})
        with pytest.raises(InputError, match=says) as error:
            classifier.build(spec, stage, 48)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("lost", ["all", "one"])
def test_weights_that_a_file_lacks_do_not_stay_random_unsaid(lost: str, tmp_path) -> None:
    """timm loads what fits and keeps the rest as it was drawn."""
    donor = timm.create_model("test_resnet", num_classes=0)
    names = [name for name, _ in donor.named_parameters()]
    state = donor.state_dict()
    kept = {f"net.{name}": value for name, value in state.items()}
    kept = kept if lost == "all" else {name: value for name, value in state.items() if name != names[0]}
    file = tmp_path / "part.pth"
    torch.save(kept, file)
    spec = RunSpec().override({"backbone.name": "test_resnet", "backbone.weights": str(file)})
    count = len(names) if lost == "all" else 1
    says = f"part.pth: lacks {count} of the {len(names)} weights of test_resnet, such as {names[0]}"
    with pytest.raises(InputError, match=re.escape(says)):
        classifier.build(spec, classifier.stages("flat", Taxonomy.paper())[0], 48)


def test_weight_decay_spares_norms_and_biases_and_heads_get_their_own_rate() -> None:
    spec = RunSpec().override({"backbone.name": "test_vit", "optim.lr": 1e-3, "optim.head_lr_multiplier": 10})
    built = classifier.build(spec, classifier.stages("multilabel", Taxonomy.paper())[0], 48)
    groups = classifier.parameter_groups(built, spec)
    assert sum(len(group["params"]) for group in groups) == len(list(built.parameters()))
    heads = {id(parameter) for parameter in built.heads.parameters()}
    for group in groups:
        assert group["peak"] == pytest.approx(1e-2 if id(group["params"][0]) in heads else 1e-3)
        if group["weight_decay"]:
            assert all(parameter.ndim > 1 for parameter in group["params"])
