"""What a study will cost, from the trials and runs that have ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpc.doctor import forecast, rates
from hpc.launching.place import Place
from hpc.search import choice
from hpc.search.record import Record
from hpc.studies.study import SearchId, Study
from leukotree.data.dataset import Dataset
from leukotree.records.runfolder import RunFolder
from leukotree.runtime import Runtime
from leukotree.training import costs

SECONDS = {"flat": 2.0, "base": 5.0}
"""Device-seconds of a report."""


@pytest.fixture
def study(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.chdir(tmp_path)
    return _study(shards)


def _study(shards: Path, name: str = "s", **search: Any) -> Study:
    space = {"loss.gamma": {"uniform": [0, 5]}}
    base = {"data": {"shards": str(shards)}, "backbone": {"name": "test_vit"}, "optim": {"epochs": 12}}
    fields = {"study": name, "base": base, "variants": list(SECONDS), "folds": {"outer": 4, "inner": 2}}
    settings = {"trials": 6, "grace": 3, "space": space, **search}
    return Study.model_validate({**fields, "search": settings})


def _train(record: Record, drawn: np.random.Generator) -> float:
    """Trials that ASHA stops about as often as it does. Returns their device-seconds."""
    total = 0.0
    for number in range(record.most):
        trial = record.draw({"loss.gamma": 1.0})
        last = 12 if not number or drawn.random() < 0.4 else 3
        for epoch in range(1, last + 1):
            record.report(trial, epoch, 0.5, float(epoch))
        seconds = SECONDS[record.search_id.variant] * last * float(np.exp(drawn.normal(0, 0.2)))
        record.end(trial, "completed" if last == 12 else "stopped", None, seconds)
        total += seconds
    return total


def _records(study: Study) -> list[Record]:
    return [Record(study, search_id) for search_id in study.search_ids]


def test_the_cost_of_what_follows_lies_in_the_interval_after_the_first_search(study: Study) -> None:
    """Of 90 % intervals, nearly all of 12."""
    held = []
    for seed in range(12):
        one = study.model_copy(update={"study": f"s{seed}"})
        drawn = np.random.default_rng(seed)
        for record in _records(one)[:2]:  # both variants of the first fold
            _train(record, drawn)
        expected = forecast.of_search(one, _records(one), 1.0)
        assert expected.seconds is not None
        assert expected.unknown == []
        real = sum(_train(record, drawn) for record in _records(one)[2:])
        held.append(expected.seconds.low <= real <= expected.seconds.high)
        assert expected.seconds.high < 4 * expected.seconds.low
        assert forecast.of_search(one, _records(one), 1.0).seconds == forecast.NOTHING
    assert sum(held) >= 10


def test_where_nothing_is_known_a_command_measures_it(study: Study) -> None:
    unknown = forecast.of_search(study, _records(study), None)
    assert (unknown.seconds, unknown.unknown) == (None, ["flat", "base"])
    (line,) = [line for line in unknown.lines() if line.startswith("cost")]
    assert line.startswith("cost: not known; measure with `leukotree sweep study=s-cost base.optim.epochs=2")
    assert unknown.as_dict()["device_hours"] is None
    assert unknown.epochs is not None
    assert unknown.epochs.high <= 8 * 6 * 2 * 12 * 1.3


def test_another_study_of_the_same_kind_tells_with_more_doubt(shards: Path, study: Study) -> None:
    other = _study(shards, "pilot", trials=3)
    search_id = SearchId("flat", 0)
    choice.write_settings(other, [search_id], "data")
    _train(Record(other, search_id), np.random.default_rng(0))
    known = forecast.of_search(study, _records(study), 2.0)
    assert known.unknown == []
    assert known.basis == ["3 trainings of other studies", "3 trainings of other variants"]
    assert known.seconds is not None
    assert known.seconds.low < known.seconds.mean < known.seconds.high
    wall = known.as_dict()
    assert wall["hours"] == pytest.approx([hours / 2 for hours in wall["device_hours"]])


def test_a_budget_caps_the_trials(study: Study) -> None:
    drawn = np.random.default_rng(0)
    for record in _records(study)[:2]:
        _train(record, drawn)
    free = forecast.of_search(study, _records(study), 1.0).seconds
    search = study.search.model_copy(update={"budget_hours": 30 / 3600})
    capped = forecast.of_search(study.model_copy(update={"search": search}), _records(study), 1.0).seconds
    assert free is not None
    assert capped is not None
    assert capped.mean < free.mean
    assert capped.high <= 3 * (30 + free.mean / 6)


def _finished(study: Study, variant: str, fold: int, seconds: float) -> None:
    spec = study.spec(variant, {}, fold, 0)
    folder = RunFolder(study.root, spec).path
    folder.mkdir(parents=True)
    counted = costs.compute(spec, Dataset.open(spec.data.shards)).as_dict()
    status = {"state": "done", "heartbeat": 1000.0 + seconds, "compute": counted}
    (folder / "status.json").write_text(json.dumps(status))
    (folder / "spec.yaml").write_text(spec.dump())
    (folder / "attempts.jsonl").write_text(json.dumps({"started": 1000.0, "ranks": 2, "at": 0}) + "\n")


def test_finished_runs_tell_what_the_others_cost(study: Study) -> None:
    plan = study.model_copy(update={"search": study.search.model_copy(update={"trials": 0})})
    for fold, seconds in ((0, 10.0), (1, 12.0)):
        _finished(plan, "flat", fold, seconds)
    todo = [plan.spec("flat", {}, fold, 0) for fold in (2, 3)]
    known = forecast.of_runs(plan, todo, 4.0)
    assert known.seconds is not None
    assert known.seconds.mean == pytest.approx(2 * 22, rel=0.1)  # two ranks
    assert known.disk > 0
    assert known.basis == ["2 trainings of this study"]
    assert "on 4 at once" in known.lines()[-1]


def test_a_run_that_waited_between_two_attempts_tells_nothing(study: Study) -> None:
    _finished(study, "flat", 0, 10.0)
    folder = RunFolder(study.root, study.spec("flat", {}, 0, 0)).path
    with open(folder / "attempts.jsonl", "a") as file:
        file.write(json.dumps({"started": 1500.0, "at": 5}) + "\n")
    assert rates.of_study(study) == []


def test_devices_that_work_at_once() -> None:
    runtime = Runtime(device="cpu")
    assert forecast.devices(Place(on="inline", ranks=2), None, runtime) == 2.0
    assert forecast.devices(Place(on="local", ranks=2), 3, runtime) == 6.0
