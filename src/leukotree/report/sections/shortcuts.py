"""The section about shortcuts: what source, site, scanner and colour give away, beside the arms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from leukotree.data.audit import shortcuts
from leukotree.data.remote.place import place
from leukotree.evaluation import metrics
from leukotree.records import audited
from leukotree.records.audited import Audited
from leukotree.report import scores
from leukotree.report.blocks import Block, Section, Table, Text, percent, text
from leukotree.report.prose import data as prose
from leukotree.report.summary import Run, StudySummary

TITLE = "Shortcuts"
CLOSE = 0.01
"""A shortcut has no information if it reaches no more than this above the most common leaf and chance."""


def known_scores(summary: StudySummary) -> Audited:
    """The scores of shortcuts: those of the audit, where it was stored for these data, and those of source,
    site and scanner that follow from the tested images."""
    of_audit = audited.read(place(summary.base.data.shards), scores.fingerprints(summary.runs))
    folds = scores.one_per_fold(summary.runs)
    leaves = folds[0].taxonomy.leaves
    baselines, per_leaf = dict(of_audit.baselines), dict(of_audit.leaves)
    table, true, fold_ids = _tested(folds)
    for name, codes in shortcuts.columns(table).items():
        one = shortcuts.score(shortcuts.by_value(codes, true), true, fold_ids, len(leaves))
        if name not in baselines and not np.isnan(one.macro_f1):
            baselines[name] = one.macro_f1
            per_leaf[name] = _named(leaves, one.per_leaf)
    return Audited(baselines, per_leaf, of_audit.of_source)


def reached(summary: StudySummary) -> dict[str, float]:
    """Name -> macro F1 (0 to 1) of answers without morphology, the most common leaf first."""
    common, guess = scores.most_common(summary.runs)
    known = {
        name: value for name, value in known_scores(summary).baselines.items() if name != audited.COMMONEST
    }
    return {f"always {common}": guess["macro_f1"]} | known


def warning(summary: StudySummary, by_fold: pd.DataFrame) -> list[Block]:
    """How far the source alone gets, beside the best arm. Empty for images of one source."""
    folds = scores.one_per_fold(summary.runs)
    if _tested(folds)[0]["source"].nunique() < 2:
        return []
    of_all = reached(summary)
    named = [name for name in of_all if name.endswith(" only") and "source" in name.split()]
    if not named:
        return [text(prose.SOURCE_UNKNOWN, "warning")]
    always, name = next(iter(of_all)), named[0]
    best = by_fold.groupby("arm")["macro_f1"].mean()
    chance = _chance(folds, name)
    says_nothing = of_all[name] <= max(of_all[always], chance) + CLOSE
    values: dict[str, object] = {
        "name": name.removesuffix(" only"),
        "score": percent(of_all[name]),
        "always": always,
        "common": percent(of_all[always]),
        "chance": percent(chance),
        "arm": best.idxmax(),
        "best": percent(float(best.max())),
        "leaves": _of_one_source(folds),
    }
    if says_nothing:
        return [text(prose.SOURCE_SAYS_NOTHING, "note", **values)]
    return [text(prose.SOURCE_ALONE, "warning", **values)]


def section(summary: StudySummary) -> Section | None:
    """A row per arm and per shortcut with the macro F1 and the F1 of each leaf, then what guesses the source.
    None where nothing but the most common leaf is known."""
    known = known_scores(summary)
    if not set(known.baselines) - {audited.COMMONEST}:
        return None
    leaves = scores.one_per_fold(summary.runs)[0].taxonomy.leaves
    rows = [_of_arm(arm.name, arm.runs, leaves) for arm in scores.shown(summary)]
    for name, value in known.baselines.items():
        of_leaves = known.leaves.get(name, {})
        rows.append([name, percent(value), *(percent(of_leaves.get(leaf, np.nan)) for leaf in leaves)])
    caption = "F1 of the arms, and of answers that need no morphology: mean over outer folds, in per cent."
    blocks: list[Block] = [Table(caption, ["answer", "macro F1", *leaves], rows)]
    if known.of_source:
        of_source = [[name, percent(value)] for name, value in known.of_source.items()]
        caption = "How well the source of an image of another group is guessed, in per cent."
        blocks.append(Table(caption, ["from", "macro F1 over the sources"], of_source))
    blocks.append(text(prose.SHORTCUTS))
    if shortcuts.COLOUR not in known.baselines:
        shards = summary.base.data.shards
        blocks.append(Text(f"What colours give away is not known: run `leukotree audit {shards}`.", "note"))
    return Section(TITLE, blocks)


def _tested(folds: Sequence[Run]) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """The tested images of one run per fold: their table, (N,) leaf indices, and (N,) folds."""
    table = pd.concat([run.images for run in folds], ignore_index=True)
    fold_ids = np.concatenate([np.full(len(run.true), run.test_fold) for run in folds])
    return table.fillna(""), np.concatenate([run.true for run in folds]), fold_ids


def _chance(folds: Sequence[Run], name: str) -> float:
    """What a shortcut with these values reaches without information; 0 if the tested images have it not."""
    table, true, fold_ids = _tested(folds)
    codes = shortcuts.columns(table).get(name)
    if codes is None:
        return 0.0
    alone = pd.Series([f"image {row}" for row in range(len(table))])
    people = (table["source"] + "/" + table["patient"]).where(table["patient"] != "", alone)
    return shortcuts.by_chance(codes, people.tolist(), true, fold_ids, len(folds[0].taxonomy.leaves))


def _of_arm(name: str, runs: Sequence[Run], leaves: Sequence[str]) -> list[str]:
    """The row of an arm: seeds are averaged within a fold first, as in all tables."""
    macro, per_leaf = [], []
    for of_fold in scores.by_fold(runs).values():
        macro.append(scores.macro_f1(of_fold))
        f1 = [metrics.per_leaf(run.true, run.predicted, len(leaves)).f1 for run in of_fold]
        present = np.isin(np.arange(len(leaves)), of_fold[0].true)
        per_leaf.append(np.where(present, np.mean(f1, axis=0), np.nan))
    means = _named(leaves, shortcuts.mean_of_known(np.stack(per_leaf)))
    return [name, percent(float(np.mean(macro))), *(percent(means.get(leaf, np.nan)) for leaf in leaves)]


def _named(leaves: Sequence[str], values: np.ndarray) -> dict[str, float]:
    pairs = zip(leaves, values.tolist(), strict=True)
    return {leaf: value for leaf, value in pairs if not np.isnan(value)}


def _of_one_source(folds: Sequence[Run]) -> str:
    """A sentence with the leaves that have images of one source only; "" without such leaves."""
    table, true, _ = _tested(folds)
    leaf = np.array(folds[0].taxonomy.leaves)[true]
    sources = table.groupby(leaf, sort=False)["source"].unique()
    alone = [f"{name} ({names[0]})" for name, names in sources.items() if len(names) == 1]
    return f" Of one source alone: {', '.join(alone)}." if alone else ""
