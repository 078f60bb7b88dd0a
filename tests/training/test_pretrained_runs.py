"""Runs that begin with weights of the hub or of a folder: what they note, that they continue with the same
bits, and that they are used without these weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from leukotree import files
from leukotree.data.dataset import Dataset
from leukotree.errors import InputError
from leukotree.explain.table import Explainer
from leukotree.inference.export import card, pieces
from leukotree.inference.loaded import load
from leukotree.models import pretrained
from leukotree.records import compared, predictions, runfolder
from leukotree.training import run as train
from tests.helpers import repositories
from tests.helpers.specs import tiny_spec

NAMES = {"hf-hub:me/tiny": "test_convnext", "local-dir:folder": "test_vit"}
pytestmark = pytest.mark.slow("trains")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a repository in a cache, and a folder of weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LEUKOTREE_WEIGHTS", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    files_of_hub = repositories.folder(tmp_path / "hub", NAMES["hf-hub:me/tiny"])
    repositories.cached(tmp_path / "cache", "me/tiny", files_of_hub)
    repositories.folder(tmp_path / "folder", NAMES["local-dir:folder"])
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_a_run_notes_its_weights_continues_with_the_same_bits_and_is_used_without_them(
    shards: Path, here: Path, name: str
) -> None:
    changes = {"backbone.name": name, "backbone.weights": "hub", "optim.epochs": 2}
    if name.startswith("local-dir"):
        changes |= {"loss.isolation": "branched"}
    spec = tiny_spec(shards, changes)
    whole = train.run(spec, here / "whole").folder
    begun = train.lockstep([spec], here / "parts")
    next(begun)
    begun.close()
    parts = train.run(spec, here / "parts").folder
    assert (parts / runfolder.PREDICTIONS).read_bytes() == (whole / runfolder.PREDICTIONS).read_bytes()

    environment = runfolder.read_environment(whole)
    source = here / ("hub" if name.startswith("hf-hub") else "folder")
    assert environment[compared.WEIGHTS] == files.sha256(source / pretrained.SAFE)
    assert environment[runfolder.BACKBONE]["licence"] == "mit"
    assert environment[runfolder.BACKBONE]["mean"] == [0.1, 0.2, 0.3]
    noted = (whole / runfolder.LOG).read_text()
    assert noted.count("made for images of 160 pixels, and these images have 48") == 1
    inputs = compared.Inputs.read(whole)
    assert inputs is not None
    assert compared.changed(whole, inputs) is None

    for place in (here / "cache", here / "folder", here / "hub"):
        shutil.rmtree(place)
    assert any("weights" in part for part in inputs.absent())
    loaded = load(whole)
    frame, logp, _ = predictions.read(whole)
    dataset = Dataset.open(shards)
    row = int(np.flatnonzero(dataset.index["key"] == frame["key"].iloc[0])[0])
    np.testing.assert_allclose(
        loaded.predict(dataset.image(row).transpose(2, 0, 1)[None])[0], logp[0], atol=1e-5
    )
    assert "licence" in card.weights(loaded)
    assert pieces.write(loaded, here / "timm")
    assert Explainer(loaded).randomised(0)


@pytest.mark.parametrize("name", NAMES)
def test_heads_on_features_are_used_with_the_normalisation_of_their_training(
    shards: Path, here: Path, name: str
) -> None:
    changes = {"backbone.name": name, "backbone.weights": "hub", "backbone.train": "head", "augment.views": 0}
    folder = train.run(tiny_spec(shards, changes), here / "runs").folder
    for config in here.rglob(pretrained.CONFIG):
        if not config.is_relative_to(folder):
            config.write_text(config.read_text().replace("0.4", "0.1").replace("0.1", "0.7"))
    frame, logp, _ = predictions.read(folder)
    dataset = Dataset.open(shards)
    row = int(np.flatnonzero(dataset.index["key"] == frame["key"].iloc[0])[0])
    image = dataset.image(row).transpose(2, 0, 1)[None]
    np.testing.assert_allclose(load(folder).predict(image)[0], logp[0], atol=1e-5)


def test_other_weights_are_another_run(shards: Path, here: Path) -> None:
    spec = tiny_spec(shards, {"backbone.name": "local-dir:folder", "backbone.weights": "hub"})
    folder = train.run(spec, here / "runs").folder
    file = here / "folder" / pretrained.SAFE
    state = load_file(file)
    save_file({**state, "norm.weight": state["norm.weight"] + 1}, file)
    inputs = compared.Inputs.read(folder)
    assert inputs is not None
    assert "made from other weights than folder/model.safetensors has now" in str(
        compared.changed(folder, inputs)
    )
    with pytest.raises(InputError, match="its weights changed since it was begun"):
        train.run(spec, here / "runs")


def test_a_config_with_another_normalisation_is_another_run(shards: Path, here: Path) -> None:
    """Also of heads on stored features, which are used with the normalisation that they were trained with."""
    views = {"backbone.train": "head", "augment.views": 1}
    named = {"backbone.name": "local-dir:folder", "backbone.weights": "hub"}
    spec, heads = tiny_spec(shards, named), tiny_spec(shards, named | views)
    folders = [train.run(each, here / "runs").folder for each in (spec, heads)]
    image = Dataset.open(shards).image(0).transpose(2, 0, 1)[None]
    before = [load(folder).predict(image) for folder in folders]
    file = here / "folder" / pretrained.CONFIG
    config = json.loads(file.read_text())
    config["pretrained_cfg"]["mean"] = [0.9, 0.9, 0.9]
    file.write_text(json.dumps(config))
    for each, folder, predicted in zip((spec, heads), folders, before, strict=True):
        inputs = compared.Inputs.read(folder)
        assert inputs == compared.Inputs.of(each)
        assert inputs is not None
        assert "another config.json than folder/config.json is now" in str(compared.changed(folder, inputs))
        with pytest.raises(InputError, match=r"its config\.json changed since it was begun"):
            train.run(each, here / "runs")
        np.testing.assert_array_equal(load(folder).predict(image), predicted)
        environment = folder / runfolder.ENVIRONMENT
        older = json.loads(environment.read_text())
        del older[compared.CONFIG]
        environment.write_text(json.dumps(older))
        assert compared.changed(folder, inputs) is None
        assert train.run(each, here / "runs").state == "done"


def test_weights_of_timm_in_the_hub_are_compared_where_they_were_noted(shards: Path, here: Path) -> None:
    """Runs of older versions did not note them, and are continued."""
    other = repositories.folder(here / "other", "test_vit", seed=1)
    repositories.cached(here / "cache", "timm/test_vit.r160_in1k", here / "folder")
    spec = tiny_spec(shards, {"backbone.weights": "hub"})
    folder = train.run(spec, here / "runs").folder
    inputs = compared.Inputs.read(folder)
    assert inputs is not None
    assert compared.changed(folder, inputs) is None
    repositories.cached(here / "cache", "timm/test_vit.r160_in1k", other, commit="2" * 40)
    assert "other weights than the cache of the hub has now" in str(compared.changed(folder, inputs))
    file = folder / runfolder.ENVIRONMENT
    older = json.loads(file.read_text())
    del older[compared.WEIGHTS], older[runfolder.BACKBONE]
    file.write_text(json.dumps(older))
    assert compared.changed(folder, inputs) is None
    assert train.run(spec, here / "runs").state == "done"
