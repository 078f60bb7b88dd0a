"""TensorBoard and MLflow show the curves of a run once, whatever interrupted it, and never hold it up."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from leukotree.errors import InputError
from leukotree.records import compared, runfolder
from leukotree.runtime import Runtime
from leukotree.trackers import choice, follow
from leukotree.trackers.follow import Followers
from leukotree.trackers.metrics import About, Epochs
from tests.helpers.specs import tiny_spec

LOG = logging.getLogger("test")
EPOCHS = 3


def rows(epoch: int, **more: float) -> list[dict[str, Any]]:
    """Two steps and an epoch, as a run writes them."""
    steps = [
        {
            "kind": "step",
            "stage": "leaves",
            "epoch": epoch,
            "step": 2 * epoch + number,
            "loss": 1.0 / (1 + epoch + number),
            "lr": 1e-3,
        }
        for number in range(2)
    ]
    end = {
        "kind": "epoch",
        "epoch": epoch,
        "seconds": 4.0,
        "images_per_s": 50.0,
        "mfu": None,
        "stall_s": float("nan"),
    }
    return [*steps, {**end, "macro_f1": 0.1 * (epoch + 1), **more}]


class Run:
    """A run folder as the main rank writes it."""

    def __init__(self, root: Path, epochs: int = 0) -> None:
        spec = tiny_spec(Path("/secret/place/of/shards"), {"backbone.weights": "/secret/weights.pt"})
        self.path = root / "results/runs/demo" / spec.run_name
        self.path.mkdir(parents=True)
        (self.path / "spec.yaml").write_text(spec.dump())
        environment = {compared.DATA: "d" * 64, compared.WEIGHTS: "e" * 64}
        (self.path / "env.json").write_text(json.dumps(environment))
        start = {"started": 1000.0, "host": "node17", "pid": 1}
        (self.path / "attempts.jsonl").write_text(json.dumps(start) + "\n")
        for epoch in range(epochs):
            self.write(epoch)

    def write(self, epoch: int, **more: float) -> None:
        with open(self.path / "metrics.jsonl", "a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows(epoch, **more))

    def truncate(self, epochs: int) -> None:
        kept = [row for row in runfolder.read_metrics(self.path) if row["epoch"] < epochs]
        (self.path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))

    def done(self) -> None:
        status = {"state": "done", "epoch": EPOCHS, "accuracy": 0.75, "macro_f1": 0.5, "heartbeat": 1.0}
        (self.path / "status.json").write_text(json.dumps(status))


def followed(run: Run, runtime: Runtime, epochs: range, *, done: bool = False) -> None:
    """One attempt: it trains these epochs, and is followed."""
    followers = Followers(run.path, runtime, LOG)
    for epoch in epochs:
        run.write(epoch)
        followers.wake()
    if done:
        run.done()
    followers.close()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "PATIENCE", 60.0)
    monkeypatch.setattr(follow._Follower, "_slow", set())


def scalars(run: Run) -> dict[str, list[tuple[int, float]]]:
    """Tag -> (step, value), by TensorBoard's own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    reader = EventAccumulator(
        str(run.path / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0}
    ).Reload()
    found = {tag: [(one.step, one.value) for one in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}
    for tag in reader.Tags()["tensors"]:
        values = [(one.step, tensor_util.make_ndarray(one.tensor_proto)) for one in reader.Tensors(tag)]
        found |= {tag: [(step, float(value)) for step, value in values if value.shape == ()]}
    return found


def test_tensorboard_reads_each_value_once(tmp_path: Path) -> None:
    run = Run(tmp_path)
    followed(run, Runtime(trackers=("tensorboard",)), range(EPOCHS), done=True)
    found = scalars(run)
    assert found["epoch/macro_f1"] == [
        (1, pytest.approx(0.1)),
        (2, pytest.approx(0.2)),
        (3, pytest.approx(0.3)),
    ]
    assert [step for step, _ in found["loss/leaves"]] == [0, 1, 2, 3, 4, 5]
    assert found["epoch/loss/leaves"][0] == (1, pytest.approx((1 + 0.5) / 2))
    assert found["final/macro_f1"] == [(3, pytest.approx(0.5))]
    assert "epoch/mfu" not in found  # null
    assert "epoch/stall_s" not in found  # NaN


def test_an_interrupted_run_has_one_curve_in_tensorboard(tmp_path: Path) -> None:
    """The second epoch was recorded, and is trained again from the checkpoint after the first."""
    run, runtime = Run(tmp_path), Runtime(trackers=("tensorboard",))
    followed(run, runtime, range(2))
    run.truncate(1)
    followed(run, runtime, range(1, EPOCHS), done=True)
    found = scalars(run)
    assert [step for step, _ in found["epoch/macro_f1"]] == [1, 2, 3]
    assert [step for step, _ in found["loss/leaves"]] == [0, 1, 2, 3, 4, 5]
    assert len(list((run.path / "tensorboard").iterdir())) == 1


def test_a_file_that_a_kill_left_is_removed(tmp_path: Path) -> None:
    run, runtime = Run(tmp_path, epochs=1), Runtime(trackers=("tensorboard",))
    (run.path / "tensorboard").mkdir()
    (run.path / "tensorboard" / ".77.tmp").write_bytes(b"cut sho")
    (run.path / "tensorboard" / "events.out.tfevents.9999999999.run").write_bytes(b"cut sho")
    followed(run, runtime, range(1, 2))
    [file] = (run.path / "tensorboard").iterdir()
    assert file.name == "events.out.tfevents.10000000000.run"  # a name after the earlier one
    assert [step for step, _ in scalars(run)["epoch/macro_f1"]] == [1, 2]


def _mlflow(tmp_path: Path) -> tuple[Any, Runtime]:
    uri = f"sqlite:///{tmp_path / 'sub' / 'mlflow.db'}"
    runtime = Runtime(trackers=("mlflow",), mlflow_uri=uri)
    from leukotree.trackers import mlflow  # sets MLflow's variables

    return mlflow.MlflowClient(tracking_uri=uri), runtime


def _only(client: Any) -> Any:
    [run] = client.search_runs([client.get_experiment_by_name("demo").experiment_id])
    return run


@pytest.mark.slow("imports MLflow, and makes a database")
def test_mlflow_reads_spec_curve_and_scores_and_a_resume_adds_what_it_lacks(tmp_path: Path) -> None:
    client, runtime = _mlflow(tmp_path)
    run = Run(tmp_path)
    followed(run, runtime, range(2))
    assert _only(client).info.status == "KILLED"
    run.truncate(1)
    followed(run, runtime, range(1, EPOCHS), done=True)
    entry = _only(client)
    history = client.get_metric_history(entry.info.run_id, "epoch/macro_f1")
    curve = sorted((metric.step, metric.value) for metric in history)
    assert curve == [(1, pytest.approx(0.1)), (2, pytest.approx(0.2)), (3, pytest.approx(0.3))]
    assert [metric.timestamp for metric in sorted(history, key=lambda one: one.step)] == [
        1000 * (1000 + 4 * number) for number in (1, 2, 3)
    ]
    assert entry.data.metrics["final/accuracy"] == 0.75
    assert (entry.data.params["optim.epochs"], entry.data.params["backbone.name"]) == ("1", "test_vit")
    assert (entry.info.status, entry.info.run_name) == ("FINISHED", run.path.name)
    told = json.dumps([entry.to_dictionary(), client.get_experiment_by_name("demo").artifact_location])
    for secret in ("secret", "node17", str(tmp_path)):
        assert secret not in told, told


@pytest.mark.slow("imports MLflow, and makes a database")
def test_a_run_that_begins_anew_is_another_entry(tmp_path: Path) -> None:
    """The folder was moved away. Its values do not mix with those of the new run."""
    client, runtime = _mlflow(tmp_path)
    run = Run(tmp_path)
    followed(run, runtime, range(2))
    run.path.rename(tmp_path / "away")
    again = Run(tmp_path)
    start = {"started": 2000.0, "host": "node17", "pid": 1}
    (again.path / "attempts.jsonl").write_text(json.dumps(start) + "\n")
    followed(again, runtime, range(1))
    found = client.search_runs([client.get_experiment_by_name("demo").experiment_id])
    assert sorted(len(client.get_metric_history(one.info.run_id, "epoch/macro_f1")) for one in found) == [
        1,
        2,
    ]


def test_no_path_host_or_folder_is_told(tmp_path: Path) -> None:
    run = Run(tmp_path)
    followed(run, Runtime(trackers=("tensorboard",)), range(1))
    about = About.read(run.path)
    assert about.parameters["data.shards"] == f"sha256 {'d' * 12}"
    assert about.parameters["backbone.weights"] == f"sha256 {'e' * 12}"
    assert (about.study, about.name) == ("demo", run.path.name)
    [file] = (run.path / "tensorboard").iterdir()
    content = file.read_bytes()
    for secret in (b"secret", b"node17", os.fsencode(tmp_path), os.uname().nodename.encode()):
        assert secret not in content + file.name.encode()


def test_a_trial_is_named_by_its_search(tmp_path: Path) -> None:
    run = Run(tmp_path)
    trial = tmp_path / "results/runs/search/search/flat/fold0/runs/00003" / run.path.name
    trial.parent.mkdir(parents=True)
    run.path.rename(trial)
    about = About.read(trial)
    assert (about.study, about.name) == ("search", f"search/flat/fold0/runs/00003/{trial.name}")


class Stuck:
    """A sink that fails, or does not return."""

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds

    def begin(self) -> None:
        time.sleep(self._seconds)
        raise ConnectionError("no server\nat this address")


class Warnings(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def test_a_tracker_that_fails_is_one_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []
    monkeypatch.setattr(follow, "open_sink", lambda *_: opened.append(1) or Stuck())
    run, warnings, log = Run(tmp_path), Warnings(), logging.Logger("test")
    log.addHandler(warnings)
    followers = Followers(run.path, Runtime(trackers=("mlflow",)), log)
    for epoch in range(3):
        run.write(epoch)
        count = len(opened)
        followers.wake()
        end = time.monotonic() + 10
        while len(opened) == count and time.monotonic() < end:
            time.sleep(0.01)
    followers.close()
    assert warnings.lines == ["mlflow: no server at this address; the training goes on"]
    assert len(opened) >= 3  # it is tried again after each epoch


def test_a_tracker_that_does_not_answer_delays_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "open_sink", lambda *_: Stuck(600))
    monkeypatch.setattr(follow, "PATIENCE", 0.2)
    warnings, log = Warnings(), logging.Logger("test")
    log.addHandler(warnings)
    begin = time.monotonic()
    for number in range(3):
        run = Run(tmp_path / str(number))
        followers = Followers(run.path, Runtime(trackers=("mlflow",)), log)
        run.write(0)
        followers.wake()
        followers.close()
    assert time.monotonic() - begin < 600, "it waited for the tracker"
    assert len(warnings.lines) == 3
    assert "does not answer" in warnings.lines[0]


def test_only_whole_epochs_are_read_and_each_once(tmp_path: Path) -> None:
    run = Run(tmp_path, epochs=1)
    reader = Epochs(run.path, 1000.0)
    assert len(list(reader.new())) == 1
    text = "".join(json.dumps(row) + "\n" for row in rows(1))
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write(text[:-20])
        file.flush()
        assert list(reader.new()) == []
        file.write(text[-20:])
    [epoch] = reader.new()
    assert [point.step for point in epoch.of_steps if point.name == "loss/leaves"] == [2, 3]
    assert {point.at for point in epoch.of_epoch} == {1008.0}
    assert reader.count == 2


@pytest.mark.parametrize("uri", ["mlruns", "file:///tmp/mlruns", "/tmp/x", "ftp://host", "http://[bad"])
def test_an_address_that_mlflow_cannot_write_to_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match=r"no store of MLflow; give http://HOST:PORT, or sqlite:///FILE\.db"):
        choice.check_uri(uri)


def test_a_password_in_an_address_is_refused_and_not_shown() -> None:
    with pytest.raises(ValueError, match="MLFLOW_TRACKING_PASSWORD") as caught:
        choice.check_uri("https://me:hunter2@host:5000")
    assert "hunter2" not in str(caught.value)


def test_a_tracker_that_cannot_work_is_refused_before_anything_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    choice.check([], None)
    with pytest.raises(InputError, match="mlflow needs `mlflow_uri`"):
        choice.check(["mlflow"], None)
    monkeypatch.setitem(choice.PACKAGES, "tensorboard", ("no_such_module", "tensorboardX"))
    with pytest.raises(InputError, match=r"tensorboard needs the package tensorboardX; install it"):
        choice.check(["tensorboard"], None)


@pytest.mark.slow("imports packages")
def test_nothing_is_imported_unless_asked_for() -> None:
    code = """
import sys
import hpc.slurm.site, hpc.studies.study, hpc.verbs.given, leukotree.training.run
optional = ("mlflow", "tensorboardX", "tensorboard", "rich", "leukotree.trackers.follow")
print([name for name in optional if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
