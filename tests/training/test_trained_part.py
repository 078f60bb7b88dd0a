"""Runs that train a part of the backbone: interrupted, loaded, explained and exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from leukotree.data.dataset import Dataset
from leukotree.data.stream import Loader
from leukotree.errors import InputError
from leukotree.explain.table import Explainer
from leukotree.inference.export import export
from leukotree.inference.loaded import load
from leukotree.models import lora
from leukotree.models.classifier import build
from leukotree.models.stages import stages
from leukotree.records import predictions, runfolder
from leukotree.runtime import Runtime
from leukotree.training import checkpoint, plan, run
from leukotree.training.footprint import footprint
from tests.helpers.specs import tiny_spec

pytestmark = pytest.mark.slow("trains runs")

RUNTIME = Runtime(device="cpu", threads=1, workers=0, quiet=True)
PARTS: dict[str, dict[str, Any]] = {
    "head": {"backbone.train": "head"},
    "last": {"backbone.train": "last", "backbone.last": 2, "backbone.drop_path": 0.2},
    "lora": {"backbone.train": "lora", "backbone.drop_path": 0.2, "optim.lr": 0.02},
}
WIRED: dict[str, dict[str, Any]] = {
    "head, chained": {**PARTS["head"], "loss.isolation": "chained"},
    "last, detached": {**PARTS["last"], "loss.isolation": "detached"},
    "last, branched": {**PARTS["last"], "loss.isolation": "branched", "loss.branch_blocks": 2},
    "last, projected": {**PARTS["last"], "loss.isolation": "projected"},
    "lora, branched": {**PARTS["lora"], "loss.isolation": "branched"},
    "lora, projected": {**PARTS["lora"], "loss.isolation": "projected"},
}


class Kill(Exception):
    """In the place of a kill."""


@pytest.mark.parametrize("name", ["test_vit", "test_convnext"])
@pytest.mark.parametrize("kind", PARTS | WIRED)
def test_a_run_killed_after_an_epoch_ends_with_the_bits_of_an_undisturbed_one(
    shards: Path, kind: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = tiny_spec(shards, {"backbone.name": name, "optim.epochs": 2, **(PARTS | WIRED)[kind]})
    whole = run.run(spec, tmp_path / "whole", RUNTIME).folder
    save = checkpoint.save

    def save_and_die(*arguments: Any, **options: Any) -> Path:
        save(*arguments, **options)
        raise Kill

    monkeypatch.setattr(checkpoint, "save", save_and_die)
    with pytest.raises(Kill):
        run.run(spec, tmp_path / "killed", RUNTIME)
    monkeypatch.setattr(checkpoint, "save", save)
    again = run.run(spec, tmp_path / "killed", RUNTIME).folder
    assert (again / "predictions.parquet").read_bytes() == (whole / "predictions.parquet").read_bytes()

    loaded, dataset = load(again), Dataset.open(shards)
    rows = np.flatnonzero(dataset.index["fold"] == 0)
    with Loader(dataset, workers=0) as loader:
        batches = loader.evaluate(rows, loaded.batch_size)
        logp = np.concatenate([loaded.predict(batch.images) for batch in batches])
    stored = predictions.read(again)[1]
    assert np.abs(logp - stored).max() < 1e-5
    assert np.array_equal(logp, stored) or kind.startswith("lora")
    fresh = build(spec, stages("multilabel", dataset.taxonomy)[0], dataset.size)
    lora.merge(fresh)
    kept = dict(loaded.models[0].named_parameters())
    moved = [key for key, value in fresh.named_parameters() if not torch.equal(value, kept[key])]
    assert any(key.startswith("heads.") for key in moved)
    assert any(key.startswith(("backbone.", "branches.")) for key in moved) == (not kind.startswith("head"))


@pytest.mark.parametrize("kind", PARTS)
def test_a_random_frozen_backbone_is_said_once(shards: Path, kind: str, tmp_path: Path) -> None:
    folder = run.run(tiny_spec(shards, PARTS[kind]), tmp_path, RUNTIME).folder
    log = (folder / runfolder.LOG).read_text()
    assert log.count("the frozen part of the backbone is random") == 1


@pytest.mark.parametrize("kind", ["last", "lora", "lora, branched"])
@pytest.mark.parametrize("name", ["test_vit", "test_convnext"])
def test_an_export_has_the_answers_of_the_run(shards: Path, kind: str, name: str, tmp_path: Path) -> None:
    spec = tiny_spec(shards, {"backbone.name": name, **(PARTS | WIRED)[kind]})
    done = export.export(load(run.run(spec, tmp_path, RUNTIME).folder), tmp_path / "out")
    assert max(done.differences.values()) <= 2e-5


@pytest.mark.parametrize("name", ["test_vit", "test_convnext"])
@pytest.mark.parametrize("kind", ["head", "last", "lora"])
def test_a_frozen_backbone_is_explained(shards: Path, kind: str, name: str, tmp_path: Path) -> None:
    """Grad-CAM needs gradients of activations, which no frozen weight stops."""
    spec = tiny_spec(shards, {"variant": "flat", "backbone.name": name, **PARTS[kind]})
    loaded = load(run.run(spec, tmp_path, RUNTIME).folder)
    explainer = Explainer(loaded)
    pixels = torch.from_numpy(Dataset.open(shards).image(0).transpose(2, 0, 1)[None].copy())
    pairs = explainer.decided(pixels).pairs
    maps = explainer.maps("gradcam", pixels, pairs)
    assert maps.shape == (len(pairs), 48, 48)
    assert np.isfinite(maps).all()
    assert len(explainer.randomised(1)) == len(explainer.views)


def test_a_checkpoint_of_a_head_is_small_and_that_is_foreseen(shards: Path) -> None:
    dataset = Dataset.open(shards)
    whole, head = (
        footprint(tiny_spec(shards, {"backbone.train": train}), dataset) for train in ("all", "head")
    )
    assert whole.parameters == head.parameters
    assert whole.final == head.final
    assert head.working < whole.working / 5


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"backbone.train": "last", "backbone.last": 7}, "backbone.last: test_vit has 6 blocks, not 7"),
        (
            {
                "backbone.name": "test_convnext",
                "backbone.train": "lora",
                "backbone.lora.targets": "attention",
            },
            "backbone.lora.targets: test_convnext has no layers of attention; use mlp or both",
        ),
        (
            {"backbone.name": "test_resnet", "backbone.train": "lora"},
            "backbone.train: lora knows the layers of timm's VisionTransformer and ConvNeXt, not those of "
            "test_resnet; use all, head or last",
        ),
        (
            {"backbone.name": "pit_ti_224", "optim.layer_decay": 0.5},
            "not know the layers of pit_ti_224",
        ),
        (
            {"backbone.name": "pit_ti_224", "backbone.train": "last"},
            "not know the blocks of pit_ti_224",
        ),
    ],
)
def test_a_model_without_such_a_part_is_refused_before_anything_is_written(
    shards: Path, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(InputError) as error:
        plan.check(tiny_spec(shards, changes))
    assert says in str(error.value)
    assert "\n" not in str(error.value)
