"""The order in which the trials of a sweep run: side by side, whatever is killed and whenever."""

from __future__ import annotations

import os
import random
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpc.search import choice, record, sampler
from hpc.search.record import Trial
from hpc.studies.study import SearchId, Study
from tests.helpers import searches

FLAT = SearchId("flat", 0)
SPACE = {"loss.gamma": {"uniform": [0, 5]}, "optim.lr": {"loguniform": [1e-4, 1e-2]}}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda file: None)  # no power fails in these tests


def study(epochs: int = 6, variants: tuple[str, ...] = ("flat",), **search: Any) -> Study:
    given = {"nested": False, "trials": 8, "startup_trials": 3, "grace": 1, "reduction_factor": 2, **search}
    return Study.model_validate(
        {
            "study": "s",
            "base": {"optim": {"epochs": epochs}},
            "variants": variants,
            "search": {"space": SPACE, **given},
        }
    )


def test_at_32_slots_nine_in_ten_later_proposals_are_informed(monkeypatch: pytest.MonkeyPatch) -> None:
    """15 searches of 30 trials, whose reports take 0.5 to 1.5 seconds. A proposal is informed if as many
    trials as the sampler needs have ended. All variants are served alike."""
    monkeypatch.setattr(sampler, "propose", lambda *given: {"loss.gamma": 1.0, "optim.lr": 1e-3})
    variants = ("flat", "base", "multilabel")
    plan = study(2, variants, nested=True, trials=30, startup_trials=10, scheduler="none")
    rng = random.Random(0)
    times: dict[int, float] = defaultdict(lambda: rng.uniform(0.5, 1.5))
    played = searches.play(searches.begun(plan), slots=32, seconds=lambda trial: times[id(trial)])
    later = [one for one in played.proposals if one.number >= 10]
    assert len(later) == 300
    informed = {v: sum(one.known >= 10 for one in later if one.search_id.variant == v) for v in variants}
    assert sum(informed.values()) >= 270
    assert max(informed.values()) - min(informed.values()) <= 10
    assert played.seconds < 1.2 * played.reports / 32


def test_searches_advance_side_by_side() -> None:
    plan = study(variants=("flat", "base", "multilabel"), scheduler="none", rerun_top=1, rerun_seeds=2)
    queue = searches.begun(plan)
    played = searches.play(queue)
    assert [one.search_id.variant for one in played.proposals] == list(plan.variants) * 8
    assert [one.number for one in played.proposals] == [n for n in range(8) for _ in range(3)]
    assert all(len(one.reruns) == 2 for one in queue.records.values())
    alone = searches.drawn(plan, FLAT)
    shutil.rmtree(plan.root)
    searches.play(searches.begun(plan, [FLAT]))
    assert searches.drawn(plan, FLAT) == alone  # no search depends on another


class Snapshots:
    """Copies of a study's folder after each write, and with the last line of a log cut short."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path, to: Path) -> None:
        self._root, self._to, self.folders = root, to, list[Path]()
        for name in ("append_lines", "write_atomic"):
            monkeypatch.setattr(record, name, self._copying(getattr(record, name)))

    def _copying(self, write: Callable[..., None]) -> Callable[..., None]:
        def written(path: Path, content: Any) -> None:
            write(path, content)
            for cut in (0, 4) if path.suffix == ".jsonl" else (0,):
                folder = self._to / f"{len(self.folders):04d}"
                shutil.copytree(self._root, folder)
                last = folder / path.relative_to(self._root)
                last.write_bytes(last.read_bytes()[: -cut or None])
                self.folders.append(folder)

        return written


@pytest.mark.parametrize("scheduler", ["halving", "hyperband", "asha"])
def test_a_kill_at_any_moment_changes_no_proposal_and_no_choice(
    scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One slot. The trials pause, go on, and end; one fails; the best is run again."""
    plan = study(5, scheduler=scheduler, trials=6, rerun_top=1, rerun_seeds=2)

    def score(search_id: SearchId, trial: Trial, report: int) -> float:
        if trial.number == 3 and report == 2:
            raise searches.Failed("the loss is nan")
        return searches.by_number(search_id, trial, report)

    def outcome() -> tuple[Any, ...]:
        queue = searches.begun(plan)
        searches.play(queue, score)
        one = queue.records[FLAT]
        ends = [(trial.chosen, trial.scores, trial.state) for trial in one.trials]
        chosen = choice.current(one)
        assert chosen is not None
        return ends, [(rerun.number, rerun.state) for rerun in one.reruns], chosen[0].number, chosen[1]

    with monkeypatch.context() as patched:
        states = Snapshots(patched, plan.root, tmp_path / "killed").folders
        undisturbed = outcome()
    assert len(states) > 40
    for killed in states:
        shutil.rmtree(plan.root)
        shutil.copytree(killed, plan.root)
        assert outcome() == undisturbed, killed
