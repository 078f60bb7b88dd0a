"""A study is exported by naming one of its runs, and the card has the numbers of the study's report."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from leukotree import stats
from leukotree.report import scores
from leukotree.training.run import run
from tests.helpers.commandline import assert_refused, leukotree

pytestmark = pytest.mark.slow("trains and exports models")


@pytest.fixture(scope="module")
def work(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study: two variants on two of the four folds, a seed each."""
    from hpc.studies import study as studies

    folder = tmp_path_factory.mktemp("study")
    base = {
        "data": {"shards": str(shards)},
        "backbone": {"name": "test_resnet"},
        "optim": {"batch_size": 24, "epochs": 1, "lr": 3e-3},
        "engine": {"precision": "fp32"},
    }
    fields = {"study": "mine", "base": base, "variants": ["flat", "multilabel"], "folds": {"outer": 4}}
    (folder / "mine.yaml").write_text(yaml.safe_dump(fields))
    plan = studies.load(folder / "mine.yaml")
    chosen = {variant: {fold: {} for fold in range(2)} for variant in plan.variants}
    for spec in plan.fold_specs(chosen):
        run(spec, folder / plan.root)
    return folder


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], ["4 finished runs; choose one by", "--variant (flat, multilabel)", "--fold (0, 1)"]),
        (["--variant", "flat"], ["2 finished runs with variant flat", "--fold (0, 1)"]),
        (["--variant", "base"], ["no finished run with variant base"]),
        (["--fold", "3"], ["no finished run with fold 3", "leukotree status mine"]),
        (["--fold", "x"], ["--fold"]),
    ],
)
def test_no_run_is_chosen_by_its_score(words: list[str], says: list[str], work: Path) -> None:
    assert_refused(leukotree("export", "mine.yaml", "out", *words, cwd=work), *says)
    assert not (work / "out").exists()


@pytest.fixture
def refitted(work: Path) -> Iterator[str]:
    """The name of a run of the study on all folds."""
    from hpc.studies import refit
    from hpc.studies import study as studies

    plan = studies.load(work / "mine.yaml")
    chosen = {"flat": {fold: {} for fold in range(4)}}
    [one] = refit.refits(plan, chosen, ["flat"])
    folder = run(one.spec, work / plan.root).folder
    yield folder.name
    shutil.rmtree(folder)


def test_a_run_on_all_folds_is_taken_first_and_has_the_scores_of_its_study(refitted: str, work: Path) -> None:
    alone = leukotree("export", f"results/runs/mine/{refitted}", "alone", cwd=work)
    assert_refused(alone, refitted, "name its study's file")
    done = leukotree("export", "mine.yaml", "all", "--variant", "flat", cwd=work)
    assert done.returncode == 0, done.stderr
    assert "images of all folds" in done.stdout
    card = (work / "all/README.md").read_text()
    assert f"the run `{refitted}`" in card
    assert "never saw: none. It was trained on all folds, and never scored" in card
    assert (
        "2 runs, each on the outer fold that it never saw. The exported model was trained in the same way"
        in card
    )


def cells(markdown: str, first: str = "") -> set[str]:
    """The cells of the table rows that start with a cell."""
    rows = [
        re.split(r"(?<!\\)\|", line.strip("|")) for line in markdown.splitlines() if line.startswith("| ")
    ]
    return {cell.strip() for row in rows if not first or row[0].strip() == first for cell in row}


def test_the_numbers_of_the_card_are_those_of_the_report(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = leukotree("export", "mine.yaml", "out", "--variant", "flat", "--fold", 1, cwd=work)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "out/README.md"
    assert leukotree("report", "mine.yaml", cwd=work).returncode == 0
    card, report = ((work / name).read_text() for name in ("out/README.md", "results/mine/report.md"))
    of_scores = card.partition("\n## Scores\n")[2].partition("\n## Limits\n")[0]
    assert "those of the study's report for `flat`: 2 runs" in of_scores
    assert "outer fold that this model never saw: 1" in card
    pooled = (
        of_scores.partition("Images of all test folds together")[2].partition("\n\n")[2].partition("\n\n")[0]
    )
    numbers = {cell for cell in cells(of_scores) - cells(pooled) if re.search(r"\d", cell)}
    shown = cells(report, "flat")
    assert len(numbers) > 30
    assert {cell for cell in numbers if cell not in shown and not re.search("[A-Za-z]", cell)} == set()
    [accuracy, f1, images, patients] = [
        cell.strip() for cell in pooled.splitlines()[-1].strip("| ").split("|")
    ]
    assert (images, patients) == ("84", "14")
    monkeypatch.chdir(work)
    from hpc import study

    [arm] = [arm for arm in study("mine.yaml").summary().arms if arm.name == "flat"]
    counts = scores.pooled_clusters(arm.runs, scores.image_clusters)
    for shown_score, statistic in ((accuracy, stats.accuracy), (f1, stats.macro_f1)):
        bounds = stats.intervals([counts], statistic)[0]
        shown = (
            "not estimable" if bounds is None else "{:.1f} to {:.1f}".format(*(100 * end for end in bounds))
        )
        assert shown_score == f"{100 * statistic(counts.counts.sum(axis=0)):.1f} ({shown})"
