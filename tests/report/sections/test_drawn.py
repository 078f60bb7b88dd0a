"""The report counts what searches drew, says which equal choices are one draw, and warns where folds share
draws."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from leukotree.report.collect import collect
from leukotree.report.sections import drawn, searches
from leukotree.report.summary import StudySummary
from tests.helpers.study_results import STUDY, cells, random_trials, texts, write_search

NESTED = {**STUDY, "search": {**STUDY["search"], "nested": True}}
VARIANTS = ("flat", "base", "multilabel")


def study(
    root: Path, draws_of: dict[tuple[str, int], str], chosen: dict[tuple[str, int], int]
) -> StudySummary:
    """A nested study. `draws_of`: search -> the variant of `random_trials` whose values it drew. `chosen`:
    search -> its chosen trial."""
    for (variant, fold), source in draws_of.items():
        table = random_trials(source)
        number = chosen[variant, fold]
        values = {key: table[key].iloc[number].item() for key in STUDY["search"]["space"]}
        folder = root / "search" / variant / f"fold{fold}"
        trials = table.drop(columns=["trial", "state", "epochs", "best_macro_f1", "seconds"])
        write_search(folder, variant, values, trials, trial=number, test_fold=fold)
    return collect(root, NESTED, [])


@pytest.fixture
def fair(tmp_path: Path) -> StudySummary:
    """Variants of a fold share draws, folds do not. In fold 1 all variants chose trial 4."""
    return study(
        tmp_path,
        {(variant, fold): VARIANTS[fold] for variant in VARIANTS for fold in range(3)},
        {
            (variant, fold): 4 if fold == 1 else index
            for fold in range(3)
            for index, variant in enumerate(VARIANTS)
        },
    )


def test_draws_and_configurations_are_counted_per_variant_and_over_all(fair: StudySummary) -> None:
    section = searches.section(fair)
    assert section is not None
    assert cells(section, "`flat`", "3", "24")[3:] == ["24", "24", "3", "3"]
    assert cells(section, "all", "9", "72")[3:] == ["24", "24", "9", "7"]


def test_equal_choices_of_a_fold_are_one_draw(fair: StudySummary) -> None:
    section = searches.section(fair)
    assert section is not None
    assert "one draw: trial 4 by flat, base, multilabel (fold 1). These searches chose" in texts(section)
    assert "among 8 draws at random agree once in 8 times" in texts(section)
    assert drawn.shared_by_folds(fair) == []


def test_folds_that_share_draws_are_warned_of_in_the_section_and_at_the_top(tmp_path: Path) -> None:
    """As in version 0.1.0: all searches drew the same."""
    same = study(
        tmp_path,
        {(variant, fold): "flat" for variant in VARIANTS for fold in range(3)},
        {(variant, fold): 4 for variant in VARIANTS for fold in range(3)},
    )
    section = searches.section(same)
    assert section is not None
    assert cells(section, "all", "9")[2:] == ["72", "8", "8", "9", "1"]
    (warning,) = drawn.shared_by_folds(same)
    assert "48 of 72 trials have the values that another fold" in texts(section)
    assert getattr(warning, "tone", "") == "warning"
    named = "trial 4 by flat, base, multilabel (fold 0), flat, base, multilabel (fold 1)"
    assert named in texts(section)


def test_a_search_that_was_continued_shares_its_first_draws_only(tmp_path: Path) -> None:
    root = tmp_path / "s"
    study(root, {("flat", 0): "flat", ("flat", 1): "flat"}, {("flat", 0): 1, ("flat", 1): 6})
    folder = root / "search" / "flat" / "fold1"
    shutil.rmtree(folder)
    table = random_trials("flat")
    table.loc[5:, ["loss.gamma", "optim.lr"]] = random_trials("base").loc[5:, ["loss.gamma", "optim.lr"]]
    trials = table.drop(columns=["trial", "state", "epochs", "best_macro_f1", "seconds"])
    write_search(folder, "flat", {"loss.gamma": 1.0}, trials, trial=6, test_fold=1)
    mixed = collect(root, {**NESTED, "variants": ["flat"]}, [])
    section = searches.section(mixed)
    assert section is not None
    assert cells(section, "`flat`", "2")[2:] == ["16", "11", "11", "2", "2"]
    assert "5 of 16 trials" in texts(section)
    assert "one draw:" not in texts(section)


def test_one_search_for_all_folds_shares_nothing_with_itself(tmp_path: Path) -> None:
    for variant in VARIANTS:
        write_search(tmp_path / "search" / variant, variant, {"loss.gamma": 1.0})
    whole = collect(tmp_path, STUDY, [])
    assert drawn.shared_by_folds(whole) == []


def test_a_search_without_a_choice_has_none(tmp_path: Path) -> None:
    write_search(tmp_path / "search" / "flat" / "fold0", "flat", {"loss.gamma": 1.0})
    (tmp_path / "search" / "flat" / "fold0" / "best.yaml").unlink()
    one = collect(tmp_path, {**NESTED, "variants": ["flat"]}, [])
    section = searches.section(one)
    assert section is not None
    assert cells(section, "`flat`", "1")[2:] == ["8", "8", "8", "0", "0"]


@pytest.mark.slow("makes a report")
def test_many_equal_choices_are_cut(tmp_path: Path) -> None:
    folds = range(drawn.MOST_NAMED + 2)
    for fold in folds:
        for variant in ("flat", "base"):
            trials = random_trials("flat").assign(**{"loss.gamma": fold / 10 + 0.01})
            keys = ["macro_f1", "loss.gamma", "optim.lr", "optim.batch_size"]
            folder = tmp_path / "search" / variant / f"fold{fold}"
            write_search(folder, variant, {"loss.gamma": 1.0}, trials[keys], trial=0, test_fold=fold)
    many = {**NESTED, "variants": ["flat", "base"], "folds": {"outer": len(folds), "inner": 2}}
    section = searches.section(collect(tmp_path, many, []))
    assert section is not None
    assert "(fold 5); and 2 more." in texts(section)
