"""A study of `flat`, `logistic` and `neighbours` on stored features: trained, reported and used."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
import yaml

from leukotree.data import phantom
from leukotree.records import searchfolder
from leukotree.records.runfolder import read_status
from leukotree.spec import PLAIN
from tests.helpers.commandline import assert_refused, leukotree

pytestmark = pytest.mark.slow("trains a study of 6 runs on features")

VARIANTS = ["flat", "logistic", "neighbours"]
RUNS = Path("results/runs/plain")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    images = phantom.write(folder / "images", patients=28, per_patient=3, size=48, seed=0)
    other = phantom.write(folder / "other", patients=28, per_patient=1, size=48, seed=1)
    table = pd.read_csv(other)  # other patients have other names
    table.assign(patient="other " + table["patient"].astype(str)).to_csv(other, index=False)
    study = {
        "study": "plain",
        "base": {
            "data": {"shards": "shards"},
            "backbone": {"name": "test_resnet", "train": "head"},
            "augment": {"views": 2},
            "optim": {"epochs": 2, "batch_size": 10, "lr": 1e-3},
            "engine": {"precision": "fp32"},
            "plain": {"k": 5},
        },
        "variants": VARIANTS,
        "folds": {"outer": 2, "inner": 2},
        "search": {"trials": 0},
        "decision": "joint",
        "primary": [["flat", "logistic"]],
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    for command in (
        ["pack", images, "shards", "--size", "32", "--folds", "2"],
        ["pack", other, "other shards", "--size", "32", "--folds", "2"],
        ["folds", "study.yaml", "--on", "inline"],
    ):
        done = leukotree(*command, cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder


def run_of(work: Path, variant: str) -> Path:
    return sorted((work / RUNS).glob(f"{variant}-*"))[0]


def test_all_arms_are_done_and_share_the_features_of_a_fold(work: Path) -> None:
    """Each fold has a random backbone of its own."""
    for variant in VARIANTS:
        states = [read_status(folder)["state"] for folder in (work / RUNS).glob(f"{variant}-*")]
        assert states == ["done", "done"]
    assert len(list((work / "results").rglob("?*.features"))) == 2
    done = leukotree("status", "study.yaml", cwd=work)
    assert done.returncode == 0, done.stderr
    counts = [row.split()[:3] for row in done.stdout.splitlines()]
    assert [["plain", variant, "2"] in counts for variant in VARIANTS] == [True] * 3


def test_a_dry_run_counts_one_fit_for_each_of_them(work: Path) -> None:
    done = leukotree("folds", "study.yaml", "study=other", "--dry-run", cwd=work)
    assert done.returncode == 0, done.stderr
    assert "6 trainings of 1 to 2 epochs" in done.stdout
    assert "budget of each model: 2 epochs or one fit" in done.stdout
    rows = {row.split()[0]: row.split() for row in done.stdout.splitlines() if row.split()}
    assert [rows[variant][2] for variant in PLAIN] == ["0", "0"]


def test_the_report_names_and_explains_the_arms(work: Path) -> None:
    done = leukotree("report", "study.yaml", "--out", "report", cwd=work)
    assert done.returncode == 0, done.stderr
    page = re.sub(r"\s+", " ", (work / "report" / "report.md").read_text())
    assert "`logistic` is a logistic regression on the features of the frozen backbone" in page
    assert "`neighbours` is a vote of the training images" in page
    assert "flat − logistic" in page
    assert "neighbours − flat" not in page
    assert "one fit" in page
    assert "nearest neighbours: how many vote" in page


def test_a_report_without_a_declaration_compares_nothing_with_them(work: Path) -> None:
    done = leukotree("report", "study.yaml", "primary=null", "--out", "plain report", cwd=work)
    assert done.returncode == 0, done.stderr
    page = (work / "plain report" / "report.md").read_text()
    assert not re.search(r"(logistic|neighbours) − flat", page)


@pytest.mark.parametrize("variant", PLAIN)
def test_its_runs_predict_and_are_explained(work: Path, variant: str) -> None:
    run = run_of(work, variant)
    done = leukotree("predict", run, "other/manifest.csv", "--out", f"{variant}.csv", cwd=work)
    assert done.returncode == 0, done.stderr
    assert len((work / f"{variant}.csv").read_text().splitlines()) == 29
    done = leukotree("explain", run, "--images", "2", "--methods", "gradcam", "--road", "0", cwd=work)
    assert done.returncode == 0, done.stderr


def test_all_arms_are_evaluated_on_other_data(work: Path) -> None:
    done = leukotree("evaluate", "study.yaml", "other shards", cwd=work)
    assert done.returncode == 0, done.stderr
    written = [path.name for path in (work / RUNS / "external").rglob("*.parquet")]
    assert sorted(name.split("-")[0] for name in written) == sorted(2 * VARIANTS)


def test_logistic_is_exported_and_neighbours_are_refused(work: Path) -> None:
    done = leukotree("export", run_of(work, "logistic"), "exported", cwd=work)
    assert done.returncode == 0, done.stderr
    assert (
        "a logistic regression on features of a frozen backbone, C 1"
        in (work / "exported" / "README.md").read_text()
    )
    done = leukotree("export", run_of(work, "neighbours"), "nothing", cwd=work)
    assert_refused(done, "neighbours asks the training images", "logistic or flat")


def test_a_bench_of_steps_refuses_it(work: Path) -> None:
    assert_refused(leukotree("bench", run_of(work, "logistic") / "spec.yaml", cwd=work), "has no steps")


def test_it_is_fitted_again_on_all_patients(work: Path) -> None:
    done = leukotree("refit", "study.yaml", "--variant", "logistic", "--on", "inline", cwd=work)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow("a sweep with Ray")
def test_a_sweep_searches_what_is_theirs(work: Path) -> None:
    study = yaml.safe_load((work / "study.yaml").read_text())
    study["study"] = "searched"
    study["base"]["optim"]["epochs"] = 4
    study["search"] = {
        "trials": 3,
        "nested": False,
        "grace": 1,
        "space": {"optim.lr": {"loguniform": [1e-4, 1e-2]}, "plain.k": {"choice": [3, 5, 9]}},
    }
    (work / "searched.yaml").write_text(yaml.safe_dump(study))
    done = leukotree("sweep", "searched.yaml", "--dry-run", cwd=work)
    assert done.returncode == 0, done.stderr
    done = leukotree("sweep", "searched.yaml", cwd=work)
    assert done.returncode == 0, done.stderr
    root = work / "results/runs/searched"
    sizes = {}
    for variant in VARIANTS:
        folder = searchfolder.search_folder(root, variant, None)
        best = yaml.safe_load((folder / "best.yaml").read_text())
        sizes[variant] = best["trials"], sorted(best["chosen"])
    assert sizes == {
        "flat": (3, ["optim.lr"]),
        "logistic": (1, []),
        "neighbours": (3, ["plain.k"]),
    }
    for command in (["status", "searched.yaml", "--json"], ["folds", "searched.yaml", "--on", "inline"]):
        done = leukotree(*command, cwd=work)
        assert done.returncode == 0, done.stderr
    done = leukotree("report", "searched.yaml", "--out", "searched report", cwd=work)
    assert done.returncode == 0, done.stderr
