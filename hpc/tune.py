"""The search: a Ray Tune experiment over the searches of a study, one for each variant and outer fold (or for each variant), all
with the same space, seed and number of trials."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc import choice, cluster
from hpc.choice import chosen
from hpc.record import Progress, Record
from hpc.study import Study, Unit
from leukotree import files, signals
from leukotree.errors import Preempted, RunFailed

if TYPE_CHECKING:
    from ray.tune import Tuner

    from leukotree.train import Runtime

__all__ = ["chosen", "sweep"]


def sweep(
    study: Study,
    *,
    address: str | None = None,
    nodes: int = 1,
    cpus_per_trial: int | None = None,
    gpus_per_trial: float | None = None,
    concurrency: int | None = None,
    ranks: int = 1,
    runtime: Runtime | None = None,
) -> dict[Unit, dict[str, Any]]:
    """Search every variant on every outer fold and freeze the chosen values. Returns search -> the content of its best.yaml.

    `address` joins a Ray cluster ("auto" finds it) once it has `nodes` nodes, None starts one on this machine for the time of
    the sweep; there all trials share a decoded cache. Each of the `ranks` of a trial takes `gpus_per_trial` GPUs (None: one if
    there are any, 0.25: four trials of one rank share one) and `cpus_per_trial` cores (None: its GPUs' share of a node's, one
    without GPUs); at most `concurrency` trials run at once (None: what fits). Trials that ended are not trained again: the
    search goes on from its records. With several trials at once, what the searcher knows when it proposes the next one depends
    on their speed.
    Raises InputError for a study without trials, one that differs from what was searched before, a record that does not fit
    it, or trials that no node can carry, RunFailed if no trial came to its end, Preempted if a signal ended it.
    """
    from leukotree.engine import MOST_WORKERS, Runtime

    study.require_search()
    runtime = runtime or Runtime()
    folder = study.root / "search"
    folder.mkdir(parents=True, exist_ok=True)
    busy = f"{folder}: another sweep works on this study; wait for it, or end it"
    with signals.watched(), files.locked(folder / ".lock", busy):
        data = choice.fingerprint(study)
        records = [Record(study, unit) for unit in study.units if not choice.finished(study, unit, data)]
        progress = Progress(study, records)
        for record in records:
            record.drop_checkpoints()
        if progress.open():
            with cluster.connect(address, nodes) as private:
                gpus = 0.0 if runtime.device == "cpu" else gpus_per_trial
                slots = cluster.slots(cluster.nodes(), cpus_per_trial, gpus, concurrency, ranks)
                cache = runtime.cache or (private / "decoded" if private and address is None else None)
                threads = runtime.threads or slots.cpus
                workers = min(MOST_WORKERS, max(1, slots.cpus - 1)) if runtime.workers is None else runtime.workers
                runtime = dataclasses.replace(runtime, cache=cache, threads=threads, workers=workers)
                _search(progress, slots, runtime)
            for record in records:
                record.drop_checkpoints()
        choice.freeze_all(records)
    return choice.best(study)


def _search(progress: Progress, slots: cluster.Slots, runtime: Runtime) -> None:
    """One experiment for what is left of all searches: their trials follow each other in the same processes. Ray's own notes on
    it are gone afterwards, and those that a kill left are not looked at."""
    study = progress.study
    choice.begin(study, progress.records, choice.fingerprint(study))
    scratch = study.root.absolute() / "search" / "ray"
    shutil.rmtree(scratch, ignore_errors=True)
    from ray.tune import TuneError

    tuner = _tuner(progress, slots, runtime, scratch)
    try:
        if progress.open():
            tuner.fit()
    except (TuneError, OSError) as error:
        if not _is_full(error):
            raise
        said = f"{study.root / 'search'}: no room for the record of the search; make room and run it again"
        raise RunFailed(said, "disk") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    where = f"{study.root / 'search'}: {progress.open()} trials have not ended"
    if progress.left and progress.left[0] == "node":
        raise Preempted(progress.left[1], "node")  # says nothing of the search: the job that does it is to be queued again
    if progress.left and progress.left[0] == "disk":
        raise RunFailed(progress.left[1], "disk")
    if progress.open() and progress.left:
        raise Preempted(f"{where}, {progress.left[1]}")
    if progress.open():
        raise RunFailed(f"{where}, the search was interrupted; run it again to continue it")


def _is_full(error: BaseException | None) -> bool:
    """Whether a full disk is behind an error."""
    return error is not None and (files.is_full(error) or _is_full(error.__cause__ or error.__context__))


def _tuner(progress: Progress, slots: cluster.Slots, runtime: Runtime, scratch: Path) -> Tuner:
    """The experiment on what is left of the searches."""
    from ray import tune

    from hpc import searcher, trial

    study = progress.study
    scheduler = searcher.scheduler(study, progress.records.values())
    return tune.Tuner(
        trial.trainable(study, slots, runtime, scratch / trial.LEAVE),
        tune_config=tune.TuneConfig(
            metric=study.search.metric,
            mode="max",
            search_alg=searcher.StudySearcher(progress, study.search.metric, slots.devices),
            scheduler=scheduler,
            num_samples=-1,  # the searcher knows when it is done: a trial whose process died is asked for again
            max_concurrent_trials=slots.count,  # no trial is drawn before a slot is free for it
            reuse_actors=True,
            trial_dirname_creator=trial.folder_name,
        ),
        run_config=tune.RunConfig(
            name=scratch.name,
            storage_path=str(scratch.parent),
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # the runs keep their own
            callbacks=[trial.Watch(progress, runtime.quiet)],
            stop=trial.Leave(progress, scratch / trial.LEAVE),
        ),
    )
