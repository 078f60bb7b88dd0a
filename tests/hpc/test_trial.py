"""The process that trains trials: what it says of a trial that ends before its end."""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.tune.result import DONE

from hpc.study import Study
from hpc.trial import FAILED, KIND, LEAVE, LEFT, Slot
from leukotree import runfolder, signals
from leukotree.train import Runtime

Make = Callable[..., Slot]


@pytest.fixture
def slot(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes a slot that has trial 0, in this process."""
    monkeypatch.chdir(tmp_path)
    fields = {
        "study": "s",
        "base": {"data": {"shards": str(shards)}, "backbone": {"name": "test_vit"}, "engine": {"precision": "fp32"}},
        "folds": {"outer": 4, "inner": 2},
    }
    study = Study.model_validate(fields)
    study = study.model_copy(update={"base": study.base.override({"optim.epochs": 2, "optim.batch_size": 14})})
    made: list[Slot] = []

    class Here(Slot):
        def setup(self, config: dict[str, Any]) -> None:  # type: ignore[override]
            super().setup(
                config, study, str(tmp_path), Runtime(device="cpu", workers=0, threads=1, quiet=True), 1, tmp_path / LEAVE
            )

    def make(**chosen: Any) -> Slot:
        made.append(Here({"variant": "flat", "trial": 0, "chosen": {key.replace("_", "."): v for key, v in chosen.items()}}))
        return made[-1]

    yield make
    for one in made:
        one.stop()
    gc.unfreeze()


def test_it_reports_each_epoch_and_takes_the_next_trial(slot: Make, tmp_path: Path) -> None:
    one = slot(optim_lr=1e-3)
    rows = [one.step(), one.step()]
    assert [(row["epoch"], row[DONE]) for row in rows] == [(1, False), (2, True)]
    assert one.reset_config({"variant": "flat", "trial": 1, "chosen": {"optim.lr": 1e-4}})
    assert one.step()["epoch"] == 1
    folders = tmp_path / "results/runs/s/search/flat/runs"
    assert sorted(path.name for path in folders.iterdir()) == ["00000", "00001"]


def test_a_trial_that_diverged_is_over_and_the_process_goes_on(slot: Make) -> None:
    one = slot(optim_lr=1e30)
    found: dict[str, Any] = {}
    while FAILED not in found:
        found = one.step()
    assert found[DONE] is True
    assert one.reset_config({"variant": "flat", "trial": 1, "chosen": {"optim.lr": 1e-3}})
    assert one.step()["epoch"] == 1


def test_after_an_error_the_trial_is_over_and_so_is_the_process(slot: Make) -> None:
    one = slot(backbone_name="no_such_model")
    found = one.step()
    assert DONE not in found  # or the process would get another trial
    assert "no_such_model" in found[FAILED]
    with pytest.raises(RuntimeError, match="no_such_model"):
        one.step()


@pytest.mark.parametrize("how", ["by a signal", "by a file"])
def test_a_process_that_is_asked_to_leave_says_so_and_saves(slot: Make, tmp_path: Path, how: str) -> None:
    one = slot(optim_lr=1e-3)
    one.step()
    if how == "by a signal":
        os.kill(os.getpid(), signal.SIGTERM)
    else:
        (tmp_path / LEAVE).touch()
        while not signals.requested():
            time.sleep(0.05)
        (tmp_path / LEAVE).unlink()
    found = one.step()
    assert found[KIND] == "preempted"
    assert FAILED not in found
    assert "asked to stop, all saved" in found[LEFT]
    states = [runfolder.read_status(run)["state"] for run in (tmp_path / "results/runs/s/search/flat/runs/00000").iterdir()]
    assert "preempted" in states
    with pytest.raises(RuntimeError, match="asked to stop"):
        one.step()
