"""The search: one Ray Tune experiment per variant, all with the same space, seed and number of trials."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import functools
import io
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc import history
from hpc.study import Study
from leukotree import files, yamlfile
from leukotree.errors import InputError, RunFailed
from leukotree.spec import parse

if TYPE_CHECKING:
    from ray.tune import Result, ResultGrid, Tuner

    from leukotree.train import Runtime

DATA = "dataset"
"""Key of search.yaml for the fingerprint of the data that were searched on."""
TRIALS = ("trial", "state", "epochs", "macro_f1", "best_macro_f1", "seconds")
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output announces each experiment whatever its verbosity
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # our own record has what the report needs
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Tune would end the sweep as if it were complete
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # they stand in trials.csv and in the run folders
}


def sweep(
    study: Study,
    *,
    address: str | None = None,
    cpus_per_trial: int = 1,
    gpus_per_trial: float | None = None,
    concurrency: int | None = None,
    runtime: Runtime | None = None,
) -> dict[str, dict[str, Any]]:
    """Search every variant and freeze the chosen values. Returns variant -> the content of its best.yaml.

    `address` joins a Ray cluster ("auto" finds it), None starts one on this machine for the time of the sweep. A trial
    takes `cpus_per_trial` cores and `gpus_per_trial` GPUs (None: one if there are any); at most `concurrency` run at once
    (None: what fits). Finished variants are not searched again, an interrupted one continues with its searcher's memory.
    With several trials at once, what the searcher knows when it proposes the next one depends on their speed.
    Raises InputError for a study without trials or one that differs from what was searched before, RunFailed if no
    trial came to its end.
    """
    from leukotree.train import Runtime

    study.require_search()
    runtime = runtime or Runtime()
    runtime = dataclasses.replace(runtime, threads=runtime.threads or cpus_per_trial)
    folder = study.root / "search"
    folder.mkdir(parents=True, exist_ok=True)
    with files.locked(folder / ".lock", f"{folder}: another sweep works on this study; wait for it, or end it"):
        open_variants = [variant for variant in study.variants if not _finished(study, variant)]
        if not open_variants:
            return _best(study)
        with _ray(address) as resources:
            gpus = min(1.0, resources.get("GPU", 0.0)) if gpus_per_trial is None else gpus_per_trial
            for variant in open_variants:
                _search(study, variant, {"cpu": cpus_per_trial, "gpu": gpus}, concurrency, runtime)
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


@contextlib.contextmanager
def _ray(address: str | None) -> Iterator[dict[str, float]]:
    """A connection to Ray, with the resources that it has. A Ray of our own lives in a private folder, asks for a token
    (its ports are open to every user of this machine) and is gone at the end."""
    settings = dict(_ENVIRONMENT)
    if address is None:
        settings |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _token()}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update({name: os.environ.get(name, value) for name, value in settings.items()})
    import ray

    private = Path(tempfile.mkdtemp(prefix="ray", dir=_short_folder()))
    own: dict[str, Any] = {
        "num_cpus": len(os.sched_getaffinity(0)),
        "include_dashboard": False,
        "object_store_memory": 100 * 2**20,  # trials hand over numbers only
        "_temp_dir": str(private / "t"),
    }
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **({} if address else own))
        yield ray.cluster_resources()
    finally:
        ray.shutdown()
        shutil.rmtree(private, ignore_errors=True)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@functools.cache
def _token() -> str:
    """A secret of this process. One for all its sweeps, since Ray reads it only once."""
    return secrets.token_hex(32)


def _short_folder() -> str:
    """The temporary folder, or /tmp where it is too deep: Ray's socket paths below it may not pass 107 bytes."""
    usual = tempfile.gettempdir()
    return usual if len(usual) <= 24 else "/tmp"  # noqa: S108 - mkdtemp makes a private folder in it


def _search(study: Study, variant: str, resources: dict[str, float], concurrency: int | None, runtime: Runtime) -> None:
    folder = study.search_folder(variant)
    files.write_atomic(folder / "search.yaml", yamlfile.dump({**_settings(study), DATA: _fingerprint(study)}))
    grid = _tuner(study, variant, resources, concurrency, runtime).fit()
    if grid.num_terminated + grid.num_errors < study.search.trials:
        raise RunFailed(f"{folder}: the search was interrupted; run it again to continue it")
    rows = _rows(study, variant, grid)
    files.write_atomic(folder / "trials.csv", _csv(rows))
    complete = [row for row in rows if row["state"] == "completed"]
    if not complete:
        reasons = [str(result.error).strip().splitlines()[-1] for result in _results(grid) if result.error]
        raise RunFailed(f"{folder}: no trial came to its end; the first error: {reasons[0] if reasons else 'none'}")
    best = max(complete, key=lambda row: (row["macro_f1"], -row["trial"]))
    frozen = {
        "study": study.study, "variant": variant, "metric": study.search.metric, "value": best["macro_f1"],
        "trial": best["trial"], "trials": len(rows), "chosen": {key: best[key] for key in study.search.space},
    }  # fmt: skip
    files.write_atomic(folder / "best.yaml", yamlfile.dump(frozen))


def _tuner(study: Study, variant: str, resources: dict[str, float], concurrency: int | None, runtime: Runtime) -> Tuner:
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

    from hpc import trial

    folder = study.search_folder(variant).absolute()
    quiet = dataclasses.replace(runtime, quiet=True)
    trainable = tune.with_parameters(trial.train_trial, study=study, variant=variant, folder=str(Path.cwd()), runtime=quiet)
    trainable = tune.with_resources(trainable, resources)
    experiment = folder / "ray"
    if tune.Tuner.can_restore(experiment):
        return tune.Tuner.restore(str(experiment), trainable=trainable, resume_unfinished=True, restart_errored=True)
    (folder / "history.csv").unlink(missing_ok=True)  # of an experiment that somebody removed
    search, epochs = study.search, study.base.optim.epochs
    # No rung at the last epoch: whoever gets there has nothing left to be stopped from.
    asha = ASHAScheduler(
        time_attr="epoch", max_t=max(epochs - 1, 1), grace_period=min(study.grace(), max(epochs - 1, 1)),
        reduction_factor=search.reduction_factor, stop_last_trials=False,
    )  # fmt: skip
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            metric=search.metric,
            mode="max",
            search_alg=trial.searcher(study),
            scheduler=asha if search.scheduler == "asha" and study.grace() < epochs else FIFOScheduler(),
            num_samples=search.trials,
            max_concurrent_trials=concurrency,
            reuse_actors=True,  # a new process would import torch and timm again
            trial_dirname_creator=trial.folder_name,
        ),
        run_config=tune.RunConfig(
            name=experiment.name,
            storage_path=str(folder),
            verbose=0,
            callbacks=[trial.Record(folder / "history.csv", search.trials, variant, runtime.quiet)],
        ),
    )


def _rows(study: Study, variant: str, grid: ResultGrid) -> list[dict[str, Any]]:
    """The rows of trials.csv, by trial number."""
    reported = history.read(study.search_folder(variant) / "history.csv")
    rows = []
    for result in _results(grid):
        config = result.config or {}
        number = config["trial"]
        scores = {row["epoch"]: row["macro_f1"] for row in reported if row["trial"] == number}
        last = max(scores, default=0)
        state = "failed" if result.error else "completed" if last == study.base.optim.epochs else "stopped"
        seconds = round((result.metrics or {}).get("time_total_s", 0.0), 3)
        values = (number, state, last, scores.get(last), max(scores.values(), default=None), seconds)
        rows.append({**dict(zip(TRIALS, values, strict=True)), **config["chosen"]})
    return sorted(rows, key=lambda row: row["trial"])


def _results(grid: ResultGrid) -> list[Result]:
    return [grid[index] for index in range(len(grid))]


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
