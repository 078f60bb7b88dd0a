"""The section about readers: how far they agree with each other, and the models with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from leukotree import stats
from leukotree.data import described
from leukotree.data.described import READER
from leukotree.evaluation import readers
from leukotree.evaluation.readers import UNREAD, Categories
from leukotree.report import prose, scores
from leukotree.report.blocks import Block, Section, Table, Text, percent, plural, text
from leukotree.report.summary import Arm, Run, StudySummary
from leukotree.stats.agreement import Agreement, Closeness
from leukotree.taxonomy import Taxonomy

LABEL = "(label)"


class _Readings(NamedTuple):
    """How texts of readings become categories, and which columns are readers."""

    columns: list[str]
    leaves: Categories
    first: Categories | None
    """The nodes of the first cut, where the tree has several cuts."""
    runs: list[Run]
    """One run of each test fold."""

    def codes(self, run: Run, categories: Categories, column: str) -> np.ndarray:
        """(N,) categories of a reader's column, or of the label of the images that somebody read."""
        if column == LABEL:
            labels = categories.codes(np.asarray(run.taxonomy.leaves, dtype=object)[run.true])
            known = [name for name in self.columns if name in run.images]
            return np.where((run.images[known] != "").any(axis=1), labels, UNREAD)
        absent = column not in run.images
        return np.full(len(run.true), UNREAD) if absent else categories.codes(run.images[column].to_numpy())


def section(summary: StudySummary) -> Section | None:
    """Two tables and how to read them. None without readings of the tested images."""
    readings = _readings(summary)
    if readings is None:
        return None
    stopped = _stopped(readings)
    labels = (summary.dataset or {}).get("labels")
    derived = prose.LABEL_FROM_READERS.format(method=labels["from"]) if isinstance(labels, dict) else ""
    how = text(
        prose.READERS,
        stopped=prose.READINGS_STOPPED.format(n=stopped) if stopped else "",
        derived=derived,
    )
    blocks: list[Block] = [_all_together(readings), _among_readers(readings), _models(summary, readings), how]
    return Section("Readers", blocks)


def _readings(summary: StudySummary) -> _Readings | None:
    runs = scores.one_per_fold(summary.runs)
    columns = [
        name
        for name in dict.fromkeys(name for run in runs for name in described.readers(run.images))
        if any((run.images[name] != "").any() for run in runs if name in run.images)
    ]
    if not columns:
        return None
    tree = _tree(summary)
    names = {value for run in runs for name in columns if name in run.images for value in run.images[name]}
    cuts = [cut for cut in tree.cuts if len(cut) > 1]
    first = Categories(cuts[0], tree, sorted(names)) if len(cuts) > 1 else None
    return _Readings(columns, Categories(tree.leaves, tree, sorted(names)), first, runs)


def _tree(summary: StudySummary) -> Taxonomy:
    """The tree of the data set before it was pruned to its leaves: readers may have named others. Where it is
    not known, that of the runs."""
    nested = (summary.dataset or {}).get("tree")
    return Taxonomy.from_nested(nested) if nested else summary.runs[0].taxonomy


def _stopped(readings: _Readings) -> int:
    """The number of readings that name an inner node."""
    return sum(
        int(((run.images[name] != "") & (readings.codes(run, readings.leaves, name) == UNREAD)).sum())
        for run in readings.runs
        for name in readings.columns
        if name in run.images
    )


def _all_together(readings: _Readings) -> Text:
    """The readers with their numbers of images, Fleiss' kappa and Krippendorff's alpha."""
    codes = np.concatenate(
        [
            np.stack([readings.codes(run, readings.leaves, name) for name in readings.columns], axis=1)
            for run in readings.runs
        ]
    )
    listed = [
        f"{name.removeprefix(READER)} ({int((column != UNREAD).sum())})"
        for name, column in zip(readings.columns, codes.T, strict=True)
    ]
    sentences = [
        f"{plural(len(listed), 'reader')} named a leaf, of these numbers of tested images: "
        f"{', '.join(listed)}."
    ]
    if len(listed) > 1:
        n = len(readings.leaves)
        by_all = codes[(codes != UNREAD).all(axis=1)]
        fleiss = float(readers.fleiss(readers.coincidences(by_all, n).sum(axis=0)))
        patient = [name for run in readings.runs for name in run.images["patient"]]
        label = np.concatenate([run.true for run in readings.runs])
        bounds = stats.alpha_interval(patient, label, codes, n)
        sentences.append(
            f"Fleiss' kappa is {kappa(fleiss)} on the {plural(len(by_all), 'image')} that all of them read. "
            f"Krippendorff's alpha of all readings is {kappa(readers.alpha(codes, n))} "
            f"(95 % {_bounds(bounds)})."
        )
    return Text(" ".join(sentences))


def _among_readers(readings: _Readings) -> Table:
    """A row per pair of readers, and per reader with the label."""
    pairs = [*combinations(readings.columns, 2), *((LABEL, name) for name in readings.columns)]
    rows = []
    for first, second in pairs:

        def both(run: Run, of: Categories, first: str = first, second: str = second) -> stats.Rated:
            codes = [readings.codes(run, of, name) for name in (first, second)]
            return stats.pair(run.images["patient"].tolist(), run.true, codes[0], codes[1], len(of))

        rows.append([_name(first), _name(second), *_cells(readings, readings.runs, both)])
    header = ["first", "second", "images", "patients", "agreement", "kappa", "95 %", *_first_header(readings)]
    return Table("Readers with each other, and with the label.", header, rows, labels=2)


def _models(summary: StudySummary, readings: _Readings) -> Table:
    """A row per arm and reader, and per arm with the label of the images that somebody read."""
    rows = []
    for arm in scores.shown(summary):
        for column in [*readings.columns, LABEL]:
            close = _closeness(arm, readings, column)
            rows.append([arm.name, _name(column), *_of_arm(arm, readings, column), *_close_cells(close)])
    header = [
        "variant",
        "reader",
        "images",
        "patients",
        "agreement",
        "kappa",
        "95 %",
        *_first_header(readings),
    ]
    header += ["other readers", "difference", "95 % of it"]
    caption = "Models with each reader, and with the label. Seeds are averaged."
    return Table(caption, header, rows, labels=2)


def _of_arm(arm: Arm, readings: _Readings, column: str) -> list[str]:
    of_fold = scores.by_fold(arm.runs)

    def both(run: Run, of: Categories) -> stats.Rated:
        model = _answers(of_fold[run.test_fold], of)
        codes = readings.codes(run, of, column)
        return stats.pair(run.images["patient"].tolist(), run.true, codes, model, len(of))

    return _cells(readings, [runs[0] for runs in of_fold.values()], both)


def _answers(runs: Sequence[Run], of: Categories) -> np.ndarray:
    """(S, N) categories of the predictions of S seeds on one fold."""
    place = of.codes(np.asarray(runs[0].taxonomy.leaves, dtype=object))
    return np.stack([place[run.predicted] for run in runs])


def _cells(
    readings: _Readings, runs: Sequence[Run], both: Callable[[Run, Categories], stats.Rated]
) -> list[str]:
    """images, patients, agreement, kappa, its interval, and kappa at the first cut."""
    leaves = stats.agreement([both(run, readings.leaves) for run in runs])
    cells = [str(leaves.images), str(leaves.patients), percent(leaves.share), *_kappa_cells(leaves)]
    if readings.first is not None:
        table = sum(both(run, readings.first).counts.sum(axis=0) for run in runs)
        cells.append(kappa(float(readers.cohen(np.asarray(table)))))
    return cells


def _closeness(arm: Arm, readings: _Readings, column: str) -> Closeness | None:
    others = [name for name in readings.columns if name != column]
    of = readings.leaves
    folds = [
        stats.ReadFold(
            runs[0].images["patient"].tolist(),
            runs[0].true,
            readings.codes(runs[0], of, column),
            np.stack([readings.codes(runs[0], of, name) for name in others], axis=1),
            _answers(runs, of),
        )
        for runs in scores.by_fold(arm.runs).values()
        if others
    ]
    return stats.closeness(folds, len(of)) if folds else None


def _close_cells(close: Closeness | None) -> list[str]:
    if close is None:
        return ["–", "–", "not estimable"]
    return [kappa(close.others), signed(close.model - close.others), _bounds(close.interval, signed)]


def _kappa_cells(pair: Agreement) -> list[str]:
    return [kappa(pair.kappa), _bounds(pair.interval)]


def _first_header(readings: _Readings) -> list[str]:
    return [] if readings.first is None else [f"kappa of {', '.join(readings.first.names)}"]


def _name(column: str) -> str:
    return column.removeprefix(READER)


def kappa(value: float) -> str:
    """A kappa or alpha with three digits. An en dash for NaN."""
    return "–" if np.isnan(value) else f"{value:.3f}"


def signed(value: float) -> str:
    """A difference of kappas with three digits and its sign. An en dash for NaN."""
    return "–" if np.isnan(value) else f"{value:+.3f}"


def _bounds(bounds: tuple[float, float] | None, form: Callable[[float], str] = kappa) -> str:
    return "not estimable" if bounds is None else f"{form(bounds[0])} to {form(bounds[1])}"
