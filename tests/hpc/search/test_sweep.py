"""A sweep with a real Ray: the files that it writes, its continuation, and its errors when trials fail."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpc import cli
from hpc.launching import failures
from hpc.search import choice, cluster, leakage, sweep
from hpc.search.record import Record
from hpc.search.slot_plan import SlotPlan
from hpc.search.trial_place import TrialPlace
from hpc.studies import study as studies
from hpc.studies.study import SearchId, Study
from leukotree.config import parse
from leukotree.errors import Busy, InputError, Preempted
from leukotree.files import locked
from leukotree.records import searchfolder
from leukotree.runtime import Runtime
from leukotree.spec import load
from leukotree.training import run

pytestmark = pytest.mark.slow("searches under Ray")

QUIET = Runtime(device="cpu", quiet=True)
FLAT = SearchId("flat", 0)
SPACE = {
    "loss.gamma": {"uniform": [0, 5]},
    "optim.lr": {"loguniform": [1e-4, 1e-2]},
    "optim.batch_size": {"choice": [16, 21]},
}


def _study(shards: Path, **search: Any) -> Study:
    fields = {
        "study": "search",
        "base": {
            "data": {"shards": str(shards)},
            "backbone": {"name": "test_vit"},
            "engine": {"precision": "fp32"},
            "optim": {"epochs": 2},
        },
        "variants": ["flat"],
        "folds": {"outer": 4, "inner": 2},
        "search": {"nested": False, "trials": 3, "startup_trials": 2, "space": SPACE, **search},
    }
    return parse(Study, fields, "test")


def _table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder for this test alone: other tests run Ray at the same time. Its path is as short as
    Ray's sockets need."""
    with tempfile.TemporaryDirectory(prefix="t") as name:
        monkeypatch.setattr(tempfile, "tempdir", name)
        yield Path(name)


def _children() -> list[str]:
    """Command lines of this process's living descendants that belong to Ray."""
    listed = subprocess.run(
        ["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True
    ).stdout.splitlines()[1:]
    rows = [line.split(None, 2) for line in listed]
    family = {str(os.getpid())}
    while grown := {row[0] for row in rows if row[1] in family} - family:
        family |= grown
    return [
        row[2]
        for row in rows
        if row[0] in family and ("raylet" in row[2] or "gcs_server" in row[2] or "ray::" in row[2])
    ]


def test_a_sweep_writes_the_best_and_removes_its_temporary_files(
    shards: Path, tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = _study(shards, scheduler="none")
    folder, used = plan.search_folder(FLAT), []
    private = tempfile.mkdtemp
    monkeypatch.setattr(tempfile, "mkdtemp", lambda *a, **k: used.append(private(*a, **k)) or used[-1])
    best = sweep.sweep(plan, TrialPlace(concurrency=1), QUIET)[FLAT]

    trials = _table(folder / "trials.csv")
    assert [(row["trial"], row["state"], row["epochs"]) for row in trials] == [
        (str(n), "completed", "2") for n in range(3)
    ]
    assert list(trials[0])[:6] == list(searchfolder.TRIAL_COLUMNS)
    assert list(trials[0])[6:] == list(SPACE)
    assert best == yaml.safe_load((folder / "best.yaml").read_text())
    assert best["value"] == max(float(row["macro_f1"]) for row in trials)
    winner = trials[best["trial"]]
    assert {key: float(winner[key]) for key in SPACE} == best["chosen"]
    assert choice.chosen(plan) == {"flat": dict.fromkeys(range(4), best["chosen"])}
    assert all(
        0 <= float(row["loss.gamma"]) <= 5 and row["optim.batch_size"] in ("16", "21") for row in trials
    )

    history = _table(folder / "history.csv")
    assert [(row["trial"], row["epoch"]) for row in history] == [
        (str(n), str(e)) for n in range(3) for e in (1, 2)
    ]
    seconds = [float(row["seconds"]) for row in history]
    assert seconds == sorted(seconds)
    for row in trials:
        scores = [float(one["macro_f1"]) for one in history if one["trial"] == row["trial"]]
        assert (float(row["macro_f1"]), float(row["best_macro_f1"])) == (scores[-1], max(scores))

    assert len(list((folder / "runs").glob("*/*"))) == 3 * plan.folds.inner
    assert any(Path(name).parent == temporary and "ray" in name for name in used)
    assert not list(temporary.glob("ray*"))
    assert not _children()
    assert "RAY_AUTH_TOKEN" not in os.environ

    # Again: nothing to do. With other settings: refused, and the difference named.
    monkeypatch.setattr(cluster, "connect", None)
    assert sweep.sweep(plan, runtime=QUIET) == {FLAT: best}
    with pytest.raises(
        InputError, match=r"search\.seed was None and is 7; rename the study, or move the folder away"
    ) as caught:
        sweep.sweep(_study(shards, scheduler="none", seed=7), runtime=QUIET)
    assert "\n" not in str(caught.value)

    # If the data are packed again, the fold that the search did not see is another one.
    monkeypatch.setattr(choice, "fingerprint", lambda study, repeat: "another")
    with pytest.raises(InputError, match=r"dataset was .* and is 'another'"):
        choice.chosen(plan)


def test_nested_searches_choose_for_their_own_fold_by_reruns(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two outer folds. In each both trials are run again on two seeds. Then the sweep continues after a kill
    of a re-run."""
    monkeypatch.chdir(tmp_path)
    plan = _study(shards, nested=True, trials=2, scheduler="none", rerun_top=2, rerun_seeds=2)
    plan = plan.model_copy(update={"folds": plan.folds.model_copy(update={"outer": 2})})
    choices = sweep.sweep(plan, TrialPlace(concurrency=1), QUIET)
    assert list(choices) == [SearchId("flat", 0), SearchId("flat", 1)]
    assert choice.chosen(plan) == {
        "flat": {search_id.test_fold: best["chosen"] for search_id, best in choices.items()}
    }
    leakage.check(plan)
    for search_id, best in choices.items():
        folder = plan.search_folder(search_id)
        assert folder.name == f"fold{search_id.test_fold}"
        assert best["test_fold"] == search_id.test_fold
        trials = _table(folder / "trials.csv")
        searched = {int(row["trial"]): float(row["macro_f1"]) for row in trials}
        means = {row["trial"]: sum(row["scores"]) / 2 for row in best["reruns"]}
        assert best["trial"] == max(means, key=lambda number: (means[number], -number))
        assert best["value"] == means[best["trial"]]
        assert best["search_trial"] == max(searched, key=lambda number: (searched[number], -number))
        assert best["search_value"] == searched[best["search_trial"]]
        assert best["optimism"] == best["search_value"] - means[best["search_trial"]]
        assert best["rerun_seeds"] == plan.fresh_seeds(search_id.test_fold)
        for kind, seeds in (("runs", {0}), ("reruns", set(plan.fresh_seeds(search_id.test_fold)))):
            specs = [load(path) for path in folder.glob(f"{kind}/*/*/spec.yaml")]
            assert {(spec.data.test_fold, spec.seed) for spec in specs} == {
                (search_id.test_fold, seed) for seed in seeds
            }
            assert len(specs) == 2 * len(seeds) * plan.folds.inner

    folder = plan.search_folder(FLAT)
    (folder / "best.yaml").unlink()
    lines = (folder / "reruns.jsonl").read_text().splitlines(keepends=True)
    (folder / "reruns.jsonl").write_text("".join(lines[:-1]) + lines[-1][:7])
    starts = [len(_attempts(plan, FLAT, trial, "reruns")) for trial in (0, 1)]
    again = sweep.sweep(plan, TrialPlace(concurrency=1), QUIET)
    for one in (again[FLAT], choices[FLAT]):
        for row in one["reruns"]:
            del row["seconds"]
    assert again == choices
    assert [
        len(_attempts(plan, FLAT, trial, "reruns")) for trial in (0, 1)
    ] == starts  # its runs were done: it was read only


def test_two_sweeps_of_a_study_do_not_run_at_once(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = _study(shards)
    (plan.root / "search").mkdir(parents=True)
    monkeypatch.setattr(failures, "HELD_SECONDS", 1.0)
    holder = rf"another sweep runs on this study \(held by process {os.getpid()} on \S+, since "
    with locked(plan.root / "search" / ".lock", "first"), pytest.raises(Busy, match=holder):
        sweep.sweep(plan, runtime=QUIET)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")  # the one that holds it may be this job's earlier start
    with locked(plan.root / "search" / ".lock", "first"), pytest.raises(Preempted, match=holder):
        sweep.sweep(plan, runtime=QUIET)


def _family(pid: int) -> dict[int, str]:
    """pid -> start time of a process and all its living descendants."""
    listed = subprocess.run(
        ["ps", "-eo", "pid,ppid,lstart"], capture_output=True, text=True, check=True
    ).stdout.splitlines()[1:]
    rows = [(int(line.split()[0]), int(line.split()[1]), " ".join(line.split()[2:])) for line in listed]
    family = {pid}
    while grown := {row[0] for row in rows if row[1] in family} - family:
        family |= grown
    return {row[0]: row[2] for row in rows if row[0] in family}


def _words(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def _left(family: dict[int, str], seconds: float = 20) -> dict[int, str]:
    """The processes of a family that still live after some time."""
    end = time.monotonic() + seconds
    while living := {pid: start for pid, start in family.items() if _family(pid).get(pid) == start}:
        if time.monotonic() > end:
            break
        time.sleep(0.2)
    return living


def _interrupted(
    file: Path, scores: Path, number: int, sent: signal.Signals, *options: str, kill_slot: bool = False
) -> tuple[int, str]:
    """Starts `leukotree sweep` and sends it a signal when there are so many scores, before the last of which
    the process of a trial was killed if asked. Its exit code and its stderr; no process of it is left."""
    command = [sys.executable, "-m", "hpc.cli", "sweep", str(file), "--device", "cpu", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)

    def wait_for(count: int) -> None:
        while process.poll() is None and (len(_table(scores)) if scores.exists() else 0) < count:
            time.sleep(0.1)

    if kill_slot:
        wait_for(number - 1)
        ranks = [pid for pid in _family(process.pid) if "hpc.search.rank_pool" in _words(pid)]
        assert len(ranks) == 2
        slot = int(Path(f"/proc/{ranks[0]}/stat").read_text().rpartition(")")[2].split()[1])
        family = _family(slot)
        assert {slot, *ranks} <= set(family)
        os.kill(slot, signal.SIGKILL)
        assert not _left(family)
    wait_for(number)
    assert process.poll() is None, "the sweep ended before it was sent anything"
    family = _family(process.pid)
    process.send_signal(sent)
    _, errors = process.communicate()
    assert len(family) > 4  # Ray's head and the trials, too
    assert not _left(family)
    return process.returncode, errors


def _starts(plan: Study, ended: list[dict[str, Any]]) -> int:
    return sum(len(_attempts(plan, FLAT, line["trial"])) for line in ended if "state" in line)


def test_an_interrupted_sweep_continues_from_its_record(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep is stopped by a signal, then killed (a process of a trial first). Each time it is continued
    with another number of slots and ranks, at last with one variant less."""
    monkeypatch.chdir(tmp_path)
    space = {**SPACE, "optim.batch_size": {"choice": [14, 16]}}
    plan = _study(shards, scheduler="asha", grace=1, trials=5, reduction_factor=2, space=space)
    # The best trial trains all six epochs, so there are ten scores or more: some are left for whoever is
    # killed.
    plan = plan.model_copy(
        update={"variants": ("flat", "multilabel"), "base": plan.base.override({"optim.epochs": 6})}
    )
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(plan.model_dump(mode="json", exclude_defaults=True)))
    assert studies.load(file) == plan
    folder = plan.search_folder(FLAT)

    def drawn() -> list[dict[str, Any]]:
        return [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]

    code, errors = _interrupted(file, folder / "history.csv", 3, signal.SIGTERM, "--concurrency", "2")
    assert code == 75, errors
    assert "trials have not ended, asked to stop; run the same command again to continue" in errors
    assert not (folder.parent / "ray").exists()
    drawn_before, begun, started = drawn(), _table(folder / "history.csv"), _starts(plan, drawn())

    more = len(begun) + 2
    code, _ = _interrupted(
        file, folder / "history.csv", more, signal.SIGKILL, "--ranks-per-trial", "2", kill_slot=True
    )
    assert code == -signal.SIGKILL
    killed = drawn()
    assert killed[: len(drawn_before)] == drawn_before
    assert _starts(plan, drawn_before) == started  # trials that had ended were not started again
    started = _starts(plan, killed)

    monkeypatch.setattr(cluster, "nodes", lambda: [{"CPU": 2.0}])
    best = sweep.sweep(plan.model_copy(update={"variants": ("flat",)}), TrialPlace(concurrency=1), QUIET)[
        FLAT
    ]
    assert drawn()[: len(killed)] == killed
    assert _starts(plan, killed) == started
    assert _table(folder / "history.csv")[: len(begun)] == begun
    trials = _table(folder / "trials.csv")
    assert [row["trial"] for row in trials] == ["0", "1", "2", "3", "4"]
    assert {row["state"] for row in trials} <= {"completed", "stopped"}
    assert trials[best["trial"]]["state"] == "completed"
    chosen = [line["chosen"] for line in drawn() if "chosen" in line]
    assert [{key: float(row[key]) for key in space} for row in trials] == chosen
    # Two inner folds for each of five trials: the begun ones went on in their folders, no others took their
    # place.
    assert len(list((folder / "runs").glob("*/*"))) == 5 * plan.folds.inner
    assert not (plan.search_folder(SearchId("multilabel", 0)) / "best.yaml").exists()


def test_trials_pause_go_on_and_a_search_is_extended(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial that paused twice has the bits of one that was trained through."""
    monkeypatch.chdir(tmp_path)
    halving = {"scheduler": "halving", "grace": 1, "reduction_factor": 2, "algorithm": "random"}
    plan = _study(shards, trials=4, **halving)
    plan = plan.model_copy(update={"base": plan.base.override({"optim.epochs": 3})})
    sweep.sweep(plan, TrialPlace(concurrency=1), QUIET)
    trials = Record(plan, FLAT).trials
    assert sorted(trial.last for trial in trials) == [1, 1, 2, 3]
    assert sorted(str(trial.state) for trial in trials) == ["completed"] + ["stopped"] * 3
    best = next(trial for trial in trials if trial.state == "completed")
    assert best.seconds > 0
    starts = [len(_attempts(plan, FLAT, trial.number)) for trial in trials]
    assert starts == [2 * trial.last for trial in trials]  # a process's start for each rung and inner fold
    specs = plan.trial_specs("flat", best.chosen, FLAT.test_fold)
    through = run.lockstep(specs, tmp_path / "through", QUIET)
    assert best.scores == {row["epoch"]: row["macro_f1"] for row in through}

    more = plan.model_copy(update={"search": plan.search.model_copy(update={"trials": 6})})
    sweep.sweep(more, TrialPlace(concurrency=1), QUIET)
    extended = Record(more, FLAT).trials
    assert [trial.chosen for trial in extended[:4]] == [trial.chosen for trial in trials]
    assert (len(extended), [trial.state for trial in extended].count(None)) == (6, 0)
    assert choice.read_choice(more, FLAT)["trials"] == 6
    assert (plan.search_folder(FLAT) / "best-of-4.yaml").exists()
    (more.root / more.fold_specs(choice.chosen(more))[0].run_name).mkdir()
    again = plan.model_copy(update={"search": plan.search.model_copy(update={"trials": 8})})
    with pytest.raises(InputError, match="use a new study name"):
        sweep.prepare(again, TrialPlace(), QUIET)


def _attempts(plan: Study, search_id: SearchId, trial: int, kind: str = "runs") -> list[dict[str, Any]]:
    """The starts of a trial's runs: their process and time."""
    files = (plan.search_folder(search_id) / kind / f"{trial:05d}").glob("*/attempts.jsonl")
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_a_slot_trains_all_its_trials_in_one_process(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This holds across variants, and after a trial that was stopped or has diverged."""
    monkeypatch.chdir(tmp_path)
    space = {
        "optim.lr": {"choice": [1e-2, 1e-6, 1e30]},
        "loss.gamma": {"uniform": [0, 5]},
    }  # drawn: the last, 1st, 2nd, ...
    search = {
        "space": space,
        "algorithm": "random",
        "scheduler": "asha",
        "grace": 1,
        "reduction_factor": 2,
        "trials": 5,
    }
    plan = _study(shards, **search).model_copy(update={"variants": ("flat", "multilabel")})
    plan = plan.model_copy(update={"base": plan.base.override({"optim.epochs": 3})})
    sweep.sweep(plan, TrialPlace(concurrency=1), QUIET)

    order = [(search_id, trial) for trial in range(5) for search_id in plan.search_ids]
    attempts = [_attempts(plan, *one) for one in order]
    assert len({attempt["pid"] for trial in attempts for attempt in trial}) == 1
    trials = {
        search_id: _table(plan.search_folder(search_id) / "trials.csv") for search_id in plan.search_ids
    }
    states = {row["state"] for rows in trials.values() for row in rows}
    assert states == {"completed", "stopped", "failed"}
    for row in trials[FLAT]:
        assert (row["state"] == "failed") == (float(row["optim.lr"]) > 1)
    drawn = [[[row[key] for key in space] for row in rows] for rows in trials.values()]
    assert drawn[0] == drawn[1]  # every variant draws the same first trials

    for (search_id, trial), following in zip(order[:-1], attempts[1:], strict=True):
        runs = (plan.search_folder(search_id) / "runs" / f"{trial:05d}").glob("*/status.json")
        statuses = [json.loads(file.read_text()) for file in runs]
        state = {"completed": "done", "stopped": "stopped", "failed": "failed"}[
            trials[search_id][trial]["state"]
        ]
        assert state in {status["state"] for status in statuses}
        # A trial has written its state before the next one takes its slot.
        assert max(status["heartbeat"] for status in statuses) < min(
            attempt["started"] for attempt in following
        )


def test_trials_get_the_resources_of_their_slots(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    from hpc.search import slot

    for ranks, expected in ((1, {"CPU": 2.0, "GPU": 1.0}), (4, {"CPU": 8.0, "GPU": 4.0})):
        slots = SlotPlan(cpus=2, gpus=1, count=4, ranks=ranks)
        wanted = slot.trainable(_study(shards), slots, QUIET, tmp_path).default_resource_request({})
        assert wanted is not None
        assert wanted.required_resources == expected
        assert len(wanted.bundles) == 1  # one node

    asked: list[tuple[SlotPlan, Runtime]] = []
    monkeypatch.setattr(sweep, "_search", lambda queue, plan, runtime, *others: asked.append((plan, runtime)))
    monkeypatch.setattr(choice, "write_choices", lambda records: None)
    monkeypatch.setattr(choice, "read_choices", lambda study: {})
    monkeypatch.setattr(cluster, "connect", lambda *where: contextlib.nullcontext(tmp_path / "private"))
    monkeypatch.setattr(cluster, "nodes", lambda: [{"CPU": 16.0, "GPU": 2.0}])
    sweep.sweep(_study(shards), TrialPlace(gpus=0.25, concurrency=3), Runtime())
    sweep.sweep(
        _study(shards),
        TrialPlace(cpus=4),
        Runtime(device="cpu", workers=0, threads=3, cache=Path("kept")),
    )
    sweep.sweep(_study(shards), TrialPlace(address="auto"), Runtime())
    assert [slots for slots, _ in asked] == [
        SlotPlan(2, 0.25, 3),
        SlotPlan(4, 0.0, 4),
        SlotPlan(8, 1.0, 2),
    ]
    # A Ray of our own comes with a decoded cache, which goes with it; in a cluster only its user knows a
    # place.
    assert [runtime.cache for _, runtime in asked] == [tmp_path / "private" / "decoded", Path("kept"), None]
    assert [(runtime.threads, runtime.workers) for _, runtime in asked] == [(2, 1), (3, 0), (8, 7)]


def test_failed_trials_are_recorded_and_never_chosen(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    space = {"backbone.name": {"choice": ["test_vit", "no_such_model"]}}
    plan = _study(shards, space=space, algorithm="random", trials=4, rungs="folds", scheduler="none")
    plan = plan.model_copy(update={"folds": plan.folds.model_copy(update={"inner": 3})})
    best = sweep.sweep(plan, TrialPlace(concurrency=1), QUIET)[FLAT]
    trials = _table(plan.search_folder(FLAT) / "trials.csv")
    states = {(row["backbone.name"], row["state"], row["epochs"]) for row in trials}
    assert states == {
        ("test_vit", "completed", "3"),
        ("no_such_model", "failed", "0"),
    }  # a report for each inner fold
    assert (best["chosen"], best["trials"]) == ({"backbone.name": "test_vit"}, 4)


def test_a_sweep_whose_trials_all_fail_names_the_error(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = _study(shards, space={"backbone.name": {"choice": ["no_such_model"]}}, trials=1)
    with pytest.raises(RuntimeError, match=r"no trial completed; the first error: .*no_such_model"):
        sweep.sweep(plan, runtime=QUIET)
    assert not (plan.search_folder(FLAT) / "best.yaml").exists()


def test_commands_that_need_a_search_name_it(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no trials"):
        sweep.sweep(_study(shards, trials=0), runtime=QUIET)
    with pytest.raises(InputError, match=r"best\.yaml: missing; run `leukotree sweep`"):
        choice.chosen(_study(shards))
    assert not list(tmp_path.iterdir())
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(_study(shards).model_dump(mode="json", exclude_defaults=True)))
    assert cli.main(["sweep", str(file), "--ranks-per-trial", "5"]) == 2
    message = "leukotree sweep: optim.batch_size: 16 images do not divide over 5 ranks; use a multiple of 5\n"
    assert capsys.readouterr().err == message
    assert [path.name for path in tmp_path.iterdir()] == ["study.yaml"]
