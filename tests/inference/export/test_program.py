"""The classifier that is exported, and its parts for timm, are the run on trees of any shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from leukotree.distributed.engine import Engine
from leukotree.errors import InputError
from leukotree.evaluation import decide
from leukotree.inference.export import agreement, pieces, program
from leukotree.inference.loaded import LoadedRun, Prepared
from leukotree.models.classifier import build
from leukotree.models.stages import stages
from leukotree.spec import TRAINED, RunSpec
from leukotree.taxonomy import PAPER, Taxonomy

TREES: dict[str, Any] = {
    "paper": PAPER,
    "two leaves": {"root": {"a": None, "b": None}},
    "ragged with only children": {
        "Wurzel ä": {"a.1": None, "b/c": {"d": {"e": None, "f g": None, "h": {"i": {"j": None, "k": None}}}}}
    },
}
SIZE = 32
CLOSE = 2e-5


def untrained(variant: str, tree: str, **changes: Any) -> LoadedRun:
    """A run with random weights, whose logits are large enough to decide."""
    named = {key.replace("__", "."): value for key, value in changes.items()}
    fields = {"variant": variant, "backbone.name": "test_vit", "engine.precision": "fp32", **named}
    spec, taxonomy = RunSpec().override(fields), Taxonomy.from_nested(TREES[tree])
    parts = stages(spec.variant, taxonomy)
    models = [build(spec, stage, SIZE).eval() for stage in parts]
    with torch.no_grad():
        for model in models:
            for head in model.heads:
                head.weight.mul_(10)
    engine = Engine(0, 1, torch.device("cpu"))
    return LoadedRun(Path("run"), spec, taxonomy, Prepared(SIZE, 95), tuple(parts), tuple(models), engine)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 3, SIZE, SIZE), dtype=np.uint8)


@pytest.mark.parametrize("tree", TREES)
@pytest.mark.parametrize("variant", TRAINED)
def test_it_gives_the_log_probabilities_of_the_run(variant: str, tree: str, images: np.ndarray) -> None:
    run = untrained(variant, tree)
    with torch.inference_mode():
        edges, leaves = program.Program(run)(torch.from_numpy(images))
    wanted = run.predict(images)
    assert wanted.std() > 0.1
    assert agreement.difference(wanted, edges.numpy()) < CLOSE
    assert agreement.difference(np.exp(decide.leaf_logp(wanted, run.taxonomy)), leaves.numpy()) < CLOSE


def test_it_leaves_the_models_of_the_run_as_they_are() -> None:
    run = untrained("flat", "paper")
    before = run.models[0].state_dict()
    made = program.Program(run)
    with torch.no_grad():
        made.models[0].heads[0].weight.zero_()
    assert all(torch.equal(value, before[name]) for name, value in run.models[0].state_dict().items())
    assert run.models[0].heads[0].weight.abs().sum() > 0


@pytest.mark.parametrize("backbone", ["test_vit", "test_convnext", "test_resnet"])
def test_a_cut_backbone_is_put_together_again(backbone: str, images: np.ndarray, tmp_path: Path) -> None:
    """With `branched`, each level has the last blocks for itself."""
    run = untrained(
        "multilabel", "paper", backbone__name=backbone, loss__isolation="branched", loss__leader=2
    )
    [row] = pieces.write(run, tmp_path)
    assert len(row["backbones"]) == 3
    inputs = torch.from_numpy(images).float()
    model = program.plain(run.models[0])
    with torch.inference_mode():
        shared = model.backbone(inputs)
        for name, branch in zip(row["backbones"], model.branches, strict=True):
            assert torch.allclose(pieces.features(tmp_path / name, inputs), branch(shared), atol=1e-5)


def test_names_of_decisions_are_no_paths(tmp_path: Path) -> None:
    run = untrained("base", "ragged with only children")
    rows = pieces.write(run, tmp_path)
    assert [row["stage"] for row in rows] == ["Wurzel ä", "d", "i"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1-wurzel", "2-d", "3-i"]
    assert timm.create_model(f"local-dir:{tmp_path}/1-wurzel", pretrained=True).num_classes == 0


def test_the_size_of_the_images_is_that_of_the_backbone_for_timm(tmp_path: Path) -> None:
    [row] = pieces.write(untrained("flat", "paper"), tmp_path)
    loaded = timm.create_model(f"local-dir:{tmp_path}/{row['backbones'][0]}", pretrained=True)
    assert loaded.pretrained_cfg["input_size"][1:] == (SIZE, SIZE)
    assert loaded(torch.zeros(1, 3, SIZE, SIZE)).ndim == 2


@pytest.mark.parametrize(
    ("wanted", "got", "expected"),
    [
        ([0.0, -2.0], [0.0, -2.0], 0.0),
        ([0.5], [0.25], 0.25),
        ([-100.0], [-101.0], 0.01),
        ([], [], 0.0),
    ],
)
def test_a_difference_is_relative_above_1(wanted: list[float], got: list[float], expected: float) -> None:
    assert agreement.difference(np.array(wanted), np.array(got)) == pytest.approx(expected)


def test_nan_is_no_agreement() -> None:
    assert np.isnan(agreement.difference(np.array([1.0, np.nan]), np.array([1.0, 1.0])))
    assert np.isnan(agreement.difference(np.array([-np.inf]), np.array([-np.inf])))


@pytest.mark.parametrize("package", program.PACKAGES)
def test_a_missing_package_is_named_before_anything_is_done(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(InputError, match=rf"{package} is not installed; .*\[export\]"):
        program.require_packages()
