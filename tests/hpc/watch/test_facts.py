"""What is shown of a study at work is what its files say."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from hpc.launching import run_states
from hpc.search import choice
from hpc.studies import cells
from hpc.studies.study import Study
from hpc.watch import facts, lines
from hpc.watch.facts import Facts
from hpc.watch.memory import Memory
from leukotree.config import parse
from leukotree.files import locked
from leukotree.records import searchfolder
from tests.helpers.at_work import FILE, run, study_at_work


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.chdir(tmp_path)
    return study_at_work()[0]


def read(study: Study, *, held: bool = True, expected: bool = False) -> Facts:
    lock = study.root / "search" / searchfolder.LOCK
    announced = facts.announced(study) if expected else None
    if not held:
        return facts.read(study.root, [], Memory(), announced)[0]
    with locked(lock, "busy"):
        return facts.read(study.root, [], Memory(), announced)[0]


def test_trials_runs_epoch_speed_and_best_are_those_of_the_files(study: Study) -> None:
    now = read(study)
    assert now.trials == {"completed": 2, "stopped": 1, "running": 1, "waiting": 4}
    assert (now.trials_of, now.searches_of, now.searches_ended) == (8, 2, 0)
    assert now.runs == {"done": 2, "running": 1, "failed": 1}
    assert now.epoch == "2 of 3"
    assert now.images_per_s == pytest.approx(2 * 120.5)
    assert now.best == {"flat": 0.4}  # neither the best of any epoch nor that of a stopped trial
    assert (now.at_work, now.over) == (True, False)


def test_the_time_left_of_runs_follows_from_those_that_are_done(study: Study) -> None:
    """A run takes 20 s. The one at work has done one epoch of three: 2/3 of 20 s are left, less the time
    since it began, of which at most one epoch counts."""
    left = read(study).runs_left
    assert left is not None
    assert left.seconds == pytest.approx(20 * (1 - 1 / 3) - 20 / 3, abs=1)
    assert left.low < left.seconds < left.high


def test_the_file_of_a_study_tells_how_many_runs_there_will_be(study: Study) -> None:
    """Two variants on four folds: four runs of flat are known, none of base."""
    now = read(study, expected=True)
    assert now.runs_of == 8
    assert now.runs_left is not None
    assert now.runs_left.seconds > 4 * 20
    assert read(study).runs_of == 4


def test_a_grid_announces_its_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    grid = {
        "study": "g",
        "variants": ["flat"],
        "folds": {"outer": 2},
        "grid": {"loss.gamma": [0.0, 1.0, 2.0]},
    }
    study = parse(Study, grid, "test")
    assert facts.announced(study).runs == {"flat": 6}
    cells.write(study.root, cells.expand(study)[:4])
    assert facts.announced(study).runs == {"flat": 4}


def test_runs_of_an_earlier_version_of_the_file_are_not_those_that_are_expected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fields = {"study": "e", "variants": ["flat"], "folds": {"outer": 3}, "search": {"trials": 0}}
    earlier = parse(Study, {**fields, "base": {"optim": {"epochs": 2}}}, "test")
    today = parse(Study, {**fields, "base": {"optim": {"epochs": 3}}}, "test")
    for row in earlier.expected(choice.chosen(earlier)):
        run(today.root / row["run_name"], "done", 3)
    [now] = facts.read(today.root, ["e"], Memory(), facts.announced(today))
    assert (now.over, now.runs_of) == (False, 6)
    for row in today.expected(choice.chosen(today)):
        run(today.root / row["run_name"], "done", 3)
    [now] = facts.read(today.root, ["e"], Memory(), facts.announced(today))
    assert (now.over, now.runs_of) == (True, 6)


def test_the_last_failure_is_the_youngest(study: Study) -> None:
    run(study.root / f"base-{9:012x}", "failed", 0, kind="nan", message="the loss is nan", heartbeat=1.0)
    failure = read(study).failure
    assert failure is not None
    assert (failure.what, failure.kind, failure.message) == ("flat-000000000003", "oom", "CUDA out of memory")


def test_a_failed_trial_is_named_by_its_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study, record = study_at_work()
    for folder in study.root.glob("flat-*"):
        (folder / "status.json").unlink()
    record.end(record.trials[-1], "failed", "the loss is nan")
    failure = read(study).failure
    assert failure is not None
    assert (failure.what, failure.message) == ("flat trial 3", "the loss is nan")


def test_without_a_sweep_its_trials_are_interrupted(study: Study) -> None:
    with locked(study.root / "search" / searchfolder.LOCK, "busy"):
        pass
    now = read(study, held=False)
    assert now.trials == {"completed": 2, "stopped": 1, "waiting": 4, "interrupted": 1}
    assert now.search_left is None
    assert now.at_work  # a run still is


def test_everything_has_ended_once_all_searches_and_runs_have(study: Study) -> None:
    for one in study.search_ids:
        (study.search_folder(one) / "best.yaml").write_text("{}")
    for folder in study.root.glob("flat-*"):
        run_state = {"state": "done", "epoch": 3, "epochs": 3, "heartbeat": time.time()}
        (folder / "status.json").write_text(json.dumps(run_state))
    assert read(study, held=False).over
    assert not read(study, held=False, expected=True).over  # the runs of base are missing


@pytest.mark.parametrize("damage", ["{", "[]", "study: s\nsearch: {trials: many}"])
def test_damaged_files_are_named_and_the_rest_is_shown(study: Study, damage: str) -> None:
    (study.search_folder(study.search_ids[1]) / "search.yaml").write_text(damage)
    (study.root / "flat-000000000002" / "status.json").write_text('{"state": "run')
    now = read(study)
    assert "search.yaml" in now.note
    assert now.runs == {"done": 2, "queued": 1, "failed": 1}


def test_json_is_one_line_with_finite_numbers(study: Study) -> None:
    (study.root / "flat-000000000000" / "status.json").write_text('{"state": "done", "heartbeat": NaN}')
    line = lines.as_json([read(study)])
    assert "\n" not in line
    [told] = json.loads(line, parse_constant=lambda name: pytest.fail(name))
    assert told["trials"]["running"] == 1
    assert told["search_left"]["low"] < told["search_left"]["seconds"]
    assert [one["search"] for one in told["searches"]] == ["base", "flat"]


def test_a_line_has_all_facts(study: Study) -> None:
    line = lines.text(read(study))
    for part in (
        "s: trials 3 of 8 (1 stopped, 1 running, 4 waiting)",
        "runs 2 of 4 (1 running, 1 failed)",
        "epoch 2 of 3",
        "241 images/s",
        "best macro_f1 flat 0.4000",
        "last failure: flat-000000000003 (oom): CUDA out of memory",
    ):
        assert part in line


def test_only_what_has_changed_is_read_again(study: Study) -> None:
    memory = Memory()
    facts.read(study.root, [], memory)
    first = memory.reads
    assert first > 8
    for _ in range(3):
        facts.read(study.root, [], memory)
    assert memory.reads == first
    status = study.root / "flat-000000000002" / "status.json"
    run_state = {"state": "running", "epoch": 2, "epochs": 3, "heartbeat": time.time()}
    status.write_text(json.dumps(run_state))
    os.utime(status, ns=(0, time.time_ns()))
    again = facts.read(study.root, [], memory)[0]
    assert memory.reads == first + 1
    assert again.epoch == "3 of 3"


def test_a_look_writes_nothing(study: Study) -> None:
    """Neither a file nor a time of one. So it also works on a folder that only others may write."""

    def tree() -> dict[str, tuple[int, int]]:
        return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in Path().rglob("*")}

    with locked(study.root / "search" / searchfolder.LOCK, "busy"):
        before = tree()
        facts.read(study.root, [], Memory(), facts.announced(study))
        assert tree() == before


def test_a_study_that_has_not_begun_is_shown_if_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study = parse(Study, FILE, "test")
    [now] = facts.read(study.root, ["s"], Memory(), facts.announced(study))
    assert (now.trials_of, now.searches_of, now.runs_of) == (8, 2, 8)
    assert (now.at_work, now.over) == (False, False)
    [bare] = facts.read(study.root, ["s"], Memory())
    assert lines.text(bare).endswith("s: nothing has begun yet")


@pytest.mark.slow("writes and reads ten thousand run folders")
def test_ten_thousand_runs_answer_within_two_seconds(tmp_path: Path) -> None:
    root = tmp_path / "grid"
    for number in range(10_000):
        folder = root / f"flat-{number:012x}"
        folder.mkdir(parents=True)
        state = "done" if number < 9_990 else "running"
        status = {"state": state, "epoch": 1, "epochs": 1, "heartbeat": time.time(), "macro_f1": 0.5}
        (folder / "status.json").write_text(json.dumps(status))
    memory = Memory()
    begin = time.process_time()
    [first] = facts.read(root, ["grid"], memory)
    assert time.process_time() - begin < 2
    assert first.runs == {"done": 9_990, "running": 10}
    reads, begin = memory.reads, time.process_time()
    facts.read(root, ["grid"], memory)
    assert time.process_time() - begin < 1
    assert memory.reads == reads
    assert len(run_states.scan(root)) == 10_000
