"""The studies in sweeps/: each loads, has a header with its costs, and trains all its runs in a tiny form."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hpc.doctor import precheck
from hpc.studies import cells
from hpc.studies import study as studies
from hpc.studies.study import Study
from leukotree.data import phantom
from leukotree.data.pack import pack
from leukotree.errors import InputError
from leukotree.report.arms import check_primary, from_rows, primary
from leukotree.runtime import Runtime
from leukotree.spec import RunSpec
from leukotree.training import run
from tests.helpers.commandline import leukotree

FILES = sorted((Path(__file__).parents[3] / "sweeps").glob("*.yaml"))
SHIPPED = {
    "ablation",
    "backbones",
    "deepapl",
    "deepapl-losses",
    "deepapl-plain",
    "deepapl-rates",
    "deepapl-trees",
    "deepapl-tuned",
    "first",
    "isolation",
    "lahore",
    "learning_rate",
    "losses",
    "lyon",
    "matched",
    "open",
    "paper",
    "phantom",
    "phantom-tuned",
    "seven",
    "smoke",
    "trees",
}
BACKBONES = {"vit_small_patch16_384": "test_vit", "convnext_tiny.fb_in22k_ft_in1k_384": "test_convnext"}
LEVELS = ("isolation", "leader", "branch_blocks", "surgery")
RUNTIME = Runtime(device="cpu", workers=0, threads=1, quiet=True)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 28 images of 32 pixels, in two folds."""
    place = tmp_path_factory.mktemp("tiny")
    manifest = phantom.write(place / "images", patients=28, per_patient=1, size=32, seed=0)
    pack(manifest, place / "shards", folds=2, size=32)
    return place / "shards"


def _fast(file: Path, shards: Path) -> Study:
    """The study with a tiny model on tiny images for one epoch."""
    plan = studies.load(file)
    changes = {
        "base.data.shards": shards,
        "base.data.test_fold": 0,
        "folds": "{outer: 2, inner: 2}",
        "seeds": "[0]",
        "base.optim.epochs": 1,
        "base.backbone.name": BACKBONES.get(plan.base.backbone.name, plan.base.backbone.name),
        "base.backbone.weights": "null",
        "base.engine.precision": "fp32",
        "base.plain.k": 5,  # there are few images
    }
    if plan.grid and "optim.steps" in plan.grid.values():
        changes |= {"grid.optim.steps": "[null, 4]", "primary": "null"}
    if plan.grid and "backbone.name" in plan.grid.values():
        names = [BACKBONES[name] for name in plan.grid.values()["backbone.name"]]
        changes |= {"grid.backbone.name": f"[{', '.join(names)}]", "primary": "null"}
    return studies.load(file, [f"{key}={value}" for key, value in changes.items()])


def test_these_are_shipped() -> None:
    assert {file.stem for file in FILES} == SHIPPED


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_its_header_says_what_it_costs_and_how_to_run_it(file: Path) -> None:
    assert studies.load(file).study == file.stem
    head = "\n".join(
        line for line in file.read_text().split("\nstudy:")[0].splitlines() if line.startswith("#")
    )
    assert all(f"\n# {word}:" in head for word in ("Costs", "Expect", "Needs", "Run"))
    assert f"sweeps/{file.name}" in head.partition("# Run:")[2]
    assert max(len(line) for line in file.read_text().splitlines()) <= 130


@pytest.mark.parametrize(
    "file", [file for file in FILES if studies.load(file).grid], ids=lambda file: file.stem
)
def test_the_comparisons_of_a_grid_name_arms_that_exist(file: Path) -> None:
    plan = studies.load(file)
    rows, fields = cells.rows(cells.expand(plan)), plan.model_dump(mode="json")
    arms = [arm for arm, _ in from_rows([], rows)]
    assert len({arm.name for arm in arms}) == len(arms)
    assert primary(fields, plan.variants, arms)
    check_primary(fields, rows)
    with pytest.raises(InputError, match="'flat lr=7' is none of its arms"):
        check_primary({**fields, "primary": [["flat lr=7", "flat"]]}, rows)


def _kind(spec: RunSpec) -> str:
    """The keys that make a run use other code, and not only other numbers."""
    return str(
        [
            spec.variant,
            spec.backbone.name,
            *(getattr(spec.loss, key) for key in ("kind", "weighting", *LEVELS)),
        ]
    )


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
@pytest.mark.slow("trains each study file in small")
def test_its_runs_train(file: Path, tiny: Path, tmp_path: Path) -> None:
    """For a search: an inner fold of each variant with the base's values. For a grid: each kind of model and
    loss on one fold."""
    plan = _fast(file, tiny)
    precheck.check_search(plan)
    specs: dict[str, RunSpec] = {variant: plan.trial_specs(variant, {}, 1)[0] for variant in plan.variants}
    if plan.grid:
        expanded = cells.expand(plan)
        precheck.check_runs([cell.spec for cell in expanded])
        specs = {_kind(cell.spec): cell.spec for cell in expanded if cell.spec.data.test_fold == 0}
    for spec in specs.values():
        assert 0 <= run.run(spec, tmp_path, RUNTIME).metrics["macro_f1"] <= 1
    assert plan.grid or len(specs) > 1  # a study compares


@pytest.mark.slow("searches under Ray")
@pytest.mark.long("tests/cluster/test_sweep_script.py and tests/docs/test_commands.py go this way, too")
def test_smoke_from_the_search_to_the_report(tmp_path: Path) -> None:
    """Every step by the command line: the preparation in the file's header, nested searches, re-runs, folds,
    report."""
    file = next(file for file in FILES if file.stem == "smoke")
    for words in re.findall(r"^#.*leukotree (phantom|pack)(.*)$", file.read_text(), re.MULTILINE):
        done = leukotree(words[0], *words[1].split(), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    lines = {}
    for verb, *options in (
        ("sweep", "--device", "cpu"),
        ("folds", "--on", "inline", "--device", "cpu", "--threads", "1"),
        ("report",),
    ):
        done = leukotree(verb, file, *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        lines[verb] = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines["sweep"]] == [
        f"{variant} fold {fold}" for fold in (0, 1) for variant in ("flat", "base", "multilabel")
    ]
    assert "6 runs done, 0 failed, 0 queued or at work" in lines["folds"]
    text = (tmp_path / "results/smoke/report.md").read_text()
    assert all(variant in text for variant in ("flat", "base", "multilabel"))
    status = leukotree("status", file, cwd=tmp_path).stdout
    assert sum("ended" in line for line in status.splitlines()) == 6
