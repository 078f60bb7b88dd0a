"""The commands that a report prints make the same runs again, from the raw images on, in an empty folder."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from tests.helpers.commandline import leukotree

pytestmark = pytest.mark.slow("trains a study twice")

LEAVES = ("normal", "reactive", "AML", "APML")
STUDY = {
    "base": {
        "data": {"shards": "data/packed"},
        "backbone": {"name": "test_vit"},
        "optim": {"epochs": 1, "batch_size": 8, "lr": 1e-3},
        "engine": {"precision": "fp32"},
    },
    "variants": ["flat"],
    "folds": {"outer": 2, "inner": 2},
}
SEARCH = {
    "trials": 2,
    "nested": False,
    "algorithm": "random",
    "scheduler": "none",
    "space": {"optim.lr": {"choice": [1e-3, 1e-4]}},
}


def draw(folder: Path) -> None:
    """Four leaves of four patients with two images each."""
    rng = np.random.default_rng(0)
    for leaf in LEAVES:
        for patient in range(4):
            place = folder / leaf / f"{leaf}{patient}"
            place.mkdir(parents=True)
            for number in range(2):
                Image.fromarray(rng.integers(0, 255, (48, 48, 3), dtype=np.uint8)).save(
                    place / f"{number}.png"
                )


def run(line: str, cwd: Path) -> None:
    program, *words = shlex.split(line, comments=True)
    assert program == "leukotree"
    if words[0] in ("train", "sweep", "folds", "grid"):
        words += [
            "--device",
            "cpu",
            "--threads",
            "1",
            *(["--concurrency", "1"] if words[0] == "sweep" else []),
        ]
        words += ["--on", "inline"] if words[0] in ("folds", "grid") else []
    done = leukotree(*words, cwd=cwd)
    assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"


def commands(folder: Path) -> list[str]:
    """The lines of the report's block of commands."""
    text = (folder / "report.md").read_text()
    return re.search(r"```\n(.*?)```", text.partition("\n## Reproduce\n")[2], re.DOTALL)[1].splitlines()  # type: ignore[index]


def scores(home: Path, study: str) -> dict[str, pd.DataFrame]:
    """Run name -> its predictions."""
    found = (home / "results" / "runs" / study).glob("*/predictions.parquet")
    return {path.parent.name: pd.read_parquet(path) for path in found}


@pytest.fixture
def homes(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders with the same images."""
    draw(tmp_path / "one" / "images")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    return tmp_path / "one", tmp_path / "two"


def same(one: Path, two: Path, study: str) -> None:
    before, after = scores(one, study), scores(two, study)
    assert before.keys() == after.keys()
    assert before
    for name, frame in before.items():
        pd.testing.assert_frame_equal(frame, after[name])


def test_a_grid_with_changes_in_two_commands(homes: tuple[Path, Path]) -> None:
    """One cell's values and the number of epochs come by the command; the study's file is edited after the
    runs."""
    one, two = homes
    (one / "my studies").mkdir()
    file = one / "my studies" / "a.yaml"
    file.write_text("# by hand\n" + yaml.safe_dump({"study": "grid", **STUDY, "search": {"trials": 0}}))
    data = [
        "leukotree import folder images data/all.csv",
        "leukotree pack data/all.csv data/packed --folds 2 --size 32 --seed 3",
    ]
    (one / "data").mkdir()
    changes = "base.optim.epochs=2"
    grids = [
        f"leukotree grid 'my studies/a.yaml' {changes} 'grid.optim.lr={values}'"
        for values in ("[0.001]", "[0.001, 0.01]")
    ]
    for line in (*data, *grids):
        run(line, one)
    given = file.read_bytes()
    file.write_text(file.read_text() + "rope: 0.02\n")
    run(f"leukotree report 'my studies/a.yaml' {changes} 'grid.optim.lr=[0.001, 0.01]'", one)

    out = one / "results" / "grid"
    printed = commands(out)
    copy = next(out.glob("a-*.yaml"))
    assert copy.read_bytes() == given
    assert printed[:4] == [
        *data,
        *(grid.replace("'my studies/a.yaml'", f"results/grid/{copy.name}") for grid in grids),
    ]
    assert printed[4] == f"leukotree report 'my studies/a.yaml' {changes} 'grid.optim.lr=[0.001, 0.01]'"
    assert (out / "study.yaml").read_bytes() == file.read_bytes()
    assert str(one) not in (out / "report.md").read_text()

    # What a reader has: the report's folder, the study's file and the images.
    shutil.copytree(out, two / "results" / "grid")
    shutil.copytree(one / "my studies", two / "my studies")
    (two / "data").mkdir()
    for line in printed:
        run(line, two)
    same(one, two, "grid")
    assert commands(two / "results" / "grid") == printed


def test_a_search_its_folds_and_the_report(homes: tuple[Path, Path]) -> None:
    one, two = homes
    (one / "study.yaml").write_text(yaml.safe_dump({"study": "mine", **STUDY, "search": SEARCH}))
    lines = [
        "leukotree import folder images all.csv",
        "leukotree pack all.csv data/packed --folds 2 --size 32",
        "leukotree sweep study.yaml search.trials=1",
        "leukotree folds study.yaml search.trials=1",
        "leukotree report study.yaml search.trials=1",
    ]
    for line in lines:
        run(line, one)
    printed = commands(one / "results" / "mine")
    assert printed[:-1] == lines
    assert printed[-1].startswith("leukotree train results/runs/mine/flat-")
    shutil.copy(one / "study.yaml", two / "study.yaml")
    for line in printed:
        run(line, two)
    same(one, two, "mine")


def test_a_command_that_is_refused_is_not_kept_and_one_that_goes_on_once(homes: tuple[Path, Path]) -> None:
    one, _ = homes
    (one / "study.yaml").write_text(yaml.safe_dump({"study": "mine", **STUDY, "search": {"trials": 0}}))
    for line in (
        "leukotree import folder images all.csv",
        "leukotree pack all.csv data/packed --folds 2 --size 32",
    ):
        run(line, one)
    assert leukotree("folds", "study.yaml", "base.optim.lr=-1", cwd=one).returncode == 2
    assert leukotree("folds", "study.yaml", "--dry-run", cwd=one).returncode == 0
    assert not (one / "results").exists()
    for _ in range(2):
        run("leukotree folds study.yaml", one)
    [row] = map(json.loads, (one / "results" / "runs" / "mine" / "commands.jsonl").read_text().splitlines())
    assert (row["verb"], row["file"], row["overrides"], len(row["runs"])) == ("folds", "study.yaml", [], 2)


def test_an_edited_manifest_is_not_reported_as_imported(homes: tuple[Path, Path]) -> None:
    one, _ = homes
    run("leukotree import folder images all.csv", one)
    rows = (one / "all.csv").read_text().splitlines()
    (one / "all.csv").write_text("\n".join(rows[:-1]) + "\n")
    run("leukotree pack all.csv packed --folds 2 --size 32", one)
    [note] = json.loads((one / "packed" / "made.json").read_text())["commands"]
    assert note["words"][:2] == ["pack", "all.csv"]


def test_packing_again_keeps_the_first_note_and_the_identity(homes: tuple[Path, Path]) -> None:
    from leukotree.data.dataset import Dataset

    one, two = homes
    for home, manifest in ((one, "all.csv"), (two, "other.csv")):
        run(f"leukotree import folder images {manifest}", home)
        run(f"leukotree pack {manifest} packed --folds 2 --size 32", home)
    run("leukotree pack all.csv packed --folds 2 --size 32 --workers 1", one)
    notes = json.loads((one / "packed" / "made.json").read_text())["commands"]
    assert [note["words"][0] for note in notes] == ["import", "pack"]
    assert "--workers" not in notes[1]["words"]
    assert Dataset.open(one / "packed").fingerprint == Dataset.open(two / "packed").fingerprint


def test_a_home_folder_is_a_tilde(homes: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from leukotree.report.sections.reproduce import shlex_line

    one, _ = homes
    monkeypatch.setenv("HOME", str(one))
    assert leukotree("import", "folder", one / "images", one / "my data.csv", cwd=one).returncode == 0
    assert (
        leukotree("pack", one / "my data.csv", "packed", "--folds", "2", "--size", "32", cwd=one).returncode
        == 0
    )
    notes = json.loads((one / "packed" / "made.json").read_text())["commands"]
    lines = [shlex_line(["leukotree", *note["words"]]) for note in notes]
    assert lines[0] == "leukotree import folder ~/images ~/'my data.csv'"
    assert str(one) not in (one / "packed" / "made.json").read_text()
