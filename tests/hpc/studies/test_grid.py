"""A study's grid: products, zips, exclusions, and what differs between its cells."""

from __future__ import annotations

import csv
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hpc import collected
from hpc.cli import main
from hpc.studies import cells, study
from hpc.studies.grid import Grid
from hpc.studies.study import Study
from leukotree.config import parse
from leukotree.errors import InputError


def plan(**grid: Any) -> Study:
    return parse(
        Study, {"study": "ablation", "folds": {"outer": 2}, "seeds": [0, 1], "grid": grid}, "mine.yaml"
    )


def combinations(**grid: Any) -> list[dict[str, Any]]:
    return parse(Grid, grid, "grid").combinations()


def test_a_grid_has_all_combinations_of_values() -> None:
    assert combinations(**{"loss.gamma": [0, 2], "loss.tau": [0, 1]}) == [
        {"loss.gamma": 0, "loss.tau": 0},
        {"loss.gamma": 0, "loss.tau": 1},
        {"loss.gamma": 2, "loss.tau": 0},
        {"loss.gamma": 2, "loss.tau": 1},
    ]


def test_zipped_keys_advance_together() -> None:
    zipped = {"optim.lr": [1e-4, 1e-3], "optim.epochs": [80, 20]}
    assert combinations(**{"loss.gamma": [0, 2]}, zip=[zipped]) == [
        {"loss.gamma": gamma, "optim.lr": lr, "optim.epochs": epochs}
        for gamma in (0, 2)
        for lr, epochs in [(1e-4, 80), (1e-3, 20)]
    ]


def test_runs_are_cells_by_variants_by_folds_by_seeds_without_excluded_ones() -> None:
    expanded = cells.expand(plan(**{"loss.gamma": [0, 2]}, exclude=[{"variant": "flat", "loss.gamma": 2}]))
    assert len(expanded) == (2 * 3 - 1) * 2 * 2
    assert {(cell.spec.variant, cell.spec.loss.gamma) for cell in expanded} == {
        (variant, gamma) for variant in ("flat", "base", "multilabel") for gamma in (0, 2)
    } - {("flat", 2)}
    assert len({cell.run_name for cell in expanded}) == len(expanded)


def test_each_repeat_has_all_cells_and_repeat_0_is_as_without_repeats() -> None:
    once = plan(**{"loss.gamma": [0, 2]})
    twice = once.model_copy(update={"folds": once.folds.model_copy(update={"repeats": 2})})
    first, rows = cells.expand(once), cells.rows(cells.expand(twice))
    assert len(rows) == 2 * len(first)
    assert {row["run_name"] for row in rows if row["repeat"] == 0} == {cell.run_name for cell in first}
    assert {(row["repeat"], row["test_fold"]) for row in rows} == {(r, f) for r in (0, 1) for f in (0, 1)}


def test_the_same_run_is_done_once() -> None:
    """Two values may be equal after the run spec has read them: 2 and 2.0."""
    expanded = cells.expand(plan(**{"loss.gamma": [2, 2.0, 3]}))
    assert len(expanded) == 2 * 3 * 2 * 2


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=4, unique=True),
    st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True),
    st.integers(1, 3),
)
def test_a_grid_has_as_many_cells_as_its_values_multiply_to(
    gammas: list[int], seeds: list[int], outer: int
) -> None:
    fields = {
        "study": "x",
        "variants": ["flat"],
        "folds": {"outer": outer + 1},
        "seeds": seeds,
        "grid": {"loss.gamma": gammas},
    }
    expanded = cells.expand(parse(Study, fields, "x"))
    assert (
        len({cell.run_name for cell in expanded}) == len(expanded) == len(gammas) * len(seeds) * (outer + 1)
    )


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"loss.gama": [1]}, r"grid\.loss\.gama: no key of a run spec, did you mean 'loss\.gamma'\?"),
        ({"loss.gamma": [-1]}, r"grid\.loss\.gamma: .*greater than or equal to 0"),
        ({"loss.gamma": 1}, r"loss\.gamma: expected a list of values"),
        ({"loss.gamma": []}, r"loss\.gamma: has no values"),
        ({"loss.gamma": [1, 1]}, r"loss\.gamma: a value occurs twice"),
        ({"seed": [1, 2]}, r"grid\.seed: cannot be varied, the study's `seeds` decides it"),
        ({"data.test_fold": [1]}, r"grid\.data\.test_fold: cannot be varied"),
        ({"loss.gamma": [1], "zip": [{"loss.gamma": [2]}]}, r"loss\.gamma: occurs twice in the grid"),
        (
            {"zip": [{"loss.gamma": [1, 2], "loss.tau": [1]}]},
            r"equally many values: loss\.gamma has 2, loss\.tau has 1",
        ),
        ({"loss.gamma": [1], "exclude": [{"loss.tau": 1}]}, r"exclude\.0\.loss\.tau: not a key of this grid"),
        (
            {"loss.gamma": [1], "exclude": [{"loss.gamma": 2}]},
            r"exclude\.0\.loss\.gamma: 2 is not one of its values \[1\]",
        ),
        ({"loss.gamma": [1], "exclude": [{}]}, r"exclude\.0: names no key"),
        (
            {key: [*range(1, 101)] for key in ("optim.lr", "optim.epochs", "loss.gamma")},
            r"1,000,000 cells; a grid has at most",
        ),
        ({"loss.gamma": [1], "zip": {"loss.tau": [1]}}, r"grid\.zip: .*list"),
    ],
)
def test_a_bad_grid_is_one_line_that_names_the_key(grid: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"mine.yaml: .*{message}") as caught:
        plan(**grid)
    assert "\n" not in str(caught.value)


def test_excluding_everything_is_refused() -> None:
    with pytest.raises(InputError, match="leaves nothing of the grid"):
        cells.expand(plan(**{"loss.gamma": [1]}, exclude=[{"loss.gamma": 1}]))
    with pytest.raises(InputError, match="no grid; give `grid` at least one key"):
        cells.expand(parse(Study, {"study": "x"}, "x"))


def test_a_grid_survives_being_written() -> None:
    one = plan(
        **{"loss.gamma": [0, 2]}, zip=[{"loss.tau": [0, 1]}], exclude=[{"loss.gamma": 2, "loss.tau": 1}]
    )
    written = yaml.safe_dump(one.model_dump(mode="json", exclude_defaults=True))
    assert parse(Study, yaml.safe_load(written), "again") == one


@pytest.fixture
def file(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    base = {
        "data": {"shards": str(shards)},
        "backbone": {"name": "test_vit"},
        "engine": {"precision": "fp32"},
        "optim": {"epochs": 1, "batch_size": 16},
    }
    fields = {"study": "ablation", "variants": ["flat", "multilabel"], "folds": {"outer": 4}, "base": base}
    path = tmp_path / "ablation.yaml"
    path.write_text(yaml.safe_dump({**fields, "grid": {"loss.gamma": [0, 2], "loss.tau": [0.5]}}))
    return path


def test_a_dry_run_shows_the_cells_with_the_keys_that_differ(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["grid", str(file), "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "2 cells, 16 runs"
    assert [line.split() for line in lines[1:4]] == [
        ["cell", "loss.gamma", "variants", "runs"],
        ["0", "0", "flat", "multilabel", "8"],
        ["1", "2", "flat", "multilabel", "8"],
    ]
    assert lines[-1] == "16 of 16 runs are missing"
    assert not (file.parent / "results").exists()
    assert main(["grid", str(file), "--dry-run", "--json", "grid.loss.gamma=[1,2,3]"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["runs"], len(answer["missing"])) == (24, 24)
    assert {row["loss.gamma"] for row in answer["cells"]} == {1, 2, 3}


def test_the_difference_between_cells_and_between_runs(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["grid", str(file), "--diff", "0", "1"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["key", "0", "1"]
    assert [row.split() for row in rows] == [["loss.gamma", "0.0", "2.0"]]
    assert main(["grid", str(file), "--diff", "0", "1", "grid.exclude=[{variant: flat, loss.gamma: 0}]"]) == 0
    assert [row.split()[0] for row in capsys.readouterr().out.splitlines()] == [
        "key",
        "loss.gamma",
    ]  # of a variant in both
    first, *_, last = cells.expand(study.load(file))
    assert main(["grid", str(file), "--diff", first.run_name, last.run_name]) == 0
    rows = capsys.readouterr().out.splitlines()[1:]
    assert {row.split()[0] for row in rows} == {"variant", "data.test_fold", "loss.gamma"}
    assert main(["grid", str(file), "--diff", "0", "flat-nope"]) == 2
    assert "--diff flat-nope: no cell of this grid" in capsys.readouterr().err


def test_a_bad_grid_is_refused_before_anything_is_written(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["grid", str(file), "grid.backbone.name=[test_vit,no_such_model]"]) == 2
    error = capsys.readouterr().err
    assert "no_such_model" in error
    assert error.count("\n") == 1
    assert main(["grid", str(file), "--on", "slurm", "--nodes", "3", "--ranks", "2"]) == 2
    assert "--ranks 2: do not divide over 3 nodes" in capsys.readouterr().err
    assert not (file.parent / "results").exists()


@pytest.mark.slow("trains a grid")
def test_a_grid_runs_its_cells_and_only_what_is_missing(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    smaller = [
        'variants=["flat"]',
        "grid.loss.gamma=[0]",
        "--on",
        "inline",
        "--device",
        "cpu",
        "--threads",
        "1",
    ]
    assert main(["grid", str(file), *smaller, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    with open(file.parent / "results/runs/ablation/cells.csv", newline="") as table:
        rows = list(csv.DictReader(table))
    assert sorted(row["run_name"] for row in rows) == sorted(answer["done"])
    assert {(row["cell"], row["variant"], row["loss.gamma"], row["loss.tau"]) for row in rows} == {
        ("0", "flat", "0", "0.5")
    }
    assert main(["grid", str(file), *smaller, "--dry-run"]) == 0
    assert capsys.readouterr().out.endswith("0 of 4 runs are missing\n")


ISOLATION = ["grid={loss.isolation: [shared, detached], loss.leader: [1, 2], loss.surgery: [pcgrad, upgrad]}"]


def test_values_without_effect_add_no_runs(file: Path) -> None:
    """Isolation has no effect in flat, the leader none with shared, surgery none in both."""
    expanded = cells.expand(study.load(file, ISOLATION))
    assert {(cell.spec.variant, *cell.values.items()) for cell in expanded} == {
        ("flat",),
        ("multilabel", ("loss.isolation", "shared")),
        ("multilabel", ("loss.isolation", "detached"), ("loss.leader", 1)),
        ("multilabel", ("loss.isolation", "detached"), ("loss.leader", 2)),
    }
    assert len(expanded) == 4 * 4
    table = [line.split() for line in cells.table(expanded)]
    assert table[1:4] == [
        ["cell", "loss.isolation", "loss.leader", "variants", "runs"],
        ["0", "shared", "-", "flat", "multilabel", "8"],
        ["4", "detached", "1", "multilabel", "4"],
    ]
    cells.write(file.parent, expanded)
    with open(file.parent / cells.FILE, newline="") as written:
        rows = list(csv.DictReader(written))
    assert {(row["variant"], row["loss.isolation"], row["loss.leader"]) for row in rows} == {
        ("flat", "", ""),
        ("multilabel", "shared", ""),
        ("multilabel", "detached", "1"),
        ("multilabel", "detached", "2"),
    }


def test_each_way_to_train_has_the_values_that_have_an_effect_there() -> None:
    """Also where the base has values that another way to train would refuse."""
    ways = {"backbone.train": ["all", "head", "last", "lora"], "backbone.lora.rank": [4, 8]}
    more = {"optim.layer_decay": [0.5, 1.0], "backbone.drop_path": [0.1]}
    study = parse(
        Study,
        {
            "study": "parts",
            "base": {"backbone": {"train": "last", "last": 3}},
            "variants": ["flat"],
            "folds": {"outer": 2},
            "grid": {**ways, **more},
        },
        "mine.yaml",
    )
    made = {cell.spec.run_name: cell.spec for cell in cells.expand(study) if cell.spec.data.test_fold == 0}
    assert len(made) == 2 + 1 + 2 + 4
    for spec in made.values():
        train = spec.backbone.train
        assert spec.backbone.last == (3 if train == "last" else 1)
        assert spec.backbone.drop_path == (0 if train == "head" else 0.1)
        assert train == "lora" or spec.backbone.lora.rank == 8


def test_a_key_of_another_way_to_train_is_refused() -> None:
    with pytest.raises(InputError) as error:
        plan(**{"backbone.lora.rank": [4, 8]})
    says = "grid.backbone.lora.rank: has no effect with backbone.train all; set it to lora"
    assert str(error.value).endswith(says)
    assert "\n" not in str(error.value)


@pytest.mark.slow("runs whole commands")
def test_a_cell_that_no_run_accepts_is_named(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grid", str(file), "grid={loss.kind: [focal, soft]}", 'variants=["flat", "base"]']) == 2
    error = capsys.readouterr().err
    reason = "loss.kind: soft needs all leaves in one model; base has one"
    assert f"no run can be {{variant: base, loss.kind: soft}} ({reason}" in error
    assert error.endswith("; leave it out by grid.exclude\n")
    assert error.count("\n") == 1
    excluded = "grid={loss.kind: [focal, soft], exclude: [{variant: base, loss.kind: soft}]}"
    assert main(["grid", str(file), excluded, 'variants=["flat", "base"]', "--dry-run"]) == 0


@pytest.mark.slow("trains a grid")
def test_a_report_has_the_cells_as_arms(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Variants with different decision rules are refused before anything is trained."""
    words = [str(file), "grid={loss.isolation: [shared, detached]}"]
    assert main(["report", *words]) == 2
    assert f"nothing to report yet; run `leukotree grid {shlex.join(words)}`" in capsys.readouterr().err
    for verb in ("grid", "report"):
        assert main([verb, *words, "decision={multilabel: joint}"]) == 2
        error = capsys.readouterr().err
        assert f"{file}: decision: variants cannot be compared under different rules" in error
        assert "(flat by greedy, multilabel by joint); give one rule for all" in error
        assert error.count("\n") == 1
    assert main(["grid", *words, "--on", "inline", "--device", "cpu", "--threads", "1"]) == 0
    assert not Path("results/ablation").exists()
    assert main(["report", *words]) == 0
    text = Path("results/ablation/report.md").read_text()
    assert all(
        f"| {arm} |" in text
        for arm in ("flat", "multilabel isolation=shared", "multilabel isolation=detached")
    )


def test_a_report_expects_chosen_values_and_cells_once_they_are_begun(file: Path) -> None:
    """With a search: the outer folds, and the cells of a grid that was begun. Without a search: runs that
    are no cells only if they were run."""
    plain, searched = (
        study.load(file),
        study.load(file, ["search={trials: 1, nested: false, space: {loss.gamma: {uniform: [0, 5]}}}"]),
    )
    assert [len(rows) for rows in collected.expected_runs(plain)] == [0, 16]
    folder = searched.search_folder(searched.search_ids[0])
    folder.mkdir(parents=True)
    (folder / "best.yaml").write_text("{test_fold: 0, chosen: {loss.gamma: 1.0}}")
    assert [len(rows) for rows in collected.expected_runs(searched)] == [
        4,
        0,
    ]  # of the variant whose search has ended
    cells.write(plain.root, cells.expand(plain))
    assert [len(rows) for rows in collected.expected_runs(searched)] == [4, 16]
    other = study.load(file, ["base.loss.gamma=4.0", "grid.loss.gamma=[0, 2]"])
    (other.root / other.spec("flat", {}, 0, 0).run_name).mkdir()
    assert [len(rows) for rows in collected.expected_runs(other)] == [8, 16]


def test_a_tree_has_one_name_and_one_flat_run() -> None:
    study = plan(
        tree=[None, {"permuted": 1}, "permuted:2"], exclude=[{"variant": "base", "tree": {"permuted": 1}}]
    )
    assert study.grid is not None
    assert study.grid.values() == {"tree": ["data", "permuted:1", "permuted:2"]}
    expanded = cells.expand(study)
    trees = {(cell.spec.variant, cell.values.get("tree"), cell.spec.tree) for cell in expanded}
    assert trees == {
        ("flat", None, None),
        *(("multilabel", tree, tree) for tree in ("permuted:1", "permuted:2")),
        ("base", "permuted:2", "permuted:2"),
        *((variant, "data", None) for variant in ("base", "multilabel")),
    }
    assert len(expanded) == len(trees) * 2 * 2
    zipped = plan(zip=[{"tree": [None, {"permuted": 1}], "optim.lr": [1e-4, 1e-3]}]).grid
    assert zipped is not None
    assert zipped.values()["tree"] == ["data", "permuted:1"]


@pytest.mark.parametrize("loss", ["soft", "marginal"])
def test_flat_has_a_tree_where_its_loss_has_one(loss: str) -> None:
    study = plan(
        **{"tree": ["data", "permuted:1"], "loss.kind": ["focal", loss]}, exclude=[{"variant": "base"}]
    )
    flat = {
        (cell.spec.loss.kind, cell.spec.tree) for cell in cells.expand(study) if cell.spec.variant == "flat"
    }
    assert flat == {("focal", None), (loss, None), (loss, "permuted:1")}


def test_the_tree_of_the_base_is_that_of_the_variants_that_have_one() -> None:
    fields = {"study": "trees", "base": {"tree": {"permuted": 4}}, "grid": {"loss.gamma": [0, 2]}}
    specs = [cell.spec for cell in cells.expand(parse(Study, fields, "mine.yaml"))]
    assert {(spec.variant, spec.tree) for spec in specs} == {
        ("flat", None),
        ("base", "permuted:4"),
        ("multilabel", "permuted:4"),
    }
