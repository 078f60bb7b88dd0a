"""The search: a Ray Tune experiment that searches each variant by itself, with the same space, seed and number of trials."""

from __future__ import annotations

import csv
import dataclasses
import io
import shutil
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hpc import cluster, history
from hpc.study import Study
from leukotree import files, yamlfile
from leukotree.errors import InputError, RunFailed
from leukotree.spec import parse

if TYPE_CHECKING:
    from ray.tune import Result, Tuner

    from leukotree.train import Runtime

DATA = "dataset"
"""Key of search.yaml for the fingerprint of the data that were searched on."""
TRIALS = ("trial", "state", "epochs", "macro_f1", "best_macro_f1", "seconds")


def sweep(
    study: Study,
    *,
    address: str | None = None,
    cpus_per_trial: int | None = None,
    gpus_per_trial: float | None = None,
    concurrency: int | None = None,
    runtime: Runtime | None = None,
) -> dict[str, dict[str, Any]]:
    """Search every variant and freeze the chosen values. Returns variant -> the content of its best.yaml.

    `address` joins a Ray cluster ("auto" finds it), None starts one on this machine for the time of the sweep; there all
    trials share a decoded cache. A trial takes `gpus_per_trial` GPUs (None: one if there are any, 0.25: four trials share
    one) and `cpus_per_trial` cores (None: its GPUs' share of a node's, one without GPUs); at most `concurrency` run at once
    (None: what fits). Finished variants are not searched again, an interrupted one continues with its searcher's memory.
    With several trials at once, what the searcher knows when it proposes the next one depends on their speed.
    Raises InputError for a study without trials, one that differs from what was searched before, or trials that no node
    can carry, RunFailed if no trial came to its end.
    """
    from leukotree.engine import MOST_WORKERS, Runtime

    study.require_search()
    runtime = runtime or Runtime()
    folder = study.root / "search"
    folder.mkdir(parents=True, exist_ok=True)
    with files.locked(folder / ".lock", f"{folder}: another sweep works on this study; wait for it, or end it"):
        open_variants = [variant for variant in study.variants if not _finished(study, variant)]
        if not open_variants:
            return _best(study)
        with cluster.connect(address) as private:
            gpus = 0.0 if runtime.device == "cpu" else gpus_per_trial
            slots = cluster.slots(cluster.nodes(), cpus_per_trial, gpus, concurrency)
            cache = runtime.cache or (private / "decoded" if address is None else None)
            threads = runtime.threads or slots.cpus
            workers = min(MOST_WORKERS, max(1, slots.cpus - 1)) if runtime.workers is None else runtime.workers
            runtime = dataclasses.replace(runtime, cache=cache, threads=threads, workers=workers)
            _search(study, open_variants, slots, runtime)
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


def _search(study: Study, variants: Sequence[str], slots: cluster.Slots, runtime: Runtime) -> None:
    """One experiment for all these variants: their trials follow each other in the same processes."""
    tuner = _tuner(study, variants, slots, runtime)
    settings = yamlfile.dump({**_settings(study), DATA: _fingerprint(study)})
    for variant in variants:
        files.write_atomic(study.search_folder(variant) / "search.yaml", settings)
    grid = tuner.fit()
    if grid.num_terminated + grid.num_errors < study.search.trials * len(variants):
        raise RunFailed(f"{study.root / 'search'}: the search was interrupted; run it again to continue it")
    results = [grid[index] for index in range(len(grid))]
    without = [
        reason
        for variant in variants
        if (reason := _freeze(study, variant, [result for result in results if (result.config or {})["variant"] == variant]))
    ]
    if without:
        raise RunFailed(without[0])


def _freeze(study: Study, variant: str, results: list[Result]) -> str | None:
    """Write trials.csv and best.yaml of a search that has ended; without the latter, why no trial came to its end."""
    folder = study.search_folder(variant)
    rows = _rows(study, variant, results)
    files.write_atomic(folder / "trials.csv", _csv(rows))
    complete = [row for row in rows if row["state"] == "completed"]
    if not complete:
        first = next(filter(None, map(_failure, results)), "none")
        return f"{folder}: no trial came to its end; the first error: {first}"
    best = max(complete, key=lambda row: (row["macro_f1"], -row["trial"]))
    frozen = {
        "study": study.study, "variant": variant, "metric": study.search.metric, "value": best["macro_f1"],
        "trial": best["trial"], "trials": len(rows), "chosen": {key: best[key] for key in study.search.space},
    }  # fmt: skip
    files.write_atomic(folder / "best.yaml", yamlfile.dump(frozen))
    return None


def _tuner(study: Study, variants: Sequence[str], slots: cluster.Slots, runtime: Runtime) -> Tuner:
    """The experiment on these variants, begun or continued."""
    from ray import tune

    from hpc import searcher, trial

    search, folder = study.search, study.root.absolute() / "search"
    trainable = trial.trainable(study, slots, runtime)
    experiment = folder / "-".join(["ray", *variants])
    begun = all((study.search_folder(variant) / "search.yaml").exists() for variant in variants)
    if begun and tune.Tuner.can_restore(experiment):
        return tune.Tuner.restore(str(experiment), trainable=trainable, resume_unfinished=True, restart_errored=True)
    # Anew: what an experiment that somebody removed, or one on other variants, has left does not count.
    shutil.rmtree(experiment, ignore_errors=True)
    records = {variant: study.search_folder(variant) / "history.csv" for variant in variants}
    for record in records.values():
        record.unlink(missing_ok=True)
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            metric=search.metric,
            mode="max",
            search_alg=searcher.searcher(study, variants),
            scheduler=searcher.scheduler(study),
            num_samples=search.trials * len(variants),
            max_concurrent_trials=slots.count,  # no trial is drawn before a slot is free for it
            reuse_actors=True,
            trial_dirname_creator=trial.folder_name,
        ),
        run_config=tune.RunConfig(
            name=experiment.name,
            storage_path=str(folder),
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # the runs keep their own
            callbacks=[trial.Record(records, search.trials, study.study, runtime.quiet)],
        ),
    )


def _rows(study: Study, variant: str, results: list[Result]) -> list[dict[str, Any]]:
    """The rows of trials.csv, by trial number."""
    reported = history.read(study.search_folder(variant) / "history.csv")
    rows = []
    for result in results:
        config = result.config or {}
        number = config["trial"]
        scores = {row["epoch"]: row["macro_f1"] for row in reported if row["trial"] == number}
        last = max(scores, default=0)
        state = "failed" if _failure(result) else "completed" if last == study.base.optim.epochs else "stopped"
        seconds = round((result.metrics or {}).get("time_total_s", 0.0), 3)
        values = (number, state, last, scores.get(last), max(scores.values(), default=None), seconds)
        rows.append({**dict(zip(TRIALS, values, strict=True)), **config["chosen"]})
    return sorted(rows, key=lambda row: row["trial"])


def _failure(result: Result) -> str | None:
    """Why a trial failed, in one line; None if it did not."""
    from hpc.trial import FAILED

    if result.error:
        return str(result.error).strip().splitlines()[-1]
    return (result.metrics or {}).get(FAILED)


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
