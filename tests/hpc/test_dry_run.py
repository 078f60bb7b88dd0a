"""`--dry-run` refuses what the command refuses, in the same words, writes nothing, and says how much there is
to train."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from hpc.launching import failures
from hpc.search import choice
from hpc.search.record import Record
from hpc.studies import study as studies
from hpc.studies.study import SearchId
from leukotree import spec as specs
from leukotree import yamlfile
from leukotree.data.dataset import Dataset
from leukotree.errors import InputError
from leukotree.files import locked
from leukotree.records import searchfolder
from leukotree.records.runfolder import LOCK
from tests.helpers.commandline import leukotree

FLAT = SearchId("flat", 0)
SPACE = {"optim.lr": {"loguniform": [1e-4, 1e-2]}}
Cause = Callable[[Path], Any]


@pytest.fixture
def work(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with run.yaml and study.yaml."""
    base = {
        "data": {"shards": str(shards)},
        "backbone": {"name": "test_vit"},
        "optim": {"batch_size": 21, "epochs": 3},
    }
    search = {"nested": False, "trials": 2, "space": SPACE, "scheduler": "none"}
    study = {
        "study": "s",
        "base": base,
        "variants": ["flat"],
        "folds": {"outer": 4, "inner": 2},
        "search": search,
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(base | {"variant": "flat"}))
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(failures, "HELD_SECONDS", 0.0)
    return tmp_path


def _files(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def _searched(_: Path) -> Record:
    """A search of 3 epochs that has begun."""
    plan = studies.load("study.yaml")
    choice.write_settings(plan, plan.search_ids, choice.fingerprint(plan))
    record = Record(plan, FLAT)
    record.draw({"optim.lr": 1e-3})
    return record


def _chosen(work: Path) -> None:
    _searched(work)
    (studies.load("study.yaml").search_folder(FLAT) / "best.yaml").write_text("chosen: {optim.lr: 1.0e-3}")


def _run_of(spec: specs.RunSpec, study: str, **fields: Any) -> Path:
    folder = Path("results/runs") / study / spec.run_name
    folder.mkdir(parents=True)
    (folder / "spec.yaml").write_text(yamlfile.dump(spec.model_dump(mode="json") | fields))
    return folder


def _single(**fields: Any) -> Path:
    return _run_of(specs.load("run.yaml"), "single", **fields)


def _other_data(work: Path) -> None:
    (_single() / "env.json").write_text(json.dumps({"dataset": "0" * 64}))


def _fold_of_other_data(work: Path) -> None:
    _chosen(work)
    spec = studies.load("study.yaml").spec("flat", {"optim.lr": 1e-3}, 2, 0)
    (_run_of(spec, "s") / "env.json").write_text(json.dumps({"dataset": "0" * 64}))


def _no_results(work: Path) -> None:
    (work / "results").touch()


def _damaged(work: Path) -> None:
    _searched(work)
    path = studies.load("study.yaml").search_folder(FLAT) / "trials.jsonl"
    path.write_text(json.dumps({"trial": 0, "chosen": {"optim.lr": 5.0}}) + "\n")


def _no_choice(work: Path) -> None:
    _searched(work)
    (studies.load("study.yaml").search_folder(FLAT) / "best.yaml").write_text("{}")


def _strange_weights(work: Path) -> None:
    torch.save({"cls_token": torch.zeros(7)}, work / "w.pt")


def nothing(_: Path) -> None: ...


GRID = "grid={loss.gamma: [0, 1]}"
REFUSED: list[tuple[str, Cause, str, str]] = [
    ("train run.yaml base.optim.epochs=2", nothing, "did you mean 'optim.epochs'", "an unknown key"),
    ("train run.yaml data.shards=nowhere", nothing, "nowhere: no such folder", "no shards"),
    ("train run.yaml --ranks 2", nothing, "do not divide over 2 ranks", "ranks"),
    ("train run.yaml backbone.name=twins_pcpvt_small", nothing, "at 48x48", "a model for other sizes"),
    (
        "train run.yaml backbone.weights=w.pt",
        _strange_weights,
        "at 48x48 with weights w.pt",
        "weights of another model",
    ),
    (
        "grid study.yaml | grid={backbone.name: [twins_pcpvt_small]}",
        nothing,
        "at 48x48",
        "a model for other sizes",
    ),
    ("train run.yaml --device cuda", nothing, "no CUDA device", "no GPU"),
    ("train run.yaml --deepspeed none.yaml", nothing, "none.yaml: cannot be read", "settings"),
    ("train run.yaml --on slurm --site none.yaml", nothing, "none.yaml", "site"),
    ("train run.yaml", lambda _: _single(seed=5), "made by another version of the defaults", "an old folder"),
    ("train run.yaml", _other_data, "made from other data than", "other data"),
    ("train run.yaml", _no_results, "Not a directory", "results is a file"),
    ("sweep study.yaml optim.epochs=2", nothing, "did you mean 'base.optim.epochs'", "an unknown key"),
    (
        "sweep study.yaml base.optim.epochs=5",
        _searched,
        "base.optim.epochs was 3 and is 5",
        "epochs after the search",
    ),
    ("sweep study.yaml search.trials=0", nothing, "no trials", "no trials"),
    ("sweep study.yaml", _damaged, "optim.lr=5.0 is not in", "a damaged record"),
    ("sweep study.yaml", _no_choice, "has no `chosen` values", "a damaged choice"),
    ("sweep study.yaml --cpus-per-trial 4096", nothing, "no node of Ray has the 4096 cores", "slots"),
    ("sweep study.yaml --device cuda", nothing, "no CUDA device", "no GPU"),
    ("sweep study.yaml --deepspeed none.yaml", nothing, "none.yaml: cannot be read", "settings"),
    ("sweep study.yaml --elastic 3", nothing, "use `leukotree submit study.yaml --elastic 3`", "elastic"),
    ("sweep study.yaml", _no_results, "Not a directory", "results is a file"),
    ("folds study.yaml", nothing, "best.yaml: missing; run `leukotree sweep study.yaml` first", "no search"),
    (
        "folds study.yaml base.optim.epochs=5",
        _chosen,
        "base.optim.epochs was 3 and is 5",
        "epochs after the search",
    ),
    ("folds study.yaml base.data.shards=nowhere", nothing, "nowhere: no such folder", "no shards"),
    (
        "folds study.yaml costs.APL.AML=9",
        nothing,
        "study s: costs: 'APL' is no leaf of the data",
        "costs of no leaf",
    ),
    ("folds study.yaml folds.outer=3", nothing, "packed with 4 folds, but folds.outer is 3", "other folds"),
    ("folds study.yaml", _fold_of_other_data, "made from other data than", "other data"),
    ("folds study.yaml --deepspeed none.yaml", _chosen, "none.yaml: cannot be read", "settings"),
    ("folds study.yaml --device cuda", _chosen, "no CUDA device", "no GPU"),
    ("folds study.yaml --nodes 2", _chosen, "several nodes need --on slurm", "nodes"),
    ("grid study.yaml", nothing, "no grid", "no grid"),
    (f"grid study.yaml | {GRID} | primary=[[a, b]]", nothing, "primary", "a comparison of nothing"),
    (
        f"sweep study.yaml | {GRID} | primary=[[flat gamma=7, flat]]",
        nothing,
        "primary: 'flat gamma=7' is none of its arms: flat, flat gamma=0, flat gamma=1",
        "a comparison of no cell",
    ),
    (
        "folds study.yaml | grid={loss.kind: [focal], exclude: [{loss.kind: focal}]}",
        _chosen,
        "grid.exclude leaves nothing of the grid",
        "a grid of no cells",
    ),
    (
        "sweep study.yaml | variants=[flat, multilabel] | decision={flat: joint}",
        nothing,
        "study.yaml: decision: variants cannot be compared under different rules "
        "(flat by joint, multilabel by greedy); give one rule for all",
        "two rules",
    ),
    (
        f"grid study.yaml | {GRID} | backbone.weights=none.pt",
        nothing,
        "base.backbone.weights",
        "an unknown key",
    ),
    (f"grid study.yaml | {GRID}", _no_results, "Not a directory", "results is a file"),
    (
        "submit study.yaml base.optim.epochs=5",
        _searched,
        "base.optim.epochs was 3 and is 5",
        "epochs after the search",
    ),
]


def _words(command: str) -> list[str]:
    head, *more = command.split(" | ")
    return [*head.split(), *more]


NAMES = [f"{command.split()[0]}: {what}" for command, _, _, what in REFUSED]


@pytest.mark.parametrize(("command", "cause", "says", "_what"), REFUSED, ids=NAMES)
def test_a_dry_run_refuses_what_the_command_refuses(
    command: str, cause: Cause, says: str, _what: str, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (work / "slurm").mkdir()
    (work / "slurm" / "sweep.sh").touch()
    monkeypatch.setenv("LEUKOTREE_HOME", str(work))
    cause(work)
    before = _files(work)
    tried = leukotree(*_words(command), "--dry-run", cwd=work)
    assert _files(work) == before
    done = leukotree(*_words(command), cwd=work)
    assert (tried.returncode, tried.stderr) == (done.returncode, done.stderr)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert says in done.stderr
    assert _files(work) == before  # nothing half written


def test_a_dry_run_beside_another_command_at_work_refuses_as_the_command_does(work: Path) -> None:
    folder = _single()
    with locked(folder / LOCK, "busy"):
        tried, done = (leukotree("train", "run.yaml", *more, cwd=work) for more in (["--dry-run"], []))
    assert (tried.returncode, tried.stderr) == (done.returncode, done.stderr)
    assert "another process works on this run; wait for it, or end it (held by process " in done.stderr
    _searched(work)
    with locked(Path("results/runs/s/search") / searchfolder.LOCK, "busy"):
        tried, done = (leukotree("sweep", "study.yaml", *more, cwd=work) for more in (["--dry-run"], []))
    assert (tried.returncode, tried.stderr) == (done.returncode, done.stderr)
    assert "another sweep runs on this study (held by process " in done.stderr


@pytest.mark.slow("plans whole studies")
def test_a_dry_run_says_trainings_and_epochs_and_how_many_are_done(work: Path) -> None:
    def first(*words: str) -> str:
        done = leukotree(*words, "--dry-run", cwd=work)
        assert done.returncode == 0, done.stderr
        return next(line for line in done.stdout.splitlines() if " epochs are " in line)

    assert first("train", "run.yaml") == "1 training of 3 epochs; 0 of 1 trainings and 0 of 3 epochs are done"
    rerun = ("search.rerun_top=1", "search.rerun_seeds=2")
    assert (
        first("sweep", "study.yaml", *rerun)
        == "8 trainings of 3 epochs; 0 of 8 trainings and 0 of 24 epochs are over"
    )
    assert first("sweep", "study.yaml", "search.scheduler=asha").startswith(
        "at most 4 trainings of 3 epochs; 0 of 4 "
    )
    record = _searched(work)
    record.report(record.trials[0], 1, 0.5, 1.0)
    record.end(record.trials[0], "failed", "nan")
    assert (
        first("sweep", "study.yaml")
        == "4 trainings of 3 epochs; 2 of 4 trainings and 6 of 12 epochs are over"
    )
    _chosen(work)
    plan = studies.load("study.yaml")
    for fold, status in (
        (0, {"state": "done", "epoch": 3}),
        (1, {"state": "preempted", "kind": "preempted", "epoch": 2}),
    ):
        folder = _run_of(plan.spec("flat", {"optim.lr": 1e-3}, fold, 0), "s")
        (folder / "env.json").write_text(
            json.dumps({"dataset": Dataset.open(plan.base.data.shards).fingerprint})
        )
        (folder / "status.json").write_text(json.dumps({**status, "epochs": 3, "heartbeat": 1.0}))
    assert (
        first("folds", "study.yaml")
        == "4 trainings of 3 epochs; 1 of 4 trainings and 5 of 12 epochs are done"
    )
    grid = first("grid", "study.yaml", "grid={optim.epochs: [1, 3]}")
    assert grid == "8 trainings of 1 to 3 epochs; 0 of 8 trainings and 0 of 16 epochs are done"
    told = json.loads(leukotree("folds", "study.yaml", "--dry-run", "--json", cwd=work).stdout)
    assert (told["trainings"], told["trainings_done"], told["epochs"], told["epochs_done"]) == (4, 1, 12, 5)


@pytest.mark.slow("plans whole studies")
def test_a_dry_run_says_what_a_run_of_each_variant_takes(work: Path) -> None:
    """Steps, parameters and FLOPs, and the budget that they follow from."""
    words = ("variants=[flat, ensemble, base, multilabel]", "grid={optim.steps: [null, 30]}", "--dry-run")
    done = leukotree("grid", "study.yaml", *words, cwd=work)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith("variant") and "FLOPs" in line)
    rows = [line.split() for line in lines[head + 1 : head + 9]]
    assert [(row[0], row[1]) for row in rows] == [
        *(("flat", "1"), ("ensemble", "4"), ("base", "4"), ("multilabel", "1")) * 2
    ]
    steps = {(row[0], "30" if place > 3 else "epochs"): int(row[2]) for place, row in enumerate(rows)}
    assert steps["flat", "30"] == steps["multilabel", "30"] == 30
    assert steps["base", "30"] == steps["ensemble", "30"] == 120
    assert steps["flat", "epochs"] == steps["multilabel", "epochs"] == 18  # 3 epochs of 126 images
    assert steps["base", "epochs"] == steps["ensemble", "epochs"]
    assert "budget of each model: 3 epochs or 30 steps" in done.stdout
    told = json.loads(leukotree("grid", "study.yaml", *words, "--json", cwd=work).stdout)
    assert [row["steps"] for row in told["compute"]] == [int(row[2]) for row in rows]
    assert all(row["training_flops"] > 0 < row["image_flops"] for row in told["compute"])
    for command in (["sweep", "study.yaml"], ["train", "run.yaml"]):
        shown = leukotree(*command, "--dry-run", cwd=work).stdout
        assert "FLOPs per image" in shown
        assert "budget of each model: 3 epochs" in shown


@pytest.mark.slow("plans whole studies")
def test_a_second_dry_run_imports_neither_torch_nor_timm_and_says_the_same(work: Path) -> None:
    program = """
import sys
from hpc import cli
code = cli.main(sys.argv[1:])
print(*sorted({"torch", "timm", "scipy"} & sys.modules.keys()), file=sys.stderr)
sys.exit(code)
"""
    words = ["grid", "study.yaml", "variants=[flat, multilabel]", "grid={loss.tau: [0, 1]}", "--dry-run"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(work / "cache")}
    first, second = (
        subprocess.run(
            [sys.executable, "-c", program, *words],
            cwd=work,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        for _ in range(2)
    )
    assert first.stdout == second.stdout
    assert "FLOPs per image" in second.stdout
    assert "torch" in first.stderr
    assert second.stderr.strip() == ""


def test_an_advised_command_names_the_study_as_it_was_typed(work: Path) -> None:
    with pytest.raises(InputError, match=r"run `leukotree sweep study\.yaml 'search.space=\{.*\}'` first"):
        choice.chosen(studies.load("study.yaml", ["search.space={optim.lr: {uniform: [0.1, 0.2]}}"]))


@pytest.mark.slow("plans whole studies")
def test_a_dry_run_names_the_runs_that_will_fail(work: Path) -> None:
    """They stop no others, so the command goes on: exit code 1, and the same line."""
    _chosen(work)
    _run_of(studies.load("study.yaml").spec("flat", {"optim.lr": 1e-3}, 2, 0), "s", seed=5)
    words = (
        "folds",
        "study.yaml",
        "--on",
        "inline",
        "--device",
        "cpu",
        "--threads",
        "1",
        "base.optim.epochs=3",
    )
    tried = leukotree(*words, "--dry-run", cwd=work)
    done = leukotree(*words, cwd=work)
    failed = [
        [line for line in one.stdout.splitlines() if line.startswith("failed: ")] for one in (tried, done)
    ]
    assert (tried.returncode, failed[0]) == (done.returncode, failed[1])
    assert done.returncode == 1
    assert "made by another version of the defaults" in failed[0][0]
