"""A finished run is loaded, and predicts the images of its fold as it did when it was scored."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from leukotree.data.dataset import Dataset
from leukotree.data.stream import Loader
from leukotree.errors import InputError
from leukotree.inference.loaded import LoadedRun, load
from leukotree.records import predictions, runfolder
from leukotree.spec import RunSpec
from leukotree.training.run import run
from tests.helpers.specs import tiny_spec


def again(loaded: LoadedRun, dataset: Dataset) -> np.ndarray:
    """(N, E) log-probabilities of the test fold, computed anew."""
    rows = np.flatnonzero(dataset.index["fold"] == loaded.spec.data.test_fold)
    with Loader(dataset, workers=0) as loader:
        batches = loader.evaluate(rows, loaded.batch_size)
        return np.concatenate([loaded.predict(batch.images) for batch in batches])


@pytest.mark.parametrize("variant", ["flat", "base", "multilabel", "ensemble"])
@pytest.mark.parametrize("backbone", ["test_vit", "test_convnext"])
def test_the_same_images_have_the_same_log_probabilities_bit_by_bit(
    variant: str, backbone: str, shards: Path, tmp_path: Path
) -> None:
    spec = tiny_spec(shards, {"variant": variant, "backbone.name": backbone})
    folder = run(spec, tmp_path).folder
    stored = predictions.read(folder)[1]
    assert np.array_equal(again(load(folder), Dataset.open(shards)), stored)


@pytest.fixture(scope="module")
def trained(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tiny_spec(shards, {"loss.weighting": "uncertainty"}), tmp_path_factory.mktemp("runs")).folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / trained.name))


def test_a_run_needs_its_shards_no_more(folder: Path, shards: Path) -> None:
    spec = runfolder.read_spec(folder)
    moved = spec.override({"data.shards": str(folder / "gone")})
    (folder / "spec.yaml").write_text(moved.dump())
    loaded = load(folder)
    assert (loaded.prepared.size, loaded.prepared.quality) == (48, 95)
    assert np.array_equal(again(loaded, Dataset.open(shards)), predictions.read(folder)[1])


def without_note(folder: Path) -> None:
    """env.json as older versions wrote it."""
    environment = json.loads((folder / "env.json").read_text())
    del environment["images"]
    (folder / "env.json").write_text(json.dumps(environment))


def test_the_size_of_an_older_run_comes_from_its_shards(folder: Path) -> None:
    without_note(folder)
    assert load(folder).prepared.size == 48
    moved = runfolder.read_spec(folder).override({"data.shards": str(folder / "gone")})
    (folder / "spec.yaml").write_text(moved.dump())
    with pytest.raises(InputError, match=r"did not note the size of its images, and .*gone is not"):
        load(folder)


def no_run(folder: Path) -> None:
    (folder / "spec.yaml").unlink()


def not_done(folder: Path) -> None:
    (folder / "status.json").write_text(json.dumps({"state": "running"}))


def inner(folder: Path) -> None:
    spec: RunSpec = runfolder.read_spec(folder).override({"data.inner": {"folds": 2, "fold": 0}})
    (folder / "spec.yaml").write_text(spec.dump())


def no_weights(folder: Path) -> None:
    shutil.rmtree(folder / "checkpoints")


def damaged(folder: Path) -> None:
    [state] = folder.glob("checkpoints/*/state.pt")
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (no_run, "no run folder"),
        (not_done, r"is not done \(running\)"),
        (inner, "keeps no weights"),
        (no_weights, "missing or damaged"),
        (damaged, "missing or damaged"),
    ],
)
def test_what_cannot_be_loaded_is_named(spoil, says: str, folder: Path) -> None:  # type: ignore[no-untyped-def]
    spoil(folder)
    with pytest.raises(InputError, match=f"{folder}.*{says}"):
        load(folder)
