"""What Ray Tune runs and keeps: the process that trains trials, and the record of every epoch."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ray import tune
from ray.tune.result import DONE

from hpc.launching import failures
from hpc.search import pace
from hpc.search.choice import leader
from hpc.search.cluster import Slots
from hpc.search.rank_pool import Gang, RankDied, Rows
from hpc.search.record import Progress
from hpc.studies.study import SearchId, Study
from leukotree import errors, signals
from leukotree.errors import Busy, RunFailed, one_line
from leukotree.log import logger
from leukotree.progress import Bar, duration
from leukotree.records import searchfolder
from leukotree.runtime import Runtime
from leukotree.training import run

FAILED = "failed"
"""Key of a result: why the trial cannot be trained, in one line."""
LEFT, KIND = "left", "kind"
"""Keys of a result: why the trial was left before its end, and the kind of that failure, which is not the
trial's."""
LEAVE = "leave"
"""Name of a file in Ray's folder of a sweep, or in that of a node: once it lies there, trials (of that node)
save and leave."""
POLL = 1.0
"""Seconds between two looks for it."""
TICK = 1.0
"""Seconds between two looks at what the bar shows."""
GRACE = 20.0
"""Seconds that trials have to save and leave, some steps of training; then they are ended."""
STOPS_ALL = (*errors.RETRIED, "disk")
"""Kinds of failure that say nothing of the trial, and that the next trial would meet as well."""


class Slot(tune.Trainable):
    """A process that trains one trial after another: Ray resets it in between, so that only its first trial
    pays for imports, for opening the data and the like.

    A step is what lies between two reports: an epoch of the trial's inner folds in lockstep, or an inner fold
    to its end, or all of a re-run. A trial that is started again finds its run folders, replays what they
    hold and continues. Trials of several ranks are trained by a gang of processes, which this one starts once
    and speaks for.
    """

    _rows: Rows | None = None
    _gang: Gang | None = None
    _spoilt: str | None = None
    _folder: Path | None = None
    """Of the runs of its trial, once that has begun."""
    _at_work: Path | None = None
    """A file that is there while it trains, for the program that started its node (slurm/node.sh)."""

    # with_parameters gives what is not the trial's own
    def setup(  # type: ignore[override]
        self, config: dict[str, Any], study: Study, folder: str, runtime: Runtime, slots: Slots, leave: Path
    ) -> None:
        """`folder` is the (absolute) current folder of the sweep: shards and run folders are named relative
        to it. `leave` is a file that all nodes see."""
        os.chdir(folder)
        gc.freeze()  # what is imported stays: half a million objects that no collection need look at again
        self._study, self._runtime = study, runtime
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(signals.watched())
        if slots.ranks > 1:
            self._gang = self._stack.enter_context(Gang(slots.ranks))
        elif (
            0 < slots.gpus < 1 and torch.cuda.is_available()
        ):  # a trial that takes all would fail those beside it
            torch.cuda.set_per_process_memory_fraction(slots.gpus)
        self._over = threading.Event()
        leaves = [leave]
        if node := os.environ.get("LEUKOTREE_NODE_FOLDER"):
            self._at_work = Path(node, "trials", str(os.getpid()))
            leaves.append(Path(node, LEAVE))
        threading.Thread(target=self._look_for, args=(leaves,), name="leave", daemon=True).start()
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Leave the trial, which has ended or was stopped, and take the next. What the next one does, its
        steps do."""
        self._leave()
        if self._folder:
            searchfolder.drop_checkpoints(self._folder)
        self._rows = self._train(new_config)
        if self._at_work:
            with contextlib.suppress(OSError):  # then nobody waits for it
                self._at_work.touch()
        return True

    def step(self) -> dict[str, Any]:
        assert self._rows is not None
        if self._spoilt is not None:
            raise RuntimeError(self._spoilt)  # Ray replaces the process
        try:
            row = next(self._rows)
        except RankDied:
            raise  # as if this process had died: Ray replaces it, and the trial goes on in another
        except Busy:
            # The process that had the trial before is cut off, or gone, and the file system has not noticed
            # yet.
            time.sleep(failures.HELD_SECONDS)
            raise
        except Exception as error:
            return self._failed(error)
        return {"epoch": row["epoch"], "macro_f1": row["macro_f1"], DONE: row["epoch"] == self._study.reports}

    def _failed(self, error: Exception) -> dict[str, Any]:
        """The result that tells of an error."""
        self._rests()
        kind, line = failures.kind_in_job(error, self._study.base), one_line(error)
        if kind in STOPS_ALL:
            self._spoilt = line
            return {LEFT: line, KIND: kind}
        if isinstance(
            error, RunFailed
        ):  # the trial diverged, which is its result and no reason to give up the process
            return {FAILED: line, DONE: True}
        self._spoilt = line
        return {FAILED: f"{type(error).__name__}: {line}"}

    def _rests(self) -> None:
        """Nobody need wait for this process any more."""
        if self._at_work:
            with contextlib.suppress(OSError):
                self._at_work.unlink(missing_ok=True)

    def _look_for(self, leaves: Sequence[Path]) -> None:
        """Tell those who train when it is time to leave. Ray itself could only ask between two epochs."""
        while not self._over.wait(POLL):
            if any(leave.exists() for leave in leaves):
                for pid in (os.getpid(), *(self._gang.pids if self._gang else ())):
                    os.kill(pid, signal.SIGTERM)

    def cleanup(self) -> None:
        """At the end of the process."""
        self._over.set()
        self._leave()
        self._stack.close()

    def _leave(self) -> None:
        """Let the runs of a stopped trial note that they were, and give back the memory of a GPU that others
        use, too."""
        rows, self._rows = self._rows, None
        if rows is None:
            return
        try:
            rows.close()
            self._rests()
        except Exception as error:  # it stands in the run's own status, and is none of the next trial's
            logger.warning(f"a trial that was stopped: {one_line(error)}")
        if torch.cuda.is_initialized():
            gc.collect()
            torch.cuda.empty_cache()

    def _train(self, config: dict[str, Any]) -> Rows:
        """A row for each report: the epoch or inner fold, and the mean macro-F1 over the inner folds so
        far."""
        study, search_id, seed = self._study, SearchId(config["variant"], config["test_fold"]), config["seed"]
        specs = study.trial_specs(search_id.variant, config["chosen"], search_id.test_fold, seed)
        # A folder for each trial: two that draw the same values would otherwise share, and lock, their runs.
        folder = study.search_folder(search_id)
        runs = searchfolder.trial_folder(folder, config["trial"], rerun=seed is not None)
        self._folder = runs if seed is None else None  # re-runs of a trial share one, and none is stopped
        lockstep = self._gang.lockstep if self._gang else run.lockstep
        if seed is None and study.search.rungs == "epochs":
            yield from lockstep(specs, runs, self._runtime)
            return
        # Nobody asks for a score before the end: of each inner fold, or of all.
        scores: list[float] = []
        for together in [specs] if seed is not None else [[spec] for spec in specs]:
            *_, last = lockstep(together, runs, self._runtime, each_epoch=False)
            scores += last["folds"]
            yield {
                "epoch": study.reports if seed is not None else len(scores),
                "macro_f1": sum(scores) / len(scores),
            }


def trainable(study: Study, slots: Slots, runtime: Runtime, leave: Path) -> type[tune.Trainable]:
    """A Slot that knows the study and asks Ray for its resources, those of all its ranks on one node; its
    folders are named relative to the current one. `leave` is the file that tells it to leave."""
    # A node whose driver fails must not train on the CPU.
    device = "cuda" if slots.gpus and runtime.device == "auto" else runtime.device
    quiet, here = dataclasses.replace(runtime, quiet=True, device=device), str(Path.cwd())
    slot = tune.with_parameters(Slot, study=study, folder=here, runtime=quiet, slots=slots, leave=leave)
    return tune.with_resources(slot, {"cpu": slots.cpus * slots.ranks, "gpu": slots.gpus * slots.ranks})


def search_id_of(trial: Any) -> SearchId:
    """The search that a trial of Ray belongs to."""
    return SearchId(trial.config["variant"], trial.config["test_fold"])


def folder_name(trial: Any) -> str:
    """Name of a trial's folder in Ray's experiment; Ray's own has every value in it, and grows too long for a
    path."""
    return (
        f"{trial.config['variant']}-{trial.config['test_fold']}-{trial.config['trial']:05d}-{trial.trial_id}"
    )


class Watch(tune.Callback):
    """Records every score as it is reported, and shows a bar of the trials and re-runs that have ended."""

    def __init__(self, progress: Progress, quiet: bool) -> None:
        self._progress, self._quiet = progress, quiet
        self._bar: Bar | None = None
        self._shown = 0.0
        self._scored = False
        """Whether a trial of this sweep has a score."""

    def setup(self, *args: Any, **kwargs: Any) -> None:
        """At the start of a sweep, or of its continuation: the bar goes on where it stopped."""
        study, ended = self._progress.study, self._progress.ended()
        # Trials run side by side, and differ in length: `pace` knows better than a bar how long they take.
        self._bar = Bar(
            study.study, ended + self._progress.open(), "trial", done=ended, quiet=self._quiet, rate=False
        )
        self._show()

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if time.monotonic() - self._shown > TICK:
            self._show()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if FAILED in result or LEFT in result:
            return
        record, config = self._progress.records[search_id_of(trial)], trial.config
        self._progress.report(
            record, record.find(config["trial"], config["seed"]), result["epoch"], result["macro_f1"]
        )
        self._scored = True
        self._show()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._show()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._show()

    def _show(self) -> None:
        self._shown = time.monotonic()
        if self._bar is not None:
            ended = self._progress.ended()
            self._bar.at(
                ended, self._note(), total=ended + self._progress.open()
            )  # fewer re-runs where fewer trials completed

    def _note(self) -> str:
        """What is going on, how long it takes, and the best scores so far, by which the searches choose."""
        running = self._progress.running
        if not self._progress.open():
            return ""
        if not self._scored:
            return (
                f"{len(running)} begin: each process first imports what it needs"
                if running
                else "the first ones begin"
            )
        parts = [f"{len(running)} running"]
        if (left := pace.seconds_left(self._progress.records.values())) is not None:
            parts.append(f"about {duration(left)} left")
        at_work = [
            record
            for search_id, record in self._progress.records.items()
            if any(search_id == one[0] for one in running)
        ]
        leaders = [(record.search_id, leader(record)) for record in at_work]
        nested = self._progress.study.search.nested
        best = [
            f"{search_id if nested else search_id.variant} {found[1]:.4f}"
            for search_id, found in leaders
            if found
        ]
        return ", ".join(parts) + (f"; best {', '.join(best[:3])}" if best else "")

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class Leave(tune.Stopper):
    """Ends a sweep that was asked to leave, or one of whose trials was: all others are told to, and have some
    time to save."""

    def __init__(self, progress: Progress, leave: Path) -> None:
        self._progress, self._leave = progress, leave
        self._since: float | None = None

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        if self._progress.left is None:
            if not signals.requested():
                return False
            self._progress.left = "preempted", "asked to stop"
        if self._since is None:
            self._since = time.monotonic()
            with contextlib.suppress(OSError):  # where there is no room they are ended without being told
                self._leave.touch()
        return not self._progress.running or time.monotonic() - self._since > GRACE
