"""The state of searches in `status` and its JSON: the score that decides the choice, and counts of trials."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from hpc import status
from hpc.launching import run_states
from hpc.search import choice, pace, search_states
from hpc.search.record import Record
from hpc.studies.study import SearchId, Study
from leukotree import yamlfile
from leukotree.config import parse
from leukotree.files import locked
from leukotree.records import searchfolder

VALUES = {"optim.lr": 1e-3}
FLAT = SearchId("flat", 0)


def _study(**search: Any) -> Study:
    space = {"optim.lr": {"loguniform": [1e-4, 1e-2]}}
    fields = {"base": {"optim": {"epochs": 3}}, "variants": ["flat"], "folds": {"outer": 4, "inner": 2}}
    return parse(
        Study,
        {"study": "s", **fields, "search": {"trials": 4, "nested": False, "space": space, **search}},
        "test",
    )


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Study, Record]:
    """A search of four trials. The second ended with a lower score than it had before. The third was stopped
    with the highest score. The fourth has begun."""
    monkeypatch.chdir(tmp_path)
    study = _study()
    choice.write_settings(study, study.search_ids, "0" * 64)
    return study, _searched(study)


def _searched(study: Study) -> Record:
    record = Record(study, FLAT)
    for number, scores in enumerate([(0.1, 0.2, 0.3), (0.2, 0.8, 0.4), (0.9,)]):
        trial = record.draw(VALUES)
        for epoch, score in enumerate(scores, 1):
            record.report(trial, epoch, score, 10.0 * (3 * number + epoch))
        record.end(trial, "completed" if len(scores) == 3 else "stopped")
    record.draw(VALUES)
    return record


def _at_work(study: Study, record: Record, epoch: int, state: str = "running") -> None:
    trial = record.trials[-1]
    for spec in study.trial_specs("flat", trial.chosen, 0):
        folder = study.search_folder(FLAT) / "runs" / f"{trial.number:05d}" / spec.run_name
        folder.mkdir(parents=True)
        status = {"state": state, "epoch": epoch, "epochs": 3, "heartbeat": time.time()}
        (folder / "status.json").write_text(json.dumps(status))


def test_the_best_score_is_the_one_that_decides_the_choice(begun: tuple[Study, Record]) -> None:
    """It is neither the best after any epoch (0.8) nor the score of a stopped trial (0.9)."""
    study, record = begun
    current = choice.current(record)
    assert current is not None
    assert (current[0].number, current[1]) == (1, 0.4)
    [search] = search_states.read(study.root)
    assert search.best == 0.4
    record.end(record.trials[-1], "failed", "nan")
    choice.write_choices([record])
    best = yamlfile.load(study.search_folder(FLAT) / "best.yaml")
    assert (best["trial"], best["value"]) == (1, 0.4)
    assert search_states.read(study.root)[0].best == best["value"]


def test_reruns_choose_once_all_have_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = _study(trials=3, rerun_top=2, rerun_seeds=1)
    record = Record(study, FLAT)
    for score in (0.4, 0.3, 0.5):
        trial = record.draw(VALUES)
        record.report(trial, 3, score, 1.0)
        record.end(trial, "completed")
    first, second = record.reruns
    record.report(first, 3, 0.2, 2.0)
    record.end(first, "completed")
    assert choice.current(record) == (record.trials[2], 0.5)  # the other may still be better
    record.report(second, 3, 0.35, 2.0)
    record.end(second, "completed")
    assert choice.current(record) == (record.trials[0], 0.35)
    choice.write_choices([record])
    assert yamlfile.load(study.search_folder(FLAT) / "best.yaml")["value"] == 0.35


def test_a_running_search_has_trials_epoch_and_time_left(begun: tuple[Study, Record]) -> None:
    study, record = begun
    _at_work(study, record, epoch=1)
    with locked(study.root / "search" / searchfolder.LOCK, "busy"):
        look = run_states.look(study.root)
        table = status.table(study.root, look).splitlines()
        [row] = [one for one in json.loads(status.as_json(study.root, look)) if "search" in one]
    assert table[1].split() == ["s", "flat", "running", "3", "of", "4", "1", "0", "2", "of", "3", "0.4000"]
    counts = {"ended": 3, "trials": 4, "running": 1, "epoch": 2, "epochs": 3, "best": 0.4}
    assert row | counts | {"study": "s", "search": "flat", "state": "running"} == row
    assert row["folder"] == "results/runs/s/search/flat"
    assert row["seconds_left"] == pytest.approx(pace.seconds_left([record]), abs=3)
    assert row["seconds_left_low"] < row["seconds_left"] < row["seconds_left_high"]
    assert re.match(r"s: its searches take (about )?\d+ s (to \d+ s )?more$", table[2])
    assert "reports" not in "".join(table)
    assert " open" not in "".join(table)


def test_a_search_without_a_sweep_is_interrupted_whatever_its_last_heartbeat_is(
    begun: tuple[Study, Record],
) -> None:
    study, record = begun
    _at_work(study, record, epoch=1)
    with locked(study.root / "search" / searchfolder.LOCK, "busy"):
        pass
    [search] = search_states.read(study.root)
    assert (search.state, search.running, search.interrupted, search.seconds_left) == (
        "interrupted",
        0,
        1,
        None,
    )
    table = status.table(study.root, run_states.look(study.root))
    assert "interrupted" in table
    assert "the same `leukotree sweep` command continues it" in table
    assert search_states.read(study.root, queued={"s"})[0].state == "waiting"


def test_trials_that_wait_for_a_slot_do_not_run(begun: tuple[Study, Record]) -> None:
    study, _ = begun
    with locked(study.root / "search" / searchfolder.LOCK, "busy"):
        [search] = search_states.read(study.root)
    assert (search.state, search.running, search.waiting) == ("waiting", 0, 1)


def test_nested_searches_are_named_by_their_fold_in_one_study_and_in_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study = _study(nested=True)
    choice.write_settings(study, study.search_ids, "0" * 64)
    (study.search_folder(SearchId("flat", 1)) / "best.yaml").write_text("{}")
    for place in (study.root, study.root.parent):
        states = [
            (one.study, one.search, one.state, one.ended, one.trials) for one in search_states.read(place)
        ]
        assert states[:2] == [("s", "flat/fold0", "interrupted", 0, 4), ("s", "flat/fold1", "ended", 0, 4)]


@pytest.mark.parametrize("damage", ["{", "study: s\nsearch: {trials: many}", "[]", None])
def test_a_search_whose_settings_cannot_be_read_is_still_listed(
    begun: tuple[Study, Record], damage: str | None
) -> None:
    study, _ = begun
    path = study.search_folder(FLAT) / "search.yaml"
    path.unlink()
    if damage is not None:
        path.write_text(damage)
    table = status.table(study.root, run_states.look(study.root))
    assert table.splitlines()[1].split()[:5] == ["s", "flat", "interrupted", "0", "of"]
    assert "search.yaml" in table


def test_the_time_left_follows_the_pace_and_needs_a_trial_that_has_ended(
    begun: tuple[Study, Record],
) -> None:
    """Seven scores in 70 s, one after another. One trial of three was stopped after its first score, so the
    last trial has 1 + 2/3 + 2/3 scores to come. After its first one it is not stopped, and has two."""
    _, record = begun
    assert pace.seconds_left([record]) == pytest.approx(7 / 3 * 10)
    record.trials[-1].scores[1] = 0.5
    assert pace.seconds_left([record]) == pytest.approx(2 * 10)
    record.trials = record.trials[-1:]
    assert pace.seconds_left([record]) is None


def test_trials_at_a_rung_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while no sweep runs: nobody interrupted them."""
    monkeypatch.chdir(tmp_path)
    study = _study(scheduler="halving", grace=1)
    choice.write_settings(study, study.search_ids, "0" * 64)
    record = Record(study, FLAT)
    record.report(record.draw(VALUES), 1, 0.5, 10.0)
    _at_work(study, record, 1, "stopped")
    [search] = search_states.read(study.root)
    assert (search.state, search.ended, search.running) == ("interrupted", 0, 0)
    assert (search.waiting, search.interrupted, search.best) == (4, 0, None)
