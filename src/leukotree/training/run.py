"""run(spec): from a spec file to a run folder with predictions. The same function inline, under ranks, in a
job, in a trial."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from leukotree import files
from leukotree.data.cache import open_cache
from leukotree.data.dataset import Dataset
from leukotree.data.stream import Loader
from leukotree.distributed.engine import Engine, start
from leukotree.errors import InputError, RunFailed
from leukotree.records import predictions
from leukotree.records.runfolder import RunFolder
from leukotree.runtime import Runtime
from leukotree.spec import RunSpec
from leukotree.training.plan import Plan, check
from leukotree.training.trainer import Trainer

HERE = Runtime()
"""One process on whatever this machine has."""


@dataclass(frozen=True)
class RunResult:
    """How a run ended. `metrics` holds accuracy and macro_f1 of the evaluated fold, computed from its
    predictions."""

    folder: Path
    state: str
    metrics: dict[str, float] = field(default_factory=dict)


def check_folder(spec: RunSpec, root: Path, dataset: Dataset) -> None:
    """Raises InputError where the run's folder was made by other fields, other data or other weights. Nothing
    is written."""
    RunFolder(root, spec).check(_fingerprints(spec, dataset))


def run(
    spec: RunSpec, root: Path, runtime: Runtime = HERE, inspect: Callable[[Engine], None] | None = None
) -> RunResult:
    """Train and score one spec in `root/<variant>-<hash>`; continue it if it was begun, return at once if it
    is done.

    Every rank calls it. The test fold (or the inner fold, if the spec names one) is scored once, after the
    last epoch.
    `inspect` is called by every rank once they have met, before anything is trained; what it raises ends this
    attempt.
    """
    for _ in lockstep([spec], root, runtime, each_epoch=False, inspect=inspect):
        pass
    folder = RunFolder(root, spec)
    frame, logp, taxonomy = predictions.read(folder.path)
    true = np.array([taxonomy.leaves.index(leaf) for leaf in frame["leaf"]])
    return RunResult(folder.path, "done", predictions.scores(true, logp, taxonomy))


def lockstep(
    specs: Sequence[RunSpec],
    root: Path,
    runtime: Runtime = HERE,
    *,
    each_epoch: bool = True,
    inspect: Callable[[Engine], None] | None = None,
) -> Generator[dict[str, Any], None, None]:
    """Train several runs, such as the inner folds of one trial, epoch by epoch.

    Yields {"epoch", "macro_f1" (mean over the runs), "folds" (each run's)} after each epoch; epochs that an
    earlier call finished are replayed from the run folders first. With each_epoch=False runs are scored only
    after their last epoch, and "macro_f1" is left out before it. `inspect` is as for `run`, for each of them.
    """
    plans = [check(spec, ranks=int(os.environ.get("WORLD_SIZE", 1))) for spec in specs]
    with start(runtime) as engine, contextlib.ExitStack() as stack:
        # One loader for all folds (and their stages): its threads are the machine's, not a model's.
        loaders = {
            folder: stack.enter_context(_loader(dataset, engine, runtime))
            for folder, dataset in {plan.dataset.folder: plan.dataset for plan in plans}.items()
        }
        runs = [
            _epochs(plan, loaders[plan.dataset.folder], root, engine, runtime, each_epoch, inspect)
            for plan in plans
        ]
        trainers = [stack.enter_context(contextlib.closing(run)) for run in runs]
        for epoch, scores in enumerate(zip(*trainers, strict=True)):
            known = [score for score in scores if score is not None]
            mean = {"macro_f1": float(np.mean(known)), "folds": known} if len(known) == len(scores) else {}
            yield {"epoch": epoch + 1, **mean}


def _loader(dataset: Dataset, engine: Engine, runtime: Runtime) -> Loader:
    workers = engine.default_workers() if runtime.workers is None else runtime.workers
    cache = open_cache(runtime.cache, dataset, runtime.cache_gb) if runtime.cache else None
    return Loader(dataset, workers=workers, cache=cache, pin=engine.pin)


def _epochs(
    plan: Plan,
    loader: Loader,
    root: Path,
    engine: Engine,
    runtime: Runtime,
    each_epoch: bool,
    inspect: Callable[[Engine], None] | None,
) -> Generator[float | None, None, None]:
    """Macro-F1 (or None where it was not measured) of each epoch of one run: those on record, then those it
    trains."""
    spec = plan.spec
    folder, epochs = RunFolder(root, spec, quiet=runtime.quiet), spec.optim.epochs
    with _held(folder, loader.dataset, engine):
        if engine.gather(folder.done)[
            0
        ]:  # it may have lost its checkpoints on purpose; its record is complete
            if engine.is_main and spec.data.inner is not None:
                folder.drop_checkpoints()  # a kill just after "done" may have left them
            yield from _recorded(folder, epochs)
            return
        if inspect:  # inside, so that the folder records how it ends
            inspect(engine)
        with Trainer(plan, folder, loader, engine, runtime) as trainer:
            begin = trainer.resume()
            if begin == epochs:  # killed between the last checkpoint and "done"
                trainer.score()
                trainer.finish()
            yield from _recorded(folder, begin)
            with trainer.progress():
                for epoch in range(begin, epochs):
                    last = epoch == epochs - 1
                    score = trainer.epoch(evaluate=each_epoch or last)
                    if last:
                        trainer.finish()
                    yield score


@contextlib.contextmanager
def _held(folder: RunFolder, dataset: Dataset, engine: Engine) -> Iterator[None]:
    """The run's folder in the hands of the main rank. If it cannot be had, every rank raises the same
    error."""
    problem: Exception | None = None
    with contextlib.ExitStack() as stack:
        if engine.is_main:
            try:
                fingerprints = _fingerprints(folder.spec, dataset)
                stack.enter_context(folder.opened(dataset.taxonomy, fingerprints, engine.world))
            except (InputError, RunFailed, OSError) as error:
                problem = error
        if problem := engine.gather(problem)[0]:
            raise problem
        try:
            yield
        except Exception as error:
            if not engine.is_main:
                folder.fail(engine.rank, error)
            raise


def _fingerprints(spec: RunSpec, dataset: Dataset) -> dict[str, str]:
    """sha256 hex of what a run is made of, beside its spec."""
    weights = spec.backbone.weights
    return {"dataset": dataset.fingerprint} | (
        {} if weights in (None, "hub") else {"weights": files.sha256(Path(str(weights)))}
    )


def _recorded(folder: RunFolder, epochs: int) -> Generator[float | None, None, None]:
    scores = {row["epoch"]: row.get("macro_f1") for row in folder.metrics() if row["kind"] == "epoch"}
    for epoch in range(epochs):
        yield scores.get(epoch)
