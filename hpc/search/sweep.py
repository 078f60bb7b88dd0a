"""A sweep: one Ray Tune experiment over all searches of a study. There is one search per variant and outer
fold, or per variant. All have the same space and number of trials. The searches of an outer fold draw the
same first values."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.launching import devices as gpus
from hpc.launching import failures, snapshot, stale
from hpc.launching.ranks import in_ranks
from hpc.search import choice, cluster, elastic, extension, slot_plan
from hpc.search.record import Record
from hpc.search.slot_plan import SlotPlan
from hpc.search.trial_place import TrialPlace
from hpc.search.trial_queue import TrialQueue
from hpc.studies.study import SearchId, Study
from leukotree import files, signals
from leukotree.data import featurefile
from leukotree.errors import NO_ROOM, Busy, InputError, Preempted, RunFailed, one_line
from leukotree.progress import step
from leukotree.records import commands, searchfolder
from leukotree.records.commands import Given
from leukotree.runtime import MOST_WORKERS, Runtime

if TYPE_CHECKING:
    from ray.tune import Tuner

    from hpc.search.optuna_storage import Export


def sweep(
    study: Study,
    place: TrialPlace | None = None,
    runtime: Runtime | None = None,
    command: Given | None = None,
    optuna_storage: bool = False,
) -> dict[SearchId, dict[str, Any]]:
    """Search all variants and outer folds, and write what each search chose. Returns search -> the content of
    its best.yaml.

    A search continues from its record: trials that have ended are not trained again. A search that began
    with fewer trials is extended, see `extension`. With several trials at once, what the sampler knows when
    it proposes the next one depends on their speed.

    Raises InputError for a study without trials, for one that differs from what was searched before, for a
    record that does not fit it, for an extension that comes too late, and for trials that fit on no node.
    Raises RunFailed if no trial completed or a disk is full (kind "disk"), Preempted after a signal, Busy
    while another sweep runs on the study.

    Args:
        place: where the trials run; None for a Ray of this process on this machine.
        runtime: how each rank computes. In a Ray that is started here, all trials share a decoded cache.
        command: the command that asked for the sweep. It is kept beside the runs.
        optuna_storage: whether the searches are also kept as studies of Optuna, see `optuna_storage`.
    """
    place, runtime = place or TrialPlace(), runtime or Runtime()
    study.require_search()
    folder = searchfolder.sweep_folder(study.root)
    folder.mkdir(parents=True, exist_ok=True)
    with signals.watched(), _locked(folder):
        _extend(study)
        records = open_records(study)  # read under the lock: another sweep may have added trials
        queue = TrialQueue(study, records)
        for record in records:
            record.drop_checkpoints()
        with _exported(study, records, optuna_storage) as export:
            if queue.open():
                _run_trials(queue, place, runtime, command, export)
                for record in records:
                    record.drop_checkpoints()
        choice.write_choices(records)
    return choice.read_choices(study)


@contextlib.contextmanager
def _exported(study: Study, records: list[Record], wanted: bool) -> Iterator[Export | None]:
    """The context in which a storage of Optuna follows the records, if that is wanted."""
    if not wanted:
        yield None
        return
    from hpc.search import optuna_storage

    with optuna_storage.exported(study, records) as export:
        yield export


def prepare(study: Study, place: TrialPlace, runtime: Runtime | None = None) -> None:
    """Raise what `sweep` would raise before it begins, as far as that is known without Ray. Writes
    nothing."""
    from leukotree.distributed.engine import require_device

    study.require_search()
    runtime = runtime or Runtime()
    files.require_writable(searchfolder.sweep_folder(study.root))
    extension.extended(study)
    records = open_records(study)
    if not any(record.open() for record in records):
        return
    _slots(place, runtime)
    if place.address is None:
        require_device(runtime.device)


def _slots(place: TrialPlace, runtime: Runtime) -> SlotPlan | None:
    """The slots of a sweep, as far as they are known without Ray."""
    if place.elastic:
        return place.plan(place.elastic.resources(), runtime)
    if place.address is not None:
        return None
    machine = {"CPU": float(len(os.sched_getaffinity(0))), "GPU": float(gpus.gpu_count(runtime))}
    return place.plan([machine], runtime)


def devices(place: TrialPlace, runtime: Runtime) -> float | None:
    """The devices that the trials of a sweep use at the same time, if that is known without Ray."""
    slots = _slots(place, runtime)
    return None if slots is None else slots.count * slots.devices


def require_free(study: Study) -> None:
    """Raises Busy if another sweep runs on the study now. `sweep` itself first waits for a while."""
    lock = searchfolder.sweep_folder(study.root) / searchfolder.LOCK
    if files.held(lock):
        raise Busy(_busy(lock.parent) + files.holder(lock))


def counts(study: Study) -> dict[str, int]:
    """The most trainings and epochs that the searches and their re-runs take, and how many of them are over.
    Those of a stopped trial are over: they will not be trained."""
    search, inner = study.search, study.folds.inner
    open_trials = {record.search_id: record.open() for record in open_records(study)}
    numbers: Counter[str] = Counter(trainings=0, trainings_done=0, epochs=0, epochs_done=0)
    for search_id in study.search_ids:
        size, epochs = study.trials(search_id.variant), study.epochs(search_id.variant)
        trials = size + search.rerun_count(size) * search.rerun_seeds
        trainings, over = trials * inner, (trials - open_trials.get(search_id, 0)) * inner
        numbers.update(trainings=trainings, trainings_done=over)
        numbers.update(epochs=trainings * epochs, epochs_done=over * epochs)
    return dict(numbers)


def open_records(study: Study) -> list[Record]:
    """The records of the searches that have not ended. Raises InputError for a search of other settings, data
    or weights, and for one that is damaged."""
    data, records = choice.fingerprints(study), []
    for search_id in study.search_ids:
        folder = study.search_folder(search_id)
        if (folder / searchfolder.SETTINGS).exists():  # without them the search begins with those of today
            stale.check_search(folder, study.base.data.shards)
        if choice.has_ended(study, search_id, data[search_id.repeat]):
            choice.read_choice(study, search_id)
        else:
            records.append(Record(study, search_id))
    return records


def _extend(study: Study) -> None:
    """Reopen the searches that began with fewer trials than the study has now."""
    for search_id, before in extension.extended(study).items():
        stale.check_search(study.search_folder(search_id), study.base.data.shards)
        choice.has_ended(study, search_id, data := choice.fingerprint(study, search_id.repeat))
        extension.begin(study, search_id, before)
        choice.write_settings(study, [search_id], data)


def _busy(folder: Path) -> str:
    return f"{folder}: another sweep runs on this study"


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The lock of the study's searches. The process that held it before may be cut off or dead, and the file
    system has not noticed yet. Raises Busy if it is alive. In a job that SLURM has restarted, raises
    Preempted: the holder may be the job's own earlier start, on a node that is cut off."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(
                files.locked(folder / searchfolder.LOCK, _busy(folder), failures.HELD_SECONDS)
            )
        except Busy as error:
            if "SLURM_RESTART_COUNT" in os.environ:
                raise Preempted(one_line(error)) from None
            raise
        yield


def _run_trials(
    queue: TrialQueue, place: TrialPlace, runtime: Runtime, command: Given | None, export: Export | None
) -> None:
    """Run the open trials on Ray."""
    runtime = dataclasses.replace(
        runtime, features=runtime.features or queue.study.root.parent / featurefile.FOLDER
    )
    if place.elastic is None:  # else the nodes that train are others
        _compute_features(queue.study, runtime)
    step("starting Ray" if place.address is None else "joining Ray", accepted=True)
    code = snapshot.take(queue.study.root.parent)
    with cluster.connect(place.address, place.nodes, code) as private:
        nodes = place.elastic.resources() if place.elastic else cluster.nodes()
        plan = place.plan(nodes, runtime)
        cache = runtime.cache or (private / "decoded" if private and place.address is None else None)
        workers = min(MOST_WORKERS, max(1, plan.cpus - 1)) if runtime.workers is None else runtime.workers
        runtime = dataclasses.replace(
            runtime, cache=cache, threads=runtime.threads or plan.cpus, workers=workers
        )
        with _workers(place.elastic, queue, plan) as slots_now:
            _search(queue, plan, runtime, slots_now, command, export)


def _compute_features(study: Study, runtime: Runtime) -> None:
    """Compute the features that all trials train on, with a progress bar. Trials whose own values need others
    compute those themselves."""
    from leukotree.training import features

    spec = study.spec(study.variants[0], {}, study.base.data.test_fold, study.seeds[0])
    if not features.ready(spec, study.root, runtime):
        step("computing the features of the images, once for all runs", accepted=True)
        in_ranks(features.prepare, spec, study.root, runtime=runtime, ranks=1)


@contextlib.contextmanager
def _workers(
    settings: elastic.Elastic | None, queue: TrialQueue, plan: SlotPlan
) -> Iterator[Callable[[], int] | None]:
    """The workers of an elastic search. Yields a function that gives the number of trials that may run at
    once now; None where the nodes do not change."""
    if settings is None:
        yield None
        return

    def joined() -> int:
        return min(plan.count, slot_plan.slots_on(cluster.nodes(), plan))

    with elastic.Workers(
        settings,
        open_trials=queue.ready,
        slots_per_worker=max(1, plan.count // settings.max_workers),
        joined=joined,
        give_up=lambda line: queue.stop("error", line),
    ):
        yield joined


def _search(
    queue: TrialQueue,
    plan: SlotPlan,
    runtime: Runtime,
    slots_now: Callable[[], int] | None,
    command: Given | None,
    export: Export | None,
) -> None:
    """One experiment for the open trials of all searches: they follow each other in the same slots. Ray's own
    notes are removed at the end. Those that a killed sweep left are not read."""
    study = queue.study
    _note_begin(queue, command)
    scratch = searchfolder.sweep_folder(study.root.absolute()) / searchfolder.SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)
    # It counts trials that continue in another process as lost.
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)
    tuner = _tuner(queue, plan, runtime, slots_now, scratch, export)
    try:
        if queue.open():
            step("starting the first trials, whose processes import torch and timm", accepted=True)
            tuner.fit()
    except (InputError, RunFailed, Preempted):
        raise
    except Exception as error:
        _raise_full_disk(searchfolder.sweep_folder(study.root), error)
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    _raise_end(queue)


def _raise_full_disk(folder: Path, error: Exception) -> None:
    """Raises RunFailed of the kind "disk" if a disk is full. Ray itself names only a consequence, such as a
    file that is cut short."""
    temporary = Path(cluster.short_folder())
    if files.full_disk(temporary) and not files.full_disk(folder):
        raise RunFailed(f"{temporary}: {cluster.NO_ROOM}", "disk") from error
    if files.full_disk(folder) or _is_full(error):
        message = f"{folder}: no room for the record of the search; make room and run it again"
        raise RunFailed(message, "disk") from error


def _raise_end(queue: TrialQueue) -> None:
    """Raises the error with which a sweep ends whose trials have not all ended."""
    open_trials = queue.open()
    where = f"{searchfolder.sweep_folder(queue.study.root)}: {open_trials} trials have not ended"
    kind, message = queue.stop_reason or (None, "")
    if kind == "node":
        raise Preempted(message, "node")  # the search is in order: its job is to be queued again
    if kind == "server":
        raise Preempted(f"{where}, {message}", "server")
    if kind in ("disk", "error"):
        raise RunFailed(message, kind)
    if open_trials and kind:
        raise Preempted(f"{where}, {message}")
    if open_trials:
        raise RunFailed(f"{where}, the search was interrupted; run it again to continue it")


def _note_begin(queue: TrialQueue, command: Given | None) -> None:
    """Write what is searched, with which code, and by which command."""
    study = queue.study
    for repeat in {search_id.repeat for search_id in queue.records}:
        of_repeat = [search_id for search_id in queue.records if search_id.repeat == repeat]
        choice.write_settings(study, of_repeat, choice.fingerprint(study, repeat))
    searchfolder.note_attempt(study.root)
    if command is not None:
        commands.keep(study.root, command)


def _is_full(error: BaseException | None) -> bool:
    """Whether a full disk caused an error. Of errors in other processes Ray gives only the text."""
    if error is None:
        return False
    in_text = any(os.strerror(number) in str(error) for number in NO_ROOM)
    return in_text or files.is_full(error) or _is_full(error.__cause__ or error.__context__)


def _tuner(
    queue: TrialQueue,
    plan: SlotPlan,
    runtime: Runtime,
    slots_now: Callable[[], int] | None,
    scratch: Path,
    export: Export | None,
) -> Tuner:
    """The experiment on the open trials."""
    from ray import tune

    from hpc.search import early_stopping, searcher, slot, tune_callbacks, tune_keys

    study, stop_file = queue.study, scratch / slot.STOP_FILE
    scheduler = early_stopping.scheduler(study, queue.records.values())
    return tune.Tuner(
        slot.trainable(study, plan, runtime, stop_file),
        tune_config=tune.TuneConfig(
            metric=study.search.metric,
            mode="max",
            search_alg=searcher.StudySearcher(queue, study.search.metric, plan.devices, slots_now),
            scheduler=scheduler,
            num_samples=-1,  # the searcher ends the experiment: a trial whose process died is suggested again
            max_concurrent_trials=plan.count,  # no trial is drawn before a slot is free for it
            reuse_actors=True,
            trial_dirname_creator=tune_keys.folder_name,
        ),
        run_config=tune.RunConfig(
            name=scratch.name,
            storage_path=str(scratch.parent),
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # the runs keep their own
            callbacks=[tune_callbacks.Recorder(queue, runtime.quiet, export)],
            stop=tune_callbacks.SweepStopper(queue, stop_file),
        ),
    )
