"""`logistic` and `neighbours` against scikit-learn, on the features of the stored file."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hpc.launching.place import Place
from hpc.launching.runs import run_spec
from leukotree import signals
from leukotree.data import folds
from leukotree.data.dataset import Dataset
from leukotree.data.featurefile import SUFFIX, opened
from leukotree.errors import InputError, Preempted, RunFailed
from leukotree.evaluation import decide
from leukotree.inference import loaded
from leukotree.inference.export import program
from leukotree.records import compute, predictions
from leukotree.records.runfolder import read_metrics, read_status
from leukotree.runtime import Runtime
from leukotree.spec import PLAIN, RunSpec
from leukotree.training import checkpoint, plain, run
from leukotree.training.plan import check
from tests.helpers.specs import tiny_spec

VIEWS = 2
FROZEN = {"backbone.name": "test_resnet", "backbone.train": "head", "augment.views": VIEWS}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    """A runtime whose features are computed once."""
    return Runtime(features=tmp_path_factory.mktemp("features"), quiet=True)


def spec_of(shards: Path, variant: str, **changes: Any) -> RunSpec:
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    fields = {"variant": variant, "data.shards": str(shards), "engine.precision": "fp32"}
    return RunSpec().override({**FROZEN, **fields, **dotted})


def features_of(runtime: Runtime, dataset: Dataset, views: int = VIEWS) -> np.ndarray:
    """(images, views + 1, F) float64 features of the stored file."""
    assert runtime.features is not None
    files = [
        file
        for path in runtime.features.glob(f"*{SUFFIX}")
        if (file := opened(path, len(dataset), views + 1)) is not None
    ]
    assert len(files) == 1
    return np.array(files[0].values, dtype=np.float64)


def result(spec: RunSpec, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """(rows of the index in the order of the predictions, (n, L) predicted P(leaf))."""
    dataset = Dataset.open(spec.data.shards)
    frame, logp, tree = predictions.read(folder)
    rows = dataset.index.reset_index().set_index("key").loc[frame["key"], "index"].to_numpy()
    return rows, np.exp(decide.leaf_logp(logp, tree))


def alpha_of(leaves: np.ndarray, tau: float) -> np.ndarray:
    weights = np.bincount(leaves).astype(float) ** -tau
    return weights / weights.mean()


@pytest.mark.slow("computes features, fits")
@pytest.mark.parametrize(("views", "c", "tau"), [(VIEWS, 1.0, 0.5), (VIEWS, 0.01, 0.0), (0, 3.0, 1.0)])
def test_logistic_predicts_as_scikit_learn(
    shards: Path, stored: Runtime, tmp_path: Path, views: int, c: float, tau: float
) -> None:
    runtime = stored if views else Runtime(features=tmp_path / "features", quiet=True)
    spec = spec_of(shards, "logistic", augment__views=views, plain__c=c, loss__tau=tau)
    folder = run.run(spec, tmp_path, runtime).folder
    dataset = Dataset.open(shards)
    features = features_of(runtime, dataset, views)
    train, _ = folds.split(dataset.index, spec.data)
    leaves = dataset.leaf_ids[train]
    samples = features[train, 1:] if views else features[train]
    each = max(1, views)
    targets = np.repeat(leaves, each)
    samples = samples.reshape(len(targets), -1)
    mean, deviation = samples.mean(axis=0), samples.std(axis=0)
    scale = np.maximum(deviation, 0.1 * np.sqrt(np.mean(deviation**2)))
    regression = LogisticRegression(C=c, tol=1e-6, max_iter=10_000)
    regression.fit((samples - mean) / scale, targets, sample_weight=alpha_of(leaves, tau)[targets] / each)
    rows, predicted = result(spec, folder)
    expected = regression.predict_proba((features[rows, 0] - mean) / scale)
    np.testing.assert_allclose(predicted, expected, atol=1e-6)


@pytest.mark.parametrize("spread", [0.0, 1e-6])
def test_a_feature_that_hardly_varies_in_training_does_not_decide_other_images(spread: float) -> None:
    """A dead channel, or one that another scanner alone excites."""
    generator = np.random.default_rng(0)
    leaf = np.repeat([0, 1], 50)
    features = generator.normal(size=(100, 1, 3))
    features[:, 0, 0] += 3 * leaf
    features[:, 0, 2] = 5 + spread * (leaf + generator.normal(size=100))
    fitted = plain.logistic(features, leaf, np.ones(2), 1.0)
    assert np.abs(fitted.weight[:, 2]).max() < 1e-3 * np.abs(fitted.weight).max()
    constant = plain.logistic(np.ones((100, 1, 2)), leaf, np.ones(2), 1.0)
    assert np.isfinite(constant.weight).all()


@pytest.mark.slow("computes features")
@pytest.mark.parametrize(("k", "temperature", "tau"), [(20, 0.07, 0.5), (1, 0.07, 0.0), (5, 1.0, 1.0)])
def test_neighbours_vote_as_those_of_scikit_learn(
    shards: Path, stored: Runtime, tmp_path: Path, k: int, temperature: float, tau: float
) -> None:
    spec = spec_of(shards, "neighbours", plain__k=k, plain__temperature=temperature, loss__tau=tau)
    folder = run.run(spec, tmp_path, stored).folder
    dataset = Dataset.open(shards)
    features = features_of(stored, dataset)[:, 0]
    train, _ = folds.split(dataset.index, spec.data)
    leaves = dataset.leaf_ids[train]
    rows, predicted = result(spec, folder)
    nearest = NearestNeighbors(n_neighbors=k, metric="cosine").fit(features[train])
    distance, place = nearest.kneighbors(features[rows])
    votes = np.zeros(predicted.shape)
    for image in range(len(rows)):
        np.add.at(votes[image], leaves[place[image]], np.exp((1 - distance[image]) / temperature))
    votes *= alpha_of(leaves, tau)
    shares = votes / votes.sum(axis=1, keepdims=True) + 1e-6
    np.testing.assert_allclose(predicted, shares / shares.sum(axis=1, keepdims=True), atol=1e-6)
    assert predicted.min() > 0


@pytest.mark.slow("computes features, fits")
@pytest.mark.parametrize("variant", PLAIN)
def test_its_records_are_those_of_any_run(
    shards: Path, stored: Runtime, tmp_path: Path, variant: str
) -> None:
    spec = spec_of(shards, variant)
    finished = run.run(spec, tmp_path, stored)
    status = read_status(finished.folder)
    assert (status["state"], status["epoch"], status["epochs"]) == ("done", 1, 1)
    epochs = [row for row in read_metrics(finished.folder) if row["kind"] == "epoch"]
    assert [row["macro_f1"] for row in epochs] == [finished.metrics["macro_f1"]]
    assert compute.hours(epochs) is not None
    recorded = compute.read(status)
    assert recorded is not None
    assert (recorded.models, recorded.steps) == (1, 0)
    assert recorded.image_flops is not None
    seen = len(check(spec).train_rows) * (VIEWS if variant == "logistic" else 1)
    assert recorded.training_flops == seen * recorded.image_flops
    assert recorded.image_flops


@pytest.mark.slow("computes features, fits")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("variant", PLAIN)
def test_a_stored_run_predicts_the_images_of_its_fold_as_it_did(
    shards: Path, tmp_path: Path, variant: str, precision: str
) -> None:
    """Through the backbone, without the stored features; and so does the program that is exported."""
    spec = spec_of(shards, variant, engine__precision=precision)
    folder = run.run(spec, tmp_path, Runtime(quiet=True)).folder
    shutil.rmtree(tmp_path / ".features")
    rows, predicted = result(spec, folder)
    stored_run, dataset = loaded.load(folder), Dataset.open(shards)
    images = pixels(dataset, rows)
    again = np.exp(decide.leaf_logp(stored_run.predict(images), stored_run.taxonomy))
    np.testing.assert_allclose(again, predicted, atol=1e-4 if precision == "fp32" else 0.05)
    if precision == "fp32":
        _, of_leaves = program.Program(stored_run)(images)
        np.testing.assert_allclose(of_leaves.detach().numpy(), predicted, atol=1e-4)


def pixels(dataset: Dataset, rows: np.ndarray) -> Any:
    import torch

    from leukotree.data.stream import Loader

    with Loader(dataset, workers=0) as loader:
        return torch.cat([batch.images for batch in loader.evaluate(rows, 8)])


@pytest.mark.slow("computes features, fits in two processes")
@pytest.mark.parametrize("variant", PLAIN)
def test_two_ranks_give_the_bits_of_one(shards: Path, tmp_path: Path, variant: str) -> None:
    spec = spec_of(shards, variant)
    one = Runtime(device="cpu", threads=1, quiet=True, features=tmp_path / "features")
    first = run.run(spec, tmp_path / "one", one).folder
    folder = run_spec(spec, tmp_path / "two", Place(ranks=2), runtime=one).folder
    np.testing.assert_array_equal(result(spec, folder)[1], result(spec, first)[1])


@pytest.mark.slow("computes features, fits")
@pytest.mark.parametrize("variant", PLAIN)
def test_a_run_that_was_stopped_or_killed_ends_with_the_same_bits(
    shards: Path, stored: Runtime, tmp_path: Path, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(shards, variant)
    whole = run.run(spec, tmp_path / "whole", stored).folder

    fit = plain.Fit.train_until

    def fit_and_stop(self: plain.Fit, end: int, on_step: Any = None) -> None:
        fit(self, end)
        monkeypatch.setattr(signals, "_received", 15)

    with monkeypatch.context() as patched:
        patched.setattr(plain.Fit, "train_until", fit_and_stop)
        with pytest.raises(Preempted):
            run.run(spec, tmp_path / "again", stored)
    monkeypatch.setattr(signals, "_received", None)

    class Kill(BaseException):
        pass

    def save_and_die(*arguments: Any, **options: Any) -> None:
        save(*arguments, **options)
        raise Kill

    save = checkpoint.save
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", save_and_die)
        with pytest.raises(Kill):  # between its checkpoint and "done"
            run.run(spec, tmp_path / "again", stored)
    assert read_status(tmp_path / "again" / spec.run_name)["state"] != "done"
    again = run.run(spec, tmp_path / "again", stored).folder
    assert (again / "predictions.parquet").read_bytes() == (whole / "predictions.parquet").read_bytes()


@pytest.mark.slow("computes features, fits")
@pytest.mark.parametrize("variant", PLAIN)
def test_features_that_are_not_finite_end_a_run(shards: Path, tmp_path: Path, variant: str) -> None:
    state = timm.create_model("test_resnet").state_dict()
    save_file(state | {"conv1.0.weight": state["conv1.0.weight"] * np.nan}, tmp_path / "nan.safetensors")
    spec = spec_of(shards, variant, backbone__weights=str(tmp_path / "nan.safetensors"))
    with pytest.raises(RunFailed, match="features that are not finite") as failed:
        run.run(spec, tmp_path, Runtime(quiet=True))
    assert failed.value.kind == "nan"


@pytest.mark.slow("computes features, fits")
def test_a_large_bank_is_not_kept_and_a_load_says_so(
    shards: Path, stored: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain, "LARGEST_BANK", 1000)
    folder = run.run(spec_of(shards, "neighbours"), tmp_path, stored).folder
    assert read_status(folder)["state"] == "done"
    with pytest.raises(InputError, match=r"too large to be kept.*logistic"):
        loaded.load(folder)


def test_two_leaves_are_as_scikit_learn_has_them() -> None:
    """scikit-learn has one row of coefficients for two classes."""
    generator = np.random.default_rng(0)
    features, leaf = generator.normal(3, 2, (60, 2, 4)), generator.integers(0, 2, 60)
    features[leaf == 1, :, 0] += 1
    features[:, :, 3] = 5  # constant
    fitted = plain.logistic(features.astype(np.float32), leaf, np.array([1.5, 0.5]), 2.0)
    flat, targets = features.astype(np.float32).reshape(-1, 4).astype(float), np.repeat(leaf, 2)
    regression = make_pipeline(StandardScaler(), LogisticRegression(C=2.0, tol=1e-6, max_iter=10_000))
    weights = np.array([1.5, 0.5])[targets] / 2
    regression.fit(flat, targets, logisticregression__sample_weight=weights)
    logits = flat @ fitted.weight.T + fitted.bias
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(
        odds / odds.sum(axis=1, keepdims=True), regression.predict_proba(flat), atol=1e-9
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone.train": "all", "augment.views": None}, "is fitted to stored features"),
        ({"augment.views": None}, "is fitted to stored features"),
        ({"optim.lr": 1e-3}, "optim.lr: has no effect in logistic"),
        ({"loss.gamma": 1.0}, "loss.gamma: has no effect in logistic"),
        ({"engine.strategy": "zero1"}, "engine.strategy: has no effect in logistic"),
        ({"plain.k": 3}, "plain.k: has no effect in logistic"),
        ({"variant": "neighbours", "plain.c": 3}, "plain.c: has no effect in neighbours"),
        ({"variant": "flat", "plain.c": 3}, "plain.c: has no effect in flat"),
        ({"tree": "paper"}, "tree: has no effect in logistic"),
        ({"plain.c": 0}, "plain.c"),
    ],
)
def test_a_key_that_does_not_fit_is_refused(shards: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        spec_of(shards, "logistic").override(changes)


def test_more_neighbours_than_images_are_refused(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"plain\.k: 1000 neighbours, but only \d+ training images"):
        run.run(spec_of(shards, "neighbours", plain__k=1000), tmp_path)


def test_no_other_run_has_another_name(shards: Path) -> None:
    assert tiny_spec(shards).model_copy(update={"plain": RunSpec().plain}).hash == tiny_spec(shards).hash
    assert RunSpec().hash == "44136fa355b3"
