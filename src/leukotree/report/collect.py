"""Read a study's folder: the outer-fold runs that the study expects, in arms, and its searches."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from leukotree import config, progress
from leukotree import spec as specs
from leukotree.data import fingerprint
from leukotree.data.remote import mirror
from leukotree.data.remote.place import place
from leukotree.errors import InputError, one_line
from leukotree.evaluation import costs, decide
from leukotree.evaluation.decide import Rule
from leukotree.records import (
    attempts,
    audited,
    compute,
    declared,
    made,
    planned,
    predictions,
    runfolder,
    searchfolder,
)
from leukotree.report import arms, consistency, one_tree, straddling
from leukotree.report.damage import damaged
from leukotree.report.summary import Arm, Missing, Run, Search, StudySummary, identity, outer_folds
from leukotree.spec import RunSpec
from leukotree.taxonomy import Taxonomy


def collect(
    study_root: Path,
    study: Mapping[str, Any],
    expected: Sequence[Mapping[str, Any]],
    cells: Sequence[Mapping[str, Any]] = (),
    typed: str | None = None,
    inner: Sequence[Mapping[str, Any]] = (),
) -> StudySummary:
    """The content of a study's folder (`results/runs/<study>`).

    Args:
        study: the fields of the study file.
        expected: one {variant, repeat, test_fold, seed, run_name} per outer-fold run with chosen values. No
            other run counts. Without `repeat` it is 0.
        cells: one {run_name, cell, variant, repeat, test_fold, seed, and the keys of the grid that have an
            effect in the variant} per run of the grid.
        typed: the study file and its changes, as a command would name them after its verb. For the advice in
            an error.
        inner: one {variant, repeat, test_fold, run_name} per run of an inner fold with chosen values. They
            give thresholds, temperatures and prediction sets, and no score.

    Raises InputError for a damaged file, for runs that do not belong together, for variants with different
    decision rules, and for a folder with nothing to report.
    """
    study_root = Path(study_root)
    name = str(study.get("study") or study_root.name)
    base = config.parse(RunSpec, study.get("base") or {}, f"study {name}: base")
    variants = tuple(study.get("variants") or specs.COMPARED)
    rule = declared.rule(study.get("decision"), variants, f"study {name}: decision")
    searching = study.get("search") or {}
    nested = bool(searching.get("nested", True))
    searched = searching.get("trials") != 0  # without trials, an earlier search does not count
    outer = outer_folds(study)
    searches = _searches(study_root, variants, nested, base.data.test_fold, outer) if searched else {}
    mirror.refresh(base.data.shards, (made.FILE, audited.FILE))
    dataset = _dataset(base, study)
    names = [row["run_name"] for row in (*expected, *cells, *inner)]
    unchecked = consistency.compare_with_today(study_root, names, base.data.shards)
    all_arms, missing = _with_runs(study_root, arms.from_rows(expected, cells), rule, study, outer)
    all_arms, taxonomy = one_tree.on_one_tree(
        all_arms, study_root, base.data.shards, lambda tree: _with_costs(study, tree)
    )
    searches = {
        variant: {fold: replace(search, taxonomy=taxonomy) for fold, search in of_folds.items()}
        for variant, of_folds in searches.items()
    }
    consistency.check_runs([run for arm in all_arms for run in arm.runs], study_root, base.data.shards)
    all_arms, n_straddling = straddling.without_ids(all_arms, dataset)
    summary = StudySummary(
        name=name,
        study=dict(study),
        base=base,
        variants=variants,
        arms=tuple(all_arms),
        missing=missing,
        searches=searches,
        nested=nested or not searched,
        decision=rule,
        rope=float(study.get("rope", 0.01)),
        primary=arms.primary(study, variants, all_arms),
        redeclared=tuple(declared.changes(study_root, study)),
        dataset=dataset,
        straddling=n_straddling,
        planned=planned.read(study_root),
        inner=_inner(study_root, inner, outer),
        taxonomy=taxonomy,
        unchecked=unchecked,
    )
    if not summary.runs and not searches:
        commands = _first_commands(typed or "STUDY.yaml", bool(cells), searched)
        raise InputError(f"{study_root}: nothing to report yet; run {commands}")
    consistency.check_searches(summary)
    return summary


def _inner(
    root: Path, rows: Sequence[Mapping[str, Any]], outer: int
) -> dict[tuple[str, int], tuple[Path, ...]]:
    """(variant, outer fold) -> the folders of its inner folds' runs, where all of them are done."""
    folders: dict[tuple[str, int], list[Path]] = {}
    for row in rows:
        number = row.get("repeat", 0) * outer + row["test_fold"]
        folders.setdefault((row["variant"], number), []).append(root / row["run_name"])
    return {
        place: tuple(runs)
        for place, runs in folders.items()
        if all(runfolder.read_status(run).get("state") == "done" for run in runs)
    }


def _first_commands(file: str, has_grid: bool, searched: bool) -> str:
    """The commands that give a study its first results."""
    if has_grid:
        return f"`leukotree grid {file}`"
    return (
        f"`leukotree sweep {file}`, then `leukotree folds {file}`"
        if searched
        else f"`leukotree folds {file}`"
    )


def _with_runs(
    root: Path,
    rows_of: Sequence[tuple[Arm, Sequence[Mapping[str, Any]]]],
    rule: Rule,
    study: Mapping[str, Any],
    outer: int,
) -> tuple[list[Arm], list[Missing]]:
    """The arms with their finished runs, and the runs without a result. `outer`: folds of a repeat."""
    filled, missing = [], []
    with progress.Bar("read", sum(len(rows) for _, rows in rows_of), "run", soon=True) as bar:
        for arm, rows in rows_of:
            runs = []
            for row in rows:
                runs.append(_run(root / row["run_name"], arm.name, row, rule, study, outer))
                bar.advance()
            missing += [run for run in runs if isinstance(run, Missing)]
            filled.append(replace(arm, runs=tuple(run for run in runs if isinstance(run, Run))))
    return filled, missing


def _run(
    folder: Path, arm: str, row: Mapping[str, Any], rule: Rule, study: Mapping[str, Any], outer: int
) -> Run | Missing:
    """The run of an expected row, on its own tree, decided by the rule, with the study's costs on this tree.
    Raises InputError for a damaged file, for another run's folder, and for a cost of a leaf that the data
    lack."""
    repeat = row.get("repeat", 0)
    wanted: dict[str, Any] = {
        "arm": arm,
        "variant": row["variant"],
        "test_fold": repeat * outer + row["test_fold"],
        "seed": row["seed"],
        "name": row["run_name"],
    }
    status = runfolder.read_status(folder)
    if status.get("state") != "done":
        message = f": {status['message']}" if status.get("message") else ""
        return Missing(**wanted, state=f"{status.get('state', 'not started')}{message}")
    if not (folder / runfolder.PREDICTIONS).exists():
        return Missing(**wanted, state=f"done, but {runfolder.PREDICTIONS} is missing")
    spec = runfolder.read_spec(folder)
    stored = {
        "variant": spec.variant,
        "repeat": spec.data.repeat,
        "test_fold": spec.data.test_fold,
        "seed": spec.seed,
    }
    for key, value in stored.items():
        if value != row.get(key, 0):
            raise damaged(folder / runfolder.SPEC, f"{key} is {value}, the study expects {row.get(key, 0)}")
    images, true, logp, taxonomy = _predictions(folder, spec.data.test_fold)
    taxonomy = _with_costs(study, taxonomy)
    epochs = [entry for entry in runfolder.read_metrics(folder) if entry.get("kind") == "epoch"]
    return Run(
        **wanted,
        folder=folder,
        taxonomy=taxonomy,
        images=images,
        true=true,
        predicted=decide.leaves(logp, taxonomy, rule),
        logp=logp,
        epochs=len(epochs),
        seconds=float(sum(entry.get("seconds", 0.0) for entry in epochs)),
        ranks=_ranks(folder),
        environment=runfolder.read_environment(folder),
        trained=_count(status, "trained"),
        tested=_count(status, "tested"),
        loss=spec.loss.kind,
        repeat=repeat,
        compute=compute.read(status),
        hours=compute.hours(epochs),
        tree=spec.tree,
    )


def _with_costs(study: Mapping[str, Any], taxonomy: Taxonomy) -> Taxonomy:
    """A tree with the study's costs. Raises InputError for a cost of a leaf that the data lack."""
    return costs.apply(study.get("costs"), taxonomy, f"study {study.get('study')}: costs")


def _predictions(folder: Path, fold: int) -> tuple[pd.DataFrame, np.ndarray, np.ndarray, Taxonomy]:
    """The images (N rows), the (N,) true leaf indices, the (N, E) log p(child | parent) and the tree, sorted
    by key.

    Raises InputError that names the file and the damaged row.
    """
    frame, logp, taxonomy = predictions.read(folder)
    path = folder / runfolder.PREDICTIONS
    if frame.empty:
        raise damaged(path, "no rows")
    if unnamed := int(frame["key"].isna().sum()):
        raise damaged(path, f"a row has no key ({unnamed} in all)")
    order = np.argsort(frame["key"].to_numpy(), kind="stable")
    frame, logp = frame.iloc[order].reset_index(drop=True), logp[order]
    true = pd.Index(taxonomy.leaves).get_indexer(pd.Index(frame["leaf"]))
    problems = {
        "key {key!r} occurs twice": frame["key"].duplicated(),
        "key {key!r} has the unknown leaf {leaf!r}": true < 0,
        "key {key!r} has a log-probability that is not a number": np.isnan(logp).any(axis=1),
        "key {key!r} belongs to fold {fold}, not to the test fold": frame["fold"] != fold,
    }
    for problem, rows in problems.items():
        if np.any(rows):
            row, count = frame[np.asarray(rows)].iloc[0], int(np.sum(rows))
            more = f" ({count} such rows)" if count > 1 else ""
            raise damaged(path, problem.format(**row[["key", "leaf", "fold"]]) + more)
    return identity(frame), true, logp, taxonomy


def _count(status: Mapping[str, Any], of: str) -> int | None:
    """The number of images that a run was `trained` or `tested` on, by its status.json. None for older runs,
    which did not record it."""
    images = status.get("images")
    count = images.get(of) if isinstance(images, Mapping) else None
    return count if isinstance(count, int) else None


def _ranks(folder: Path) -> int:
    """How many processes the last attempt used."""
    starts = attempts.read(folder)
    ranks = starts[-1].get("ranks") if starts else None
    return ranks if isinstance(ranks, int) else 1


def _searches(
    root: Path, variants: Sequence[str], nested: bool, left_out: int, outer: int
) -> dict[str, dict[int, Search]]:
    """Variant -> number of the outer fold -> its search, of those whose trials have ended. `outer`: folds of
    a repeat."""
    searches: dict[str, dict[int, Search]] = {}
    for variant in variants:
        folders = {left_out: searchfolder.search_folder(root, variant)}
        if nested:
            of_places = searchfolder.of_variant(root, variant)
            folders = {repeat * outer + fold: folder for (repeat, fold), folder in of_places.items()}
        for fold, folder in folders.items():
            if (folder / searchfolder.TRIALS).exists():
                searches.setdefault(variant, {})[fold] = _search(variant, fold, folder)
    return searches


def _search(variant: str, fold: int, folder: Path) -> Search:
    chosen = (folder / searchfolder.BEST).exists()
    best = searchfolder.read_best(folder, "run the sweep again") if chosen else None
    trials = _csv(folder / searchfolder.TRIALS, searchfolder.TRIAL_COLUMNS)
    history, columns = folder / searchfolder.HISTORY, searchfolder.HISTORY_COLUMNS
    curves = _csv(history, columns) if history.exists() else pd.DataFrame(columns=list(columns))
    return Search(variant, fold, folder, trials, curves.dropna(), best)


def _csv(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    try:
        frame = pd.read_csv(path, dtype={"trial": str})
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {one_line(error)}") from error
    if absent := [column for column in columns if column not in frame]:
        raise InputError(f"{path}: no column {absent[0]!r}; run the sweep again")
    return frame


def _dataset(base: RunSpec, study: Mapping[str, Any]) -> dict[str, Any] | None:
    """The content of the shards' dataset.json. None where the shards are not here. Raises InputError for
    another number of folds than the study's."""
    path = place(base.data.shards) / fingerprint.DESCRIPTION
    dataset = _json(path) if path.exists() else None
    packed, outer = (dataset or {}).get("folds"), (study.get("folds") or {}).get("outer")
    if packed and outer and packed != outer:
        raise InputError(
            f"{path.parent}: packed with {packed} folds, but folds.outer is {outer}; make them equal"
        )
    return dataset


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {one_line(error)}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object")
    return value
