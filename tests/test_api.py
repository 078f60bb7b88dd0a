"""LeukoTree in Python: `open`, `load`, `results` and `study`, found when they are first used."""

from __future__ import annotations

import resource
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

import leukotree
from leukotree.errors import InputError
from leukotree.evaluation import decide
from leukotree.records import predictions
from leukotree.report.collect import collect
from leukotree.training.run import run
from tests.helpers import study_results
from tests.helpers.specs import tiny_spec

ROOT = Path(__file__).parents[1]
HEAVY = {"numpy", "pandas", "torch", "timm", "pydantic", "yaml", "ray", "scipy"}


def python(code: str, cwd: Path, path: str = "") -> str:
    """What a new process prints. `path`: of more modules."""
    places = [path, str(ROOT), str(ROOT / "src")]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env={"PYTHONPATH": ":".join(filter(None, places)), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def cpu_seconds(code: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    python(code, ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_the_import_is_instant_and_imports_nothing_else() -> None:
    """CPU time, not time: 0.1 s is many times what it takes."""
    alone = min(cpu_seconds("pass") for _ in range(3))
    assert min(cpu_seconds("import leukotree, hpc") for _ in range(3)) - alone < 0.1
    names = python("import sys, leukotree, hpc; dir(leukotree); print(*sys.modules)", ROOT).split()
    assert HEAVY.isdisjoint(names)
    own = [name for name in names if name.partition(".")[0] in ("leukotree", "hpc")]
    assert own == ["leukotree", "hpc"]
    assert "numpy" not in python("import sys, leukotree; leukotree.load; print(*sys.modules)", ROOT).split()


def test_a_run_is_loaded_for_full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    from leukotree import api
    from leukotree.distributed import allocator

    kept: list[bool] = []
    monkeypatch.setattr(allocator, "keep_freed_memory", lambda: kept.append(True))
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert api._engine("cpu").device.type == "cpu"
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        torch.set_float32_matmul_precision(before)
    assert kept == [True]


def test_the_names_are_listed_and_another_one_is_no_attribute() -> None:
    assert set(leukotree.NAMES) <= set(dir(leukotree))
    assert all(callable(getattr(leukotree, name)) for name in leukotree.NAMES)
    with pytest.raises(AttributeError, match="'leukotree' has no attribute 'explode'"):
        leukotree.explode  # noqa: B018


def test_a_data_set_has_a_text_that_fits_a_screen(shards: Path) -> None:
    dataset = leukotree.open(shards)
    first, *leaves = repr(dataset).splitlines()
    assert first == f"Dataset {shards}: 168 images of 48 x 48 pixels, 28 patients, 4 folds"
    assert leaves[0].split() == ["normal", "24", "images", "4", "patients", "below", "root"]
    assert leaves[3].split() == [
        "AML",
        "24",
        "images",
        "4",
        "patients",
        "below",
        "root",
        ">",
        "leukemia",
        ">",
        "acute",
    ]
    assert len(leaves) == 7
    assert dataset.image(3).shape == (48, 48, 3)


def test_no_data_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder; write it with"):
        leukotree.open(tmp_path / "none")


@pytest.fixture(scope="module")
def trained(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tiny_spec(shards), tmp_path_factory.mktemp("runs")).folder


def test_a_loaded_run_predicts_the_images_of_a_data_set_as_it_was_scored(trained: Path, shards: Path) -> None:
    dataset = leukotree.open(shards)
    rows = np.flatnonzero(dataset.index["fold"] == 0)
    got = leukotree.load(trained).predict(dataset.image(row) for row in rows)
    assert np.array_equal(got.logp, predictions.read(trained)[1])


@pytest.mark.parametrize("device", ["tpu", "cuda:0"])
def test_an_unknown_device_is_named(device: str, trained: Path) -> None:
    with pytest.raises(InputError, match=f"device '{device}': use cpu, cuda or auto"):
        leukotree.load(trained, device)


def test_what_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run folder"):
        leukotree.load(tmp_path)


def test_results_are_the_predictions_that_the_report_uses(whole: Path) -> None:
    summary = collect(whole, study_results.STUDY, study_results.expected_runs())
    frame = leukotree.results(summary)
    assert list(frame.columns[:11]) == (
        ["run", "arm", "variant", "repeat", "fold", "seed", "key", "patient", "source", "leaf", "decided"]
    )
    assert frame.groupby(["variant", "fold", "seed"]).ngroups == 18
    for name, of_run in frame.groupby("run"):
        images, logp, tree = predictions.read(whole / str(name))
        order = np.argsort(images["key"])
        assert of_run["key"].tolist() == images["key"].iloc[order].tolist()
        assert of_run["leaf"].tolist() == images["leaf"].iloc[order].tolist()
        columns = of_run[[f"p:{leaf}" for leaf in tree.leaves]].to_numpy()
        assert np.allclose(columns, np.exp(decide.leaf_logp(logp, tree))[order])
        assert np.allclose(columns.sum(axis=1), 1)
        decided = np.array(tree.leaves)[decide.greedy(logp, tree)][order]
        assert of_run["decided"].tolist() == decided.tolist()


@pytest.mark.parametrize("given", [None, 3, {"study": "mine"}])
def test_results_of_no_study_are_refused(given: object) -> None:
    with pytest.raises(InputError, match="results: expected a study or its file, got"):
        leukotree.results(given)


@pytest.mark.slow("takes seconds of work")
def test_the_package_registers_its_launcher(tmp_path: Path) -> None:
    """The entry points of pyproject.toml, as an installation writes them."""
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    [(group, registered)] = points.items()
    lines = [f"[{group}]", *(f"{name} = {place}" for name, place in registered.items())]
    installed = tmp_path / "site" / "leukotree-0.1.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: leukotree\nVersion: 0.1.0\n")
    (installed / "entry_points.txt").write_text("\n".join(lines))
    code = "import leukotree; print(leukotree.study(study='mine', variants=['flat']).name)"
    assert python(code, tmp_path, str(installed.parent)) == "mine\n"
    nothing = (
        "import leukotree\nfrom leukotree import errors\ntry: leukotree.results('mine')\n"
        "except errors.InputError as error: print(error)"
    )
    assert "no study of this name" in python(nothing, tmp_path, str(installed.parent))


def test_without_a_launcher_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: [])
    with pytest.raises(InputError, match="from hpc import study"):
        leukotree.study("sweeps/phantom.yaml")
