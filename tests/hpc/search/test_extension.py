"""A search that is extended goes on as if it had been asked for all trials from the start."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from hpc.search import choice, extension, sweep
from hpc.search.record import Record
from hpc.studies.study import SearchId, Study
from leukotree import yamlfile
from leukotree.errors import InputError
from tests.helpers import searches

FLAT = SearchId("flat", 0)
SPACE = {"loss.gamma": {"uniform": [0, 5]}, "optim.lr": {"loguniform": [1e-4, 1e-2]}}
SCORES = {"by number": searches.by_number, "by values": searches.by_values}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda file: None)  # no power fails in these tests
    monkeypatch.setattr(choice, "fingerprint", lambda study, repeat=0: "d" * 64)


def study(trials: int, name: str = "s", **search: Any) -> Study:
    given = {"startup_trials": 4, "grace": 1, "reduction_factor": 2, "rerun_top": 2, "rerun_seeds": 2}
    settings = {"nested": False, "space": SPACE, **given, **search, "trials": trials}
    fields = {"base": {"optim": {"epochs": 6}}, "variants": ["flat"], "folds": {"outer": 3}}
    return Study.model_validate({"study": name, **fields, "search": settings})


def searched(plan: Study, score: searches.Score = searches.by_values) -> Record:
    """The record of a sweep with one slot, from its begin to its choice."""
    sweep._extend(plan)
    queue = searches.begun(plan)
    choice.write_settings(plan, plan.search_ids, "d" * 64)
    searches.play(queue, score)
    choice.write_choices(queue.records.values())
    return queue.records[FLAT]


def ends(record: Record) -> list[tuple[Any, ...]]:
    return [(trial.chosen, trial.scores, trial.state, trial.until) for trial in record.trials]


@pytest.mark.parametrize("scheduler", ["asha", "halving", "none"])
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("steps", [(6, 12), (1, 3, 12)])
def test_a_search_extended_to_12_trials_chooses_what_one_of_12_chooses(
    scheduler: str, score: str, steps: tuple[int, ...]
) -> None:
    for trials in steps:
        plan = study(trials, scheduler=scheduler)
        extended = searched(plan, SCORES[score])
        assert len(extended.trials) == trials
    through = study(12, "through", scheduler=scheduler)
    assert ends(extended) == ends(searched(through, SCORES[score]))
    assert ends(Record(plan, FLAT)) == ends(extended)  # also as it is read back
    chosen, other = (choice.read_choice(one, FLAT) for one in (plan, through))
    without = {"study": None, "reruns": None}
    assert {**chosen, **without} == {**other, **without}
    assert [row["scores"] for row in chosen["reruns"]] == [row["scores"] for row in other["reruns"]]


def test_what_the_smaller_search_chose_is_set_aside() -> None:
    searched(study(6))
    folder = study(6).search_folder(FLAT)
    before = (folder / "best.yaml").read_text(), (folder / "reruns.jsonl").read_text()
    plan = study(12)
    assert extension.extended(plan) == {FLAT: 6}
    assert not choice.has_ended(plan, FLAT, "d" * 64)
    sweep._extend(plan)
    assert not (folder / "best.yaml").exists()
    assert not (folder / "reruns.jsonl").exists()
    assert ((folder / "best-of-6.yaml").read_text(), (folder / "reruns-of-6.jsonl").read_text()) == before
    assert extension.extended(plan) == {}
    searched(plan)
    assert choice.has_ended(plan, FLAT, "d" * 64)
    with pytest.raises(InputError, match=r"search\.trials was 12 and is 6; rename the study"):
        choice.has_ended(study(6), FLAT, "d" * 64)


def test_a_kill_while_it_is_extended_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    through = ends(searched(study(12, "through", scheduler="halving")))
    plan = study(12, scheduler="halving")
    searched(study(6, scheduler="halving"))

    def killed(*given: Any) -> None:
        raise KeyboardInterrupt

    for place in ("replace", "fsync"):
        with monkeypatch.context() as patched:
            patched.setattr(os, place, killed)
            with pytest.raises(KeyboardInterrupt):
                sweep._extend(plan)
    assert ends(searched(plan)) == through


def test_a_search_that_has_not_ended_is_extended_too() -> None:
    begun = study(6)
    choice.write_settings(begun, begun.search_ids, "d" * 64)
    Record(begun, FLAT).draw({"loss.gamma": 1.0, "optim.lr": 1e-3})
    record = searched(study(12))
    assert (len(record.trials), record.trials[0].chosen["loss.gamma"]) == (12, 1.0)


def test_after_an_outer_fold_was_trained_it_is_refused() -> None:
    searched(study(6))
    plan = study(12)
    chosen = choice.read_choice(plan, FLAT)["chosen"]
    run = plan.root / plan.spec("flat", chosen, 2, 0).run_name
    run.mkdir(parents=True)
    with pytest.raises(
        InputError, match=r"search\.trials: was 6 and is 12: .*use a new study name"
    ) as caught:
        sweep._extend(plan)
    assert run.name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (plan.search_folder(FLAT) / "best.yaml").exists()


def test_brackets_cannot_be_extended() -> None:
    searched(study(6, scheduler="hyperband"))
    with pytest.raises(InputError, match=r"a search in brackets \(hyperband\) cannot be extended"):
        extension.extended(study(12, scheduler="hyperband"))


def test_the_choice_of_a_smaller_search_is_not_used() -> None:
    searched(study(6))
    plan = study(12)
    tree = yamlfile.load(plan.search_folder(FLAT) / "search.yaml")
    assert tree["search"]["trials"] == 6
    assert choice.chosen(plan, partial=True) == {"flat": {}}
