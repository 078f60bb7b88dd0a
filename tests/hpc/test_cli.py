"""The command line as a person meets it: arguments, output, exit code."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from leukotree import __version__
from leukotree.records import origin
from tests.helpers.commandline import assert_refused, leukotree

LEUKOTREE = [sys.executable, "-m", "hpc.cli"]
VERBS = [
    "phantom",
    "import",
    "pack",
    "audit",
    "stage",
    "train",
    "sweep",
    "folds",
    "grid",
    "status",
    "report",
    "export",
    "new-study",
    "explain",
    "submit",
    "doctor",
    "bench",
    "schema",
    "completion",
]


def cpu_seconds(command: list[str], cwd: Path) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=cwd, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_answers_at_once(tmp_path: Path) -> None:
    """Nothing heavy is imported for --help. CPU time, not time: 0.5 s is ten times what it takes."""
    python = min(cpu_seconds([sys.executable, "-c", "pass"], tmp_path) for _ in range(3))
    helped = min(cpu_seconds([*LEUKOTREE, "--help"], tmp_path) for _ in range(3))
    assert helped - python < 0.5


def test_bad_input_ends_the_process_with_code_2(tmp_path: Path) -> None:
    done = subprocess.run(
        [*LEUKOTREE, "train", "none.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert_refused(done, "leukotree train: none.yaml: cannot be read")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_an_example(verb: str, tmp_path: Path) -> None:
    done = leukotree(verb, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert f"leukotree {verb}" in done.stdout.partition("Example:")[2]


@pytest.fixture
def manifest(phantom_manifest: Path, tmp_path: Path) -> Path:
    """A copy of the phantom set's manifest that a test may spoil; its images stay where they are."""
    frame = pd.read_csv(phantom_manifest, dtype=str, keep_default_na=False)
    for column in ("image", "mask"):
        frame[column] = [f"images/{name}" for name in frame[column]]
    frame["root"] = "images"
    (tmp_path / "images").symlink_to(phantom_manifest.parent)
    file = tmp_path / "manifest.csv"
    frame.to_csv(file, index=False)
    return file


def spoil(manifest: Path, column: str, value: str) -> None:
    frame = pd.read_csv(manifest, dtype=str, keep_default_na=False)
    frame.loc[4, column] = value
    frame.to_csv(manifest, index=False)


def test_pack_refuses_a_row_without_its_image(manifest: Path) -> None:
    spoil(manifest, "image", "images/gone.jpg")
    assert_refused(leukotree("pack", manifest, "out", cwd=manifest.parent), "manifest.csv", "6", "gone.jpg")
    assert not (manifest.parent / "out").exists()


def test_pack_refuses_an_unknown_leaf(manifest: Path) -> None:
    spoil(manifest, "leaf", "AMLL")
    assert_refused(leukotree("pack", manifest, "out", cwd=manifest.parent), "manifest.csv", "AMLL", "APML")


def test_pack_names_an_image_that_does_not_decode_and_leaves_nothing_behind(manifest: Path) -> None:
    (manifest.parent / "images/torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 no image")
    try:
        spoil(manifest, "image", "images/torn.jpg")
        assert_refused(
            leukotree("pack", manifest, "out", "--size", 32, "--folds", 2, cwd=manifest.parent),
            "torn.jpg",
            "--drop-broken",
        )
        assert sorted(path.name for path in manifest.parent.iterdir()) == ["images", "manifest.csv"]
        done = leukotree(
            "pack", manifest, "out", "--size", 32, "--folds", 2, "--drop-broken", cwd=manifest.parent
        )
        assert done.returncode == 0, done.stderr
        [dropped] = json.loads((manifest.parent / "out/dataset.json").read_text())["dropped"]
        assert "torn.jpg" in dropped["image"]
    finally:
        (manifest.parent / "images/torn.jpg").unlink()


def test_pack_refuses_more_folds_than_patients_of_the_rarest_leaf(manifest: Path) -> None:
    assert_refused(leukotree("pack", manifest, "out", "--folds", 9, cwd=manifest.parent), "folds", "9", "4")


@pytest.fixture
def spec(shards: Path, tmp_path: Path) -> Path:
    content = {
        "data": {"shards": str(shards)},
        "backbone": {"name": "test_vit"},
        "optim": {"batch_size": 9, "epochs": 1, "lr": 1e-3},
    }
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["optim.learning_rate=1"], ["unknown key", "optim.learning_rate"]),
        (["backbone.name=vit_smal"], ["vit_smal", "near"]),
        (["--ranks", "2"], ["optim.batch_size", "9", "2 ranks"]),
        (["data.shards=nowhere"], ["nowhere", "pack"]),
        (["optim.lr"], ["key=value"]),
        (["--ranks", "two"], ["--ranks"]),
        (["--site", "mars"], ["mars"]),
        (["--ranks", "0"], ["--ranks", "above 0"]),
        (["--workers", "-1"], ["--workers"]),
        (["--study", "../elsewhere"], ["--study", "name"]),
    ],
)
def test_train_refuses_bad_input_before_anything_is_written(
    spec: Path, arguments: list[str], says: list[str]
) -> None:
    assert_refused(leukotree("train", spec, *arguments, cwd=spec.parent), *says)
    assert [path.name for path in spec.parent.iterdir()] == ["run.yaml"]


@pytest.mark.parametrize("verb", ["sweep", "report"])
def test_a_study_without_trials_has_nothing_to_search_or_report(
    verb: str, shards: Path, tmp_path: Path
) -> None:
    (tmp_path / "study.yaml").write_text(
        yaml.safe_dump({"study": "empty", "base": {"data": {"shards": str(shards)}}, "folds": {"outer": 4}})
    )
    words = ["no trials", "search.trials"] if verb == "sweep" else ["results/runs/empty", "leukotree"]
    assert_refused(leukotree(verb, "study.yaml", cwd=tmp_path), *words)
    assert [path.name for path in tmp_path.iterdir()] == ["study.yaml"]


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--gpus-per-trial", "2", "a share of one GPU"),
        ("--gpus-per-trial", "0", "above 0"),
        ("--cpus-per-trial", "0", "above 0"),
        ("--concurrency", "many", "whole number"),
    ],
)
def test_sweep_refuses_slots_that_cannot_be(option: str, value: str, says: str, tmp_path: Path) -> None:
    assert_refused(leukotree("sweep", "study.yaml", option, value, cwd=tmp_path), option, says)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (
            [],
            "would search flat, base, multilabel for each of 4 outer folds: 2 trials each of 3 inner folds\n",
        ),
        (
            ["search.nested=false", "base.data.test_fold=1"],
            "for all outer folds, beside fold 1: 2 trials each of 3 inner folds\n",
        ),
        (["search.rerun_top=2"], "2 trials each of 3 inner folds, then the best 2 again on 3 seeds\n"),
    ],
)
def test_a_dry_run_of_a_sweep_says_what_it_would_search(
    overrides: list[str], says: str, shards: Path, tmp_path: Path
) -> None:
    search = {"trials": 2, "space": {"loss.gamma": {"uniform": [0, 5]}}}
    base = {"data": {"shards": str(shards)}, "backbone": {"name": "test_vit"}}
    (tmp_path / "study.yaml").write_text(
        yaml.safe_dump({"study": "dry", "base": base, "folds": {"outer": 4}, "search": search})
    )
    done = leukotree("sweep", "study.yaml", "--dry-run", *overrides, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(says)
    assert [path.name for path in tmp_path.iterdir()] == ["study.yaml"]


@pytest.mark.parametrize("verb", ["sweep", "folds"])
def test_results_that_cannot_be_written_are_one_line(verb: str, shards: Path, tmp_path: Path) -> None:
    """`results` is a file."""
    trials = 1 if verb == "sweep" else 0
    search = {"trials": trials, "space": {"optim.lr": {"choice": [0.1]}}}
    study = {
        "study": "s",
        "base": {"data": {"shards": str(shards)}, "backbone": {"name": "test_vit"}},
        "folds": {"outer": 4, "inner": 2},
    }
    (tmp_path / "study.yaml").write_text(json.dumps({**study, "search": search}))
    (tmp_path / "results").touch()
    done = leukotree(verb, "study.yaml", cwd=tmp_path)
    assert_refused(done, f"leukotree {verb}: results/runs", "Not a directory; fix that and run it again")


def test_folds_wait_for_the_search(shards: Path, tmp_path: Path) -> None:
    search = {"trials": 2, "space": {"loss.gamma": {"uniform": [0, 5]}}}
    content = {
        "study": "early",
        "base": {"data": {"shards": str(shards)}},
        "folds": {"outer": 4},
        "search": search,
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(content))
    assert_refused(leukotree("folds", "study.yaml", cwd=tmp_path), "best.yaml", "leukotree sweep")


@pytest.mark.slow("trains runs")
def test_folds_without_a_search_run_the_base_and_report_says_so(shards: Path, tmp_path: Path) -> None:
    base = {
        "data": {"shards": str(shards)},
        "backbone": {"name": "test_vit"},
        "engine": {"precision": "fp32"},
        "optim": {"batch_size": 32, "epochs": 1},
    }
    content = {"study": "fixed", "base": base, "folds": {"outer": 4}, "variants": ["flat", "multilabel"]}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(content))
    done = leukotree("folds", "study.yaml", "--on", "inline", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "8 runs done, 0 failed" in done.stdout
    done = leukotree("report", "study.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "Study fixed: patients 28, images 168, tested in 4 folds, 1 seed"
    assert lines[5:] == ["results/fixed/report.md", "results/fixed/report.html"]
    report = (tmp_path / "results/fixed/report.md").read_text()
    assert "| no search |" in report
    assert "not nested" not in report
    assert "declaration in the study file was changed" not in report
    assert (
        leukotree("report", "study.yaml", "rope=0.2", cwd=tmp_path).returncode == 0
    )  # chosen with the results at hand
    assert "`rope` was 0.01 and is 0.2" in (tmp_path / "results/fixed/report.md").read_text()
    # The same runs under another name: two studies on the same patients.
    shutil.copytree(tmp_path / "results/runs/fixed", tmp_path / "results/runs/other")
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(content | {"study": "other"}))
    done = leukotree("report", "study.yaml", "other.yaml", "rope=0.2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "Studies fixed, other: 4 arms"
    assert "2 of 2 are paired by patient" in (tmp_path / "results/fixed+other/report.md").read_text()
    assert_refused(leukotree("report", "study.yaml", "study.yaml", cwd=tmp_path), "named twice")


@pytest.mark.slow("trains a run")
def test_train_trains_and_says_what_it_scored_and_status_lists_it(spec: Path) -> None:
    done = leukotree("train", spec, "data.test_fold=1", cwd=spec.parent)
    assert done.returncode == 0, done.stderr
    assert "macro_f1" in done.stdout
    [run] = (spec.parent / "results/runs/single").glob("multilabel-*")
    assert (run / "predictions.parquet").exists()
    table = leukotree("status", cwd=spec.parent).stdout.splitlines()
    assert table[1].split()[:3] == ["single", "multilabel", "1"]
    assert run.name in json.dumps(json.loads(leukotree("status", "single", "--json", cwd=spec.parent).stdout))


@pytest.mark.slow("trains a model")
def test_a_run_that_diverges_fails_in_one_line(spec: Path) -> None:
    done = leukotree("train", spec, "optim.lr=1e30", "engine.precision=fp32", cwd=spec.parent)
    assert done.returncode == 1
    assert done.stderr.startswith("leukotree train: the loss of tree is")
    assert len(done.stderr.splitlines()) == 1


def test_a_dry_run_says_what_would_run_and_writes_nothing(spec: Path) -> None:
    done = leukotree("train", spec, "--dry-run", "optim.lr=1e-3", cwd=spec.parent)
    assert done.returncode == 0, done.stderr
    assert "results/runs/single/multilabel-" in done.stdout
    assert [path.name for path in spec.parent.iterdir()] == ["run.yaml"]


def test_audit_fails_where_a_patient_is_in_two_folds(shards: Path, tmp_path: Path) -> None:
    assert leukotree("audit", shards, cwd=tmp_path).returncode == 0
    leaky = tmp_path / "leaky"
    shutil.copytree(shards, leaky)
    index = pd.read_parquet(leaky / "index.parquet")
    for column in ("patient", "group"):
        index.loc[index["fold"] == 1, column] = np.resize(
            index.loc[index["fold"] == 0, column], (index["fold"] == 1).sum()
        )
    index.to_parquet(leaky / "index.parquet")
    done = leukotree("audit", leaky, cwd=tmp_path)
    assert done.returncode == 1
    assert "leak" in (done.stdout + done.stderr).lower()


def test_import_folder_then_pack(tmp_path: Path) -> None:
    """The layout that anyone can make: ROOT/<leaf>/<patient>/*."""
    generator = np.random.default_rng(0)
    for leaf in ("normal", "AML"):
        for patient in range(3):
            place = tmp_path / "own" / leaf / f"{leaf}-{patient}"
            place.mkdir(parents=True)
            for number in range(2):
                Image.fromarray(generator.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(
                    place / f"{number}.PNG"
                )
    assert leukotree("import", "folder", "own", "own.csv", cwd=tmp_path).returncode == 0
    done = leukotree("pack", "own.csv", "shards", "--size", 32, "--folds", 3, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "12 images" in done.stdout


def test_the_version_has_the_commit_where_it_is_a_checkout(tmp_path: Path) -> None:
    done = leukotree("--version", cwd=tmp_path)
    assert done.returncode == 0
    commit = origin.here()["commit"]
    assert done.stdout.startswith(f"leukotree {__version__}")
    assert commit is None or commit[: origin.DIGITS] in done.stdout
