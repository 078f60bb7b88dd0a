"""The doctor: what it measures is true of this machine, a failure comes with its fix, and nothing is left
behind."""

from __future__ import annotations

import contextlib
import io
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from hpc import finding
from hpc.cli import main
from hpc.doctor import doctor, node, work
from hpc.doctor import slurm as slurm_checks
from hpc.launching import results_folder
from hpc.slurm.site_model import Site
from leukotree.runtime import Runtime
from leukotree.spec import RunSpec

ALL = {
    "versions",
    "slurm",
    "gpus",
    "open files",
    "shared memory",
    "socket path",
    "locks",
    "clock",
    "room",
    "inodes",
    "temporary folder",
    "data",
    "shards",
    "weights",
    "all-reduce",
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and no SLURM."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(Path(os.__file__).parent))
    return tmp_path


@pytest.fixture
def study(shards: Path, home: Path) -> Path:
    base = {
        "data": {"shards": str(shards)},
        "backbone": {"name": "test_vit"},
        "optim": {"batch_size": 8, "epochs": 1},
    }
    search = {"trials": 2, "space": {"backbone.name": {"choice": ["test_vit", "test_convnext"]}}}
    (home / "study.yaml").write_text(
        yaml.safe_dump({"study": "demo", "base": base, "folds": {"outer": 4}, "search": search})
    )
    return home / "study.yaml"


def asked(*arguments: str) -> tuple[int, str, str]:
    """Exit code, output and errors of the command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(["doctor", *arguments])
        except SystemExit as end:  # of argparse
            code = int(end.code or 0)
    return code, out.getvalue(), err.getvalue()


def states(findings: list[finding.Finding]) -> dict[str, str]:
    return {finding.what: finding.state for finding in findings}


@pytest.mark.slow("runs whole commands")
def test_everything_is_looked_at_and_nothing_is_left_behind(study: Path) -> None:
    code, out, err = asked(str(study), "--json")
    found = json.loads(out)
    assert {finding["what"] for finding in found["findings"]} == ALL
    assert (code, found["ready"], err) == (0, True, "")
    [reduced] = [finding for finding in found["findings"] if finding["what"] == "all-reduce"]
    assert reduced["measured"].startswith("2 local ranks, gloo: right")
    assert [path.name for path in study.parent.iterdir()] == ["study.yaml"]


@pytest.mark.parametrize(
    ("gpus", "given", "ranks", "device"), [(1, None, 2, "cpu"), (4, None, 4, "auto"), (1, 1, 1, "auto")]
)
def test_one_gpu_has_no_other_to_add_with(
    gpus: int, given: int | None, ranks: int, device: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_for: list[tuple[int, str]] = []
    right = finding.Finding("ok", "all-reduce", "right")

    def all_reduce(ranks: int, runtime: Runtime) -> finding.Finding:
        asked_for.append((ranks, runtime.device))
        return right

    monkeypatch.setattr("hpc.launching.devices.gpu_count", lambda runtime: gpus)
    monkeypatch.setattr(node, "all_reduce", all_reduce)
    doctor.examine(None, [], site=Site(), on_slurm=False, ranks=given, runtime=Runtime())
    assert asked_for == [(ranks, device)]


@pytest.mark.slow("runs whole commands")
def test_what_is_missing_is_a_line_with_its_mend_and_exit_code_1(study: Path) -> None:
    """A site was named, so jobs are to run there; weights of the hub that nobody has fetched; no such
    shards."""
    site = study.parent / "site.yaml"
    site.write_text("scratch: /a/very/long/path/to/a/place/on/each/node\n")
    code, out, _ = asked(
        str(study),
        "base.backbone.weights=hub",
        "base.data.shards=nowhere",
        "--site",
        str(site),
        "--ranks",
        "1",
    )
    failed = {line[6:].partition(": ")[0]: line for line in out.splitlines() if line.startswith("FAIL")}
    assert code == 1
    assert {"slurm", "data", "weights", "socket path"} <= set(failed)
    assert "login node" in failed["slurm"]
    assert "`leukotree weights fetch test_convnext`" in failed["weights"]
    assert "nowhere" in failed["data"]
    assert out.splitlines()[-1].startswith("not ready")


@pytest.mark.parametrize("arguments", [["none.yaml"], ["--site", "mars"], ["--ranks", "0"]])
def test_bad_input_is_one_line(arguments: list[str], home: Path) -> None:
    code, out, err = asked(*arguments)
    assert (code, out, len(err.splitlines())) == (2, "", 1)


def test_a_spec_is_told_from_a_study(shards: Path, home: Path) -> None:
    (home / "run.yaml").write_text(
        yaml.safe_dump({"data": {"shards": str(shards)}, "backbone": {"name": "test_vit"}})
    )
    planned = doctor.planned_by(doctor.read("run.yaml", []), Site(), on_slurm=False)
    assert (planned.runs, len(planned.specs)) == (1, 1)


def test_a_study_counts_its_runs_and_its_models(study: Path) -> None:
    planned = doctor.planned_by(doctor.read(str(study), []), Site(), on_slurm=False)
    assert planned.runs == 3 * 4 + (3 * 4) * 2 * 3  # outer folds, and a search of two trials beside each
    assert {spec.backbone.name for spec in planned.specs} == {"test_vit", "test_convnext"}


@pytest.mark.slow("trains a model")
def test_the_room_that_a_run_needs_is_what_it_writes(shards: Path, tmp_path: Path) -> None:
    """Against a real run: its folder at the end, and a checkpoint of its training."""
    from leukotree.data.dataset import Dataset
    from leukotree.training import checkpoint, run
    from leukotree.training.footprint import KEPT, footprint

    changes = {
        "backbone.name": "test_vit",
        "data.shards": str(shards),
        "optim.epochs": 2,
        "optim.batch_size": 63,
    }
    spec = RunSpec().override({**changes, "variant": "base", "engine.precision": "fp32"})
    sizes = []
    original = checkpoint.save

    def save(folder: Path, number: int, *rest: object, **options: object) -> Path:
        saved = original(folder, number, *rest, **options)
        sizes.append(sum(file.stat().st_size for file in saved.iterdir()))
        return saved

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "save", save)
        folder = run.run(spec, tmp_path, Runtime(quiet=True)).folder
    expected = footprint(spec, Dataset.open(shards))
    left = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    assert left <= 1.2 * expected.final
    assert expected.final <= 1.2 * left
    assert max(sizes) * (KEPT + 1) == pytest.approx(expected.working, rel=0.2)


def test_no_room_is_a_failure(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = RunSpec().override({"backbone.name": "vit_small_patch16_384", "data.shards": str(shards)})
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    planned = work.Work([spec], runs=int(free / 80e6), at_once=1)  # one run of 22 M parameters leaves 87 MB
    found = states(list(work.room(planned, tmp_path / "results/runs")))
    assert found["room"] == "FAIL"
    assert states(list(work.room(work.Work([spec], 2, 2), tmp_path)))["room"] == "ok"
    few = SimpleNamespace(f_bavail=2**40, f_frsize=4096, f_favail=10, f_files=100)
    monkeypatch.setattr(
        os, "statvfs", lambda path: few
    )  # a file system without inodes: there is none to be had here
    assert states(list(work.room(work.Work([spec], 2, 2), tmp_path)))["inodes"] == "FAIL"


def test_a_folder_that_cannot_be_written_is_a_failure(tmp_path: Path) -> None:
    assert states(list(results_folder.check(Path("/proc/1/results")))) == {"results": "FAIL"}
    assert states(list(results_folder.check(tmp_path / "results/runs"))) == {"locks": "ok", "clock": "ok"}
    assert not list(tmp_path.iterdir())


def test_a_clock_that_is_wrong_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 60)  # the file server's clock cannot be set here
    assert states(list(results_folder.check(tmp_path)))["clock"] == "warn"


def test_shards_that_changed_are_found_before_they_are_trained_on(shards: Path, tmp_path: Path) -> None:
    import shutil

    from tests.helpers.small_data import overwrite

    shutil.copytree(shards, tmp_path / "shards")
    key = overwrite(tmp_path / "shards", 5, b"something else", indexed=False)
    spec = RunSpec().override({"data.shards": str(tmp_path / "shards")})
    *_, last = work.data(work.Work([spec], 1, 1), read=True)
    assert last.state == "FAIL"
    assert key in last.measured


def test_weights_of_the_hub_are_found_where_timm_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a file laid there as huggingface_hub does; nothing is fetched."""
    import timm
    from huggingface_hub import constants
    from safetensors.torch import save_file

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    spec = RunSpec().override({"backbone.name": "test_vit", "backbone.weights": "hub"})
    planned = work.Work([spec], 1, 1)
    [missing] = work.weights(planned, on_slurm=True)
    assert (missing.state, missing.certain) == ("FAIL", False)
    [missing] = work.weights(planned, on_slurm=False)
    assert missing.state == "warn"
    repository = tmp_path / f"models--{timm.get_pretrained_cfg('test_vit').hf_hub_id.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("abc")
    (repository / "snapshots/abc").mkdir(parents=True)
    (repository / "snapshots/abc/model.safetensors").write_bytes(b"")
    [damaged] = work.weights(planned, on_slurm=True)
    assert (damaged.state, "not a readable weights file" in damaged.measured) == ("FAIL", True)
    save_file({"norm.weight": torch.zeros(2)}, repository / "snapshots/abc/model.safetensors")
    [found] = work.weights(planned, on_slurm=True)
    assert found.state == "ok"
    assert "model.safetensors" in found.measured


def test_versions_are_compared_with_the_tested_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert node.versions().state in ("ok", "warn")
    (tmp_path / "constraints.txt").write_text(f"torch=={torch.__version__.partition('+')[0]}\npandas==0.1\n")
    monkeypatch.setattr(node, "CONSTRAINTS", tmp_path / "constraints.txt")
    found = node.versions()
    assert found.state == "warn"
    assert "pandas" in found.measured
    assert "torch" not in found.measured


def test_a_driver_that_torch_cannot_use_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that answers and a torch that sees nothing: too old a driver. There is none such here."""
    if torch.cuda.device_count():
        pytest.skip("torch sees GPUs here")
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA A100, 470.10'\necho 'NVIDIA A100, 470.10'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = node.gpus(Site(gpus_per_node=2))
    assert found.state == "FAIL"
    assert "2 GPU(s), driver 470.10" in found.measured


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1-00:00:00", 1440), ("00:30:00", 30), ("01:00:30", 60.5), ("UNLIMITED", float("inf"))],
)
def test_time_limits_are_read(text: str, expected: float) -> None:
    assert slurm_checks.minutes(text) == expected
