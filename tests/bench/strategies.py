"""The rivals of a replay: this suite's own queue, sampler and scheduler, and what others bring.

All have the same rungs: the first after GRACE epochs, each next one at three times as many.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
from optuna.pruners import HyperbandPruner
from optuna.samplers import TPESampler
from optuna.trial import TrialState
from problems import AXES, EPOCHS, GRACE, SPACE, decoded
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from replay import Job

from hpc.search import sampler
from hpc.search.record import Record
from hpc.search.trial_queue import TrialQueue
from hpc.studies import study as studies
from hpc.studies.study import SearchId, Study

ETA = 3
"""The default reduction factor."""
SCORE = "macro_f1"
SETTINGS: dict[str, Any] = {"algorithm": "tpe", "scheduler": "halving"}
"""Ours: the sampler and the scheduler; all other settings are the defaults."""
TRIALS = 400
"""More than any replay draws."""


class RandomAsha:
    """Random search, stopped early by Ray Tune's own ASHA."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng([1, seed])
        rungs = {"max_t": EPOCHS, "grace_period": GRACE, "reduction_factor": ETA}
        self._asha = ASHAScheduler("epoch", SCORE, "max", **rungs)  # type: ignore[arg-type]
        self._numbers = itertools.count()

    def next(self) -> Job:
        number = next(self._numbers)
        self._asha.on_trial_add(None, _named(number))  # type: ignore[arg-type]
        return Job(number, decoded(self._random.uniform(size=len(AXES))))

    def report(self, number: int, epoch: int, score: float) -> bool:
        result = {"epoch": epoch, SCORE: score}
        decision = self._asha.on_trial_result(None, _named(number), result)  # type: ignore[arg-type]
        return bool(decision == TrialScheduler.CONTINUE) and epoch < EPOCHS


class OptunaTpe:
    """Optuna's TPE with its pruner of Hyperband, with Optuna's defaults."""

    def __init__(self, seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # Hyperband deals its trials to brackets by their number and the name of the study.
        self._study = optuna.create_study(
            direction="maximize",
            sampler=TPESampler(seed=seed),
            pruner=HyperbandPruner(min_resource=GRACE, max_resource=EPOCHS, reduction_factor=ETA),
            study_name=f"seed {seed}",
        )
        self._space = sampler.space_of(study(0), "flat")
        self._running: dict[int, optuna.Trial] = {}

    def next(self) -> Job:
        trial = self._study.ask(fixed_distributions=self._space)
        self._running[trial.number] = trial
        return Job(trial.number, dict(trial.params))

    def report(self, number: int, epoch: int, score: float) -> bool:
        trial = self._running[number]
        trial.report(score, epoch)
        if epoch < EPOCHS and not trial.should_prune():
            return True
        completed = epoch == EPOCHS
        state = TrialState.COMPLETE if completed else TrialState.PRUNED
        self._study.tell(self._running.pop(number), score if completed else None, state)
        return False


class Suite:
    """This suite: its own queue, record, sampler and scheduler on files, as in a sweep but without Ray."""

    def __init__(self, seed: int, folder: Path, **search: Any) -> None:
        """`folder`: empty, for the record. `search`: settings of the search other than SETTINGS."""
        self._record = Record(study(seed, **SETTINGS | search), SearchId("flat", 0), folder)
        self._queue = TrialQueue(self._record.study, [self._record])

    def next(self) -> Job | None:
        if (following := self._queue.next()) is None:
            return None
        record, trial = following
        trial = trial or record.draw(sampler.propose(record.study, record.search_id, record.trials))
        self._queue.started(record, trial)
        return Job(trial.number, trial.chosen, trial.last)

    def report(self, number: int, epoch: int, score: float) -> bool:
        trial = self._record.trials[number]
        self._queue.report(self._record, trial, epoch, score)
        if self._queue.verdict(self._record, trial) == "continue":
            return True
        self._queue.leave(self._record, trial)
        return False


def study(seed: int, **search: Any) -> Study:
    """A study whose search seed is `seed`."""
    settings = {"seed": seed, "trials": TRIALS, "space": SPACE, **search}
    base = {"optim": {"epochs": EPOCHS}}
    return studies.build(
        {"study": "replay", "base": base, "variants": ["flat"], "search": settings}, "replay"
    )


def _named(number: int) -> Any:
    """A trial with the one field that Ray Tune's ASHA reads."""
    return SimpleNamespace(trial_id=f"{number:05d}")
