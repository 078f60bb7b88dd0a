"""The choice of a search that has ended: by its own scores, or by those of fresh seeds."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from hpc.search import choice
from hpc.search.record import Record
from hpc.studies.study import SearchId, Study
from leukotree.errors import InputError, RunFailed

SEARCH_ID = SearchId("flat", 2)
SEARCHED = (0.5, 0.75, None, 0.625, 0.25)
"""Scores of five trials; the third failed."""


def _study(**search: Any) -> Study:
    space = {"loss.gamma": {"uniform": [0, 5]}}
    return Study.model_validate(
        {"study": "s", "base": {"optim": {"epochs": 1}}, "search": {"trials": 5, "space": space, **search}}
    )


def _searched(study: Study) -> Record:
    record = Record(study, SEARCH_ID)
    for number, score in enumerate(SEARCHED):
        trial = record.draw({"loss.gamma": float(number)})
        if score is not None:
            record.report(trial, 1, score, 1.0)
        record.end(
            trial,
            "failed" if score is None else "completed",
            "the loss is nan" if score is None else None,
            2.0,
        )
    return record


def _again(record: Record, scores: dict[tuple[int, int], float | None]) -> dict[str, Any]:
    """best.yaml when the re-runs have these scores: (trial, which of its seeds) -> score."""
    for rerun in record.reruns:
        score = scores[rerun.number, record.fresh_seeds.index(rerun.seed or 0)]
        if score is not None:
            record.report(rerun, 1, score, 9.0)
        record.end(
            rerun, "failed" if score is None else "completed", "diverged" if score is None else None, 1.5
        )
    choice.write_choices([record])
    return choice.read_choices(
        record.study.model_copy(update={"variants": ("flat",), "folds": _one_fold(record.study)})
    )[SEARCH_ID]


def _one_fold(study: Study) -> Any:
    return study.folds.model_copy(update={"outer": SEARCH_ID.test_fold + 1})


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for fold in (0, 1):  # searches of other folds
        folder = _study().search_folder(SearchId("flat", fold))
        folder.mkdir(parents=True)
        (folder / "best.yaml").write_text(f"test_fold: {fold}\nchosen: {{}}\n")


def test_without_reruns_the_best_trial_is_chosen() -> None:
    best = _again(_searched(_study()), {})
    assert (best["trial"], best["value"], best["chosen"], best["trials"]) == (
        1,
        0.75,
        {"loss.gamma": 1.0},
        5,
    )
    assert best["test_fold"] == 2
    assert not {"search_value", "optimism", "reruns"} & set(best)


def test_the_mean_over_fresh_seeds_chooses_and_the_optimism_is_written() -> None:
    study = _study(rerun_top=3, rerun_seeds=2)
    again = {(1, 0): 0.25, (1, 1): 0.5, (3, 0): 0.75, (3, 1): 0.5, (0, 0): 0.5, (0, 1): 0.5}
    best = _again(_searched(study), again)
    assert (best["trial"], best["value"], best["chosen"]) == (3, 0.625, {"loss.gamma": 3.0})
    assert (best["search_trial"], best["search_value"], best["optimism"]) == (1, 0.75, 0.75 - 0.375)
    assert best["rerun_seeds"] == study.fresh_seeds(SEARCH_ID.test_fold)
    assert best["reruns"] == [
        {"trial": 1, "scores": [0.25, 0.5], "seconds": 3.0},
        {"trial": 3, "scores": [0.75, 0.5], "seconds": 3.0},
        {"trial": 0, "scores": [0.5, 0.5], "seconds": 3.0},
    ]


def test_a_key_without_effect_beside_the_other_values_is_not_among_the_chosen() -> None:
    """Gamma has no effect in a loss that is not focal."""
    space = {"loss.gamma": {"uniform": [0, 5]}, "loss.kind": {"choice": ["focal", "conditional"]}}
    record = Record(_study(space=space), SEARCH_ID)
    for score, kind in ((0.5, "focal"), (0.75, "conditional")):
        trial = record.draw({"loss.gamma": 4.0, "loss.kind": kind})
        record.report(trial, 1, score, 1.0)
        record.end(trial, "completed", None, 2.0)
    assert _again(record, {})["chosen"] == {"loss.kind": "conditional"}
    with open(record.study.search_folder(SEARCH_ID) / "trials.csv", newline="") as file:
        assert [(row["loss.gamma"], row["loss.kind"]) for row in csv.DictReader(file)] == [
            ("4.0", "focal"),
            ("", "conditional"),
        ]


def test_of_equal_means_the_earlier_trial_is_chosen() -> None:
    best = _again(_searched(_study(rerun_top=3, rerun_seeds=1)), {(number, 0): 0.5 for number in (0, 1, 3)})
    assert best["trial"] == 0


def test_a_trial_that_failed_on_a_fresh_seed_is_not_chosen() -> None:
    study = _study(rerun_top=2, rerun_seeds=2)
    best = _again(_searched(study), {(1, 0): 0.9, (1, 1): None, (3, 0): 0.25, (3, 1): 0.25})
    assert (best["trial"], best["value"], best["optimism"]) == (3, 0.25, None)
    assert best["reruns"][0]["scores"] == [0.9, None]


def test_where_every_rerun_failed_nothing_is_chosen() -> None:
    record = _searched(_study(rerun_top=1, rerun_seeds=1))
    with pytest.raises(RunFailed, match="no re-run completed; the first error: diverged"):
        _again(record, {(1, 0): None})
    assert not (record.study.search_folder(SEARCH_ID) / "best.yaml").exists()


def test_the_chosen_values_go_to_their_own_fold() -> None:
    study = _study().model_copy(update={"variants": ("flat",), "folds": _one_fold(_study())})
    _again(_searched(study), {})
    assert choice.chosen(study, partial=True) == {"flat": {0: {}, 1: {}, 2: {"loss.gamma": 1.0}}}
    (study.search_folder(SearchId("flat", 1)) / "best.yaml").unlink()
    assert choice.chosen(study, partial=True) == {"flat": {0: {}, 2: {"loss.gamma": 1.0}}}


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("rerun_top", 4, r"search\.rerun_top was None and is 4"),
        ("rungs", "folds", r"search\.rungs was None and is 'folds'"),
        ("nested", False, None),  # another folder, and no part of what a search does
    ],
)
def test_a_search_continues_with_its_own_settings_only(key: str, value: Any, says: str | None) -> None:
    study, other = _study(), _study(**{key: value})
    choice.write_settings(study, [SEARCH_ID], "data")
    other.search_folder(SEARCH_ID).mkdir(exist_ok=True)
    if says is None:
        assert not choice.has_ended(other, SEARCH_ID, "data")
    else:
        with pytest.raises(InputError, match=f"{says}; rename the study, or move the folder away"):
            choice.has_ended(other, SEARCH_ID, "data")


@pytest.mark.parametrize("text", ["", "- 1"])
def test_damaged_settings_of_a_search_are_named(text: str) -> None:
    file = _study().search_folder(SEARCH_ID) / "search.yaml"
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(InputError, match=r"search\.yaml: holds no settings of a search"):
        choice.has_ended(_study(), SEARCH_ID, None)


def test_a_search_of_another_fold_is_refused() -> None:
    study = _study()
    choice.write_settings(study, [SEARCH_ID], "data")
    other = SearchId("flat", 3)
    study.search_folder(SEARCH_ID).rename(study.search_folder(other))
    with pytest.raises(InputError, match="test_fold was 2 and is 3"):
        choice.has_ended(study, other, "data")


def test_a_key_that_is_searched_for_another_variant_only_changes_no_search() -> None:
    space = {"loss.gamma": {"uniform": [0, 5]}, "loss.isolation": {"choice": ["shared", "chained"]}}
    study = _study(space=space)
    narrower = _study()
    choice.write_settings(study, study.search_ids, "data")
    assert not any(
        choice.has_ended(study, search_id, "data")
        for search_id in study.search_ids
        if search_id.test_fold > 1
    )
    assert not choice.has_ended(narrower, SEARCH_ID, "data")
    with pytest.raises(InputError, match="isolation"):
        choice.has_ended(narrower, SearchId("multilabel", 2), "data")
