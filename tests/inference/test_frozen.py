"""Runs with the same frozen backbone have it once, and compute the features of an image once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from leukotree.data.dataset import Dataset
from leukotree.distributed.engine import Engine
from leukotree.inference import features, images, known, members, predict
from leukotree.inference.features import Features
from leukotree.inference.loaded import LoadedRun, load
from leukotree.records import predictions
from leukotree.runtime import Runtime
from leukotree.training.run import run
from tests.helpers.specs import tiny_spec
from tests.training.conftest import save_random

pytestmark = pytest.mark.slow("trains runs")

CPU = torch.device("cpu")
CHANGES = (
    {"variant": "flat"},
    {"variant": "base", "seed": 1, "optim.batch_size": 8},
    {"variant": "flat", "data.test_fold": 1},
)


@pytest.fixture(scope="module")
def folders(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("runs")
    save_random(weights := root / "resnet.safetensors", 1)
    named = {"backbone.name": "test_resnet", "backbone.weights": str(weights), "backbone.train": "head"}
    spec = tiny_spec(shards, {**named, "augment.views": 0})
    return [run(spec.override(change), root, Runtime(threads=1, quiet=True)).folder for change in CHANGES]


def predicted(folder: Path, shards: Path) -> np.ndarray:
    """(N, E) predictions of a run for the packed images of its test fold."""
    of = members.of_run(folder)
    given = images.of_shards(shards, of.prepared, of.runs[0].spec.data.test_fold)
    return predict.predict(of, given, known.compare(given, of.runs), Engine(0, 1, CPU), workers=0).logp


@pytest.mark.parametrize("place", range(len(CHANGES)))
def test_the_packed_images_of_a_test_fold_are_predicted_bit_by_bit_as_they_were_scored(
    place: int, folders: list[Path], shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the stored features; and but for rounding without them, as in another batch."""
    _, logp, _ = predictions.read(folders[place])
    with monkeypatch.context() as patch:
        patch.setattr(LoadedRun, "features", None)
        assert np.array_equal(predicted(folders[place], shards), logp)
    monkeypatch.setattr(features, "found", lambda *_: None)
    np.testing.assert_allclose(predicted(folders[place], shards), logp, atol=1e-5)


def test_runs_share_the_backbone_and_the_features(
    folders: list[Path], shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [load(folder) for folder in folders]
    assert len({id(run.frozen) for run in runs}) == 1
    assert all(model.backbone is runs[0].models[0].backbone for run in runs for model in run.models)
    given = images.of_shards(shards, runs[0].prepared)
    computed: list[int] = []
    compute = LoadedRun.features

    def counted(run: LoadedRun, pixels: np.ndarray) -> np.ndarray:
        computed.append(len(pixels))
        return compute(run, pixels)

    monkeypatch.setattr(LoadedRun, "features", counted)
    shared, done = Features(given, 0), []
    parts = [np.arange(len(given.table))]
    of_all = [predict.outputs(run, given, parts, 0, done.append, shared) for run in runs]
    assert sum(computed) == len(given.table)
    assert sum(done) == len(runs) * len(given.table)
    dataset = Dataset.open(shards)
    for one, logp in zip(runs, of_all, strict=True):
        pixels = np.stack([dataset.image(row) for row in range(5)]).transpose(0, 3, 1, 2)
        np.testing.assert_allclose(one.predict(pixels), logp[:5], atol=1e-5)
