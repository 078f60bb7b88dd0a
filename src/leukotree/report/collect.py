"""Read what a study left in its folder: the outer-fold runs that it expects, in arms, and its searches."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from leukotree import config
from leukotree import spec as specs
from leukotree.errors import InputError, one_line
from leukotree.evaluation import decide
from leukotree.evaluation.decide import Rule
from leukotree.records import attempts, declared, predictions, runfolder, searchfolder
from leukotree.report.belonging import belong_together, damaged, of_today, searched_on_the_same
from leukotree.report.summary import Arm, Missing, Run, Search, StudySummary, Validation, identity
from leukotree.spec import RunSpec
from leukotree.taxonomy import Taxonomy

__all__ = ["Arm", "Missing", "Run", "Search", "StudySummary", "Validation", "collect"]

OF_A_RUN = ("run_name", "cell", "variant", "test_fold", "seed")
"""Columns of a grid's rows beside its keys."""


def collect(
    study_root: Path,
    study: Mapping[str, Any],
    expected: Sequence[Mapping[str, Any]],
    cells: Sequence[Mapping[str, Any]] = (),
    typed: str | None = None,
) -> StudySummary:
    """Read a study's folder (`results/runs/<study>`).

    Args: study: its fields, as in its file. expected: one {variant, test_fold, seed, run_name} per outer-fold
        run with chosen values; no other run counts. cells: one {run_name, cell, variant, test_fold, seed, and
        the grid's keys that say something to the variant} per run of its grid. typed: the study's file, and
        the changes to it, behind the verb of a command that is advised.

    Raises InputError for a damaged file, runs that do not belong together, rules of decision that differ, or
    a folder with nothing to report.
    """
    study_root = Path(study_root)
    name = str(study.get("study") or study_root.name)
    base = config.parse(RunSpec, study.get("base") or {}, f"study {name}: base")
    variants = tuple(study.get("variants") or specs.VARIANTS)
    rule = _rule(study, variants)
    searching = study.get("search") or {}
    nested = bool(searching.get("nested", True))
    searched = searching.get("trials") != 0  # without trials, what an earlier search left does not count
    searches = _searches(study_root, variants, nested, base.data.test_fold) if searched else {}
    dataset = _dataset(base, study)
    unchecked = of_today(study_root, [row["run_name"] for row in (*expected, *cells)], base.data.shards)
    arms: list[Arm] = []
    missing: list[Missing] = []
    for arm, rows in _arms(expected, cells):
        found = [_run(study_root / row["run_name"], arm.name, row, rule) for row in rows]
        missing += [one for one in found if isinstance(one, Missing)]
        arms.append(
            Arm(
                arm.name,
                arm.variant,
                arm.cell,
                arm.values,
                tuple(one for one in found if isinstance(one, Run)),
            )
        )
    belong_together([run for arm in arms for run in arm.runs], study_root, base.data.shards)
    arms, straddling = _without_straddling(arms, dataset)
    summary = StudySummary(
        name,
        dict(study),
        base,
        variants,
        tuple(arms),
        missing,
        searches,
        nested or not searched,
        rule,
        float(study.get("rope", 0.01)),
        _primary(study, variants, arms),
        tuple(declared.changes(study_root, study)),
        dataset,
        straddling,
        unchecked,
    )
    if not summary.runs and not searches:
        file = typed or "STUDY.yaml"
        first = (
            f"`leukotree grid {file}`"
            if cells
            else f"`leukotree sweep {file}`, then `leukotree folds {file}`"
        )
        first = first if cells or searched else f"`leukotree folds {file}`"
        raise InputError(f"{study_root}: nothing to report yet; run {first}")
    searched_on_the_same(summary)
    return summary


def check_primary(study: Mapping[str, Any], cells: Sequence[Mapping[str, Any]]) -> None:
    """Raises InputError where `primary` names an arm that a study with these cells (see `collect`) cannot
    have."""
    searched = (study.get("search") or {}).get("trials") != 0
    variants = tuple(study.get("variants") or specs.VARIANTS)
    arms = [arm for arm, _ in _arms([{"variant": variant} for variant in variants if searched], cells)]
    _primary(study, variants, arms)


def _rule(study: Mapping[str, Any], variants: Sequence[str]) -> Rule:
    """The rule that decides for all variants. Raises InputError where they have different ones."""
    declared = study.get("decision") or "greedy"
    rules = {
        variant: declared.get(variant, "greedy") if isinstance(declared, Mapping) else declared
        for variant in variants
    }
    if len(set(rules.values())) > 1:
        listed = ", ".join(f"{variant} by {rule}" for variant, rule in rules.items())
        raise InputError(
            f"study {study.get('study')}: decision: variants cannot be compared under different rules ({listed}); "
            "give one rule for all"
        )
    return cast(Rule, next(iter(rules.values())))


def _arms(
    expected: Sequence[Mapping[str, Any]], cells: Sequence[Mapping[str, Any]]
) -> list[tuple[Arm, list[Mapping[str, Any]]]]:
    """The arms without their runs, and the rows of these: a variant each of `expected`, a cell and variant
    each of `cells`."""
    chosen: dict[str, list[Mapping[str, Any]]] = {}
    for row in expected:
        chosen.setdefault(row["variant"], []).append(row)
    found = [(Arm(variant, variant, None, {}, ()), rows) for variant, rows in chosen.items()]
    of_cells: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for row in cells:
        of_cells.setdefault((row["variant"], row["cell"]), []).append(row)
    values = {
        place: {key: value for key, value in rows[0].items() if key not in OF_A_RUN}
        for place, rows in of_cells.items()
    }
    taken = set(chosen)
    for (variant, cell), rows in of_cells.items():
        name = _name(
            variant, values[variant, cell], [values[place] for place in of_cells if place[0] == variant]
        )
        name = f"{variant} cell={cell}" if name in taken else name
        taken.add(name)
        found.append((Arm(name, variant, cell, values[variant, cell], ()), rows))
    return found


def _name(variant: str, values: Mapping[str, Any], of_all: Sequence[Mapping[str, Any]]) -> str:
    """A cell's name: the variant, and the values of those keys that differ between its cells."""
    differ = [key for key in values if len({repr(other.get(key)) for other in of_all}) > 1]
    short = [key.rpartition(".")[2] for key in differ]
    named = [last if short.count(last) == 1 else key for key, last in zip(differ, short, strict=True)]
    return " ".join([variant, *(f"{name}={values[key]}" for key, name in zip(differ, named, strict=True))])


def _primary(
    study: Mapping[str, Any], variants: Sequence[str], arms: Sequence[Arm]
) -> tuple[tuple[str, str], ...]:
    """The comparisons that the study declares; without that, each arm against the flat one that shares all
    its values. Raises InputError for a name that is no arm's, unless it may be one of a grid that has not
    begun."""
    declared = study.get("primary")
    names = list(
        dict.fromkeys([*(arm.name for arm in arms), *variants])
    )  # a variant whose search goes on is no arm yet
    for name in [name for pair in declared or () for name in pair]:
        if name not in names and (not study.get("grid") or any(arm.cell is not None for arm in arms)):
            raise InputError(
                f"study {study.get('study')}: primary: {name!r} is none of its arms: {', '.join(names)}"
            )
    if declared is not None:
        return tuple((challenger, reference) for challenger, reference in declared)
    return tuple(
        (arm.name, flat.name)
        for arm in arms
        for flat in arms
        if arm.variant != "flat"
        and flat.variant == "flat"
        and (arm.cell is None) == (flat.cell is None)
        and all(arm.values.get(key) == value for key, value in flat.values.items())
    )


def _run(folder: Path, arm: str, row: Mapping[str, Any], rule: Rule) -> Run | Missing:
    wanted: dict[str, Any] = {key: row[key] for key in ("variant", "test_fold", "seed")} | {
        "arm": arm,
        "name": row["run_name"],
    }
    status = runfolder.read_status(folder)
    if status.get("state") != "done":
        message = f": {status['message']}" if status.get("message") else ""
        return Missing(**wanted, state=f"{status.get('state', 'not started')}{message}")
    if not (folder / runfolder.PREDICTIONS).exists():
        return Missing(**wanted, state=f"done, but {runfolder.PREDICTIONS} is missing")
    spec = runfolder.read_spec(folder)
    for key, given in (("variant", spec.variant), ("test_fold", spec.data.test_fold), ("seed", spec.seed)):
        if given != row[key]:
            raise damaged(folder / runfolder.SPEC, f"{key} is {given}, the study expects {row[key]}")
    images, true, logp, taxonomy = _predictions(folder, spec.data.test_fold)
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
    )


def _predictions(folder: Path, fold: int) -> tuple[pd.DataFrame, np.ndarray, np.ndarray, Taxonomy]:
    """Images, true leaf indices and (N, E) log-probabilities, sorted by key. Raises InputError naming file
    and row."""
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
        "key {key!r} stands there twice": frame["key"].duplicated(),
        "key {key!r} has the unknown leaf {leaf!r}": true < 0,
        "key {key!r} has a log-probability that is no number": np.isnan(logp).any(axis=1),
        "key {key!r} is of fold {fold}, not of the test fold": frame["fold"] != fold,
    }
    for problem, rows in problems.items():
        if np.any(rows):
            row, count = frame[np.asarray(rows)].iloc[0], int(np.sum(rows))
            more = f" ({count} such rows)" if count > 1 else ""
            raise damaged(path, problem.format(**row[["key", "leaf", "fold"]]) + more)
    return identity(frame), true, logp, taxonomy


def _count(status: Mapping[str, Any], of: str) -> int | None:
    """How many images a run says that it was `trained` or `tested` on; None where it says nothing, as older
    ones do."""
    images = status.get("images")
    found = images.get(of) if isinstance(images, Mapping) else None
    return found if isinstance(found, int) else None


def _ranks(folder: Path) -> int:
    """How many processes the last attempt used."""
    starts = attempts.read(folder)
    ranks = starts[-1].get("ranks") if starts else None
    return ranks if isinstance(ranks, int) else 1


def _without_straddling(arms: list[Arm], dataset: Mapping[str, Any] | None) -> tuple[list[Arm], int]:
    """The arms without the names of patients who are tested in several folds, and how many those are, where
    the data set was dealt image by image. In any other such a patient is a fault, which `stats.pool`
    refuses."""
    if (dataset or {}).get("group") != "image":
        return arms, 0
    tested = {
        (run.test_fold, name)
        for arm in arms
        for run in arm.runs
        for name in run.images["patient"].unique()
        if name
    }
    folds = Counter(name for _, name in tested)
    several = [name for name, n in folds.items() if n > 1]
    if not several:
        return arms, 0
    return [replace(arm, runs=tuple(_nameless(run, several) for run in arm.runs)) for arm in arms], len(
        several
    )


def _nameless(run: Run, patients: Sequence[str]) -> Run:
    images = run.images.assign(patient=run.images["patient"].where(~run.images["patient"].isin(patients), ""))
    return replace(run, images=images)


def _searches(
    root: Path, variants: Sequence[str], nested: bool, left_out: int
) -> dict[str, dict[int, Search]]:
    """Variant -> outer fold -> its search, of those whose trials have ended."""
    found: dict[str, dict[int, Search]] = {}
    for variant in variants:
        folders = {left_out: searchfolder.search_folder(root, variant)}
        if nested:
            folders = searchfolder.of_variant(root, variant)
        for fold, folder in folders.items():
            if (folder / searchfolder.TRIALS).exists():
                found.setdefault(variant, {})[fold] = _search(variant, fold, folder)
    return found


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
    """dataset.json of the shards, where they are here. Raises InputError where the study counts on other
    folds than theirs."""
    path = Path(base.data.shards) / "dataset.json"
    found = _json(path) if path.exists() else None
    packed, outer = (found or {}).get("folds"), (study.get("folds") or {}).get("outer")
    if packed and outer and packed != outer:
        raise InputError(
            f"{path.parent}: packed with {packed} folds, but folds.outer is {outer}; make them equal"
        )
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {one_line(error)}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object")
    return value
