"""Heads on stored features: the same as on the frozen backbone, computed once, whatever interrupts them."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hpc.launching.ranks import in_ranks
from leukotree import files as module
from leukotree import signals
from leukotree.data import featurefile
from leukotree.distributed.engine import Engine
from leukotree.errors import InputError, Preempted, RunFailed
from leukotree.inference import loaded
from leukotree.models.streams import Streams
from leukotree.records import predictions
from leukotree.runtime import Runtime
from leukotree.spec import TRAINED, RunSpec
from leukotree.training import checkpoint, features, run
from leukotree.training.plan import check
from tests.helpers.specs import tiny_spec
from tests.training.conftest import save_random

pytestmark = pytest.mark.slow("trains runs")

ONE = Runtime(threads=1, quiet=True)
SETTINGS = {"backbone.train": "head", "augment.views": 2, "optim.epochs": 3, "optim.lr": 1e-2}


@pytest.fixture
def spec(shards: Path, weights: Path) -> RunSpec:
    named = {"backbone.name": "test_resnet", "backbone.weights": str(weights)}
    return tiny_spec(shards, {**named, **SETTINGS})


def predicted(folder: Path) -> np.ndarray:
    return predictions.read(folder)[1]


def files(folder: Path) -> list[Path]:
    return sorted((folder / featurefile.FOLDER).glob(f"*{featurefile.SUFFIX}"))


def images_of(spec: RunSpec, keys: Iterable[str]) -> np.ndarray:
    """(n, 3, H, W) uint8 images of these samples."""
    dataset = check(spec).dataset
    rows = [dataset.index["key"].tolist().index(key) for key in keys]
    return np.stack([dataset.image(row) for row in rows]).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("variant", TRAINED)
@pytest.mark.parametrize("views", [0, 2])
def test_predictions_are_those_of_heads_on_the_frozen_backbone(
    spec: RunSpec, variant: str, views: int, tmp_path: Path
) -> None:
    spec = spec.override({"variant": variant, "augment.views": views})
    stored = run.run(spec, tmp_path / "stored", ONE)
    looped = run.run(spec, tmp_path / "looped", Runtime(threads=1, quiet=True, store_features=False))
    np.testing.assert_allclose(predicted(stored.folder), predicted(looped.folder), atol=1e-5)
    assert not files(tmp_path / "looped")


def test_members_of_an_ensemble_keep_random_backbones_of_their_own(spec: RunSpec, tmp_path: Path) -> None:
    """They train in the loop: the features of one member would not be those of another."""
    spec = spec.override({"variant": "ensemble", "backbone.weights": None})
    result = run.run(spec, tmp_path, ONE)
    assert not files(tmp_path)
    frame, logp, _ = predictions.read(result.folder)
    images = images_of(spec, frame["key"])
    np.testing.assert_allclose(loaded.load(result.folder).predict(images), logp, atol=1e-5)


def test_one_file_serves_all_variants_folds_and_seeds(spec: RunSpec, tmp_path: Path) -> None:
    run.run(spec, tmp_path, ONE)
    [path] = files(tmp_path)
    before = path.stat().st_mtime_ns
    for changes in ({"variant": "base"}, {"data.test_fold": 2}, {"seed": 5}, {"loss.gamma": 0.0}):
        run.run(spec.override(changes), tmp_path, ONE)
    assert files(tmp_path) == [path]
    assert path.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "changes",
    [
        {"augment.views": 3},
        {"augment.jitter": 0.2},
        {"engine.precision": "bf16"},
        {"backbone.name": "test_vit", "backbone.weights": None},
    ],
)
def test_what_decides_the_features_makes_another_file(spec: RunSpec, changes: dict[str, object]) -> None:
    assert features.key(check(spec.override(changes)), "cpu") != features.key(check(spec), "cpu")
    assert features.key(check(spec), "cuda") != features.key(check(spec), "cpu")


def test_other_weights_make_another_file(spec: RunSpec, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_random(other, 2)
    changed = spec.override({"backbone.weights": str(other)})
    assert features.key(check(changed), "cpu") != features.key(check(spec), "cpu")


def test_without_augmented_views_their_ranges_do_not_count(spec: RunSpec) -> None:
    plain = spec.override({"augment.views": 0})
    jittered = plain.override({"augment.jitter": 0.3})
    assert features.key(check(plain), "cpu") == features.key(check(jittered), "cpu")


def stop_at(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    """Ask this process to stop as soon as a chunk is written."""
    put = featurefile.Writer.put

    def stopping(writer: featurefile.Writer, number: int, values: np.ndarray) -> None:
        put(writer, number, values)
        if number == chunk:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(featurefile.Writer, "put", stopping)


def test_an_interrupted_pass_goes_on_at_the_next_chunk(
    spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.run(spec, tmp_path / "whole", ONE)
    with monkeypatch.context() as patch:
        stop_at(patch, 0)
        with signals.watched(), pytest.raises(Preempted, match=r"64|192"):
            run.run(spec, tmp_path / "cut", ONE)
    [path] = files(tmp_path / "cut")
    [whole] = files(tmp_path / "whole")
    file = featurefile.opened(path, 168, 3)
    assert file is not None
    assert file.missing() == [1, 2]
    assert not features.ready(spec, tmp_path / "cut", ONE)
    assert features.ready(spec, tmp_path / "whole", ONE)
    signals._received = None
    result = run.run(spec, tmp_path / "cut", ONE)
    assert path.read_bytes() == whole.read_bytes()
    assert np.array_equal(predicted(result.folder), predicted(tmp_path / "whole" / spec.run_name))


def killed(spec: RunSpec, root: Path) -> None:
    """A run that is killed in the middle of a chunk."""
    put = featurefile.Writer.put

    def dying(writer: featurefile.Writer, chunk: int, values: np.ndarray) -> None:
        if chunk == 1:
            half = len(values) // 2
            featurefile._write(writer.descriptor, values[:half], writer.shape.start + values.nbytes)
            os.kill(os.getpid(), signal.SIGKILL)
        put(writer, chunk, values)

    featurefile.Writer.put = dying  # type: ignore[method-assign]
    run.run(spec, root, ONE)


def test_a_pass_that_is_killed_goes_on_at_the_chunk_that_was_cut(spec: RunSpec, tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=killed, args=(spec, tmp_path / "cut"))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    [path] = files(tmp_path / "cut")
    file = featurefile.opened(path, 168, 3)
    assert file is not None
    assert file.missing() == [1, 2]
    features.prepare(spec, tmp_path / "cut", ONE)
    features.prepare(spec, tmp_path / "whole", ONE)
    assert path.read_bytes() == files(tmp_path / "whole")[0].read_bytes()


def test_a_folder_that_cannot_be_written_is_named(spec: RunSpec, tmp_path: Path) -> None:
    (tmp_path / featurefile.FOLDER).write_text("not a folder")
    with pytest.raises(InputError, match=r"\.features: features cannot be written there \(File exists\)"):
        run.run(spec, tmp_path, ONE)


def test_a_full_disk_is_named_with_the_room_that_is_needed(
    spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(RunFailed, match=r"\.features: no room for 0 MB of features; make room") as failed:
        run.run(spec, tmp_path, ONE)
    assert failed.value.kind == "disk"
    assert not list((tmp_path / featurefile.FOLDER).glob("*.tmp"))


def test_a_file_of_the_same_time_and_length_is_looked_at_again(
    spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems have times of a second or more."""
    state = module.state
    monkeypatch.setattr(module, "state", lambda status: (*state(status)[:2], 0))
    with monkeypatch.context() as patch:
        stop_at(patch, 1)
        with signals.watched(), pytest.raises(Preempted):
            run.run(spec, tmp_path, ONE)
    signals._received = None
    run.run(spec, tmp_path, ONE)


def test_a_file_that_a_node_sees_later_is_waited_for(
    spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS may show a new file to another node after half a minute."""
    run.run(spec, tmp_path, ONE)
    [path] = files(tmp_path)
    size = 168, 3
    path.rename(tmp_path / "later")
    answers = iter([[(True, False), (False, False)]])

    def gather(value: tuple[bool, bool]) -> list[tuple[bool, bool]]:
        """What two ranks say: the other one sees the file first."""
        if (others := next(answers, None)) is not None:
            (tmp_path / "later").rename(path)
            return others
        return [(True, False), value]

    engine = Engine(1, 2, torch.device("cpu"))
    monkeypatch.setattr(Engine, "gather", lambda _, value: gather(value))
    assert features._shown(path, size, engine).missing() == []


def test_a_damaged_chunk_is_computed_again(spec: RunSpec, tmp_path: Path) -> None:
    run.run(spec, tmp_path, ONE)
    [path] = files(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-5] + b"12345")
    run.run(spec.override({"seed": 3}), tmp_path, ONE)
    assert path.read_bytes() == whole


def test_an_interrupted_training_continues_bit_for_bit(
    spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from leukotree.training.stage_trainer import StageTrainer

    whole = run.run(spec, tmp_path / "whole", ONE)
    step, calls = StageTrainer._step, []

    def stopping(trainer: StageTrainer, *arguments: object) -> object:
        calls.append(trainer)
        if len(calls) == 15:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(trainer, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(StageTrainer, "_step", stopping)
        with signals.watched(), pytest.raises(Preempted):
            run.run(spec, tmp_path / "cut", ONE)
    signals._received = None
    cut = run.run(spec, tmp_path / "cut", ONE)
    assert np.array_equal(predicted(cut.folder), predicted(whole.folder))


def both(spec: RunSpec, root: Path, runtime: Runtime) -> Path:
    return run.run(spec, root, runtime).folder


def test_two_ranks_share_the_pass(spec: RunSpec, tmp_path: Path) -> None:
    alone = run.run(spec, tmp_path / "alone", ONE)
    folder = in_ranks(both, spec, tmp_path / "two", runtime=ONE, ranks=2)
    [one], [two] = files(tmp_path / "alone"), files(tmp_path / "two")
    assert one.read_bytes() == two.read_bytes()
    np.testing.assert_allclose(predicted(folder), predicted(alone.folder), atol=1e-4)


def test_a_process_of_its_own_computes_features_of_shards_that_a_command_fetches(
    spec: RunSpec, shards: Path, tmp_path: Path
) -> None:
    spec = spec.override({"data.shards": f"pipe:cat {shards}/{{}}"})
    scratch = tmp_path / "scratch"
    runtime = replace(ONE, scratch=scratch, scratch_gb=1.0)
    in_ranks(features.prepare, spec, tmp_path, runtime=runtime, ranks=1)
    [path] = files(tmp_path)
    file = featurefile.opened(path, 168, 3)
    assert file is not None
    assert not file.missing()
    assert list(scratch.rglob("*.tar"))


def test_two_processes_compute_the_features_once(spec: RunSpec, tmp_path: Path) -> None:
    """The second one waits for the first."""
    context = multiprocessing.get_context("spawn")
    specs = [spec.override({"seed": seed}) for seed in (1, 2)]
    processes = [context.Process(target=both, args=(one, tmp_path, ONE)) for one in specs]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    [path] = files(tmp_path)
    undisturbed = run.run(specs[0], tmp_path / "alone", ONE)
    assert np.array_equal(predicted(tmp_path / specs[0].run_name), predicted(undisturbed.folder))
    assert path.read_bytes() == files(tmp_path / "alone")[0].read_bytes()


def test_a_finished_run_predicts_with_its_backbone_put_back(spec: RunSpec, tmp_path: Path) -> None:
    result = run.run(spec, tmp_path, ONE)
    known = loaded.load(result.folder)
    frame, logp, _ = predictions.read(result.folder)
    np.testing.assert_allclose(known.predict(images_of(spec, frame["key"])), logp, atol=1e-5)


def test_a_run_is_not_loaded_with_other_weights(spec: RunSpec, weights: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.safetensors"
    own.write_bytes(weights.read_bytes())
    result = run.run(spec.override({"backbone.weights": str(own)}), tmp_path / "runs", ONE)
    save_random(own, 2)
    with pytest.raises(InputError, match=r"trained on other weights than .*own.safetensors has now; put"):
        loaded.load(result.folder)
    own.unlink()
    with pytest.raises(InputError, match=r"own.safetensors"):
        loaded.load(result.folder)


def test_views_need_a_frozen_backbone(spec: RunSpec) -> None:
    with pytest.raises(InputError, match=r"augment.views: has no effect with backbone.train all"):
        spec.override({"backbone.train": "all"})


def test_heads_are_not_loaded_on_another_backbone_than_they_were_trained_on(
    spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if another version of torch drew other numbers from the same seed."""
    spec = spec.override({"backbone.weights": None})
    result = run.run(spec, tmp_path, ONE)
    [place] = (result.folder / "checkpoints").iterdir()
    number, state = int(place.name), torch.load(place / checkpoint.STATE, weights_only=True)
    assert state["backbone"] == loaded.load(result.folder).frozen.digest  # type: ignore[union-attr]
    monkeypatch.setattr(Streams, "backbone", 3)
    with pytest.raises(
        InputError, match=r"trained on another frozen backbone .* install torch 2\S+ and timm"
    ):
        loaded.load(result.folder)
    del state["backbone"]  # as earlier versions saved it
    place.rename(tmp_path / "other")
    checkpoint.save(place.parent, number, state)
    loaded.load(result.folder)
