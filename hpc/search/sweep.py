"""The search: a Ray Tune experiment over the searches of a study, one for each variant and outer fold (or for
each variant), all with the same space, seed and number of trials."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.launching import failures, snapshot
from hpc.search import choice, cluster, elastic
from hpc.search.choice import chosen
from hpc.search.record import Progress, Record
from hpc.slurm.site_model import Site
from hpc.studies.study import SearchId, Study
from leukotree import files, signals
from leukotree.errors import NO_ROOM, Busy, InputError, Preempted, RunFailed, one_line
from leukotree.progress import step
from leukotree.records import commands, searchfolder
from leukotree.records.commands import Given
from leukotree.runtime import MOST_WORKERS, Runtime

if TYPE_CHECKING:
    from ray.tune import Tuner


__all__ = ["Elastic", "chosen", "counts", "prepare", "require_free", "sweep"]


@dataclass(frozen=True)
class Elastic:
    """A search whose nodes are jobs of their own (see `hpc.search.elastic`)."""

    most: int
    """Workers at a time, at most."""
    folder: Path
    """What the nodes of the search share."""
    site: Site


def sweep(
    study: Study,
    *,
    address: str | None = None,
    nodes: int = 1,
    cpus_per_trial: int | None = None,
    gpus_per_trial: float | None = None,
    concurrency: int | None = None,
    ranks: int = 1,
    elastically: Elastic | None = None,
    runtime: Runtime | None = None,
    command: Given | None = None,
) -> dict[SearchId, dict[str, Any]]:
    """Search every variant on every outer fold and freeze the chosen values. Returns search -> the content of
    its best.yaml.

    `address` joins a Ray cluster ("auto" finds it) once it has `nodes` nodes, None starts one on this machine
    for the time of
    the sweep; there all trials share a decoded cache. Each of the `ranks` of a trial takes `gpus_per_trial`
    GPUs (None: one if there are any, 0.25: four trials of one rank share one) and `cpus_per_trial` cores
    (None: its GPUs' share of a node's, one without GPUs); at most `concurrency` trials run at once (None:
    what fits). Trials that ended are not trained again: the search goes on from its records. With several
    trials at once, what the searcher knows when it proposes the next one depends on their speed.
    `elastically`: the trials run on those that come, and `address` is a Ray without any nodes for them yet.
    `command`: what asked for the search; it is kept beside the runs.
    Raises InputError for a study without trials, one that differs from what was searched before, a record
    that does not fit it, or trials that no node can carry, RunFailed if no trial came to its end or a disk is
    full (of the kind "disk"), Preempted if a signal ended it, Busy while another sweep works on the study.
    """

    runtime = runtime or Runtime()
    study.require_search()
    folder = searchfolder.sweep_folder(study.root)
    folder.mkdir(parents=True, exist_ok=True)
    with signals.watched(), _held(folder):
        records = _records(study)  # another sweep may have gone on meanwhile
        progress = Progress(study, records)
        for record in records:
            record.drop_checkpoints()
        if progress.open():
            step("starting Ray" if address is None else "joining Ray", accepted=True)
            code = snapshot.take(study.root.parent)
            with cluster.connect(address, nodes, code) as private:
                gpus = _gpus(runtime, gpus_per_trial)
                places_of = (
                    elastic.nodes(elastically.site, elastically.most) if elastically else cluster.nodes()
                )
                slots = cluster.slots(places_of, cpus_per_trial, gpus, concurrency, ranks)
                cache = runtime.cache or (private / "decoded" if private and address is None else None)
                threads = runtime.threads or slots.cpus
                workers = (
                    min(MOST_WORKERS, max(1, slots.cpus - 1)) if runtime.workers is None else runtime.workers
                )
                runtime = dataclasses.replace(runtime, cache=cache, threads=threads, workers=workers)
                with _places(elastically, progress, slots) as places:
                    _search(progress, slots, runtime, places, command)
            for record in records:
                record.drop_checkpoints()
        choice.freeze_all(records)
    return choice.best(study)


def prepare(
    study: Study,
    *,
    address: str | None = None,
    cpus_per_trial: int | None = None,
    gpus_per_trial: float | None = None,
    concurrency: int | None = None,
    ranks: int = 1,
    elastically: Elastic | None = None,
    runtime: Runtime | None = None,
) -> None:
    """Raise what `sweep` raises before it begins, as far as that is known without Ray; nothing is written."""
    from hpc.launching.devices import gpu_count
    from leukotree.distributed.engine import require_device

    study.require_search()
    runtime = runtime or Runtime()
    files.require_writable(searchfolder.sweep_folder(study.root))
    records = _records(study)
    if not any(record.open() for record in records):
        return
    if elastically or address is None:
        here = [{"CPU": float(len(os.sched_getaffinity(0))), "GPU": float(gpu_count(runtime))}]
        places = elastic.nodes(elastically.site, elastically.most) if elastically else here
        cluster.slots(places, cpus_per_trial, _gpus(runtime, gpus_per_trial), concurrency, ranks)
    if address is None:
        require_device(runtime.device)


def require_free(study: Study) -> None:
    """Raises Busy where another sweep works on the study now; `sweep` itself waits for a while before
    that."""
    lock = searchfolder.sweep_folder(study.root) / searchfolder.LOCK
    if files.held(lock):
        raise Busy(_busy(lock.parent) + files.holder(lock))


def counts(study: Study) -> dict[str, int]:
    """How many trainings and epochs the searches are at most, with their re-runs, and how many of them are
    over. Those of a trial that was stopped are: nobody trains them."""
    search, inner = study.search, study.folds.inner
    trials = len(study.search_ids) * (
        search.trials + min(search.rerun_top, search.trials) * search.rerun_seeds
    )
    open_trials = sum(record.open() for record in _records(study))
    trainings, over = trials * inner, (trials - open_trials) * inner
    epochs = study.base.optim.epochs
    return {
        "trainings": trainings,
        "trainings_done": over,
        "epochs": trainings * epochs,
        "epochs_done": over * epochs,
    }


def _records(study: Study) -> list[Record]:
    """Those of the searches that have not chosen yet. Raises InputError for one that is not this study's, or
    is damaged."""
    data = choice.fingerprint(study)
    records = []
    for search_id in study.search_ids:
        if choice.finished(study, search_id, data):
            choice.frozen(study, search_id)
        else:
            records.append(Record(study, search_id))
    return records


def _gpus(runtime: Runtime, wanted: float | None) -> float | None:
    return 0.0 if runtime.device == "cpu" else wanted


def _busy(folder: Path) -> str:
    return f"{folder}: another sweep works on this study"


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """The study's searches in the hands of this process. The sweep that had them before may be cut off, or
    gone, and the file system has not noticed yet. Raises Busy where it lives; in a job that SLURM has begun
    anew, Preempted: it may be the job's own earlier start, on a node that is cut off."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(files.locked(folder / searchfolder.LOCK, _busy(folder), failures.HELD_SECONDS))
        except Busy as error:
            if "SLURM_RESTART_COUNT" in os.environ:
                raise Preempted(one_line(error)) from None
            raise
        yield


@contextlib.contextmanager
def _places(
    elastically: Elastic | None, progress: Progress, slots: cluster.Slots
) -> Iterator[Callable[[], int] | None]:
    """How many trials may run at once by now, where workers come and go; None where the nodes are all
    there."""
    if elastically is None:
        yield None
        return

    def joined() -> int:
        return min(slots.count, cluster.room(cluster.nodes(), slots))

    def give_up(line: str) -> None:
        progress.left = progress.left or ("error", line)

    places = max(1, slots.count // elastically.most)
    with elastic.Workers(
        elastically.most,
        elastically.folder,
        elastically.site,
        open_trials=progress.open,
        places=places,
        joined=joined,
        give_up=give_up,
    ):
        yield joined


def _search(
    progress: Progress,
    slots: cluster.Slots,
    runtime: Runtime,
    places: Callable[[], int] | None,
    command: Given | None,
) -> None:
    """One experiment for what is left of all searches: their trials follow each other in the same processes.
    Ray's own notes on it are gone afterwards, and those that a kill left are not looked at."""
    study = progress.study
    _note(progress, command)
    scratch = searchfolder.sweep_folder(study.root.absolute()) / searchfolder.SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)
    logging.getLogger("ray.tune.tune").setLevel(
        logging.CRITICAL
    )  # it counts trials that went on in another process as lost
    tuner = _tuner(progress, slots, runtime, places, scratch)
    try:
        if progress.open():
            step("starting the first trials, whose processes import torch and timm", accepted=True)
            tuner.fit()
    except (InputError, RunFailed, Preempted):
        raise
    except Exception as error:  # Ray says of a full disk what it stumbles over: a file that it could write in part only, and so on
        search, temporary = searchfolder.sweep_folder(study.root), Path(cluster.short_folder())
        if files.full_disk(temporary) and not files.full_disk(search):
            raise RunFailed(f"{temporary}: {cluster.NO_ROOM}", "disk") from error
        if files.full_disk(search) or _is_full(error):
            said = f"{search}: no room for the record of the search; make room and run it again"
            raise RunFailed(said, "disk") from error
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    where = f"{searchfolder.sweep_folder(study.root)}: {progress.open()} trials have not ended"
    if progress.left and progress.left[0] == "node":
        raise Preempted(
            progress.left[1], "node"
        )  # says nothing of the search: the job that does it is to be queued again
    if progress.left and progress.left[0] in ("disk", "error"):
        raise RunFailed(progress.left[1], progress.left[0])
    if progress.open() and progress.left:
        raise Preempted(f"{where}, {progress.left[1]}")
    if progress.open():
        raise RunFailed(f"{where}, the search was interrupted; run it again to continue it")


def _note(progress: Progress, command: Given | None) -> None:
    """Write what is searched, with which code, and who asked for it."""
    study = progress.study
    choice.begin(study, progress.records, choice.fingerprint(study))
    searchfolder.note_attempt(study.root)
    if command is not None:
        commands.keep(study.root, command)


def _is_full(error: BaseException | None) -> bool:
    """Whether a full disk is behind an error. Of those of other processes Ray hands over the text."""
    if error is None:
        return False
    said = any(os.strerror(number) in str(error) for number in NO_ROOM)
    return said or files.is_full(error) or _is_full(error.__cause__ or error.__context__)


def _tuner(
    progress: Progress,
    slots: cluster.Slots,
    runtime: Runtime,
    places: Callable[[], int] | None,
    scratch: Path,
) -> Tuner:
    """The experiment on what is left of the searches."""
    from ray import tune

    from hpc.search import searcher, slot

    study = progress.study
    scheduler = searcher.scheduler(study, progress.records.values())
    return tune.Tuner(
        slot.trainable(study, slots, runtime, scratch / slot.LEAVE),
        tune_config=tune.TuneConfig(
            metric=study.search.metric,
            mode="max",
            search_alg=searcher.StudySearcher(progress, study.search.metric, slots.devices, places),
            scheduler=scheduler,
            num_samples=-1,  # the searcher knows when it is done: a trial whose process died is asked for again
            max_concurrent_trials=slots.count,  # no trial is drawn before a slot is free for it
            reuse_actors=True,
            trial_dirname_creator=slot.folder_name,
        ),
        run_config=tune.RunConfig(
            name=scratch.name,
            storage_path=str(scratch.parent),
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # the runs keep their own
            callbacks=[slot.Watch(progress, runtime.quiet)],
            stop=slot.Leave(progress, scratch / slot.LEAVE),
        ),
    )
