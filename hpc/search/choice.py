"""What a search chose: trials.csv and best.yaml, written when it has ended and read by those who train with
its values."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpc.launching import stale
from hpc.search.record import Record, Trial
from hpc.studies.study import SearchId, Study
from leukotree import files, yamlfile
from leukotree.config import flatten, parse
from leukotree.errors import InputError, RunFailed
from leukotree.records import searchfolder
from leukotree.records.searchfolder import BEST, DATASET, SETTINGS, TEST_FOLD, TRIAL_COLUMNS, TRIALS

SHARDS = "base.data.shards"


def chosen(study: Study, partial: bool = False) -> dict[str, dict[int, dict[str, Any]]]:
    """variant -> outer fold -> the chosen dotted values; none are chosen in a study without trials, which
    runs the values of its base.

    Raises InputError where a search has not ended (`partial` leaves it out, and does without the data where
    they are not here), or was of another study, other data or other weights.
    """
    folds = range(study.folds.outer)
    if not study.search.trials:
        return {variant: {fold: {} for fold in folds} for variant in study.variants}
    data = None if partial and not Path(study.base.data.shards).is_dir() else fingerprint(study)
    found: dict[SearchId, dict[str, Any]] = {}
    for search_id in study.search_ids:
        path = study.search_folder(search_id) / BEST
        if not finished(study, search_id, data):
            if partial:
                continue
            raise InputError(f"{path}: missing; run `{study.command('sweep')}` first")
        found[search_id] = dict(frozen(study, search_id)["chosen"])
    return {
        variant: {
            fold: found[search_id] for fold in folds if (search_id := study.search_id(variant, fold)) in found
        }
        for variant in study.variants
    }


def finished(study: Study, search_id: SearchId, data: str | None) -> bool:
    """Whether a search has its best.yaml. Raises InputError if it was begun with other settings, or (unless
    None) on other data: the fold that it did not see would be another one."""
    folder = study.search_folder(search_id)
    path = folder / SETTINGS
    if path.exists():
        tree = yamlfile.load(path)
        if not isinstance(tree, dict):
            raise InputError(f"{path}: holds no settings of a search; move its folder away")
        searched, left_out = tree.pop(DATASET, None), tree.pop(TEST_FOLD, search_id.test_fold)
        stored = flatten(_settings(parse(Study, tree, str(path)), search_id)) | {TEST_FOLD: left_out}
        ours = flatten(_settings(study, search_id)) | {TEST_FOLD: search_id.test_fold}
        if data is not None:
            stale.check_search(folder, study.base.data.shards)
            stored[DATASET], ours[DATASET] = searched, data
            if searched == data and (folder / BEST).exists():
                stored[SHARDS] = ours.get(SHARDS)  # the same shards at another path are the same data
        changed = [key for key in {**stored, **ours} if stored.get(key) != ours.get(key)]
        if changed:
            listed = ", ".join(f"{key} was {stored.get(key)!r} and is {ours.get(key)!r}" for key in changed)
            raise InputError(
                f"{folder}: searched with other settings: {listed}; rename the study, or move the folder away"
            )
    return (folder / BEST).exists()


def begin(study: Study, search_ids: Iterable[SearchId], data: str) -> None:
    """Write search.yaml of searches that begin or go on: what `finished` compares."""
    for search_id in search_ids:
        settings = {**_settings(study, search_id), TEST_FOLD: search_id.test_fold, DATASET: data}
        files.write_atomic(study.search_folder(search_id) / SETTINGS, yamlfile.dump(settings))


def fingerprint(study: Study) -> str:
    from leukotree.data.dataset import Dataset

    return Dataset.open(study.base.data.shards).fingerprint


def _settings(study: Study, search_id: SearchId) -> dict[str, Any]:
    """The part of a study that decides a search: not the outer seeds, the other variants, what is searched in
    those only, or whether others are nested."""
    fields = study.model_dump(
        mode="json", exclude_defaults=True, include={"study", "base", "folds", "search"}
    )
    if search := fields.get("search"):
        search.pop("nested", None)
        search["space"] = {
            key: axis
            for key, axis in search.get("space", {}).items()
            if key in study.space(search_id.variant)
        }
    return {**fields, "variants": [search_id.variant], "seeds": [study.seeds[0]]}


def best(study: Study) -> dict[SearchId, dict[str, Any]]:
    """Search -> the content of its best.yaml, once all have ended."""
    return {search_id: frozen(study, search_id) for search_id in study.search_ids}


def frozen(study: Study, search_id: SearchId) -> dict[str, Any]:
    """The content of the best.yaml of a search. Raises InputError where it holds no choice."""
    fix = f"remove it and run `{study.command('sweep')}` again"
    return searchfolder.read_best(study.search_folder(search_id), fix)


def freeze_all(records: Iterable[Record]) -> None:
    """Write what the searches chose. Raises RunFailed if no trial of one came to its end."""
    without = [reason for record in records if (reason := _freeze(record))]
    if without:
        raise RunFailed(without[0])


def _freeze(record: Record) -> str | None:
    """Write trials.csv and best.yaml of a search that has ended; without the latter, why there is nothing to
    choose."""
    study, search_id = record.study, record.search_id
    folder = study.search_folder(search_id)
    columns = [*TRIAL_COLUMNS, *study.space(search_id.variant)]
    files.write_atomic(
        folder / TRIALS, _csv(columns, [_row(study, search_id, trial) for trial in record.trials])
    )
    mend = "mend it and move this folder away to search anew"
    if not (completed := record.best()):
        return f"{folder}: no trial came to its end; the first error: {_first_error(record.trials)}; {mend}"
    if not (found := leader(record)):
        return f"{folder}: no re-run came to its end; the first error: {_first_error(record.reruns)}; {mend}"
    choice, value = found
    again = _reruns(record, completed[0], _means(record)) if record.reruns else {}
    tree = {
        "study": study.study,
        "variant": search_id.variant,
        TEST_FOLD: search_id.test_fold,
        "metric": study.search.metric,
        "value": value,
        "trial": choice.number,
        "trials": len(record.trials),
        "chosen": study.with_effect(search_id.variant, choice.chosen),
        **again,
    }
    files.write_atomic(folder / BEST, yamlfile.dump(tree))
    return None


def leader(record: Record) -> tuple[Trial, float] | None:
    """The trial that a search would choose by now, and the score that it is chosen by: the last one of a
    trial that came to its end or, once all re-runs have ended, its mean over the fresh seeds. The higher
    wins; of equal ones the earlier trial. None if there is none to choose. A better score in between, or of a
    trial that was stopped, counts for nothing."""
    completed = record.best()
    if not record.reruns or any(rerun.state is None for rerun in record.reruns):
        return (completed[0], completed[0].scores[completed[0].last]) if completed else None
    means = _means(record)
    again = [(trial, means[trial.number]) for trial in completed if trial.number in means]
    return max(again, key=lambda one: (one[1], -one[0].number), default=None)


def _means(record: Record) -> dict[int, float]:
    """Trial -> mean score over the fresh seeds, of those that came to their end on every one."""
    scores: dict[int, list[float]] = {}
    for rerun in record.reruns:
        if rerun.state == "completed":
            scores.setdefault(rerun.number, []).append(rerun.scores[rerun.last])
    seeds = len(record.study.fresh_seeds)
    return {number: sum(found) / seeds for number, found in scores.items() if len(found) == seeds}


def _reruns(record: Record, first: Trial, means: Mapping[int, float]) -> dict[str, Any]:
    """The re-runs in best.yaml. `optimism`: what the search said of the trial that it would have chosen, less
    what that trial scored again; None where that failed."""
    seeds = record.study.fresh_seeds
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
    """A trial's row of trials.csv, without what says nothing beside its other values."""
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
