"""`leukotree new-study` writes a file that parses, says what it costs, and overwrites nothing."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from hpc.studies import new
from hpc.studies import study as studies
from hpc.verbs import writing
from tests.helpers.commandline import assert_refused, leukotree


def test_the_kinds_of_the_command_are_those_of_the_files() -> None:
    assert tuple(new.KINDS) == writing.LIKE


@pytest.mark.parametrize("like", new.KINDS)
def test_each_kind_parses_and_its_next_command_runs(like: str, shards: Path, tmp_path: Path) -> None:
    (tmp_path / "sweeps").mkdir()
    done = leukotree("new-study", "mine", "--shards", shards, "--like", like, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    file = tmp_path / "sweeps/mine.yaml"
    text = file.read_text()
    plan = studies.load(file)
    assert (plan.study, plan.folds.outer, plan.base.data.shards) == ("mine", 4, str(shards))
    assert all(f"# {word}:" in text for word in ("Costs", "Data", "Check", "Run", "Change"))
    assert "168 images, 28 patients" in text
    first, second = done.stdout.splitlines()
    assert first.startswith("sweeps/mine.yaml: ")
    assert first.partition(": ")[2] in text
    changes = ["base.backbone.name=test_vit", "base.backbone.weights=null"]
    words = shlex.split(second.removeprefix("next: leukotree "))
    tried = leukotree(*words, *changes, cwd=tmp_path)
    assert tried.returncode == 0, tried.stderr
    assert not (tmp_path / "results").exists()


def test_the_costs_are_those_of_the_dry_run(shards: Path, tmp_path: Path) -> None:
    leukotree("new-study", "mine", "--shards", shards, "--like", "flat", cwd=tmp_path)
    written = re.search(
        r"# Costs: +(\d+) runs of (\d+) epochs: (\S+) million images", (tmp_path / "mine.yaml").read_text()
    )
    assert written
    tried = leukotree("folds", "mine.yaml", "--dry-run", cwd=tmp_path)
    assert f"{written[1]} trainings of {written[2]} epochs" in tried.stdout
    assert float(written[3]) == pytest.approx(4 * 8 * 168 * 3 / 4 / 1e6, rel=0.05)


def test_the_costs_of_a_search_count_each_trial(shards: Path, tmp_path: Path) -> None:
    written = new.write("mine", str(shards), "compare", tmp_path / "mine.yaml")
    assert written.costs.startswith(
        "8 trials x 12 searches x 2 inner folds x 8 epochs at most, then 12 runs of 8"
    )
    images = 168 * 3 / 4
    total = 12 * 8 * 2 * 8 * images / 2 + 12 * 8 * images
    assert f": {total / 1e6:.2g} million images" in written.costs


@pytest.mark.parametrize("name", ["mine", "a.b-c_d"])
def test_a_file_with_spaces_in_its_path_is_quoted(name: str, shards: Path, tmp_path: Path) -> None:
    done = leukotree("new-study", name, "--shards", shards, "--file", "my studies/ä.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "next: leukotree sweep 'my studies/ä.yaml' --dry-run" in done.stdout
    assert studies.load(tmp_path / "my studies/ä.yaml").study == name


def test_shards_with_odd_names_are_quoted(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "# {a}: b").symlink_to(shards)
    done = leukotree("new-study", "mine", "--shards", "# {a}: b", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert studies.load(tmp_path / "mine.yaml").base.data.shards == "# {a}: b"


def test_nothing_is_overwritten(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("mine")
    (tmp_path / "results/runs/yours").mkdir(parents=True)
    (tmp_path / "theirs.yaml").symlink_to(tmp_path / "gone.yaml")
    for name, says in (("mine", "mine.yaml"), ("yours", "results/runs/yours"), ("theirs", "theirs.yaml")):
        assert_refused(leukotree("new-study", name, "--shards", shards, cwd=tmp_path), says, "choose another")
    assert (tmp_path / "mine.yaml").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.yaml", "results", "theirs.yaml"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["mine", "--shards", "none"], "none: no such folder; write it with `leukotree pack"),
        (["a/b", "--shards", "none"], "expected a name of letters"),
        (["mine"], "--shards"),
        (["mine", "--shards", "none", "--like", "best"], "--like"),
    ],
)
def test_bad_input_writes_nothing(words: list[str], says: str, tmp_path: Path) -> None:
    assert_refused(leukotree("new-study", *words, cwd=tmp_path), says)
    assert not list(tmp_path.iterdir())


def test_the_header_names_the_schema_where_it_is(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    schema = tmp_path / new.SCHEMA
    schema.parent.mkdir(parents=True)
    schema.write_text("{}")
    Path("sweeps").mkdir()
    text = new.write("mine", str(shards), "flat").path.read_text()
    [named] = re.findall(r"\$schema=(\S+)", text)
    assert (tmp_path / "sweeps" / named).resolve() == schema
