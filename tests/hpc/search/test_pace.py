"""The time left of a search is near the truth from the second trial on, whatever runs side by side."""

from __future__ import annotations

import heapq
import itertools
import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from hpc.search import pace, record
from hpc.search.pace import Left
from hpc.search.record import Record, Trial
from hpc.studies.study import SearchId, Study
from leukotree.config import parse

VALUES = {"optim.lr": 1e-3}
COSTS = {"flat": 5.0, "base": 18.0}
"""Variant -> seconds of an epoch."""


def study(epochs: int, variants: list[str], **search: object) -> Study:
    space = {"optim.lr": {"loguniform": [1e-4, 1e-2]}}
    settings = {"trials": 8, "nested": False, "space": space, **search}
    fields = {"base": {"optim": {"epochs": epochs}}, "variants": variants, "folds": {"outer": 4, "inner": 2}}
    return parse(Study, {"study": "s", **fields, "search": settings}, "test")


class Sweep:
    """A sweep on a clock of its own: `slots` trials at a time, of which a share is stopped early."""

    def __init__(self, plan: Study, folder: Path, slots: int, stopped: float, seed: int) -> None:
        self.records = [Record(plan, SearchId(name, 0), folder / name) for name in plan.variants]
        self._plan, self._free, self._stopped = plan, slots, stopped
        self._random, self._events = random.Random(seed), list[tuple[float, int, Record, Trial, int]]()
        self._numbers, self._seconds = itertools.count(), dict[int, float]()
        self._begun: set[int] = set()

    def _next(self) -> tuple[Record, Trial] | None:
        for one in self.records:
            if len(one.trials) < self._plan.search.trials:
                return one, one.draw(VALUES)
            if open_ := [
                again for again in one.reruns if again.state is None and id(again) not in self._begun
            ]:
                return one, open_[0]
        return None

    def _fill(self, now: float, start: float) -> None:
        while self._free and (found := self._next()):
            one, trial = found
            self._free -= 1
            self._begun.add(id(trial))
            seconds = COSTS[one.search_id.variant] * self._random.uniform(0.8, 1.25)
            self._seconds[id(trial)] = seconds
            # A re-run has one score, at its end.
            first = seconds * self._plan.reports if trial.seed is not None else seconds
            heapq.heappush(
                self._events, (now + start + first, next(self._numbers), one, trial, self._length(trial))
            )

    def _length(self, trial: Trial) -> int:
        most = self._plan.reports
        early = trial.seed is None and self._random.random() < self._stopped
        return self._random.randint(1, most - 1) if early and most > 1 else most

    def __iter__(self) -> Iterator[float]:
        """The time after each report."""
        self._fill(0.0, start=10.0)  # each process first imports its packages
        while self._events:
            now, _, one, trial, length = heapq.heappop(self._events)
            done = self._plan.reports if trial.seed is not None else trial.last + 1
            one.report(trial, done, self._random.random(), now)
            seconds = self._seconds[id(trial)]
            if done < length:
                later = now + seconds * self._random.uniform(0.95, 1.05)
                heapq.heappush(self._events, (later, next(self._numbers), one, trial, length))
            else:
                one.end(trial, "completed" if done == self._plan.reports else "stopped", None, seconds * done)
                self._free += 1
                self._fill(now, start=0.3)
            yield now


@pytest.mark.parametrize("slots", [1, 2, 4, 8])
@pytest.mark.parametrize("epochs", [1, 3, 8])
@pytest.mark.parametrize("reruns", [0, 2])
def test_from_the_second_trial_on_it_is_within_a_factor_of_two(
    slots: int, epochs: int, reruns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 19 of 20 moments, with half of the trials stopped early, or none, and with variants that differ in
    cost. The last seconds do not count: a report may come any moment."""
    monkeypatch.setattr(record, "append_lines", lambda *_: None)
    monkeypatch.setattr(record, "write_atomic", lambda *_: None)
    near = inside = moments = 0
    for seed, stopped, variants in itertools.product(range(3), (0.0, 0.5), (["flat"], ["flat", "base"])):
        sweep = Sweep(study(epochs, variants, rerun_top=reruns), tmp_path, slots, stopped, seed)
        estimates: list[tuple[float, Left]] = []
        for now in sweep:
            ended = sum(trial.state is not None for one in sweep.records for trial in one.trials)
            if ended >= 2 and (left := pace.left(sweep.records, {"flat": 1.0, "base": 3.6})):
                estimates.append((now, left))
        for at, left in estimates:
            if (true := now - at) > 2 * COSTS["flat"]:
                moments += 1
                near += true / 2 <= left.seconds <= 2 * true
                inside += left.low <= true <= left.high
    assert near >= 0.9 * moments > 0
    assert inside >= 0.75 * moments


def test_a_time_is_a_range_where_it_is_not_sure() -> None:
    assert str(Left.around(600, doubt=0.1)) == "about 10 min"
    assert str(Left.around(6000, doubt=1.0)) == "50 min to 3.3 h"
    assert str(Left.around(20, doubt=1.0)) == "about 20 s"
    assert Left.around(10, doubt=0.5, spent=60).high == 0


def _shards(folder: Path, description: Mapping[str, object] | str) -> Study:
    folder.mkdir(exist_ok=True)
    text = description if isinstance(description, str) else json.dumps(description)
    (folder / "dataset.json").write_text(text)
    return study(3, ["flat"]).model_copy(
        update={"base": study(3, ["flat"]).base.override({"data.shards": str(folder)})}
    )


def test_the_cost_of_a_variant_is_the_images_of_its_models(tmp_path: Path) -> None:
    """Root: 100 images. The decision below it: 60. An ensemble has as many steps as `base`."""
    tree = {"root": {"a": None, "b": ["c", "d"]}}
    plan = _shards(tmp_path / "shards", {"taxonomy": tree, "counts": {"a": 40, "c": 50, "d": 10}})
    costs = pace.costs_of(plan, ["flat", "base", "multilabel", "ensemble"])
    assert costs == {"flat": 1.0, "base": 1.6, "multilabel": 1.0, "ensemble": 1.6}
    by_steps = plan.model_copy(update={"base": plan.base.override({"optim.steps": 100})})
    assert pace.costs_of(by_steps, ["flat", "base"]) == {"flat": 1.0, "base": 2.0}


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"taxonomy": {"root": ["a", "b"]}, "counts": 3}'])
def test_data_that_cannot_be_read_give_no_costs(
    tmp_path: Path, content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the default data set may be in the repository
    assert pace.costs_of(_shards(tmp_path / "shards", content), ["flat"]) == {}
    assert pace.costs_of(study(3, ["flat"]), ["flat"]) == {}


def test_trials_at_a_rung_have_little_left(tmp_path: Path) -> None:
    """Of four trials with an epoch each, two at a time, one goes on for two more epochs. Two such pauses are
    no part of an epoch's time."""
    left = {}
    for scheduler in ("halving", "none"):
        plan = study(3, ["flat"], scheduler=scheduler, trials=4, grace=1, reduction_factor=4)
        one = Record(plan, SearchId("flat", 0), tmp_path / scheduler)
        for number in range(4):
            one.report(one.draw(VALUES), 1, number / 4, 10.0 * (number // 2 + 1))
        if scheduler == "none":
            one.end(one.trials[0], "stopped", None, 10.0)
        left[scheduler] = pace.left([one])
    halving, none = left["halving"], left["none"]
    assert halving is not None
    assert none is not None
    assert 0 < halving.seconds < none.seconds
