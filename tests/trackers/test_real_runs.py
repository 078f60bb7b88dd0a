"""Runs that are trained for real have in TensorBoard what their metrics.jsonl has."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc.launching.place import Place
from hpc.launching.runs import run_spec
from leukotree.records.runfolder import read_metrics
from leukotree.runtime import Runtime
from leukotree.trackers import follow
from leukotree.training import run
from tests.helpers.specs import tiny_spec

pytestmark = pytest.mark.slow("trains runs")

FOLLOWED = Runtime(quiet=True, threads=1, workers=0, device="cpu", trackers=("tensorboard",))


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "PATIENCE", 120.0)


def curve(folder: Path, tag: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return [(one.step, one.value) for one in reader.Scalars(tag)]


def recorded(folder: Path) -> list[tuple[int, float]]:
    return [
        (row["step"], pytest.approx(row["loss"])) for row in read_metrics(folder) if row["kind"] == "step"
    ]


def test_an_interrupted_run_has_one_continuous_curve(shards: Path, tmp_path: Path) -> None:
    spec = tiny_spec(shards, {"variant": "flat", "optim.epochs": 3})
    epochs = run.lockstep([spec], tmp_path, FOLLOWED)
    next(epochs)
    epochs.close()
    result = run.run(spec, tmp_path, FOLLOWED)
    assert curve(result.folder, "loss/leaves") == recorded(result.folder)
    assert curve(result.folder, "final/macro_f1") == [(3, pytest.approx(result.metrics["macro_f1"]))]
    assert (run.run(spec, tmp_path, FOLLOWED)).metrics == result.metrics
    plain = run.run(spec, tmp_path / "plain", Runtime(quiet=True, threads=1, workers=0, device="cpu"))
    assert plain.metrics == result.metrics
    assert not (plain.folder / "tensorboard").exists()


def test_of_two_ranks_the_main_one_writes(shards: Path, tmp_path: Path) -> None:
    spec = tiny_spec(shards, {"variant": "flat", "optim.epochs": 2})
    result = run_spec(spec, tmp_path, Place(ranks=2), runtime=FOLLOWED)
    assert len(list((result.folder / "tensorboard").iterdir())) == 1
    assert curve(result.folder, "loss/leaves") == recorded(result.folder)
