"""The compute of a run is known before it starts, and an ensemble has that of `base`."""

from __future__ import annotations

from pathlib import Path

import pytest

from leukotree.data.dataset import Dataset
from leukotree.models.classifier import build
from leukotree.models.stages import stages
from leukotree.records.compute import Compute
from leukotree.training import costs, throughput
from tests.helpers.specs import tiny_spec


def cost(shards: Path, variant: str, **changes: object) -> Compute:
    spec = tiny_spec(shards, {"variant": variant, "optim.epochs": 8, **changes})
    return costs.compute(spec, Dataset.open(shards))


@pytest.mark.parametrize("steps", [None, 40])
@pytest.mark.parametrize("backbone", ["test_vit", "test_resnet", "vit_small_patch16_384"])
def test_an_ensemble_costs_what_base_costs(shards: Path, backbone: str, steps: int | None) -> None:
    changes = {"backbone.name": backbone, "optim.steps": steps}
    base, ensemble = (cost(shards, variant, **changes).as_dict() for variant in ("base", "ensemble"))
    print(f"{backbone}, steps {steps}: base {base}, ensemble {ensemble}")
    for name, value in base.items():
        assert value
        assert ensemble[name] == pytest.approx(value, rel=0.05), name
    assert base["models"] == ensemble["models"] == 4
    assert base["steps"] == ensemble["steps"]


def test_it_counts_the_steps_and_parameters_of_all_models(shards: Path) -> None:
    dataset = Dataset.open(shards)
    spec = tiny_spec(shards, {"variant": "base", "optim.epochs": 8})
    found = costs.compute(spec, dataset)
    leaves = dataset.index.loc[dataset.index["fold"] != 0, "leaf"]
    sizes = [
        leaves.isin(
            [leaf for leaf in dataset.taxonomy.leaves if decision in ("root", *dataset.taxonomy.path(leaf))]
        )
        for decision in dataset.taxonomy.decisions
    ]
    assert found.steps == sum(-(-8 * int(rows.sum()) // 12) for rows in sizes)
    models = [build(spec, stage, dataset.size) for stage in stages("base", dataset.taxonomy)]
    assert found.parameters == sum(tensor.numel() for model in models for tensor in model.parameters())
    one = throughput.of_model(models[0], spec, dataset.size)
    assert one is not None
    assert found.image_flops == 4 * one
    assert found.training_flops == 3 * 12 * found.steps * one


def test_a_frozen_backbone_costs_a_forward_pass_and_no_backward_pass(shards: Path) -> None:
    costs_of = {
        train: cost(shards, "flat", **{"backbone.train": train}).training_flops
        for train in ("all", "last", "head")
    }
    assert costs_of["all"] == costs_of["last"] == 3 * (costs_of["head"] or 0) > 0


def test_a_backbone_that_cannot_be_counted_has_no_flops(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throughput, "of_model", lambda *_: None)
    found = cost(shards, "multilabel")
    assert (found.image_flops, found.training_flops) == (None, None)
    assert found.steps > 0 < found.parameters
