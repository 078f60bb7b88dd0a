"""A disk that is really full: a small file system of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from hpc import cli
from hpc.search import cluster, sweep
from hpc.search.record import Record
from hpc.search.trial_place import TrialPlace
from hpc.studies.study import SearchId, Study
from leukotree.config import parse
from leukotree.data import dataset, mapped
from leukotree.data.dataset import Dataset
from leukotree.errors import RunFailed
from leukotree.records.runfolder import read_metrics, read_status
from leukotree.runtime import Runtime
from leukotree.training import checkpoint, run
from tests.helpers.specs import tiny_spec

pytestmark = pytest.mark.slow("trains until a file system is full")

LEFT = 300_000
"""Bytes that are left on a disk that is full for a checkpoint."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """12 MiB: the checkpoints of a tiny model fit, and little else."""
    place = tmp_path / "disk"
    place.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "none", place], check=False).returncode
    ):
        pytest.skip("a file system of its own can be mounted by root only")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.fixture
def short_disk() -> Iterator[Path]:
    """The same with a short path: those of Ray's sockets may not be long."""
    place = Path(tempfile.mkdtemp(prefix="lt", dir="/tmp"))
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "none", place], check=False).returncode
    ):
        pytest.skip("a file system of its own can be mounted by root only")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)
    place.rmdir()


def search(shards: Path, trials: int, variants: Sequence[str] = ("flat",)) -> Study:
    fields = {
        "study": "full",
        "variants": list(variants),
        "folds": {"outer": 4, "inner": 2},
        "base": {
            "data": {"shards": str(shards)},
            "backbone": {"name": "test_vit"},
            "engine": {"precision": "fp32"},
            "optim": {"epochs": 1},
        },
        "search": {
            "nested": False,
            "trials": trials,
            "scheduler": "none",
            "space": {"loss.gamma": {"uniform": [0, 5]}},
        },
    }
    return parse(Study, fields, "test")


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_on_a_full_disk_names_what_it_needs_and_continues_when_there_is_room(
    shards: Path,
    small_disk: Path,
    tmp_path: Path,
    ranks: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spec = tiny_spec(shards, {"optim.epochs": 4})
    whole = run.run(spec, tmp_path / "whole") if ranks == 1 else None
    (small_disk / "spec.yaml").write_text(spec.dump())
    monkeypatch.chdir(small_disk)
    command = ["train", "spec.yaml", "--ranks", str(ranks), "--threads", "1"]

    ballast = small_disk / "ballast"
    folder = small_disk / "results/runs/single" / spec.run_name
    save = checkpoint.save

    # The disk fills up after the first checkpoint, done here since no other moment is sure; with ranks,
    # before all.
    def save_and_fill(*arguments: object, **options: object) -> Path:
        path = save(*arguments, **options)  # type: ignore[arg-type]
        fill(ballast, LEFT)
        return path

    if ranks == 1:
        monkeypatch.setattr(checkpoint, "save", save_and_fill)
    else:
        fill(ballast, LEFT)
    assert cli.main(command) == 1
    monkeypatch.setattr(checkpoint, "save", save)
    lines = [line for line in capsys.readouterr().err.splitlines() if "room" in line]
    assert len(lines) == 1, lines
    assert (
        f"{Path('results/runs/single') / spec.run_name / 'checkpoints'}: no room for a checkpoint of "
        in lines[0]
    )
    kept = checkpoint.load_latest(folder / "checkpoints")
    assert (kept is None) == (ranks == 2)

    ballast.unlink()
    assert cli.main(command) == 0
    assert read_status(folder)["state"] == "done"
    steps = [(row["step"], row["loss"]) for row in read_metrics(folder) if row["kind"] == "step"]
    assert len(dict(steps)) == len(steps)
    if whole:
        assert (folder / "predictions.parquet").read_bytes() == (
            whole.folder / "predictions.parquet"
        ).read_bytes()


@pytest.mark.parametrize("moment", ["draw", "report"])
def test_a_search_whose_record_meets_a_full_disk_names_it_and_continues_when_there_is_room(
    shards: Path, small_disk: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small_disk)
    plan, quiet, ballast = search(shards, trials=2), Runtime(device="cpu", quiet=True), small_disk / "ballast"
    note = getattr(Record, moment)

    def fill_and_note(*arguments: object) -> object:
        fill(ballast, leave=0)
        return note(*arguments)

    monkeypatch.setattr(Record, moment, fill_and_note)
    with pytest.raises(
        RunFailed, match=r"^\S+: no room for the record of the search; make room and run it again$"
    ) as failed:
        sweep.sweep(plan, TrialPlace(concurrency=1), quiet)
    assert failed.value.kind == "disk"
    monkeypatch.setattr(Record, moment, note)

    ballast.unlink()
    best = sweep.sweep(plan, TrialPlace(concurrency=1), quiet)[SearchId("flat", 0)]
    trials = Record(plan, SearchId("flat", 0)).trials
    assert [trial.state for trial in trials] == ["completed", "completed"]
    assert best["value"] == max(trial.scores[1] for trial in trials)


def test_a_search_whose_disk_fills_up_while_ray_writes_says_so_in_one_line(
    shards: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few KB are left: then Ray writes parts of its files, and stumbles over them."""
    monkeypatch.chdir(small_disk)
    plan, quiet = search(shards, trials=2, variants=["flat", "multilabel"]), Runtime(device="cpu", quiet=True)
    note = Record.report

    def note_and_fill(*arguments: object) -> object:
        result = note(*arguments)  # type: ignore[arg-type]
        fill(small_disk / "ballast", leave=4096)
        return result

    monkeypatch.setattr(Record, "report", note_and_fill)
    with pytest.raises(RunFailed, match=r"^\S+: no room \D+; make room and run it again$") as failed:
        sweep.sweep(plan, TrialPlace(concurrency=2), quiet)
    assert failed.value.kind == "disk"


@pytest.mark.parametrize(
    "error", [EOFError("Ran out of input"), RuntimeError("worker: [Errno 28] No space left on device")]
)
def test_errors_of_ray_on_a_full_disk(
    shards: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    from ray.tune import Tuner

    def fit(*_: object) -> None:
        fill(small_disk / "ballast", leave=0)
        raise error

    monkeypatch.chdir(small_disk)
    monkeypatch.setattr(Tuner, "fit", fit)
    with pytest.raises(
        RunFailed, match=r"^\S+: no room for the record of the search; make room and run it again$"
    ):
        sweep.sweep(search(shards, trials=1), TrialPlace(concurrency=1), Runtime(device="cpu", quiet=True))


def test_a_full_disk_under_rays_temporary_folder_is_named(
    shards: Path, short_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(short_disk))
    begin = cluster.tempfile.mkdtemp

    def make_and_fill(*arguments: object, **options: object) -> str:
        folder = begin(*arguments, **options)  # type: ignore[call-overload]
        fill(short_disk / "ballast", leave=0)
        return str(folder)

    monkeypatch.setattr(cluster.tempfile, "mkdtemp", make_and_fill)
    with pytest.raises(
        RunFailed, match=rf"^{short_disk}: no room for Ray's files; make room, or set TMPDIR"
    ) as failed:
        sweep.sweep(search(shards, trials=1), TrialPlace(concurrency=1), Runtime(device="cpu", quiet=True))
    assert failed.value.kind == "disk"


def fill(path: Path, leave: int) -> None:
    """Take all the room of a file's disk but `leave` bytes."""
    room = shutil.disk_usage(path.parent).free - leave
    with open(path, "ab") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size + room)


def test_a_disk_without_any_room_is_named_before_training(
    shards: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = tiny_spec(shards)
    monkeypatch.chdir(small_disk)
    (small_disk / "spec.yaml").write_text(spec.dump())
    Path("results/runs/single").mkdir(parents=True)
    fill(small_disk / "ballast", leave=0)
    assert cli.main(["train", "spec.yaml"]) == 1
    assert "results/runs/single: no room left on its disk; make room" in capsys.readouterr().err


def test_a_checkpoint_that_does_not_fit_names_folder_and_bytes_and_leaves_the_old_one(
    small_disk: Path,
) -> None:
    import torch

    state = {"weights": torch.zeros(750_000)}
    checkpoint.save(small_disk, 1, state)
    fill(small_disk / "ballast", leave=2_000_000)
    with pytest.raises(
        RunFailed,
        match=rf"^{small_disk}: no room for a checkpoint of 4,048,576 bytes, [\d,]+ are free .*; make room",
    ):
        checkpoint.save(small_disk, 2, state)
    assert checkpoint.load_latest(small_disk)[0] == 1
    assert sorted(path.name for path in small_disk.iterdir()) == ["00000001", "ballast"]


def test_an_index_that_the_disk_cannot_hold_is_read_into_memory(
    shards: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mapped, "MANY", 1)
    monkeypatch.setenv("LEUKOTREE_SCRATCH", str(small_disk))
    (small_disk / f"leukotree-{os.getuid()}/indexes").mkdir(mode=0o700, parents=True)
    ballast = small_disk / "ballast"
    with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    dataset._mapped.cache_clear()
    assert Dataset.open(shards).mapped is None
    assert "No space left on device; name another folder with --cache" in capsys.readouterr().err
    ballast.unlink()
    dataset._mapped.cache_clear()
    assert Dataset.open(shards).mapped is not None
    dataset._mapped.cache_clear()  # its files are gone with the disk
