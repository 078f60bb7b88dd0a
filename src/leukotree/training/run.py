"""run(spec): from a spec to a run folder with predictions.

It is the same function inline, in local ranks, in a job and in a trial.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from leukotree.data.dataset import Dataset
from leukotree.data.remote import address, scratch
from leukotree.distributed.engine import Engine, start
from leukotree.errors import InputError, RunFailed
from leukotree.models import described, pretrained
from leukotree.records import compared, predictions
from leukotree.records.runfolder import RunFolder
from leukotree.runtime import Runtime
from leukotree.spec import BackboneSpec, RunSpec
from leukotree.training.loaders import Loaders
from leukotree.training.plan import Plan, check
from leukotree.training.together import Together
from leukotree.training.trainer import Trainer

HERE = Runtime()
"""One process with the defaults of this machine."""


@dataclass(frozen=True)
class RunResult:
    """The result of a run. `metrics`: accuracy and macro_f1 of the scored fold, from its predictions."""

    folder: Path
    state: str
    metrics: dict[str, float] = field(default_factory=dict)


def run(
    spec: RunSpec, root: Path, runtime: Runtime = HERE, inspect: Callable[[Engine], None] | None = None
) -> RunResult:
    """Train and score one spec in `root/<variant>-<hash>`; the result.

    A run that was begun is continued; one that is done returns at once. Every rank calls it. The test fold
    (or the inner fold, if the spec names one) is scored once, after the last epoch.

    Args:
        inspect: every rank calls it when all ranks have joined, before any training. An error in it ends this
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
    """Train several runs together, such as the inner folds of one trial, epoch by epoch.

    Yields {"epoch", "macro_f1" (mean over the runs), "folds" (each run's)} after each epoch. Epochs that an
    earlier call finished are read from the run folders first. With each_epoch=False runs are scored only
    after their last epoch; before it "macro_f1" is absent. `inspect`: as for `run`, for each of the runs.
    """
    scratch.use(runtime.scratch, runtime.scratch_gb)
    for spec in specs:  # a person has started it, so also a command that it names
        address.trust(spec.data.shards)
    plans = [check(spec, ranks=int(os.environ.get("WORLD_SIZE", 1))) for spec in specs]
    with start(runtime) as engine, contextlib.ExitStack() as stack:
        loaders, together = Loaders(root, engine, runtime, stack), Together()
        runs = [
            _epochs(plan, loaders, root, engine, runtime, each_epoch, inspect, together) for plan in plans
        ]
        trainers = [stack.enter_context(contextlib.closing(run)) for run in runs]
        for plan, trainer in zip(plans, trainers, strict=True):
            if plan.spec.on_features:
                next(trainer)  # heads are trained together once all are there
        for epoch, scores in enumerate(zip(*trainers, strict=True)):
            known = [score for score in scores if score is not None]
            mean = {"macro_f1": float(np.mean(known)), "folds": known} if len(known) == len(scores) else {}
            yield {"epoch": epoch + 1, **mean}


def _epochs(
    plan: Plan,
    loaders: Loaders,
    root: Path,
    engine: Engine,
    runtime: Runtime,
    each_epoch: bool,
    inspect: Callable[[Engine], None] | None,
    together: Together,
) -> Generator[float | None, None, None]:
    """Macro-F1 of each epoch of one run, or None where it was not measured. Before them None for a run on
    stored features, when it is ready to train.

    First come the epochs in its folder, then those that are trained now.
    """
    spec = plan.spec
    folder, epochs = RunFolder(root, spec, quiet=runtime.quiet), spec.epochs
    with _held(folder, plan.dataset, engine):
        done: bool = engine.gather(folder.done)[0]
        if done:  # its checkpoints may be removed, but its metrics are complete
            if engine.is_main and spec.data.inner is not None:
                folder.drop_checkpoints()  # a kill just after "done" may leave them
            if spec.on_features:
                yield None
            yield from _recorded(folder, epochs)
            return
        if inspect:  # inside `_held`, so that the folder records the error
            inspect(engine)
        with Trainer(plan, folder, loaders.of(plan), engine, runtime, together) as trainer:
            begin = trainer.resume()
            if spec.on_features:
                yield None
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
    """The context in which the main rank holds the run's folder.

    If it cannot open the folder, every rank raises the same error.
    """
    problem: Exception | None = None
    with contextlib.ExitStack() as stack:
        if engine.is_main:
            try:
                fingerprints = compared.fingerprints(folder.spec, dataset)
                made_of = dataset.taxonomy, fingerprints, engine.world, dataset.preparation
                backbone, config = _backbone(folder.spec.backbone, dataset.size)
                stack.enter_context(folder.opened(*made_of, backbone, config))
                if (note := described.note(backbone)) and not folder.done:
                    folder.log.info(note)
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


def _backbone(backbone: BackboneSpec, size: int) -> tuple[dict[str, Any], Path | None]:
    """The description of a backbone, and its `config.json`; None for a model that timm has by name."""
    name = pretrained.parse(backbone.name)
    config = None if name.kind == "timm" else pretrained.folder(name) / pretrained.CONFIG
    return described.describe(backbone, size), config


def _recorded(folder: RunFolder, epochs: int) -> Generator[float | None, None, None]:
    """Macro-F1, or None, of the first `epochs` epochs in a run's folder."""
    scores = {row["epoch"]: row.get("macro_f1") for row in folder.metrics() if row["kind"] == "epoch"}
    for epoch in range(epochs):
        yield scores.get(epoch)
