"""Read what a study left in its folder: the outer-fold runs that it expects, and the search of each variant."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from leukotree import decide, predictions, runfolder, yamlfile
from leukotree import spec as specs
from leukotree.errors import InputError, one_line
from leukotree.spec import RunSpec
from leukotree.taxonomy import Taxonomy

TRIAL_COLUMNS = ("trial", "state", "epochs", "macro_f1", "best_macro_f1", "seconds")
HISTORY_COLUMNS = ("trial", "epoch", "macro_f1", "seconds")


@dataclass(frozen=True)
class Run:
    """One finished outer-fold run of N test images."""

    variant: str
    test_fold: int
    seed: int
    name: str
    taxonomy: Taxonomy
    images: pd.DataFrame
    """N rows: key, patient ("" where unknown), source."""
    true: np.ndarray
    """(N,) leaf indices."""
    predicted: np.ndarray
    """(N,) leaf indices, decided greedily."""
    logp: np.ndarray
    """(N, E) log p(child | parent)."""
    epochs: int
    seconds: float
    """Time spent in these epochs."""
    ranks: int
    environment: dict[str, Any]
    """env.json: commit, packages, fingerprint of the data set, GPUs."""


@dataclass(frozen=True)
class Missing:
    """An expected run without a result, and what its folder says about it."""

    variant: str
    test_fold: int
    seed: int
    name: str
    state: str


@dataclass(frozen=True)
class Search:
    """The search of one variant: a row per trial, a row per trial and epoch, and best.yaml (None while it runs)."""

    trials: pd.DataFrame
    history: pd.DataFrame
    best: dict[str, Any] | None

    @property
    def chosen(self) -> dict[str, Any]:
        return dict(self.best["chosen"]) if self.best else {}


@dataclass(frozen=True)
class StudySummary:
    """Everything that the report is made from."""

    name: str
    study: dict[str, Any]
    base: RunSpec
    variants: tuple[str, ...]
    runs: list[Run]
    missing: list[Missing]
    searches: dict[str, Search]
    dataset: dict[str, Any] | None
    """dataset.json of the shards, where they are at hand."""

    @property
    def taxonomy(self) -> Taxonomy | None:
        return self.runs[0].taxonomy if self.runs else None

    @property
    def clean_fold(self) -> int | None:
        """The test fold that the search never saw. None where no search chose values: then every fold is clean."""
        return self.base.data.test_fold if any(search.best for search in self.searches.values()) else None

    @property
    def space(self) -> dict[str, dict[str, Any]]:
        """The searched keys, each with its one form of domain: {uniform | loguniform: [lo, hi]} or {choice: [...]}."""
        space = (self.study.get("search") or {}).get("space") or {}
        return {key: {form: values for form, values in domain.items() if values is not None} for key, domain in space.items()}

    def spec(self, variant: str) -> RunSpec:
        """The base of the study with the variant's chosen values."""
        chosen = self.searches[variant].chosen if variant in self.searches else {}
        return self.base.override({"variant": variant, **chosen})


def collect(study_root: Path, study: Mapping[str, Any], expected: Sequence[Mapping[str, Any]]) -> StudySummary:
    """Read a study's folder (`results/runs/<study>`).

    expected: one {variant, test_fold, seed, run_name} per outer-fold run; no other run counts. Raises InputError for a
    damaged file, runs that do not belong together, or a folder with nothing to report.
    """
    study_root = Path(study_root)
    name = str(study.get("study") or study_root.name)
    base = specs.parse(RunSpec, study.get("base") or {}, f"study {name}: base")
    variants = tuple(study.get("variants") or specs.VARIANTS)
    searched = (study.get("search") or {}).get("trials") != 0  # without trials, what an earlier search left does not count
    searches = {v: search for v in variants if searched and (search := _search(study_root / "search" / v))}
    runs: list[Run] = []
    missing: list[Missing] = []
    for row in expected:
        found = _run(study_root / row["run_name"], row)
        if isinstance(found, Run):
            runs.append(found)
        else:
            missing.append(found)
    if not runs and not searches:
        file = f"sweeps/{name}.yaml"
        raise InputError(f"{study_root}: nothing to report yet; run `leukotree sweep {file}`, then `leukotree folds {file}`")
    _belong_together(runs, study_root)
    dataset = _json(path) if (path := Path(base.data.shards) / "dataset.json").exists() else None
    return StudySummary(name, dict(study), base, variants, runs, missing, searches, dataset)


def _run(folder: Path, row: Mapping[str, Any]) -> Run | Missing:
    wanted: dict[str, Any] = {key: row[key] for key in ("variant", "test_fold", "seed")} | {"name": row["run_name"]}
    status = runfolder.read_status(folder)
    if status.get("state") != "done":
        message = f": {status['message']}" if status.get("message") else ""
        return Missing(**wanted, state=f"{status.get('state', 'not started')}{message}")
    if not (folder / "predictions.parquet").exists():
        return Missing(**wanted, state="done, but predictions.parquet is missing")
    spec = specs.load(folder / "spec.yaml")
    for key, given in (("variant", spec.variant), ("test_fold", spec.data.test_fold), ("seed", spec.seed)):
        if given != row[key]:
            raise _damaged(folder / "spec.yaml", f"{key} is {given}, the study expects {row[key]}")
    images, true, logp, taxonomy = _predictions(folder, spec.data.test_fold)
    epochs = [entry for entry in runfolder.read_metrics(folder) if entry.get("kind") == "epoch"]
    return Run(
        **wanted, taxonomy=taxonomy, images=images, true=true, predicted=decide.greedy(logp, taxonomy), logp=logp,
        epochs=len(epochs), seconds=float(sum(entry.get("seconds", 0.0) for entry in epochs)), ranks=_ranks(folder),
        environment=_json(folder / "env.json") if (folder / "env.json").exists() else {},
    )  # fmt: skip


def _predictions(folder: Path, fold: int) -> tuple[pd.DataFrame, np.ndarray, np.ndarray, Taxonomy]:
    """Images, true leaf indices and (N, E) log-probabilities, sorted by key. Raises InputError naming file and row."""
    frame, logp, taxonomy = predictions.read(folder)
    path = folder / "predictions.parquet"
    if frame.empty:
        raise _damaged(path, "no rows")
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
            row = frame[np.asarray(rows)].iloc[0]
            raise _damaged(path, problem.format(**row[["key", "leaf", "fold"]]))
    return frame[["key", "patient", "source"]].fillna("").astype(str), true, logp, taxonomy


def _ranks(folder: Path) -> int:
    """How many processes the last attempt used."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(json.loads((folder / "attempts.jsonl").read_text().splitlines()[-1])["ranks"])
    return 1


def _belong_together(runs: Sequence[Run], root: Path) -> None:
    """Comparisons are fair only on the same tree and, within a fold, the same images; folds must not share any."""
    keys: dict[int, Run] = {}
    for run in runs:
        if list(run.taxonomy.parent_of.items()) != list(runs[0].taxonomy.parent_of.items()):  # the order of leaves counts
            raise _damaged(root / run.name / "taxonomy.json", f"differs from that of {runs[0].name}")
        first = keys.setdefault(run.test_fold, run)
        if not first.images.equals(run.images) or not np.array_equal(first.true, run.true):
            raise _damaged(root / run.name / "predictions.parquet", f"other images or labels than in {first.name}")
        fingerprints = {r.environment["dataset"] for r in (runs[0], run) if r.environment.get("dataset")}
        if len(fingerprints) > 1:
            raise _damaged(root / run.name / "env.json", f"made from other shards than {runs[0].name}")
    pooled = pd.concat([run.images["key"] for run in keys.values()]) if keys else pd.Series(dtype=str)
    if pooled.duplicated().any():
        twice = pooled[pooled.duplicated()].iloc[0]
        raise InputError(f"{root}: image {twice!r} is in two test folds; pack into an empty folder and run folds again")


def _search(folder: Path) -> Search | None:
    if not (folder / "trials.csv").exists():
        return None
    best = yamlfile.load(folder / "best.yaml") if (folder / "best.yaml").exists() else None
    if best is not None and not (isinstance(best, dict) and isinstance(best.get("chosen"), dict)):
        raise InputError(f"{folder / 'best.yaml'}: no mapping `chosen`; run the sweep again")
    history = folder / "history.csv"
    curves = _csv(history, HISTORY_COLUMNS) if history.exists() else pd.DataFrame(columns=list(HISTORY_COLUMNS))
    return Search(_csv(folder / "trials.csv", TRIAL_COLUMNS), curves.dropna(), best)


def _damaged(path: Path, problem: str) -> InputError:
    return InputError(f"{path}: {problem}; remove the run's folder and run folds again")


def _csv(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    try:
        frame = pd.read_csv(path, dtype={"trial": str})
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {one_line(error)}") from error
    if absent := [column for column in columns if column not in frame]:
        raise InputError(f"{path}: no column {absent[0]!r}; run the sweep again")
    return frame


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {one_line(error)}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object")
    return value
