"""What Ray Tune runs and keeps: the process that trains trials, and the record of every epoch."""

from __future__ import annotations

import dataclasses
import gc
import os
import sys
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import torch
from ray import tune
from ray.tune.result import DONE
from tqdm import tqdm

from hpc import history
from hpc.cluster import Slots
from hpc.study import Study
from leukotree import train
from leukotree.errors import RunFailed, one_line
from leukotree.files import append_lines
from leukotree.train import Runtime

FAILED = "failed"
"""Key of a result: why the trial diverged, in one line."""


class Slot(tune.Trainable):
    """A process that trains one trial after another: Ray resets it in between, so that only its first trial pays for imports,
    for opening the data and the like.

    A step is one epoch of the trial's inner folds in lockstep, and reports their mean. A trial that is started again finds
    its run folders, replays what they hold and continues.
    """

    _rows: Generator[dict[str, Any], None, None] | None = None

    # with_parameters gives what is not the trial's own
    def setup(self, config: dict[str, Any], study: Study, folder: str, runtime: Runtime) -> None:  # type: ignore[override]
        """`folder` is the (absolute) current folder of the sweep: shards and run folders are named relative to it."""
        os.chdir(folder)
        gc.freeze()  # what is imported stays: half a million objects that no collection need look at again
        self._study, self._runtime = study, runtime
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Leave the trial, which has ended or was stopped, and take the next. What the next one does, its steps do."""
        self.cleanup()
        self._rows = self._train(new_config)
        return True

    def step(self) -> dict[str, Any]:
        assert self._rows is not None
        try:
            row = next(self._rows)
        except RunFailed as error:  # the trial diverged, which is its result and no reason to give up the process
            return {FAILED: one_line(error), DONE: True}
        return {"epoch": row["epoch"], "macro_f1": row["macro_f1"], DONE: row["epoch"] == self._study.base.optim.epochs}

    def cleanup(self) -> None:
        """Let the runs of a stopped trial note that they were, and give back the memory of a GPU that others use, too."""
        rows, self._rows = self._rows, None
        if rows is None:
            return
        try:
            rows.close()
        except Exception as error:  # it stands in the run's own status, and is none of the next trial's
            print(f"leukotree: a trial that was stopped: {one_line(error)}", file=sys.stderr)
        if torch.cuda.is_initialized():
            gc.collect()
            torch.cuda.empty_cache()

    def _train(self, config: dict[str, Any]) -> Generator[dict[str, Any], None, None]:
        variant, number = config["variant"], config["trial"]
        specs = self._study.trial_specs(variant, config["chosen"])
        # A folder for each trial: two that draw the same values would otherwise share, and lock, their runs.
        runs = self._study.search_folder(variant) / "runs" / f"{number:05d}"
        yield from train.lockstep(specs, runs, self._runtime)


def trainable(study: Study, slots: Slots, runtime: Runtime) -> type[tune.Trainable]:
    """A Slot that knows the study and asks Ray for its resources; its folders are named relative to the current one."""
    quiet = dataclasses.replace(runtime, quiet=True)
    slot = tune.with_parameters(Slot, study=study, folder=str(Path.cwd()), runtime=quiet)
    return tune.with_resources(slot, {"cpu": slots.cpus, "gpu": slots.gpus})


def folder_name(trial: Any) -> str:
    """Name of a trial's folder in Ray's experiment; Ray's own has every value in it, and grows too long for a path."""
    return f"{trial.config['variant']}-{trial.config['trial']:05d}"


class Record(tune.Callback):
    """Appends every reported epoch to the history.csv of its variant as it comes, and shows a bar of finished trials."""

    def __init__(self, paths: Mapping[str, Path], trials: int, title: str, quiet: bool) -> None:
        """`paths`: variant -> its history.csv; `trials`: of each variant."""
        self.paths, self.trials, self.title, self.quiet = dict(paths), trials, title, quiet
        self._bar: tqdm[Any] | None = None
        self._began = 0.0
        self._seen: set[tuple[str, int, int]] = set()

    def setup(self, *args: Any, **kwargs: Any) -> None:
        """At the start of a sweep, or of its continuation: the clock goes on where it stopped."""
        rows = [(variant, row) for variant, path in self.paths.items() for row in history.read(path)]
        self._seen = {(variant, row["trial"], row["epoch"]) for variant, row in rows}
        self._began = time.time() - max((row["seconds"] for _, row in rows), default=0.0)
        total = self.trials * len(self.paths)
        self._bar = tqdm(total=total, desc=self.title, unit="trial", disable=True if self.quiet else None)

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:
        if FAILED in result:
            return
        variant, number, epoch = trial.config["variant"], trial.config["trial"], result["epoch"]
        if (variant, number, epoch) in self._seen:  # replayed by a trial that was started again
            return
        self._seen.add((variant, number, epoch))
        row = [number, epoch, result["macro_f1"], round(time.time() - self._began, 3)]
        path = self.paths[variant]
        head = [] if path.exists() else [",".join(history.COLUMNS)]
        append_lines(path, [*head, ",".join(map(str, row))])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._advance(trials)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._advance(trials)

    def _advance(self, trials: list[Any]) -> None:
        if self._bar is not None:
            best: dict[str, float] = {}
            for trial in trials:
                if (score := (trial.last_result or {}).get("macro_f1")) is not None:
                    best[trial.config["variant"]] = max(score, best.get(trial.config["variant"], score))
            self._bar.set_postfix_str("  ".join(f"{variant} {score:.4f}" for variant, score in best.items()))
            self._bar.update(sum(trial.is_finished() for trial in trials) - self._bar.n)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
