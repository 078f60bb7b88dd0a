"""A slot: the process in which Ray Tune trains one trial after another."""

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
from hpc.search.rank_pool import RankDied, RankPool, Rows
from hpc.search.slot_plan import SlotPlan
from hpc.search.tune_keys import FAILED, INTERRUPTED, KIND, UNTIL, search_id_in
from hpc.studies.study import Study
from leukotree import errors, signals
from leukotree.errors import Busy, RunFailed, one_line
from leukotree.log import logger
from leukotree.records import searchfolder
from leukotree.runtime import Runtime
from leukotree.spec import PLAIN
from leukotree.training import run

STOP_FILE = "leave"
"""Name of a file in the sweep's folder of Ray, or in the private folder of a node (slurm/node.sh). When it
exists, the trials (of that node) save and end."""
POLL = 1.0
"""Seconds between two looks for that file."""
ENDS_SWEEP = (*errors.RETRIED, "disk")
"""Kinds of failure whose cause is not the trial. The next trial would fail in the same way."""


class Slot(tune.Trainable):
    """A process that trains one trial after another. Ray resets it between trials, so that only its first
    trial waits for imports and for opening the data.

    A step ends with a report: an epoch of the trial's inner folds in lockstep, one inner fold to its end, or
    a whole re-run. A trial that is started again, after a pause too, finds its run folders, replays what they
    hold and continues.
    Trials of several ranks are trained by a pool of processes, which this process starts once.
    """

    _rows: Rows | None = None
    _ranks: RankPool | None = None
    _broken: str | None = None
    """Why Ray must replace this process."""
    _folder: Path | None = None
    """The folder of its trial's runs whose checkpoints nobody needs after it, once the trial has begun."""
    _until: int | None = None
    """The report after which its trial pauses."""
    _busy_file: Path | None = None
    """A file that exists while this process trains. The program of its node waits for it (slurm/node.sh)."""

    # tune.with_parameters gives the arguments after `config`
    def setup(  # type: ignore[override]
        self,
        config: dict[str, Any],
        study: Study,
        folder: str,
        runtime: Runtime,
        plan: SlotPlan,
        stop_file: Path,
    ) -> None:
        """`folder`: the absolute path of the sweep's current folder; paths of shards and runs are relative to
        it. `stop_file`: a file that all nodes see."""
        os.chdir(folder)
        gc.freeze()  # half a million imported objects stay; no collection need look at them again
        self._study, self._runtime = study, runtime
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(signals.watched())
        if plan.ranks > 1:
            self._ranks = self._stack.enter_context(RankPool(plan.ranks))
        elif 0 < plan.gpus < 1 and torch.cuda.is_available():
            # Without a limit, one trial could fail the others on the same GPU.
            torch.cuda.set_per_process_memory_fraction(plan.gpus)
        self._ended = threading.Event()
        stop_files = [stop_file]
        if node := os.environ.get("LEUKOTREE_NODE_FOLDER"):
            self._busy_file = Path(node, "trials", str(os.getpid()))
            stop_files.append(Path(node, STOP_FILE))
        threading.Thread(target=self._watch, args=(stop_files,), name="stop file", daemon=True).start()
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Close the trial, which has ended or was stopped, and take the next one. Its steps train it."""
        self._close_trial()
        if self._folder:
            searchfolder.drop_checkpoints(self._folder)
        self._rows, self._until = self._train(new_config), new_config.get(UNTIL)
        if self._busy_file:
            with contextlib.suppress(OSError):  # without the file the node does not wait
                self._busy_file.touch()
        return True

    def step(self) -> dict[str, Any]:
        assert self._rows is not None
        if self._broken is not None:
            raise RuntimeError(self._broken)  # Ray replaces the process
        try:
            row = next(self._rows)
        except RankDied:
            raise  # Ray replaces this process too, and the trial continues in another
        except Busy:
            # The trial's earlier process may be cut off or dead, and the file system has not noticed yet.
            time.sleep(failures.HELD_SECONDS)
            raise
        except Exception as error:
            return self._failed(error)
        if pauses := row["epoch"] == self._until:
            self._folder = None  # it will go on from its checkpoints
        done = pauses or row["epoch"] == self._study.reports
        return {"epoch": row["epoch"], "macro_f1": row["macro_f1"], DONE: done}

    def _failed(self, error: Exception) -> dict[str, Any]:
        """The result after an error."""
        self._mark_idle()
        kind, line = failures.kind_in_job(error, self._study.base), one_line(error)
        if kind in ENDS_SWEEP:
            self._broken = line
            return {INTERRUPTED: line, KIND: kind}
        if isinstance(error, RunFailed):  # the trial diverged; the process is in order
            return {FAILED: line, DONE: True}
        self._broken = line
        return {FAILED: f"{type(error).__name__}: {line}"}

    def _mark_idle(self) -> None:
        """Tell the node's program that it need not wait for this process."""
        if self._busy_file:
            with contextlib.suppress(OSError):
                self._busy_file.unlink(missing_ok=True)

    def _watch(self, stop_files: Sequence[Path]) -> None:
        """Send SIGTERM to the ranks when a stop file exists. Ray itself could stop them only between two
        steps."""
        while not self._ended.wait(POLL):
            if any(stop_file.exists() for stop_file in stop_files):
                for pid in (os.getpid(), *(self._ranks.pids if self._ranks else ())):
                    os.kill(pid, signal.SIGTERM)

    def cleanup(self) -> None:
        """Called at the end of the process."""
        self._ended.set()
        self._close_trial()
        self._stack.close()

    def _close_trial(self) -> None:
        """Let the runs of a stopped trial write that they were stopped, and free the memory of a shared
        GPU."""
        rows, self._rows = self._rows, None
        if rows is None:
            return
        try:
            rows.close()
            self._mark_idle()
        except Exception as error:  # the run's status has it; the next trial is not affected
            logger.warning(f"a trial that was stopped: {one_line(error)}")
        if torch.cuda.is_initialized():
            gc.collect()
            torch.cuda.empty_cache()

    def _train(self, config: dict[str, Any]) -> Rows:
        """One row per report: the epoch or inner fold, and the mean macro-F1 over the inner folds so far."""
        study, seed = self._study, config["seed"]
        search_id = search_id_in(config)
        specs = study.trial_specs(
            search_id.variant, config["chosen"], search_id.test_fold, seed, search_id.repeat
        )
        # One folder per trial: two trials with the same values must not share, and lock, their runs.
        folder = study.search_folder(search_id)
        runs = searchfolder.trial_folder(folder, config["trial"], rerun=seed is not None)
        self._folder = runs if seed is None else None  # re-runs of a trial share a folder; none is stopped
        lockstep = self._ranks.lockstep if self._ranks else run.lockstep
        at_once = seed is not None or study.search.rungs == "epochs"
        if seed is None and at_once and search_id.variant not in PLAIN:
            yield from lockstep(specs, runs, self._runtime)
            return
        # Only the last score counts: of each inner fold, or of all together.
        scores: list[float] = []
        for together in [specs] if at_once else [[spec] for spec in specs]:
            *_, last = lockstep(together, runs, self._runtime, each_epoch=False)
            scores += last["folds"]
            yield {
                "epoch": study.reports if at_once else len(scores),
                "macro_f1": sum(scores) / len(scores),
            }


def trainable(study: Study, plan: SlotPlan, runtime: Runtime, stop_file: Path) -> type[tune.Trainable]:
    """A Slot with its study and its resources: those of all its ranks, on one node. Paths are relative to the
    current folder."""
    # On a node without a working GPU driver a trial must fail, not train on the CPU.
    device = "cuda" if plan.gpus and runtime.device == "auto" else runtime.device
    quiet, here = dataclasses.replace(runtime, quiet=True, device=device), str(Path.cwd())
    slot = tune.with_parameters(Slot, study=study, folder=here, runtime=quiet, plan=plan, stop_file=stop_file)
    return tune.with_resources(slot, {"cpu": plan.cpus * plan.ranks, "gpu": plan.gpus * plan.ranks})
