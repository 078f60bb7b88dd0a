"""`leukotree explain`: a run, a study, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from leukotree.records import explanations
from leukotree.training.run import run
from tests.helpers.commandline import assert_refused, leukotree
from tests.helpers.specs import tiny_spec

pytestmark = pytest.mark.slow("trains models and explains them")
FEW = ("--images", 4, "--methods", "gradcam", "--road", 0, "--panels", 0, "--device", "cpu", "--workers", 0)


@pytest.fixture(scope="module")
def place(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study of two finished runs, and one that has not ended."""
    place = tmp_path_factory.mktemp("work")
    root = place / "results" / "runs" / "mine"
    for variant in ("flat", "multilabel"):
        run(tiny_spec(shards, {"variant": variant}), root)
    begun = root / "flat-000000000000"
    begun.mkdir()
    (begun / "spec.yaml").write_text(tiny_spec(shards).dump())
    return place


def test_a_study_has_its_finished_runs_explained(place: Path, phantom_manifest: Path) -> None:
    done = leukotree("explain", "mine", "--masks", phantom_manifest, *FEW, cwd=place)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all("4 images, 4 with a mask; gradcam: energy in mask 0." in line for line in lines)
    tables = sorted((place / "results/runs/mine").glob("*/explanations.parquet"))
    assert len(tables) == 2
    again = leukotree("explain", "mine", "--masks", phantom_manifest, *FEW, cwd=place)
    assert again.stdout.count("(was done)") == 2
    answers = json.loads(leukotree("explain", "mine", "--json", *FEW, cwd=place).stdout)
    assert [answer["with_mask"] for answer in answers] == [0, 0]


def test_a_run_is_explained_by_its_folder(place: Path) -> None:
    (folder,) = (place / "results/runs/mine").glob("multilabel-*")
    done = leukotree("explain", folder, *FEW, cwd=place)
    assert done.returncode == 0, done.stderr
    assert len(explanations.read(folder / "explanations.parquet")["key"].unique()) == 4


def test_bad_input_is_refused_before_anything_is_written(place: Path) -> None:
    root = place / "results/runs/mine"
    begun = root / "flat-000000000000"
    for words, says in (
        (("nothing",), "no study that has begun"),
        ((begun,), "is not done (not begun)"),
        (("mine", "seed=3"), "changes a study's file, and mine is a name"),
        ((next(root.glob("multilabel-*")), "seed=3"), "is a run"),
        (("mine", "--masks", "gone.csv"), "gone.csv: no such file"),
        (("mine", "--data", "gone"), "gone: no such folder or file"),
        (("mine", "--methods", "gradcam,magic"), "no method 'magic'"),
    ):
        assert_refused(leukotree("explain", *words, cwd=place), says)
    assert not (begun / "explanations").exists()
    empty = place / "results/runs/empty"
    empty.mkdir()
    assert_refused(leukotree("explain", "empty", cwd=place), "has no finished run of an outer fold")
