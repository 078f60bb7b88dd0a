"""Arms of a fold start alike; folds, seeds and the members of an ensemble do not."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from leukotree.models.classifier import Classifier, build
from leukotree.models.stages import Stage, stages
from leukotree.models.streams import Streams
from leukotree.seeds import BY_STAGE
from leukotree.spec import RunSpec
from leukotree.taxonomy import Taxonomy

PAPER = Taxonomy.paper()
STAR = Taxonomy.from_nested({"root": ["a", "b", "c"]})
BASE = RunSpec().override({"backbone.name": "test_vit"})


def models(changes: dict[str, Any], tree: Taxonomy = PAPER) -> list[Classifier]:
    spec = BASE.override(changes)
    return [build(spec, stage, 48) for stage in stages(spec.variant, tree)]


def equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("change", [{}, {"data.test_fold": 2}, {"data.inner": {"folds": 3, "fold": 1}}])
def test_all_backbones_of_a_fold_start_alike(change: dict[str, Any]) -> None:
    [flat] = models({"variant": "flat", **change})
    for variant in ("base", "multilabel"):
        for model in models({"variant": variant, **change}):
            assert equal(model.backbone, flat.backbone)


@pytest.mark.parametrize(
    "change", [{"data.test_fold": 1}, {"data.inner": {"folds": 3, "fold": 0}}, {"seed": 1}]
)
def test_other_folds_and_seeds_start_otherwise(change: dict[str, Any]) -> None:
    [here], [there] = models({"variant": "flat"}), models({"variant": "flat", **change})
    assert not equal(here.backbone, there.backbone)
    assert not equal(here.heads, there.heads)


def test_branches_start_as_the_end_of_the_backbone() -> None:
    [flat] = models({"variant": "flat"})
    [branched] = models({"loss.isolation": "branched", "loss.branch_blocks": 2})
    blocks = flat.backbone.get_submodule("blocks")
    for branch in branched.branches:
        own = branch.get_submodule("blocks")
        assert all(equal(mine, block) for mine, block in zip(own, list(blocks)[-2:], strict=True))
    trunk = branched.backbone.get_submodule("blocks")
    assert all(equal(mine, block) for mine, block in zip(trunk, blocks, strict=False))


def test_with_one_decision_flat_and_multilabel_differ_by_their_heads_alone() -> None:
    """So their difference is one of random weights of a head: a null that is not zero."""
    [flat], [tree] = (models({"variant": variant}, STAR) for variant in ("flat", "multilabel"))
    assert equal(flat.backbone, tree.backbone)
    assert not equal(flat.heads, tree.heads)


def test_a_decision_has_the_same_head_in_base_and_multilabel() -> None:
    [tree] = models({"variant": "multilabel"})
    for model, head in zip(models({"variant": "base"}), tree.heads, strict=True):
        assert equal(model.heads[0], head)
    assert not torch.equal(tree.heads[0].weight[:2], tree.heads[1].weight[:2])


def test_what_is_drawn_outside_stays_as_it_was() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    models({})
    assert torch.equal(torch.rand(4), expected)


def test_dropout_is_paired_and_a_function_of_the_step_and_the_rank() -> None:
    flat, tree = (Streams(BASE, stages(name, PAPER)[0]) for name in ("flat", "multilabel"))
    assert flat.step(3, 1) == tree.step(3, 1)
    assert len({flat.step(step, rank) for step in range(3) for rank in range(2)}) == 6


def test_a_run_of_the_first_version_draws_by_the_name_of_the_stage() -> None:
    """These numbers are what that version drew."""
    stage = stages("flat", PAPER)[0]
    old, renamed = (Streams(BASE, one, BY_STAGE) for one in (stage, dataclasses.replace(stage, name="other")))
    assert [old.backbone, old.order, old.step(2, 0)] == [
        6665644820718621086,
        4667527039479677872,
        3431386898960298503,
    ]
    assert old.order != renamed.order


def test_the_members_of_an_ensemble_draw_their_own_numbers() -> None:
    stage: Stage = stages("flat", PAPER)[0]
    members = [Streams(BASE, dataclasses.replace(stage, member=number)) for number in (1, 2, 3)]
    drawn = [(one.backbone, one.head("leaves"), one.order, one.step(0, 0)) for one in members]
    assert len({number for numbers in drawn for number in numbers}) == 12
    assert drawn[0][0] == Streams(BASE, stages("multilabel", PAPER)[0]).backbone
