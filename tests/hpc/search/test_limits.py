"""Searches stop at a budget: all variants of a fold at the same number of trials, also after a kill."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpc.search import choice, limits, sampler, search_states
from hpc.search.record import Record, Trial
from hpc.search.trial_queue import TrialQueue
from hpc.studies.study import SearchId, Study
from leukotree import yamlfile
from leukotree.errors import InputError

COSTS = {"flat": 600.0, "base": 1800.0}
"""Device-seconds of a trial."""


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.chdir(tmp_path)
    search = {
        "trials": 9,
        "budget_hours": 2.0,  # of 40 minutes for a trial of both variants
        "algorithm": "random",
        "scheduler": "none",
        "rerun_top": 1,
        "rerun_seeds": 1,
        "space": {"loss.gamma": {"uniform": [0, 5]}},
    }
    fields = {"study": "s", "variants": list(COSTS), "base": {"optim": {"epochs": 1}}, "search": search}
    return Study.model_validate({**fields, "folds": {"outer": 2, "inner": 2}})


def _records(study: Study) -> dict[SearchId, Record]:
    return {search_id: Record(study, search_id) for search_id in study.search_ids}


def _run(study: Study, slots: int = 1, most: int = 1000) -> dict[SearchId, Record]:
    """Run trials, each of the search with the fewest, until nothing is left, or this many have ended."""
    records, at_work = _records(study), []
    limit = limits.Limits(study, records)
    for _ in range(most):
        while len(at_work) < slots and (following := _next(study, records, limit, at_work)):
            at_work.append(following)
        if not at_work:
            break
        record, trial = at_work.pop(0)
        record.report(trial, 1, 1 / (1 + trial.chosen["loss.gamma"]), 1.0)
        record.end(trial, "completed", None, COSTS[record.search_id.variant])
    return records


def _next(
    study: Study,
    records: dict[SearchId, Record],
    limit: limits.Limits,
    at_work: list[tuple[Record, Trial]],
) -> tuple[Record, Trial] | None:
    limit.apply()
    for record in sorted(records.values(), key=lambda record: len(record.trials)):
        for trial in (*record.trials, *record.reruns):
            if trial.state is None and not any(trial is other for _, other in at_work):
                return record, trial
        if len(record.trials) < record.most:
            return record, record.draw(sampler.propose(study, record.search_id, record.trials))
    return None


def _sizes(study: Study) -> dict[int, set[int]]:
    """Outer fold -> numbers of trials of its searches."""
    sizes: dict[int, set[int]] = {}
    for search_id in study.search_ids:
        sizes.setdefault(search_id.test_fold, set()).add(len(Record(study, search_id).trials))
    return sizes


@pytest.mark.parametrize("slots", [1, 3])
def test_all_variants_of_a_fold_stop_at_the_same_number_of_trials(study: Study, slots: int) -> None:
    records = _run(study, slots)
    assert sum(record.open() for record in records.values()) == 0
    for sizes in _sizes(study).values():
        assert len(sizes) == 1
        assert sizes != {9}
    for record in records.values():
        assert record.closed is not None
        assert record.closed.reason == "the budget of 2 device-hours is spent"
        assert [rerun.state for rerun in record.reruns] == ["completed"]


@pytest.mark.parametrize("killed", range(1, 14, 3))
def test_after_a_kill_a_closed_search_stays_closed_and_the_others_follow(study: Study, killed: int) -> None:
    _run(study)
    whole = {
        search_id: [trial.chosen for trial in Record(study, search_id).trials]
        for search_id in study.search_ids
    }
    again = study.model_copy(update={"study": "again"})
    _run(again, most=killed)
    _run(again)
    assert whole == {
        search_id: [trial.chosen for trial in Record(again, search_id).trials]
        for search_id in study.search_ids
    }


def test_a_kill_between_the_notes_of_two_searches_leaves_them_equal(study: Study) -> None:
    flat, base = (Record(study, SearchId(variant, 0)) for variant in COSTS)
    for record, size in ((flat, 3), (base, 2)):
        for gamma in range(size):
            trial = record.draw({"loss.gamma": float(gamma)})
            record.report(trial, 1, 0.5, 1.0)
            record.end(trial, "completed", None, 10.0)
    flat.close("the budget of 2 device-hours is spent", 3)
    queue = TrialQueue(study, _records(study).values())
    following = queue.next()
    assert following is not None
    while following[0].search_id.test_fold != 0 or following[0].search_id.variant == "flat":
        record, trial = following
        queue.started(record, trial or record.draw({"loss.gamma": 2.0}))
        following = queue.next()
        assert following is not None
    assert following[1] is None
    following[0].draw({"loss.gamma": 2.0})
    assert queue.records[base.search_id].most == 3
    assert _sizes(study)[0] == {3}


def test_a_note_that_was_cut_short_is_decided_again(study: Study) -> None:
    _run(study)
    drawn = study.search_folder(SearchId("flat", 0)) / "trials.jsonl"
    lines = drawn.read_text().splitlines(keepends=True)
    place = next(number for number, line in enumerate(lines) if "closed" in json.loads(line))
    size = len(Record(study, SearchId("flat", 0)).trials)
    drawn.write_text("".join(lines[:place]) + lines[place][:-9])
    assert Record(study, SearchId("flat", 0)).closed is None
    _run(study)
    assert _sizes(study)[0] == {size}


def test_a_trial_that_runs_counts_as_one_that_has_ended(study: Study) -> None:
    record = Record(study, SearchId("flat", 0))
    for _ in range(3):
        record.draw({"loss.gamma": 1.0})
    assert limits.spent([record]) == 0.0
    record.end(record.trials[0], "failed", "nan", 20.0)
    assert limits.spent([record]) == 60.0


def test_best_yaml_and_status_say_why_a_search_stopped(study: Study) -> None:
    choice.write_settings(study, study.search_ids, "data")
    choice.write_choices(_run(study).values())
    folder = study.search_folder(SearchId("flat", 1))
    best = yamlfile.load(folder / "best.yaml")
    assert isinstance(best, dict)
    assert (best["closed"], best["trials"]) == (
        "the budget of 2 device-hours is spent",
        _sizes(study)[1].pop(),
    )
    states = search_states.read(study.root)
    assert {state.closed for state in states} == {"the budget of 2 device-hours is spent"}
    assert {state.trials for state in states if state.search.endswith("fold1")} == {best["trials"]}


def test_a_search_without_a_budget_draws_all(study: Study) -> None:
    free = study.model_copy(update={"search": study.search.model_copy(update={"budget_hours": None})})
    _run(free)
    assert _sizes(free) == {0: {9}, 1: {9}}


def test_a_damaged_note_is_refused(study: Study) -> None:
    record = Record(study, SearchId("flat", 0))
    record.draw({"loss.gamma": 1.0})
    with open(record.folder / "trials.jsonl", "a") as file:
        file.write('{"closed": "enough", "trials": "many"}\n')
    with pytest.raises(InputError, match=r"trials.jsonl: a search that stopped after 'many' trials"):
        Record(study, SearchId("flat", 0))
