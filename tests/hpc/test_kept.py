"""Shards, searches and runs that an earlier version wrote are read, continued and reported by this one."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.helpers.commandline import leukotree

pytestmark = pytest.mark.slow("continues stored runs")

KEPT = sorted((Path(__file__).parents[1] / "kept").glob("*.tar.xz"))
RUNS = Path("results/runs/kept")
RUN = RUNS / "flat-7279b893ac5b"


@pytest.fixture(params=KEPT, ids=lambda path: path.name.removesuffix(".tar.xz"))
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    with tarfile.open(request.param) as tar:
        tar.extractall(tmp_path, filter="data")
    return tmp_path


def files(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_what_is_done_stays_done_and_is_reported(kept: Path) -> None:
    before = files(kept / RUNS)
    for command in (
        ["sweep", "study.yaml"],
        ["folds", "study.yaml", "--on", "inline"],
        ["report", "study.yaml"],
    ):
        done = leukotree(*command, cwd=kept)
        assert done.returncode == 0, done.stderr
    after = files(kept / RUNS)
    changed = {name for name, data in before.items() if after.get(name) != data}
    assert not changed
    report = (kept / "results/kept/report.md").read_text()
    assert all(path.name.split("-")[1] in report for path in (kept / RUNS).glob("*-*"))


def test_an_unfinished_run_is_trained_to_the_same_end(kept: Path) -> None:
    before = pd.read_parquet(kept / RUN / "predictions.parquet")
    (kept / RUN / "predictions.parquet").unlink()
    (kept / RUN / "status.json").write_text(json.dumps({"state": "preempted", "kind": "preempted"}))
    done = leukotree("folds", "study.yaml", "--on", "inline", cwd=kept)
    assert done.returncode == 0, done.stderr
    after = pd.read_parquet(kept / RUN / "predictions.parquet")
    logp = [name for name in before if name.startswith("logp:")]
    pd.testing.assert_frame_equal(before.drop(columns=logp), after[before.columns].drop(columns=logp))
    np.testing.assert_allclose(before[logp], after[logp], atol=1e-3)  # other processors round otherwise
    assert len((kept / RUN / "attempts.jsonl").read_text().splitlines()) == 2


def test_a_search_that_was_cut_short_goes_on_and_chooses_the_same(kept: Path) -> None:
    search = kept / RUNS / "search" / "flat" / "fold0"
    before = (search / "best.yaml").read_text()
    trials = (search / "trials.jsonl").read_text()
    (search / "best.yaml").unlink()
    (search / "trials.jsonl").write_text("".join(line + "\n" for line in trials.splitlines()[:-1]))
    shutil.rmtree(search / "runs" / "00001")
    done = leukotree("sweep", "study.yaml", cwd=kept)
    assert done.returncode == 0, done.stderr
    without_times = [line for line in before.splitlines() if "seconds" not in line]
    assert [
        line for line in (search / "best.yaml").read_text().splitlines() if "seconds" not in line
    ] == without_times


def test_a_search_keeps_its_draws_and_draws_on_for_its_own_fold(kept: Path) -> None:
    """Version 0.1.0 drew the same values in all folds. The report warns of the draws that are left of it."""
    search = kept / RUNS / "search" / "flat" / "fold1"
    before = [json.loads(line) for line in (search / "trials.jsonl").read_text().splitlines()]
    first = [line for line in before if line["trial"] == 0]
    (search / "trials.jsonl").write_text("".join(json.dumps(line) + "\n" for line in first))
    history = (search / "history.csv").read_text().splitlines()
    (search / "history.csv").write_text("".join(f"{line}\n" for line in history if not line.startswith("1,")))
    for name in ("best.yaml", "trials.csv", "reruns.jsonl"):
        (search / name).unlink()
    for folder in (search / "runs" / "00001", search / "reruns"):
        shutil.rmtree(folder)
    for command in (["sweep", "study.yaml"], ["report", "study.yaml"]):
        done = leukotree(*command, cwd=kept)
        assert done.returncode == 0, done.stderr
    after = [json.loads(line) for line in (search / "trials.jsonl").read_text().splitlines()]
    earlier, drawn = ([line["chosen"] for line in lines if "chosen" in line] for lines in (before, after))
    assert drawn[0] == earlier[0]
    assert drawn[1] != earlier[1]
    report = (kept / "results/kept/report.md").read_text()
    assert "Outer folds share draws: 3 of 8 trials" in report


def test_packing_the_same_images_again_is_answered_and_changes_nothing(kept: Path) -> None:
    before = files(kept / "shards")
    done = leukotree("pack", "images/manifest.csv", "shards", "--size", "32", "--folds", "2", cwd=kept)
    assert done.returncode == 0, done.stderr
    after = files(kept / "shards")
    assert {name: data for name, data in after.items() if name != "made.json"} == before
