"""The search: a Ray Tune experiment that searches each variant by itself, with the same space, seed and number of trials."""

from __future__ import annotations

import csv
import dataclasses
import io
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc import cluster
from hpc.record import Progress, Record, Trial
from hpc.study import Study
from leukotree import files, signals, yamlfile
from leukotree.errors import InputError, Preempted, RunFailed
from leukotree.spec import parse

if TYPE_CHECKING:
    from ray.tune import Tuner

    from leukotree.train import Runtime

DATA = "dataset"
"""Key of search.yaml for the fingerprint of the data that were searched on."""
TRIALS = ("trial", "state", "epochs", "macro_f1", "best_macro_f1", "seconds")


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
) -> dict[str, dict[str, Any]]:
    """Search every variant and freeze the chosen values. Returns variant -> the content of its best.yaml.

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
        open_variants = [variant for variant in study.variants if not _finished(study, variant)]
        records = {str(variant): Record(study, variant) for variant in open_variants}
        progress = Progress(study, records)
        if not progress.open():
            _freeze_all(study, records)
            return _best(study)
        with cluster.connect(address, nodes) as private:
            gpus = 0.0 if runtime.device == "cpu" else gpus_per_trial
            slots = cluster.slots(cluster.nodes(), cpus_per_trial, gpus, concurrency, ranks)
            cache = runtime.cache or (private / "decoded" if private and address is None else None)
            threads = runtime.threads or slots.cpus
            workers = min(MOST_WORKERS, max(1, slots.cpus - 1)) if runtime.workers is None else runtime.workers
            runtime = dataclasses.replace(runtime, cache=cache, threads=threads, workers=workers)
            _search(progress, slots, runtime)
        _freeze_all(study, records)
    return _best(study)


def _best(study: Study) -> dict[str, dict[str, Any]]:
    return {str(variant): yamlfile.load(study.search_folder(variant) / "best.yaml") for variant in study.variants}


def chosen(study: Study, partial: bool = False) -> dict[str, dict[str, Any]]:
    """variant -> the chosen dotted values; none are chosen in a study without trials, which runs the values of its base.

    Raises InputError where a search has not ended (`partial` leaves the variant out, and asks for no data), or was of
    another study or other data.
    """
    if not study.search.trials:
        return {variant: {} for variant in study.variants}
    found: dict[str, dict[str, Any]] = {}
    for variant in study.variants:
        path = study.search_folder(variant) / "best.yaml"
        if not _finished(study, variant, with_data=not partial):
            if partial:
                continue
            raise InputError(f"{path}: missing; run `leukotree sweep` on this study first")
        best = yamlfile.load(path)
        if not isinstance(best, Mapping) or not isinstance(best.get("chosen"), Mapping):
            raise InputError(f"{path}: has no `chosen` values; remove it and run `leukotree sweep` again")
        found[variant] = dict(best["chosen"])
    return found


def _finished(study: Study, variant: str, with_data: bool = True) -> bool:
    """Whether the variant has its best.yaml. Raises InputError if its search was begun with other settings, or on other
    data: the fold that it did not see would be another one."""
    folder = study.search_folder(variant)
    path = folder / "search.yaml"
    if path.exists():
        tree = dict(yamlfile.load(path))
        searched = tree.pop(DATA, None)
        stored, ours = _flat(_settings(parse(Study, tree, str(path)))), _flat(_settings(study))
        if with_data:
            stored[DATA], ours[DATA] = searched, _fingerprint(study)
        changed = [key for key in {**stored, **ours} if stored.get(key) != ours.get(key)]
        if changed:
            listed = ", ".join(f"{key} was {stored.get(key)!r} and is {ours.get(key)!r}" for key in changed)
            raise InputError(f"{folder}: searched with other settings: {listed}; rename the study, or move the folder away")
    return (folder / "best.yaml").exists()


def _fingerprint(study: Study) -> str:
    from leukotree.data.dataset import Dataset

    return Dataset.open(study.base.data.shards).fingerprint


def _settings(study: Study) -> dict[str, Any]:
    """The part of a study that decides its search: not the outer seeds or the variants."""
    fields = study.model_dump(mode="json", exclude_defaults=True, include={"study", "base", "folds", "search"})
    fields["seeds"] = [study.seeds[0]]
    return fields


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def _search(progress: Progress, slots: cluster.Slots, runtime: Runtime) -> None:
    """One experiment for what is left of all variants: their trials follow each other in the same processes. Ray's own notes on
    it are gone afterwards, and those that a kill left are not looked at."""
    study = progress.study
    settings = yamlfile.dump({**_settings(study), DATA: _fingerprint(study)})
    for variant in progress.records:
        files.write_atomic(study.search_folder(variant) / "search.yaml", settings)
    scratch = study.root.absolute() / "search" / "ray"
    shutil.rmtree(scratch, ignore_errors=True)
    tuner = _tuner(progress, slots, runtime, scratch)
    try:
        if progress.open():
            tuner.fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    where = f"{study.root / 'search'}: {progress.open()} trials have not ended"
    if progress.left and progress.left[0] in ("disk", "node"):
        raise RunFailed(progress.left[1], progress.left[0])
    if progress.open() and progress.left:
        raise Preempted(f"{where}, {progress.left[1]}")
    if progress.open():
        raise RunFailed(f"{where}, the search was interrupted; run it again to continue it")


def _freeze_all(study: Study, records: Mapping[str, Record]) -> None:
    without = [reason for variant, record in records.items() if (reason := _freeze(study, variant, record.trials))]
    if without:
        raise RunFailed(without[0])


def _freeze(study: Study, variant: str, trials: Sequence[Trial]) -> str | None:
    """Write trials.csv and best.yaml of a search that has ended; without the latter, why no trial came to its end."""
    folder = study.search_folder(variant)
    rows = [_row(trial) for trial in trials]
    files.write_atomic(folder / "trials.csv", _csv(rows))
    complete = [row for row in rows if row["state"] == "completed"]
    if not complete:
        first = next((trial.message for trial in trials if trial.message), "none")
        return f"{folder}: no trial came to its end; the first error: {first}; mend it and move this folder away to search anew"
    best = max(complete, key=lambda row: (row["macro_f1"], -row["trial"]))
    frozen = {
        "study": study.study, "variant": variant, "metric": study.search.metric, "value": best["macro_f1"],
        "trial": best["trial"], "trials": len(rows), "chosen": {key: best[key] for key in study.search.space},
    }  # fmt: skip
    files.write_atomic(folder / "best.yaml", yamlfile.dump(frozen))
    return None


def _tuner(progress: Progress, slots: cluster.Slots, runtime: Runtime, scratch: Path) -> Tuner:
    """The experiment on what is left of the search."""
    from ray import tune

    from hpc import searcher, trial

    study = progress.study
    scheduler = searcher.scheduler(study, progress.records)
    return tune.Tuner(
        trial.trainable(study, slots, runtime, scratch / trial.LEAVE),
        tune_config=tune.TuneConfig(
            metric=study.search.metric,
            mode="max",
            search_alg=searcher.StudySearcher(progress, study.search.metric),
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


def _row(trial: Trial) -> dict[str, Any]:
    """A trial's row of trials.csv."""
    best = max(trial.scores.values(), default=None)
    values = (trial.number, trial.state, trial.last, trial.scores.get(trial.last), best, trial.seconds)
    return {**dict(zip(TRIALS, values, strict=True)), **trial.chosen}


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
