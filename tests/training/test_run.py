"""run(spec) for real: small timm models on phantom images, one to three ranks, interrupted and continued."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hpc.deepspeed import settings
from hpc.launching.place import Place
from hpc.launching.runs import run_spec
from leukotree import signals
from leukotree.data import folds
from leukotree.data.dataset import Dataset
from leukotree.errors import InputError, Preempted, RunFailed
from leukotree.evaluation import decide
from leukotree.records import compute, predictions
from leukotree.records.runfolder import read_metrics, read_status
from leukotree.runtime import Runtime
from leukotree.spec import TRAINED, RunSpec
from leukotree.training import checkpoint, run
from tests.helpers.specs import tiny_spec

pytestmark = pytest.mark.slow("trains runs")


@pytest.fixture
def spec(shards: Path) -> RunSpec:
    return tiny_spec(shards, {"optim.epochs": 2})


def losses(folder: Path) -> list[tuple[str, int, float]]:
    return [(row["stage"], row["step"], row["loss"]) for row in read_metrics(folder) if row["kind"] == "step"]


@pytest.mark.parametrize("variant", TRAINED)
def test_a_run_leaves_predictions_for_each_image_of_its_test_fold_once(
    spec: RunSpec, variant: str, tmp_path: Path
) -> None:
    spec = spec.override({"variant": variant, "data.test_fold": 1})
    result = run.run(spec, tmp_path)
    assert result.folder == tmp_path / spec.run_name

    dataset = Dataset.open(spec.data.shards)
    frame, logp, tree = predictions.read(result.folder)
    expected = dataset.index[dataset.index["fold"] == 1]
    assert sorted(frame["key"]) == sorted(expected["key"])
    assert tree == dataset.taxonomy
    np.testing.assert_allclose(np.exp(decide.leaf_logp(logp, tree)).sum(axis=1), 1, atol=1e-5)

    status = read_status(result.folder)
    assert status["state"] == "done"
    right = np.array(tree.leaves)[decide.greedy(logp, tree)] == frame["leaf"].to_numpy()
    assert result.metrics["accuracy"] == status["accuracy"] == right.mean()


def test_the_same_spec_gives_the_same_bits_and_a_finished_run_is_not_done_again(
    spec: RunSpec, tmp_path: Path
) -> None:
    first, second = run.run(spec, tmp_path / "a"), run.run(spec, tmp_path / "b")
    assert losses(first.folder) == losses(second.folder)
    assert (first.folder / "predictions.parquet").read_bytes() == (
        second.folder / "predictions.parquet"
    ).read_bytes()
    before = _written(first.folder)
    assert run.run(spec, tmp_path / "a") == first
    assert _written(first.folder) == before


def _written(folder: Path) -> dict[Path, int]:
    """When each file was written, without the lock, which every reader writes."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != ".lock"}


def test_neither_the_number_of_workers_nor_the_cache_changes_a_bit(spec: RunSpec, tmp_path: Path) -> None:
    """The first run with the cache fills it in its first epoch, the next one finds all images there."""
    spec = spec.override({"variant": "base", "augment.stain": 0.1})
    cache = tmp_path / "cache"
    runtimes = [Runtime(workers=workers, cache=kept) for kept in (None, cache) for workers in (0, 1, 3)]
    runs = [run.run(spec, tmp_path / str(n), runtime).folder for n, runtime in enumerate(runtimes)]
    assert all(losses(run) == losses(runs[0]) for run in runs)
    assert len({(run / "predictions.parquet").read_bytes() for run in runs}) == 1
    assert len(list(cache.rglob("*.pixels"))) == 1


class Kill(BaseException):
    """No time for any cleanup, as in a real kill."""


@pytest.mark.parametrize(("strategy", "ranks"), [("ddp", 1), ("ddp", 2), ("zero1", 2)])
@pytest.mark.parametrize("variant", ["base", "ensemble"])
def test_a_budget_of_steps_is_the_same_for_each_model(
    spec: RunSpec, variant: str, strategy: str, ranks: int, tmp_path: Path
) -> None:
    """And the status has the compute that was planned, which is that of the steps that were trained."""
    changes = {"variant": variant, "optim.epochs": 3, "optim.steps": 7, "engine.strategy": strategy}
    runtime = Runtime(device="cpu", threads=1, deepspeed=settings.settings())
    folder = run_spec(spec.override(changes), tmp_path, Place(ranks=ranks), runtime=runtime).folder
    rows = [row for row in read_metrics(folder) if row["kind"] == "step"]
    for stage in {row["stage"] for row in rows}:
        epochs = [row["epoch"] for row in rows if row["stage"] == stage]
        assert [epochs.count(epoch) for epoch in range(3)] == [2, 2, 3]
    recorded = compute.read(read_status(folder))
    assert recorded is not None
    assert (recorded.models, recorded.steps) == (4, len(rows)) == (4, 28)


@pytest.mark.parametrize("variant", TRAINED)
@pytest.mark.parametrize("after", ["first save", "last save"])
def test_a_run_killed_after_an_epoch_ends_with_the_bits_of_an_undisturbed_one(
    spec: RunSpec, variant: str, after: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec.override({"variant": variant, "backbone.drop_path": 0.2, "optim.epochs": 3})
    whole = run.run(spec, tmp_path / "whole")
    save, epoch = checkpoint.save, {"first save": 1, "last save": 3}[after]

    def save_and_die(folder: Path, number: int, state: dict, **options: object) -> Path:
        path = save(folder, number, state, **options)
        if state["epoch"] == epoch:
            # What a kill in the next epoch may leave: metrics without a checkpoint, and a torn last line.
            with open(folder.parent / "metrics.jsonl", "a") as file:
                file.write(
                    json.dumps({"kind": "step", "stage": "x", "epoch": epoch, "step": 0, "loss": 9, "lr": 0})
                    + '\n{"kind"'
                )
            raise Kill
        return path

    monkeypatch.setattr(checkpoint, "save", save_and_die)
    with pytest.raises(Kill):
        run.run(spec, tmp_path / "killed")
    monkeypatch.setattr(checkpoint, "save", save)
    again = run.run(spec, tmp_path / "killed")
    assert losses(again.folder) == losses(whole.folder)
    assert (again.folder / "predictions.parquet").read_bytes() == (
        whole.folder / "predictions.parquet"
    ).read_bytes()


SECOND = ".00000023.tmp"
"""Folder in which the second checkpoint is written: 21 steps, two epochs."""


def train_and_die(spec: RunSpec, root: Path) -> None:
    """In another process: the machine fails while the second checkpoint is being written."""
    sha256 = checkpoint.sha256

    def power_cut(path: Path) -> str:
        if path.parent.name == SECOND:
            os.kill(os.getpid(), signal.SIGKILL)
        return sha256(path)

    checkpoint.sha256 = power_cut
    run.run(spec, root)


def test_a_run_killed_while_it_writes_a_checkpoint_ends_with_the_same_bits(
    spec: RunSpec, tmp_path: Path
) -> None:
    spec = spec.override({"optim.epochs": 4})
    whole = run.run(spec, tmp_path / "whole")
    process = multiprocessing.get_context("spawn").Process(
        target=train_and_die, args=(spec, tmp_path / "killed")
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    folder = tmp_path / "killed" / spec.run_name
    assert checkpoint.load_latest(folder / "checkpoints")[1]["epoch"] == 1
    assert read_status(folder)["epoch"] == 1  # it claims no more than what is saved
    again = run.run(spec, tmp_path / "killed")
    assert losses(again.folder) == losses(whole.folder)
    assert (again.folder / "predictions.parquet").read_bytes() == (
        whole.folder / "predictions.parquet"
    ).read_bytes()


def test_near_the_end_of_its_job_a_run_saves_and_leaves(
    spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run.run(spec, tmp_path / "whole")
    monkeypatch.setenv("SLURM_JOB_START_TIME", str(time.time() - 3590))
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(time.time() + 10))
    with signals.watched(), pytest.raises(Preempted, match="asked to stop, all saved"):
        run.run(spec, tmp_path / "short")
    status = read_status(tmp_path / "short" / spec.run_name)
    assert (status["state"], status["kind"]) == ("preempted", "timeout")
    monkeypatch.delenv("SLURM_JOB_END_TIME")
    again = run.run(spec, tmp_path / "short")
    assert losses(again.folder) == losses(whole.folder)
    assert (again.folder / "predictions.parquet").read_bytes() == (
        whole.folder / "predictions.parquet"
    ).read_bytes()


@pytest.mark.parametrize(("variant", "ranks"), [("flat", 1), ("base", 1), ("multilabel", 2)])
def test_an_epochs_row_says_how_fast_it_was_and_what_it_cost(
    spec: RunSpec, variant: str, ranks: int, tmp_path: Path
) -> None:
    spec = spec.override({"variant": variant})
    rows = read_metrics(run_spec(spec, tmp_path, Place(ranks=ranks)).folder)
    epochs = [row for row in rows if row["kind"] == "epoch"]
    assert len(epochs) == 2
    for epoch, row in enumerate(epochs):
        steps = sum(step["kind"] == "step" and step["epoch"] == epoch for step in rows)
        assert row["images_per_s"] == pytest.approx(steps * spec.optim.batch_size / row["seconds"])
        assert row["step_s"] == pytest.approx(row["seconds"] / steps)
        assert 0 <= row["stall_s"] <= row["seconds"]
        assert 0.05 < row["memory_gb"] < 64
        assert row["mfu"] is None  # nobody knows the peak of a CPU
        assert row["gpu_hours"] == 0
        assert row["core_hours"] >= ranks * row["seconds"] / 3600
    assert (
        epochs[1]["core_hours"] >= epochs[0]["core_hours"] + ranks * epochs[1]["seconds"] / 3600
    )  # of the run so far


@pytest.mark.parametrize("variant", TRAINED)
def test_one_and_two_ranks_give_the_same_loss_curve(spec: RunSpec, variant: str, tmp_path: Path) -> None:
    """Same seed, same global batch: within 1e-4 over at least 20 steps in fp32."""
    spec = spec.override({"variant": variant, "optim.epochs": 2, "optim.lr": 3e-4})
    one = run.run(spec, tmp_path / "one")
    two = run_spec(spec, tmp_path / "two", Place(ranks=2))
    assert len(losses(one.folder)) >= 20
    for (stage, step, loss), other in zip(losses(one.folder), losses(two.folder), strict=True):
        assert other[:2] == (stage, step)
        assert other[2] == pytest.approx(loss, abs=1e-4)
    np.testing.assert_allclose(predictions.read(one.folder)[1], predictions.read(two.folder)[1], atol=1e-3)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_predictions_are_exact_on_any_number_of_ranks_also_with_fewer_shards(
    spec: RunSpec, ranks: int, tmp_path: Path
) -> None:
    """The test fold is one shard here, and 42 images do not divide by 4: nothing is padded, nothing twice."""
    dataset = Dataset.open(spec.data.shards)
    test = dataset.index[dataset.index["fold"] == 0]
    assert test["shard"].nunique() == 1
    result = run_spec(spec.override({"optim.epochs": 1}), tmp_path, Place(ranks=ranks))
    frame, _, _ = predictions.read(result.folder)
    assert frame["key"].is_unique
    assert set(frame["key"]) == set(test["key"])


def test_accumulation_does_not_change_the_loss(spec: RunSpec, tmp_path: Path) -> None:
    whole = run.run(spec, tmp_path)
    parts = run.run(spec.override({"engine.micro_batch": 3}), tmp_path)
    assert [row[2] for row in losses(parts.folder)] == pytest.approx(
        [row[2] for row in losses(whole.folder)], abs=1e-4
    )


@pytest.mark.parametrize("variant", TRAINED)
def test_bf16_and_clipping_train_too(spec: RunSpec, variant: str, tmp_path: Path) -> None:
    spec = spec.override(
        {"variant": variant, "engine.precision": "bf16", "optim.clip": 1.0, "backbone.name": "test_convnext"}
    )
    assert np.isfinite([loss for *_, loss in losses(run.run(spec, tmp_path).folder)]).all()


def test_lockstep_reports_the_mean_of_its_inner_folds_and_replays_what_is_done(
    spec: RunSpec, tmp_path: Path
) -> None:
    specs = [spec.override({"data.inner": {"folds": 2, "fold": fold}}) for fold in range(2)]
    first = list(run.lockstep(specs, tmp_path))
    assert [row["epoch"] for row in first] == [1, 2]
    assert all(row["macro_f1"] == pytest.approx(np.mean(row["folds"])) for row in first)
    assert list(run.lockstep(specs, tmp_path)) == first
    for one in specs:
        frame, _, _ = predictions.read(tmp_path / one.run_name)
        assert 0 not in set(frame["fold"])  # the outer test fold is not touched


def test_lockstep_stopped_after_an_epoch_continues_there(spec: RunSpec, tmp_path: Path) -> None:
    specs = [spec.override({"data.inner": {"folds": 2, "fold": fold}}) for fold in range(2)]
    whole = list(run.lockstep(specs, tmp_path / "whole"))
    stopped = run.lockstep(specs, tmp_path / "stopped")
    next(stopped)
    stopped.close()
    assert read_status(tmp_path / "stopped" / specs[0].run_name)["state"] == "stopped"
    assert list(run.lockstep(specs, tmp_path / "stopped")) == whole


def test_training_and_scored_patients_are_disjoint(shards: Path) -> None:
    dataset = Dataset.open(shards)
    for data in ({"test_fold": 2}, {"test_fold": 2, "inner": {"folds": 3, "fold": 1}}):
        rows = folds.split(dataset.index, RunSpec().override({"data": {"shards": str(shards), **data}}).data)
        patients = [set(dataset.index["patient"].iloc[part]) for part in rows]
        assert not patients[0] & patients[1]


def test_a_loss_that_is_not_finite_ends_the_run_and_says_where(spec: RunSpec, tmp_path: Path) -> None:
    wild = spec.override({"optim.lr": 1e30})
    with pytest.raises(RunFailed, match=r"step \d+ with learning rate"):
        run.run(wild, tmp_path)
    status = read_status(tmp_path / wild.run_name)
    assert (status["state"], status["kind"]) == ("failed", "nan")
    assert "learning rate" in status["message"]
    failure = json.loads((tmp_path / wild.run_name / "failure.json").read_text())
    assert len(failure["keys"]) == spec.optim.batch_size
    assert set(failure["keys"]) <= set(Dataset.open(spec.data.shards).index["key"])


@pytest.mark.parametrize(
    ("changes", "ranks", "says"),
    [
        ({"optim.batch_size": 9}, 2, "9 images do not divide over 2 ranks"),
        ({"engine.micro_batch": 5}, 1, "engine.micro_batch: 5"),
        ({"backbone.name": "vit_tinny"}, 1, "no model 'vit_tinny'"),
        ({"data.shards": "nowhere"}, 1, "nowhere: no such folder"),
        ({"data.test_fold": 9}, 1, "test_fold"),
        ({"data.inner": {"folds": 40, "fold": 0}}, 1, "40"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_written(
    spec: RunSpec, changes, ranks: int, says: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=says) as error:
        run_spec(spec.override(changes), tmp_path / "runs", Place(ranks=ranks))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "runs").exists()


def test_a_run_folder_made_from_other_data_is_not_continued(spec: RunSpec, tmp_path: Path) -> None:
    copy = tmp_path / "shards"
    shutil.copytree(spec.data.shards, copy)
    moved = spec.override({"data.shards": str(copy), "optim.epochs": 1})
    stopped = run.lockstep([moved], tmp_path / "runs", each_epoch=False)
    next(stopped)
    stopped.close()
    index = pd.read_parquet(copy / "index.parquet")
    index["source"] = "elsewhere"
    index.to_parquet(copy / "index.parquet")
    with pytest.raises(InputError, match="its dataset changed since"):
        run.run(moved, tmp_path / "runs")


def test_an_error_after_a_run_is_done_does_not_undo_it(spec: RunSpec, tmp_path: Path) -> None:
    """The first of two inner folds has ended when the trial is stopped."""
    inner = spec.override({"data.inner": {"folds": 2, "fold": 0}, "optim.epochs": 1})
    trial = run.lockstep([inner], tmp_path)
    next(trial)
    trial.close()
    assert read_status(tmp_path / inner.run_name)["state"] == "done"


@pytest.mark.parametrize("ranks", [1, 2])
def test_batchnorm_statistics_are_those_of_one_model_in_evaluation(
    spec: RunSpec, ranks: int, tmp_path: Path
) -> None:
    """A run killed after its last checkpoint scores that checkpoint, and ends with the same predictions."""
    spec = spec.override({"backbone.name": "test_resnet", "optim.epochs": 1})
    whole = run_spec(spec, tmp_path, Place(ranks=ranks))
    before = predictions.read(whole.folder)[1]
    (whole.folder / "predictions.parquet").unlink()
    again = run_spec(spec, tmp_path, Place(ranks=1))
    np.testing.assert_allclose(predictions.read(again.folder)[1], before, atol=1e-6)


def test_two_processes_do_not_share_a_run(spec: RunSpec, tmp_path: Path) -> None:
    first = run.lockstep([spec], tmp_path)
    next(first)
    with pytest.raises(InputError, match="another process works on this run"):
        run.run(spec, tmp_path)
    first.close()
