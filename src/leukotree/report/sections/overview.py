"""The sections about scores: the arms side by side with warnings, the folds, and the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from leukotree.report import scores
from leukotree.report.blocks import Block, Folded, Section, Table, Text, count, mean_sd, percent, plural, text
from leukotree.report.prose import lead as prose
from leukotree.report.sections import drawn, searches, shortcuts
from leukotree.report.summary import StudySummary

COLUMNS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_precision": "macro precision",
    "macro_recall": "macro recall",
    "macro_f1": "macro F1",
    "mode:accuracy": "{unit} accuracy",
    "mode:macro_f1": "{unit} macro F1",
}


def lead(summary: StudySummary, by_fold: pd.DataFrame, verdict: Block) -> Section:
    """The verdict in a sentence, warnings, the table of scores, and how to read it."""
    blocks: list[Block] = [verdict, *shortcuts.warning(summary, by_fold), *unchecked(summary)]
    if summary.redeclared:
        blocks.append(text(prose.REDECLARED, "warning", changes="; ".join(summary.redeclared)))
    clean = _clean_fold(summary)
    if clean is not None:
        blocks.append(text(prose.OPTIMISTIC, "warning"))
    caption = "Mean ± standard deviation over outer folds, in per cent."
    blocks.append(_score_table(caption, summary, by_fold, "scores"))
    if clean is not None and clean in set(by_fold["fold"]) and by_fold["fold"].nunique() > 1:
        only = by_fold[by_fold["fold"] == clean]
        caption = f"The clean fold alone (fold {clean}, which the search did not use), in per cent."
        blocks.append(_score_table(caption, summary, only))
    reading = Folded("How to read these scores.", [_reading(summary)])
    return Section("Variants", [*blocks, reading, *_warnings(summary, by_fold)], lead=True)


def unchecked(summary: StudySummary) -> list[Text]:
    """A warning that the results were not compared with today's data or weights, where these are not here."""
    if not summary.unchecked:
        return []
    return [text(prose.UNCHECKED, "warning", what=" and ".join(summary.unchecked))]


def _columns(summary: StudySummary) -> list[str]:
    return [name.format(unit=scores.unit(summary.runs) or "patient") for name in COLUMNS.values()]


def _score_table(caption: str, summary: StudySummary, by_fold: pd.DataFrame, file: str = "") -> Table:
    rows = []
    for arm, folds in by_fold.groupby("arm", sort=False):
        rows.append([str(arm), *(mean_sd(folds[column].tolist()) for column in COLUMNS), str(len(folds))])
    return Table(caption, ["variant", *_columns(summary), "folds"], rows, file=file)


def _reading(summary: StudySummary) -> Text:
    """How to read the table of scores, with the scores of always answering the most common leaf."""
    common, guess = scores.most_common(summary.runs)
    shares: dict[str, object] = {key: percent(value) for key, value in guess.items()}
    leaves, patients = len(summary.runs[0].taxonomy.leaves), prose.PATIENTS[scores.unit(summary.runs)]
    return text(prose.READING.format(leaves=leaves, patients=patients, common=common, **shares))


def _warnings(summary: StudySummary, by_fold: pd.DataFrame) -> list[Block]:
    """What limits the scores of this study."""
    notes = _about_patients(summary)
    clean = _clean_fold(summary)
    others = sorted(set(by_fold["fold"]) - {clean})
    if clean is not None and others:
        tested = "" if clean in set(by_fold["fold"]) else " It has no scores yet."
        listed = ", ".join(map(summary.fold_name, others))
        notes.append(text(prose.NOT_NESTED, "warning", clean=clean, others=listed, tested=tested))
    if summary.missing:
        total = len(summary.missing) + len(summary.runs)
        notes.append(text(prose.INCOMPLETE, "warning", missing=len(summary.missing), total=total))
    done = [arm for arm in summary.arms if arm.runs]
    if len(shown := scores.shown(summary)) < len(done):
        notes.append(text(prose.SOME_ARMS, "note", shown=len(shown), arms=len(done)))
    return notes + searches.unequal_trials(summary) + drawn.shared_by_folds(summary)


def _about_patients(summary: StudySummary) -> list[Block]:
    """Warnings where patient ids are missing, shared by folds, or ids of slides."""
    notes: list[Block] = []
    if summary.straddling:
        notes.append(text(prose.STRADDLING, "warning", patients=plural(summary.straddling, "patient")))
    if (summary.dataset or {}).get("group") == "slide":
        notes.append(text(prose.SLIDES, "warning"))
    elif slides := (summary.dataset or {}).get("slides"):
        listed = ", ".join(f"{source} ({number})" for source, number in slides.items())
        notes.append(text(prose.SOME_SLIDES, "warning", slides=sum(slides.values()), sources=listed))
    folds = scores.one_per_fold(summary.runs)
    unknown = sum(int((fold.images["patient"] == "").sum()) for fold in folds)
    total = sum(len(fold.images) for fold in folds)
    if 0 < unknown < total:
        known = scores.leaves_of_patients(summary.runs)
        others = [leaf for index, leaf in enumerate(folds[0].taxonomy.leaves) if index not in known]
        listed = ", ".join(others) or "none"
        notes.append(text(prose.WITHOUT_PATIENT, "warning", images=unknown, total=total, leaves=listed))
    return notes


def folds(summary: StudySummary, by_fold: pd.DataFrame) -> Section:
    """A row per outer fold and arm: the scores, and whether the search used the fold."""
    rows = []
    for fold in sorted(set(by_fold["fold"])):
        for _, row in by_fold[by_fold["fold"] == fold].iterrows():
            counts = [count(row[key]) for key in ("seeds", "images", "groups")]
            shares = [percent(row[column]) for column in COLUMNS]
            rows.append([summary.fold_name(fold), row["arm"], _state(summary, fold), *counts, *shares])
    header = ["fold", "variant", "hyperparameters", "seeds", "images", "groups", *_columns(summary)]
    return Section("Folds", [Table("Each outer fold, seeds averaged, in per cent.", header, rows, labels=3)])


def _of_cells(summary: StudySummary) -> bool:
    """Whether all shown arms are cells of a grid. No search chose their values."""
    return all(arm.cell is not None for arm in scores.shown(summary))


def _clean_fold(summary: StudySummary) -> int | None:
    """The one fold that the search of the shown arms did not use. None where every fold is clean."""
    return None if _of_cells(summary) else summary.clean_fold


def _state(summary: StudySummary, fold: int) -> str:
    """How the search relates to a fold."""
    if not summary.searches or _of_cells(summary):
        return "no search"
    if summary.nested:
        return "own search"
    return "clean" if summary.clean_fold == fold else "seen by the search"


def data(summary: StudySummary) -> Section:
    """Images, patients and sources of each leaf, among the scored images."""
    folds = scores.one_per_fold(summary.runs)
    taxonomy = folds[0].taxonomy
    frame = pd.concat([run.images.assign(leaf=run.true, fold=run.test_fold) for run in folds])
    sources = sorted(frame["source"].unique())
    rows = []
    for index, leaf in enumerate(taxonomy.leaves):
        rows.append(_data_row(leaf, frame[frame["leaf"] == index], len(frame), sources))
    rows.append(_data_row("all", frame, len(frame), sources))
    header = ["leaf", "images", "share", "patients", *(source or "(no source)" for source in sources)]
    blocks: list[Block] = [
        Table(f"Images that were scored, in {plural(len(folds), 'test fold')}.", header, rows)
    ]
    of_one_source = [
        leaf
        for index, leaf in enumerate(taxonomy.leaves)
        if frame.loc[frame["leaf"] == index, "source"].nunique() == 1
    ]
    if len(sources) > 1 and of_one_source:
        blocks.append(text(prose.ONE_SOURCE, "warning", leaves=", ".join(of_one_source)))
    if dropped := (summary.dataset or {}).get("dropped"):
        reasons = Counter(str(row.get("reason", "unknown")) for row in dropped)
        listed = ", ".join(f"{n} ({reason})" for reason, n in reasons.items())
        blocks.append(Text(f"Images left out when packing: {listed}.", "note"))
    return Section("Data", blocks)


def _data_row(name: str, frame: pd.DataFrame, total: int, sources: Sequence[str]) -> list[str]:
    n_patients = frame.loc[frame["patient"] != "", "patient"].nunique()
    patients = str(n_patients) if n_patients else "unknown"
    per_source = [str(int((frame["source"] == source).sum())) for source in sources]
    return [name, str(len(frame)), f"{percent(len(frame) / total)} %", patients, *per_source]
