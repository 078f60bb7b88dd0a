"""A grid over label trees by the command line: flat is trained once, the report places the tree, and what
cannot be is refused before any run."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from leukotree.data.pack import pack
from tests.helpers.commandline import assert_refused, leukotree
from tests.helpers.study_results import section, table_row

pytestmark = pytest.mark.slow("trains a grid")

HERE = ("--on", "inline", "--device", "cpu", "--threads", "1", "--workers", "0")
TREES: list[Any] = ["data", {"permuted": 1}, "permuted:2"]
OTHER = {"top": {"one": ["normal", "AML", "CLL", "absent"], "two": ["reactive", "ALL", "APML", "CML"]}}


def _write(project: Path, **fields: Any) -> None:
    study = {
        "study": "mine",
        "base": {
            "data": {"shards": "data/my"},
            "backbone": {"name": "test_resnet"},
            "optim": {"epochs": 1, "batch_size": 16, "lr": 3e-3},
            "engine": {"precision": "fp32"},
        },
        "variants": ["flat", "multilabel"],
        "folds": {"outer": 2},
        "seeds": [0],
        "grid": {"tree": [*TREES, "trees/other.yaml"]},
        "primary": [["multilabel tree=data", "flat"]],
    }
    (project / "study.yaml").write_text(yaml.safe_dump(study | fields))


@pytest.fixture(scope="module")
def finished(phantom_manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = tmp_path_factory.mktemp("trees") / "project"
    (project / "trees").mkdir(parents=True)
    (project / "trees/other.yaml").write_text(yaml.safe_dump(OTHER))
    pack(phantom_manifest, project / "data/my", folds=2, size=32)
    _write(project)
    done = leukotree("grid", "study.yaml", *HERE, cwd=project)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 runs done, 0 failed" in done.stdout  # four trees of multilabel and one flat, on two folds
    return project


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "project", symlinks=True))


def test_flat_is_trained_once_and_arms_are_named_by_their_trees(finished: Path) -> None:
    cells = pd.read_csv(finished / "results/runs/mine/cells.csv", keep_default_na=False)
    assert set(zip(cells["variant"], cells["tree"], strict=True)) == {
        ("flat", ""),
        *(("multilabel", tree) for tree in ("data", "permuted:1", "permuted:2", "trees/other.yaml")),
    }
    done = leukotree("grid", "study.yaml", *HERE, "--dry-run", cwd=finished)
    assert "0 of 10 runs are missing" in done.stdout


def test_the_report_places_the_tree(finished: Path) -> None:
    done = leukotree("report", "study.yaml", cwd=finished)
    assert done.returncode == 0, done.stderr
    folder = finished / "results/mine"
    markdown = (folder / "report.md").read_text()
    part = section(markdown, "Is it the tree?")
    assert "`multilabel`, tree `data`: " in part
    row = table_row(part.join(["\n## x\n", "\n"]), "x", "multilabel", "data")
    assert row[3] in ("1 of 3", "2 of 3", "3 of 3")
    assert row[5] == "0.333"
    assert "no permuted tree has their shape: multilabel tree=trees/other.yaml" in part
    assert (folder / "figures/trees.png").exists()
    for arm in ("flat", "multilabel tree=permuted:1", "multilabel tree=trees/other.yaml"):
        assert arm in section(markdown, "Runs")
    [copied] = folder.glob("tree-other-*.yaml")
    tree = yaml.safe_load(copied.read_text())
    assert list(tree["top"]["one"]) == ["normal", "AML", "CLL"]
    assert copied.name in section(markdown, "Reproduce")


def test_the_report_is_the_same_without_the_shards(project: Path) -> None:
    leukotree("report", "study.yaml", cwd=project)
    before = section((project / "results/mine/report.md").read_text(), "Is it the tree?")
    shutil.rmtree(project / "data/my")
    done = leukotree("report", "study.yaml", cwd=project)
    assert done.returncode == 0, done.stderr
    assert section((project / "results/mine/report.md").read_text(), "Is it the tree?") == before


def test_a_changed_file_makes_its_runs_stale(project: Path) -> None:
    path = project / "trees/other.yaml"
    path.write_text("# only a comment\n" + path.read_text())
    assert leukotree("report", "study.yaml", cwd=project).returncode == 0
    changed = {"top": {"one": ["normal", "AML", "APML"], "two": ["reactive", "ALL", "CLL", "CML"]}}
    path.write_text(yaml.safe_dump(changed))
    says = "made on another label tree than trees/other.yaml has now"
    for verb, options in (("grid", HERE), ("report", ())):
        assert_refused(leukotree(verb, "study.yaml", *options, cwd=project), "multilabel-", says)
    states = json.loads(leukotree("status", "mine", "--json", cwd=project).stdout)
    stale = [run for run in states if run["state"] == "stale"]
    assert len(stale) == 2
    assert all(says in run["message"] for run in stale)
    path.unlink()
    done = leukotree("report", "study.yaml", cwd=project)
    assert done.returncode == 0, done.stderr
    text = " ".join((project / "results/mine/report.md").read_text().split())
    assert "the tree (trees/other.yaml is not here)" in text


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"grid": {"tree": ["data", "paper"]}}, "data and paper are the same tree"),
        ({"grid": {"tree": ["data", None]}}, "a value occurs twice"),
        ({"grid": {"tree": ["permuted:1", {"permuted": 1}]}}, "a value occurs twice"),
        ({"grid": {"tree": ["data", "permuted"]}}, "expected permuted:SEED"),
        ({"grid": {"tree": ["data", "absent.yaml"]}}, "absent.yaml: cannot be read"),
        ({"grid": {"tree": ["data", "short.yaml"]}}, "short.yaml: has no leaf 'normal'"),
        (
            {"grid": {"tree": ["data", "permuted:1"]}, "variants": ["flat"], "primary": None},
            "has no effect in flat",
        ),
        ({"grid": None, "search": {"space": {"tree": {"choice": ["data", "paper"]}}}}, "cannot be varied"),
    ],
)
def test_what_cannot_be_is_refused_before_any_run(
    finished: Path, tmp_path: Path, fields: dict[str, Any], says: str
) -> None:
    (tmp_path / "data").symlink_to(finished / "data")
    (tmp_path / "short.yaml").write_text("top: [AML, ALL]")
    _write(tmp_path, **({"primary": None} | fields))
    assert_refused(leukotree("grid", "study.yaml", *HERE, cwd=tmp_path), says)
    assert not (tmp_path / "results").exists()


def test_the_doctor_looks_at_trees(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(finished / "data")
    _write(tmp_path, grid={"tree": ["data", "permuted:1", "short.yaml"]}, primary=None)
    (tmp_path / "short.yaml").write_text("top: [AML, ALL]")
    done = leukotree("doctor", "study.yaml", cwd=tmp_path)
    lines = [line for line in done.stdout.splitlines() if re.match(r"(ok|FAIL) +tree: ", line)]
    assert lines[0].startswith("ok    tree: permuted:1 over data/my: 7 leaves, 4 decisions")
    assert lines[1].startswith("FAIL  tree: short.yaml: has no leaf 'normal'")


def test_one_run_takes_its_tree_from_the_command_line(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(finished / "data")
    changes = ["data.shards=data/my", "backbone.name=test_resnet", "optim.epochs=1"]
    (tmp_path / "run.yaml").write_text("variant: multilabel\n")
    for word in ("tree=permuted:2", "tree.permuted=2", "tree={permuted: 2}"):
        done = leukotree("train", "run.yaml", *changes, word, "--device", "cpu", "--threads", 1, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    [folder] = (tmp_path / "results/runs/single").glob("multilabel-*")
    assert yaml.safe_load((folder / "spec.yaml").read_text())["tree"] == "permuted:2"
    assert list(json.loads((folder / "taxonomy.json").read_text())) == ["root"]
