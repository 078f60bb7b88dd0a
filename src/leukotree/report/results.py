"""The sections about scores: variants, honesty notes, folds, patients, tree, leaves, data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from leukotree import metrics
from leukotree.report import figures, prose, scores, settings
from leukotree.report.blocks import Block, Figure, Section, Table, Text, count, interval, mean_sd, percent, plural, text
from leukotree.report.collect import Run, StudySummary

COLUMNS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_precision": "macro precision",
    "macro_recall": "macro recall",
    "macro_f1": "macro F1",
    "mode:accuracy": "{unit} accuracy",
    "mode:macro_f1": "{unit} macro F1",
}
PRIMARY = "macro_f1"
"""The score that variants are compared by: the one that the search maximises."""


def sections(summary: StudySummary) -> list[Section]:
    """All score sections; none where no run is finished."""
    if not summary.runs:
        return []
    by_run = scores.per_run(summary.runs)
    by_fold = scores.per_fold(by_run)
    return [
        _variants(summary, by_fold),
        _comparison(summary, by_fold),
        _folds(summary, by_fold),
        _patients(summary, by_fold),
        _tree(summary, by_fold),
        _leaves(summary),
        _data(summary),
    ]


def runs_of(summary: StudySummary) -> dict[str, list[Run]]:
    """Variant -> its finished runs, for the variants that have any, in the order of the study."""
    found = {variant: [run for run in summary.runs if run.variant == variant] for variant in summary.variants}
    return {variant: runs for variant, runs in found.items() if runs}


def _columns(summary: StudySummary) -> list[str]:
    return [name.format(unit=scores.unit(summary.runs) or "patient") for name in COLUMNS.values()]


def _variants(summary: StudySummary, by_fold: pd.DataFrame) -> Section:
    blocks: list[Block] = [_score_table("Mean ± standard deviation over outer folds, in per cent.", summary, by_fold)]
    clean = summary.clean_fold
    if clean is not None and clean in set(by_fold["fold"]) and by_fold["fold"].nunique() > 1:
        only = by_fold[by_fold["fold"] == clean]
        blocks.append(_score_table(f"The clean fold alone (fold {clean}, never seen by the search), in per cent.", summary, only))
    blocks += [_reading(summary), *_honesty(summary, by_fold)]
    return Section("Variants", blocks, lead=True)


def _score_table(caption: str, summary: StudySummary, by_fold: pd.DataFrame) -> Table:
    rows = []
    for variant in runs_of(summary):
        mine = by_fold[by_fold["variant"] == variant]
        if len(mine):
            rows.append([variant, *(mean_sd(mine[column].tolist()) for column in COLUMNS), str(len(mine))])
    return Table(caption, ["variant", *_columns(summary), "folds"], rows)


def _reading(summary: StudySummary) -> Text:
    folds = scores.one_per_fold(summary.runs)
    true = np.concatenate([run.true for run in folds])
    names = folds[0].taxonomy.leaves
    common = int(np.bincount(true).argmax())
    guess = metrics.summary(true, np.full_like(true, common), len(names))
    scale = {"common": names[common], **{key: percent(value) for key, value in guess.items()}}
    patients = prose.PATIENTS[scores.unit(summary.runs)]
    return text(prose.READING.format(leaves=len(names), patients=patients, **scale))


def _honesty(summary: StudySummary, by_fold: pd.DataFrame) -> list[Block]:
    notes: list[Block] = []
    clean = summary.clean_fold
    others = sorted(set(by_fold["fold"]) - {clean})
    if clean is not None and others:
        tested = "" if clean in set(by_fold["fold"]) else " It has not been scored yet."
        notes.append(text(prose.NOT_NESTED, "warning", clean=clean, others=", ".join(map(str, others)), tested=tested))
    if summary.missing:
        total = len(summary.missing) + len(summary.runs)
        notes.append(text(prose.INCOMPLETE, "warning", missing=len(summary.missing), total=total))
    return notes + settings.unequal_trials(summary)


def _comparison(summary: StudySummary, by_fold: pd.DataFrame) -> Section:
    title, variants = "Is a hierarchy better?", list(runs_of(summary))
    if "flat" not in variants or len(variants) == 1:
        return Section(title, [Text("Not estimable: this needs results of `flat` and of another variant.")])
    rows, verdicts, folds = [], [], 0
    for variant in (v for v in variants if v != "flat"):
        found = scores.difference(summary, by_fold, variant, "flat", PRIMARY)
        half = percent((found.high - found.low) / 2)
        bounds = "not estimable" if np.isnan(found.low) else interval((found.low, found.high))
        rows.append([f"{variant} − flat", found.verdict, percent(found.mean), bounds, half, str(found.folds)])
        verdicts.append(f"{variant} is {found.verdict}")
        folds = max(folds, found.folds)
    caption = "Macro F1, image level, in percentage points; a positive difference favours the hierarchy."
    header = ["difference", "verdict", "mean", "95 % interval", "smallest visible", "folds"]
    return Section(title, [
        Text(f"Against flat, {'; '.join(verdicts)}."),
        Table(caption, header, rows, labels=2),
        text(prose.CORRECTED_INTERVAL, ratio=scores.ratio(summary)),
        text(prose.FEW_FOLDS, "note", folds=plural(folds, "fold")),
    ])  # fmt: skip


def _folds(summary: StudySummary, by_fold: pd.DataFrame) -> Section:
    clean, rows = summary.clean_fold, []
    for fold in sorted(set(by_fold["fold"])):
        for variant in runs_of(summary):
            for _, row in by_fold[(by_fold["fold"] == fold) & (by_fold["variant"] == variant)].iterrows():
                state = "no search" if clean is None else "clean" if clean == fold else "seen by the search"
                counts = [count(row[key]) for key in ("seeds", "images", "groups")]
                rows.append([str(fold), variant, state, *counts, *(percent(row[column]) for column in COLUMNS)])
    header = ["fold", "variant", "hyperparameters", "seeds", "images", "groups", *_columns(summary)]
    return Section("Folds", [Table("Each outer fold, seeds averaged, in per cent.", header, rows, labels=3)])


def _patients(summary: StudySummary, by_fold: pd.DataFrame) -> Section:
    unit = scores.unit(summary.runs)
    if unit is None:
        return Section("Patients", [Text("Not available: the images carry no patient, so no claim about patients can be made.")])
    rows, leaf_rows = [], []
    for variant, runs in runs_of(summary).items():
        mine = by_fold[by_fold["variant"] == variant]
        for rule in metrics.RULES:
            pooled = scores.pooled(by_fold, variant, rule)
            means = [mean_sd(mine[f"{rule}:{score}"].tolist()) for score in ("accuracy", "macro_f1")]
            right = f"{count(pooled.right)} / {pooled.n}"
            rows.append([variant, rule.replace("_", " "), *means, right, interval(pooled.interval)])
        for leaf, found in zip(runs[0].taxonomy.leaves, scores.pooled_per_leaf(runs, "mode"), strict=True):
            share = percent(found.right / found.n if found.n else float("nan"))
            leaf_rows.append([variant, leaf, f"{count(found.right)} / {found.n}", share, interval(found.interval)])
    header = ["variant", "rule", "accuracy", "macro F1", "right, all folds", "Wilson 95 %"]
    leaf_header = ["variant", "leaf", "right, all folds", "recall", "Wilson 95 %"]
    return Section("Patients", [
        *_unit_notes(summary, unit),
        Table(f"By rule; the unit is the {unit}. Mean ± standard deviation over folds, in per cent.", header, rows, labels=2),
        Table(f"By leaf, rule mode, all folds pooled, in per cent; below {metrics.FLOOR} groups not estimable.",
              leaf_header, leaf_rows, labels=2),
        text(prose.RULES),
    ])  # fmt: skip


def _unit_notes(summary: StudySummary, unit: str) -> list[Block]:
    notes: list[Block] = []
    if unit == "patient x leaf":
        notes.append(text(prose.PATIENT_X_LEAF, "warning"))
    without = sum(int((run.images["patient"] == "").sum()) for run in scores.one_per_fold(summary.runs))
    if without:
        notes.append(Text(f"{plural(without, 'image')} without a patient: left out here.", "note"))
    return notes


def _tree(summary: StudySummary, by_fold: pd.DataFrame) -> Section:
    taxonomy = summary.runs[0].taxonomy
    levels = [column for column in by_fold if str(column).startswith("level:")]
    nodes = list(taxonomy.decisions)
    level_rows, node_rows = [], []
    for variant in runs_of(summary):
        mine = by_fold[by_fold["variant"] == variant]
        level_rows.append([variant, *(mean_sd(mine[level].tolist()) for level in levels)])
        node_rows.append([variant, *(mean_sd(mine[f"decision:{node}"].tolist()) for node in nodes)])
    named = [f"{node}: {' / '.join(taxonomy.decisions[node])}" for node in nodes]
    return Section("Tree", [
        Table("Accuracy of each decision among the images that belong below it, whatever was decided above; in per cent.",
              ["variant", *named], node_rows),
        Table("Share of images whose path is right down to a level (a leaf stands for itself below its own level); in per cent.",
              ["variant", *(f"level {i}" for i in range(1, len(levels) + 1))], level_rows),
    ])  # fmt: skip


def _leaves(summary: StudySummary) -> Section:
    taxonomy, by_variant = summary.runs[0].taxonomy, runs_of(summary)
    rows = []
    for variant, runs in by_variant.items():
        true, predicted = (np.concatenate([getattr(run, name) for run in runs]) for name in ("true", "predicted"))
        found = metrics.per_leaf(true, predicted, len(taxonomy.leaves))
        for leaf, *values in zip(taxonomy.leaves, found.precision, found.recall, found.f1, found.support, strict=True):
            rows.append([variant, leaf, *(percent(value) for value in values[:3]), str(values[3])])
    matrices = {variant: scores.confusion(runs) for variant, runs in by_variant.items()}
    caption = "Confusion, image level, all folds and seeds pooled: share of the true leaf's images, and their number."
    header = ["variant", "leaf", "precision", "recall", "F1", "images"]
    return Section("Leaves", [
        Figure("confusion", caption, figures.confusions(matrices, taxonomy.leaves)),
        Table("Per leaf, all folds and seeds pooled, in per cent (an image counts once per seed).", header, rows, labels=2),
    ])  # fmt: skip


def _data(summary: StudySummary) -> Section:
    folds = scores.one_per_fold(summary.runs)
    taxonomy = folds[0].taxonomy
    frame = pd.concat([run.images.assign(leaf=run.true, fold=run.test_fold) for run in folds])
    sources = sorted(frame["source"].unique())
    rows = []
    for index, leaf in enumerate(taxonomy.leaves):
        mine = frame[frame["leaf"] == index]
        rows.append(_data_row(leaf, mine, len(frame), sources))
    rows.append(_data_row("all", frame, len(frame), sources))
    header = ["leaf", "images", "share", "patients", *(source or "(no source)" for source in sources)]
    blocks: list[Block] = [Table(f"Images that were scored, in {plural(len(folds), 'test fold')}.", header, rows)]
    fed_by_one = [leaf for i, leaf in enumerate(taxonomy.leaves) if frame.loc[frame["leaf"] == i, "source"].nunique() == 1]
    if len(sources) > 1 and fed_by_one:
        blocks.append(text(prose.ONE_SOURCE, "warning", leaves=", ".join(fed_by_one)))
    if dropped := (summary.dataset or {}).get("dropped"):
        reasons = pd.Series([str(row.get("reason", "unknown")) for row in dropped]).value_counts(sort=False)
        blocks.append(Text(f"Left out when packing: {', '.join(f'{n} ({reason})' for reason, n in reasons.items())}.", "note"))
    return Section("Data", blocks)


def _data_row(name: str, frame: pd.DataFrame, total: int, sources: Sequence[str]) -> list[str]:
    patients = frame.loc[frame["patient"] != "", "patient"].nunique()
    per_source = [str(int((frame["source"] == source).sum())) for source in sources]
    return [name, str(len(frame)), f"{percent(len(frame) / total)} %", str(patients) if patients else "unknown", *per_source]
