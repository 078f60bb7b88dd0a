"""A slot: its results for trials that end early, and its next trials."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.tune.result import DONE

from hpc.launching import failures
from hpc.search.slot import STOP_FILE, Slot
from hpc.search.slot_plan import SlotPlan
from hpc.search.tune_keys import FAILED, INTERRUPTED, KIND, UNTIL
from hpc.studies.study import Study
from leukotree import signals
from leukotree.errors import Busy
from leukotree.records import runfolder
from leukotree.runtime import Runtime
from leukotree.spec import RunSpec, load

pytestmark = pytest.mark.slow("trains trials")

Make = Callable[..., Slot]
PLAN = SlotPlan(cpus=1, gpus=0.0, count=1)


def _config(trial: int, seed: int | None = None, **chosen: Any) -> dict[str, Any]:
    """The configuration of a trial from Ray. `optim_lr` stands for `optim.lr`."""
    values = {key.replace("_", ".", 1): value for key, value in chosen.items()}
    return {"variant": "flat", "test_fold": 1, "trial": trial, "seed": seed, "chosen": values}


@pytest.fixture
def slot(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes a slot with trial 0 in this process."""
    monkeypatch.chdir(tmp_path)
    fields = {
        "study": "s",
        "base": {
            "data": {"shards": str(shards)},
            "backbone": {"name": "test_vit"},
            "engine": {"precision": "fp32"},
        },
        "folds": {"outer": 4, "inner": 2},
    }
    study = Study.model_validate(fields)
    study = study.model_copy(
        update={"base": study.base.override({"optim.epochs": 2, "optim.batch_size": 14})}
    )
    made: list[Slot] = []

    class Here(Slot):
        def setup(self, config: dict[str, Any]) -> None:  # type: ignore[override]
            rungs = study.search.model_copy(update={"rungs": config.pop("rungs", "epochs")})
            runtime = Runtime(device="cpu", workers=0, threads=1, quiet=True)
            super().setup(
                config,
                study.model_copy(update={"search": rungs}),
                str(tmp_path),
                runtime,
                PLAN,
                tmp_path / STOP_FILE,
            )

    def make(seed: int | None = None, rungs: str = "epochs", until: int | None = None, **chosen: Any) -> Slot:
        made.append(Here({**_config(0, seed, **chosen), "rungs": rungs, UNTIL: until}))
        return made[-1]

    yield make
    for one in reversed(made):
        one.stop()
    gc.unfreeze()


def test_it_reports_each_epoch_and_takes_the_next_trial(slot: Make, tmp_path: Path) -> None:
    one = slot(optim_lr=1e-3)
    rows = [one.step(), one.step()]
    assert [(row["epoch"], row[DONE]) for row in rows] == [(1, False), (2, True)]
    assert one.reset_config(_config(1, optim_lr=1e-4))
    assert one.step()["epoch"] == 1
    folders = tmp_path / "results/runs/s/search/flat/fold1/runs"
    assert sorted(path.name for path in folders.iterdir()) == ["00000", "00001"]
    assert one.reset_config(_config(2, optim_lr=1e-4))  # the other was stopped after one of two epochs
    assert one.step()["epoch"] == 1
    assert {path.parts[-3] for path in folders.glob("*/*/checkpoints")} == {"00002"}


def test_a_trial_that_paused_goes_on_from_its_checkpoints(slot: Make, tmp_path: Path) -> None:
    """It has the bits of a trial that was trained through."""
    one = slot(optim_lr=1e-3, until=1)
    paused = one.step()
    assert (paused["epoch"], paused[DONE]) == (1, True)
    assert one.reset_config(_config(1, optim_lr=1e-3))  # the same values, in another folder
    through = [one.step(), one.step()]
    folders = tmp_path / "results/runs/s/search/flat/fold1/runs"
    assert {path.parts[-3] for path in folders.glob("*/*/checkpoints")} == {"00000"}
    assert one.reset_config({**_config(0, optim_lr=1e-3), UNTIL: None})
    rows = [one.step(), one.step()]
    assert [(row["epoch"], row[DONE]) for row in rows] == [(1, False), (2, True)]
    assert [row["macro_f1"] for row in rows] == [row["macro_f1"] for row in through]
    logs = [path.read_text() for path in folders.glob(f"00000/*/{runfolder.LOG}")]
    assert all("continues from checkpoint" in log for log in logs)
    assert len(logs) == 2


def test_after_a_trial_that_diverged_the_process_takes_the_next(slot: Make) -> None:
    one = slot(optim_lr=1e30)
    result: dict[str, Any] = {}
    while FAILED not in result:
        result = one.step()
    assert result[DONE] is True
    assert one.reset_config(_config(1, optim_lr=1e-3))
    assert one.step()["epoch"] == 1


def test_a_rerun_leaves_the_others_of_its_trial_alone(slot: Make, tmp_path: Path) -> None:
    """Other slots train them at the same time, in the same folder."""
    other = tmp_path / "results/runs/s/search/flat/fold1/reruns/00000/flat-0/checkpoints"
    other.mkdir(parents=True)
    one = slot(optim_lr=1e-3, seed=7)
    assert one.step()[DONE]
    one.reset_config(_config(1, optim_lr=1e-3))
    assert other.is_dir()


def test_after_an_error_the_trial_has_ended_and_the_process_is_replaced(slot: Make) -> None:
    one = slot(backbone_name="no_such_model")
    result = one.step()
    assert DONE not in result  # or the process would get another trial
    assert "no_such_model" in result[FAILED]
    with pytest.raises(RuntimeError, match="no_such_model"):
        one.step()


def test_runs_that_another_process_still_holds_are_tried_again_elsewhere(
    slot: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example after a node was cut off. The trial does not fail; its process counts as lost."""
    monkeypatch.setattr(failures, "HELD_SECONDS", 0.1)
    one = slot(optim_lr=1e-3)
    one.step()
    one.reset_config(_config(1, optim_lr=1e-3))  # lets go of trial 0
    run = next((tmp_path / "results/runs/s/search/flat/fold1/runs/00000").iterdir())
    hold = "with locked(sys.argv[1], 'busy'): print('held', flush=True); input()"
    script = f"import sys; from leukotree.files import locked\n{hold}"
    command = [sys.executable, "-c", script, str(run / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        one.reset_config(_config(0, optim_lr=1e-3))
        with pytest.raises(Busy, match="another process works on this run"):
            one.step()
        holder.communicate("\n")
    one.reset_config(_config(0, optim_lr=1e-3))
    assert one.step()["epoch"] == 1


@pytest.mark.parametrize("how", ["by a signal", "by a file"])
def test_a_process_that_is_asked_to_stop_saves_and_reports_it(slot: Make, tmp_path: Path, how: str) -> None:
    one = slot(optim_lr=1e-3)
    one.step()
    if how == "by a signal":
        os.kill(os.getpid(), signal.SIGTERM)
    else:
        (tmp_path / STOP_FILE).touch()
        while not signals.requested():
            time.sleep(0.05)
        (tmp_path / STOP_FILE).unlink()
    result = one.step()
    assert result[KIND] == "preempted"
    assert FAILED not in result
    assert "asked to stop, all saved" in result[INTERRUPTED]
    states = [
        runfolder.read_status(run)["state"]
        for run in (tmp_path / "results/runs/s/search/flat/fold1/runs/00000").iterdir()
    ]
    assert "preempted" in states
    with pytest.raises(RuntimeError, match="asked to stop"):
        one.step()


def _specs(folder: Path) -> list[RunSpec]:
    return sorted(
        (load(path) for path in folder.glob("*/spec.yaml")),
        key=lambda spec: spec.data.inner.fold if spec.data.inner else 0,
    )


def _state(folder: Path) -> list[str]:
    return [runfolder.read_status(folder / spec.run_name)["state"] for spec in _specs(folder)]


def test_the_runs_of_a_trial_leave_its_outer_fold_alone(slot: Make, tmp_path: Path) -> None:
    one = slot(optim_lr=1e-3)
    one.step()
    specs = _specs(tmp_path / "results/runs/s/search/flat/fold1/runs/00000")
    assert [(spec.data.test_fold, spec.data.inner and spec.data.inner.fold, spec.seed) for spec in specs] == [
        (1, 0, 0),
        (1, 1, 0),
    ]


def _scores(folder: Path) -> list[float]:
    return [runfolder.read_status(folder / spec.run_name)["macro_f1"] for spec in _specs(folder)]


def test_with_rungs_on_folds_a_step_is_an_inner_fold_to_its_end(slot: Make, tmp_path: Path) -> None:
    one, folder = slot(optim_lr=1e-3, rungs="folds"), tmp_path / "results/runs/s/search/flat/fold1/runs/00000"
    first = one.step()
    assert (first["epoch"], first[DONE], _state(folder)) == (1, False, ["done"])
    second = one.step()
    assert (second["epoch"], second[DONE], _state(folder)) == (2, True, ["done", "done"])
    scores = _scores(folder)
    assert (first["macro_f1"], second["macro_f1"]) == (scores[0], sum(scores) / 2)

    # The same bits as in lockstep, and a restarted trial trains nothing again.
    again = slot(optim_lr=1e-3, rungs="folds")
    assert [again.step()["macro_f1"] for _ in range(2)] == [first["macro_f1"], second["macro_f1"]]
    assert all(len((run / "attempts.jsonl").read_text().splitlines()) == 1 for run in folder.iterdir())
    shutil.rmtree(folder)
    together = slot(optim_lr=1e-3)
    together.step()
    assert together.step()["macro_f1"] == second["macro_f1"]


def test_a_rerun_is_one_step_on_its_own_seed_beside_the_trial(slot: Make, tmp_path: Path) -> None:
    one = slot(seed=77, optim_lr=1e-3)
    result = one.step()
    assert (result["epoch"], result[DONE]) == (2, True)
    search = tmp_path / "results/runs/s/search/flat/fold1"
    assert [spec.seed for spec in _specs(search / "reruns/00000")] == [77, 77]
    assert result["macro_f1"] == sum(_scores(search / "reruns/00000")) / 2
    assert not (search / "runs").exists()
    assert one.reset_config(_config(0, optim_lr=1e-3))
    assert one.step()["epoch"] == 1
