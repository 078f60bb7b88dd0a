"""Callbacks of Ray Tune: they record every score, show a progress bar, and end a sweep."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune

from hpc.launching import run_states
from hpc.search import choice, pace, search_states
from hpc.search.trial_queue import TrialQueue
from hpc.search.tune_keys import FAILED, INTERRUPTED, search_id_of
from leukotree import signals
from leukotree.progress import Bar

if TYPE_CHECKING:
    from hpc.search.optuna_storage import Export

TICK = 1.0
"""Seconds between two updates of the bar."""
LOOK = 4.0
"""Seconds between two looks at the epochs of the running trials."""
GRACE = 20.0
"""Seconds that trials have to save and end: some training steps. Then they are killed."""


class Recorder(tune.Callback):
    """Records every score when it is reported. Shows a bar of the trials and re-runs that have ended."""

    def __init__(self, queue: TrialQueue, quiet: bool, export: Export | None = None) -> None:
        """`export`: what follows the records."""
        self._queue, self._quiet, self._export = queue, quiet, export
        self._bar: Bar | None = None
        self._shown = 0.0
        self._costs: dict[str, float] = {}
        self._reported = time.monotonic()
        """When the last score came."""
        self._epochs: list[tuple[int, int]] = []
        """(finished epochs, all epochs) of the runs at work, at the last look."""
        self._looked = 0.0

    def setup(self, *args: Any, **kwargs: Any) -> None:
        """Called when a sweep begins. The bar of a continued sweep begins with the trials that have
        ended."""
        study, ended = self._queue.study, self._queue.ended()
        self._costs = pace.costs_of(study, study.variants)
        # Trials run side by side and differ in length: `pace` estimates their time better than a bar.
        total = ended + self._queue.open()
        self._bar = Bar(study.study, total, "trial", done=ended, quiet=self._quiet, rate=False, soon=True)
        self._show()

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if time.monotonic() - self._shown > TICK:
            self._show()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if FAILED in result or INTERRUPTED in result:
            return
        record, config = self._queue.records[search_id_of(trial)], trial.config
        scored = record.find(config["trial"], config["seed"])
        self._queue.report(record, scored, result["epoch"], result["macro_f1"])
        self._reported = time.monotonic()
        self._show()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._show()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._show()

    def _show(self) -> None:
        self._shown = time.monotonic()
        if self._export is not None:
            self._export.sync()
        if self._bar is not None:
            ended = self._queue.ended()
            # The total falls where fewer trials complete, and so fewer are run again.
            self._bar.at(ended, self._note(), total=ended + self._queue.open())

    def _note(self) -> str:
        """The text behind the bar: trials that run, the time left, and the scores of the current choices."""
        running = self._queue.running
        if not self._queue.open():
            return ""
        if not (epochs := self._reached()):
            return (
                f"{len(running)} start: each process first imports its packages"
                if running
                else "the first trials start"
            )
        parts = [f"{len(running)} running, epoch {run_states.epochs_of(epochs)}"]
        records = self._queue.records.values()
        if (left := pace.left(records, self._costs, time.monotonic() - self._reported)) is not None:
            parts.append(f"{left} left")
        searches = {search_id for search_id, _, _ in running}
        choices = {
            search_id: choice.current(record)
            for search_id, record in self._queue.records.items()
            if search_id in searches
        }
        nested = self._queue.study.search.nested
        best = [
            f"{search_id if nested else search_id.variant} {chosen[1]:.4f}"
            for search_id, chosen in choices.items()
            if chosen
        ]
        return ", ".join(parts) + (f"; best {', '.join(best[:3])}" if best else "")

    def _reached(self) -> list[tuple[int, int]]:
        """(finished epochs, all epochs) of the runs at work. Between two trials: those of the last look."""
        now = time.monotonic()
        if now - self._looked < LOOK and self._epochs:
            return self._epochs
        self._looked = now
        epochs = []
        for search_id, number, seed in self._queue.running:
            record = self._queue.records[search_id]
            trial = record.find(number, seed)
            runs = search_states.runs_of(record, self._queue.study.search_folder(search_id), trial)
            epochs += [(run.epoch, run.epochs) for run in runs if run.state == "running"]
        self._epochs = epochs or self._epochs
        return self._epochs

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class SweepStopper(tune.Stopper):
    """Ends a sweep after a signal to it or to one of its trials. The stop file tells all trials, which
    have GRACE seconds to save."""

    def __init__(self, queue: TrialQueue, stop_file: Path) -> None:
        self._queue, self._stop_file = queue, stop_file
        self._since: float | None = None

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        if self._queue.stop_reason is None:
            if not signals.requested():
                return False
            self._queue.stop("preempted", "asked to stop")
        if self._since is None:
            self._since = time.monotonic()
            with contextlib.suppress(OSError):  # on a full disk the trials are killed without notice
                self._stop_file.touch()
        return not self._queue.running or time.monotonic() - self._since > GRACE
