"""Ray Tune's interface to the open trials of a study: it hands them out, and notes how they end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.tune.search import Searcher

from hpc.launching import caps
from hpc.search import sampler
from hpc.search.record import Record, Trial
from hpc.search.trial_queue import TrialQueue
from hpc.search.tune_keys import FAILED, INTERRUPTED, KIND, UNTIL
from leukotree import signals


class StudySearcher(Searcher):
    """Hands the open trials of a study to Ray Tune, and notes in their records how they end. It keeps no
    state of its own: all follows from the records."""

    def __init__(
        self,
        queue: TrialQueue,
        metric: str,
        devices: float = 1.0,
        slots_now: Callable[[], int] | None = None,
    ) -> None:
        """`devices`: the devices of a trial, see `SlotPlan.devices`. `slots_now`: how many trials may run at
        once now, where workers come and go. A trial is drawn only when a slot is free for it, so that the
        sampler knows all earlier ones."""
        super().__init__(metric=metric, mode="max")
        self._queue, self._devices, self._slots_now = queue, devices, slots_now
        self._moved: set[str] = set()
        """Ray's ids of trials whose worker has ended. They continue on another worker."""
        self._live: dict[str, tuple[Record, Trial]] = {}
        """Ray's id -> the trial."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        if not self._queue.open() or self._queue.stop_reason:
            return str(Searcher.FINISHED)
        if self._slots_now:
            if signals.requested():
                self._queue.stop("preempted", "asked to stop")
                return str(Searcher.FINISHED)
            if len(self._live) >= self._slots_now():
                return None
        if (following := self._queue.next()) is None:
            return None
        record, trial = following
        trial = trial or record.draw(sampler.propose(self._queue.study, record.search_id, record.trials))
        self._queue.started(record, trial)
        self._live[trial_id] = record, trial
        return {
            **record.search_id._asdict(),
            "trial": trial.number,
            "seed": trial.seed,
            "chosen": trial.chosen,
            UNTIL: trial.until,
        }

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        record, trial = self._live[trial_id]
        if FAILED in result:
            record.end(trial, "failed", result[FAILED], trial.seconds + self._spent(result))
        if INTERRUPTED in result:
            if self._slots_now and result[KIND] in ("preempted", "timeout"):
                self._moved.add(trial_id)
            else:
                self._queue.stop(result[KIND], result[INTERRUPTED])
            self._queue.released(record, trial, died=False)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Called when Ray Tune has finished with a trial. `error`: its process died, which need not be the
        trial's fault."""
        record, trial = self._live.pop(trial_id)
        if trial_id in self._moved:
            return
        if result and not error and self._note_end(record, trial, result):
            return
        most = caps.LOST_PROCESSES_OF_WORKERS if self._slots_now else caps.LOST_PROCESSES
        self._queue.released(record, trial, died=error and self._queue.stop_reason is None, most=most)

    def _spent(self, result: dict[str, Any]) -> float:
        """Device-seconds of the process that gave a result."""
        return float(result.get("time_total_s", 0.0)) * self._devices

    def _note_end(self, record: Record, trial: Trial, result: dict[str, Any]) -> bool:
        """Note how a trial ended or paused, by its last result. Returns whether it has reports to its end or
        to a rung, or was stopped."""
        seconds = self._spent(result)
        if FAILED in result:
            record.end(trial, "failed", result[FAILED], trial.seconds + seconds)
        if FAILED in result or "epoch" not in result:
            return False
        goal = trial.until or record.reports
        self._queue.leave(record, trial, seconds, stopped=result["epoch"] < goal)
        return True

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the records are on disk."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: the records are on disk."""
