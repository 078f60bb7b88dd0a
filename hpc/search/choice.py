"""The values that a search chose: trials.csv and best.yaml, written when it has ended, and read by the outer
folds and the report."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hpc.search import extension, leakage, posterior
from hpc.search.record import Record, Trial
from hpc.studies.study import SearchId, Study
from leukotree import files, yamlfile
from leukotree.config import flatten, parse
from leukotree.data.remote.place import place
from leukotree.errors import InputError, RunFailed
from leukotree.records import searchfolder
from leukotree.records.searchfolder import (
    BEST,
    DATASET,
    REPEAT,
    SETTINGS,
    TEST_FOLD,
    TRIAL_COLUMNS,
    TRIALS,
)

SHARDS = "base.data.shards"
MORE = "search.trials"
"""The key that may grow after a search has begun."""


def chosen(study: Study, partial: bool = False) -> dict[str, dict[int, dict[str, Any]]]:
    """variant -> number of the outer fold (see `Study.outer_folds`) -> the chosen dotted values. No values
    are chosen in a study without trials: its runs have the values of the base.

    Raises InputError where a search could have seen its test fold (see `leakage.check`), where it had another
    study, other data or other weights, and where it has not ended. `partial` leaves out searches that have
    not ended, and needs no data.
    """
    leakage.check(study)
    if not study.search.trials:
        return {variant: {number: {} for number in study.outer_folds} for variant in study.variants}
    compared = not (partial and not place(study.base.data.shards).is_dir())
    data = fingerprints(study) if compared else {}
    values: dict[SearchId, dict[str, Any]] = {}
    for search_id in study.search_ids:
        if has_ended(study, search_id, data.get(search_id.repeat)):
            values[search_id] = dict(read_choice(study, search_id)["chosen"])
        elif not partial:
            path = study.search_folder(search_id) / BEST
            problem = f"chosen from fewer than {study.search.trials} trials" if path.exists() else "missing"
            raise InputError(f"{path}: {problem}; run `{study.command('sweep')}` first")
    return {
        variant: {
            number: values[search_id]
            for number, (repeat, fold) in study.outer_folds.items()
            if (search_id := study.search_id(variant, fold, repeat)) in values
        }
        for variant in study.variants
    }


def has_ended(study: Study, search_id: SearchId, data: str | None) -> bool:
    """Whether a search has its best.yaml, chosen from all trials that the study asks for now. Raises
    InputError if it began with other settings or other data.
    `data`: the fingerprint of today's data; None compares no data."""
    folder = study.search_folder(search_id)
    path, ended = folder / SETTINGS, (folder / BEST).exists()
    if not path.exists():
        return ended
    tree = yamlfile.load(path)
    if not isinstance(tree, dict):
        raise InputError(f"{path}: holds no settings of a search; move its folder away")
    searched_data = tree.pop(DATASET, None)
    place = {TEST_FOLD: tree.pop(TEST_FOLD, search_id.test_fold), REPEAT: tree.pop(REPEAT, 0)}
    stored = flatten(_settings(parse(Study, tree, str(path)), search_id)) | place
    now = {TEST_FOLD: search_id.test_fold, REPEAT: search_id.repeat}
    current = flatten(_settings(study, search_id)) | now
    if data is not None:
        stored[DATASET], current[DATASET] = searched_data, data
        if searched_data == data and ended:
            stored[SHARDS] = current.get(SHARDS)  # the same shards at another path are the same data
    changed = [key for key in {**stored, **current} if stored.get(key) != current.get(key)]
    if changed == [MORE] and extension.is_growth(stored[MORE], current[MORE]):
        return False  # the next sweep extends it
    if changed:
        listed = ", ".join(f"{key} was {stored.get(key)!r} and is {current.get(key)!r}" for key in changed)
        raise InputError(
            f"{folder}: searched with other settings: {listed}; rename the study, or move the folder away"
        )
    return ended


def write_settings(study: Study, search_ids: Iterable[SearchId], data: str) -> None:
    """Write search.yaml of searches that begin or continue: what `has_ended` compares. `data`: the
    fingerprint of the data in the repeat of these searches."""
    for search_id in search_ids:
        settings = {**_settings(study, search_id), **_place(search_id), DATASET: data}
        files.write_atomic(study.search_folder(search_id) / SETTINGS, yamlfile.dump(settings))


def _place(search_id: SearchId) -> dict[str, int]:
    """The outer fold of a search, in its files."""
    repeat = {REPEAT: search_id.repeat} if search_id.repeat else {}
    return {TEST_FOLD: search_id.test_fold, **repeat}


def fingerprint(study: Study, repeat: int = 0) -> str:
    """The fingerprint of the study's data in a repeat."""
    from leukotree.data.dataset import Dataset

    return Dataset.open(study.base.data.shards, repeat=repeat).fingerprint


def fingerprints(study: Study) -> dict[int, str]:
    """The fingerprint of the study's data in each repeat that has searches."""
    return {
        repeat: fingerprint(study, repeat) for repeat in {search_id.repeat for search_id in study.search_ids}
    }


def _settings(study: Study, search_id: SearchId) -> dict[str, Any]:
    """The part of a study that decides a search. It lacks the later seeds, the other variants, the keys
    searched only in those, the number of repeats, and whether the searches are nested."""
    fields = study.model_dump(
        mode="json", exclude_defaults=True, include={"study", "base", "folds", "search"}
    )
    if folds := fields.get("folds"):
        folds.pop("repeats", None)
        fields = {key: value for key, value in fields.items() if value or key != "folds"}
    if search := fields.get("search"):
        search.pop("nested", None)
        search["space"] = {
            key: axis
            for key, axis in search.get("space", {}).items()
            if key in study.space(search_id.variant)
        }
    return {**fields, "variants": [search_id.variant], "seeds": [study.seeds[0]]}


def read_choices(study: Study) -> dict[SearchId, dict[str, Any]]:
    """Search -> the content of its best.yaml, once all searches have ended."""
    return {search_id: read_choice(study, search_id) for search_id in study.search_ids}


def read_choice(study: Study, search_id: SearchId) -> dict[str, Any]:
    """The content of the best.yaml of a search. Raises InputError if it has no `chosen` values."""
    fix = f"remove it and run `{study.command('sweep')}` again"
    return searchfolder.read_best(study.search_folder(search_id), fix)


def write_choices(records: Iterable[Record]) -> None:
    """Write trials.csv and best.yaml of searches that have ended. Raises RunFailed if no trial of one
    completed."""
    problems = [problem for record in records if (problem := _write_choice(record))]
    if problems:
        raise RunFailed(problems[0])


def _write_choice(record: Record) -> str | None:
    """Write trials.csv and best.yaml of a search. If there is nothing to choose, returns the reason and
    writes no best.yaml."""
    study, search_id = record.study, record.search_id
    folder = study.search_folder(search_id)
    columns = [*TRIAL_COLUMNS, *study.space(search_id.variant)]
    rows = [_row(study, search_id, trial) for trial in record.trials]
    files.write_atomic(folder / TRIALS, _csv(columns, rows))
    fix = "fix it and move this folder away to search again"
    if not (completed := record.ranked()):
        return f"{folder}: no trial completed; the first error: {_first_error(record.trials)}; {fix}"
    if not (choice := current(record)):
        return f"{folder}: no re-run completed; the first error: {_first_error(record.reruns)}; {fix}"
    trial, value = choice
    tree = {
        "study": study.study,
        "variant": search_id.variant,
        **_place(search_id),
        "metric": study.search.metric,
        "value": value,
        "trial": trial.number,
        "trials": len(record.trials),
        **({"closed": record.closed.reason} if record.closed else {}),
        **({"choice": study.search.choice} if study.search.choice != "best" else {}),
        "chosen": study.with_effect(search_id.variant, trial.chosen),
        **(_reruns(record, completed[0], _means(record)) if record.reruns else {}),
    }
    files.write_atomic(folder / BEST, yamlfile.dump(tree))
    return None


def current(record: Record) -> tuple[Trial, float] | None:
    """The trial that a search would choose now, and the score that decides; None if no trial completed.

    Only completed trials count, by their last score. Once all re-runs have ended, the mean over the fresh
    seeds decides, or the posterior mean where the study says so. The highest score wins; of equal ones the
    earlier trial.
    """
    completed = record.ranked()
    if record.study.search.choice == "posterior" and not record.open() and (found := posterior.means(record)):
        number = max(found, key=lambda number: (found[number], -number))
        return record.trials[number], found[number]
    if not record.reruns or any(rerun.state is None for rerun in record.reruns):
        return (completed[0], completed[0].scores[completed[0].last]) if completed else None
    means = _means(record)
    candidates = [(trial, means[trial.number]) for trial in completed if trial.number in means]
    return max(candidates, key=lambda candidate: (candidate[1], -candidate[0].number), default=None)


def _means(record: Record) -> dict[int, float]:
    """Trial -> mean score over the fresh seeds, for trials whose re-runs all completed."""
    scores: dict[int, list[float]] = {}
    for rerun in record.reruns:
        if rerun.state == "completed":
            scores.setdefault(rerun.number, []).append(rerun.scores[rerun.last])
    seeds = len(record.fresh_seeds)
    return {number: sum(values) / seeds for number, values in scores.items() if len(values) == seeds}


def _reruns(record: Record, first: Trial, means: Mapping[int, float]) -> dict[str, Any]:
    """The keys of best.yaml about re-runs. `first`: the trial that the search would have chosen without them.
    `optimism`: its score in the search less its mean in the re-runs; None if a re-run of it failed."""
    seeds = record.fresh_seeds
    rows = []
    for start in range(0, len(record.reruns), len(seeds)):
        group = record.reruns[start : start + len(seeds)]
        scores = [rerun.score if rerun.state == "completed" else None for rerun in group]
        seconds = round(sum(rerun.seconds for rerun in group), 3)
        rows.append({"trial": group[0].number, "scores": scores, "seconds": seconds})
    search_value = first.scores[first.last]
    optimism = search_value - means[first.number] if first.number in means else None
    return {
        "search_trial": first.number,
        "search_value": search_value,
        "optimism": optimism,
        "rerun_seeds": seeds,
        "reruns": rows,
    }


def _first_error(trials: Sequence[Trial]) -> str:
    return next((trial.message for trial in trials if trial.message), "none")


def _row(study: Study, search_id: SearchId, trial: Trial) -> dict[str, Any]:
    """A trial's row of trials.csv, without the keys that have no effect beside its other values."""
    top = max(trial.scores.values(), default=None)
    values = (trial.number, trial.state, trial.last, trial.score, top, trial.seconds)
    return {
        **dict(zip(TRIAL_COLUMNS, values, strict=True)),
        **study.with_effect(search_id.variant, trial.chosen),
    }


def _csv(columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
