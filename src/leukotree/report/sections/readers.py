"""The section about readers: how far they agree with each other, and the models with them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import NamedTuple

import numpy as np

from leukotree import stats
from leukotree.data import described
from leukotree.data.described import READER
from leukotree.evaluation import readers
from leukotree.evaluation.readers import UNREAD, Categories
from leukotree.report import scores
from leukotree.report.blocks import Block, Section, Table, Text, percent, plural, text
from leukotree.report.prose import data as prose
from leukotree.report.scores import Answered
from leukotree.report.summary import StudySummary
from leukotree.stats.agreement import Agreement, Closeness
from leukotree.taxonomy import Taxonomy

LABEL = "(label)"


class _Readings(NamedTuple):
    """The tested images, how texts of readings become categories, and which columns are readers."""

    columns: list[str]
    leaves: Categories
    first: Categories | None
    """The nodes of the first cut, where the tree has several cuts."""
    names: np.ndarray
    """(L,) names of the leaves of the runs."""

    def codes(self, tested: Answered, categories: Categories, column: str) -> np.ndarray:
        """(N,) categories of a reader's column, or of the label of the images that somebody read."""
        images = tested.images
        if column == LABEL:
            known = [name for name in self.columns if name in images]
            read = (images[known].fillna("") != "").any(axis=1)
            return np.where(read, categories.codes(self.names[tested.true]), UNREAD)
        absent = column not in images
        return (
            np.full(len(images), UNREAD) if absent else categories.codes(images[column].fillna("").to_numpy())
        )

    def answers(self, tested: Answered, categories: Categories) -> stats.Answers:
        """The answers of an arm, as categories."""
        return tested.answers._replace(code=categories.codes(self.names)[tested.answers.code])


def section(summary: StudySummary) -> Section | None:
    """Two tables and how to read them. None without readings of the tested images."""
    tested = scores.answered(summary.runs, summary.runs[0].taxonomy.leaves)
    readings = _readings(summary, tested)
    if readings is None:
        return None
    stopped = _stopped(readings, tested)
    labels = (summary.dataset or {}).get("labels")
    derived = prose.LABEL_FROM_READERS.format(method=labels["from"]) if isinstance(labels, dict) else ""
    how = text(
        prose.READERS,
        stopped=prose.READINGS_STOPPED.format(n=stopped) if stopped else "",
        derived=derived,
    )
    blocks: list[Block] = [
        _all_together(readings, tested),
        _among_readers(readings, tested),
        _models(summary, readings),
        how,
    ]
    return Section("Readers", blocks)


def _readings(summary: StudySummary, tested: Answered) -> _Readings | None:
    images = tested.images
    columns = [name for name in described.readers(images) if (images[name].fillna("") != "").any()]
    if not columns:
        return None
    tree = _tree(summary)
    names = sorted({value for name in columns for value in images[name].fillna("").unique()})
    cuts = [cut for cut in tree.cuts if len(cut) > 1]
    first = Categories(cuts[0], tree, names) if len(cuts) > 1 else None
    leaves = np.asarray(summary.runs[0].taxonomy.leaves, dtype=object)
    return _Readings(columns, Categories(tree.leaves, tree, names), first, leaves)


def _tree(summary: StudySummary) -> Taxonomy:
    """The tree of the data set before it was pruned to its leaves: readers may have named others. Where it is
    not known, that of the runs."""
    nested = (summary.dataset or {}).get("tree")
    return Taxonomy.from_nested(nested) if nested else summary.runs[0].taxonomy


def _stopped(readings: _Readings, tested: Answered) -> int:
    """The number of readings that name an inner node."""
    return sum(
        int(
            (
                (tested.images[name].fillna("") != "")
                & (readings.codes(tested, readings.leaves, name) == UNREAD)
            ).sum()
        )
        for name in readings.columns
    )


def _all_together(readings: _Readings, tested: Answered) -> Text:
    """The readers with their numbers of images, Fleiss' kappa and Krippendorff's alpha."""
    codes = np.stack([readings.codes(tested, readings.leaves, name) for name in readings.columns], axis=1)
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
        bounds = stats.alpha_interval(tested.images["patient"].tolist(), tested.true, codes, n)
        sentences.append(
            f"Fleiss' kappa is {kappa(fleiss)} on the {plural(len(by_all), 'image')} that all of them read. "
            f"Krippendorff's alpha of all readings is {kappa(readers.alpha(codes, n))} "
            f"(95 % {_bounds(bounds)})."
        )
    return Text(" ".join(sentences))


def _among_readers(readings: _Readings, tested: Answered) -> Table:
    """A row per pair of readers, and per reader with the label."""
    pairs = [*combinations(readings.columns, 2), *((LABEL, name) for name in readings.columns)]
    rows = []
    for first, second in pairs:

        def both(of: Categories, first: str = first, second: str = second) -> stats.Rated:
            codes = [readings.codes(tested, of, name) for name in (first, second)]
            return _pair(tested, codes[0], stats.Answers.once(codes[1]), of)

        rows.append([_name(first), _name(second), *_cells(readings, both)])
    header = ["first", "second", "images", "patients", "agreement", "kappa", "95 %", *_first_header(readings)]
    return Table("Readers with each other, and with the label.", header, rows, labels=2)


def _pair(tested: Answered, first: np.ndarray, second: stats.Answers, of: Categories) -> stats.Rated:
    return stats.pair(tested.images["patient"].tolist(), tested.true, first, second, len(of))


def _models(summary: StudySummary, readings: _Readings) -> Table:
    """A row per arm and reader, and per arm with the label of the images that somebody read."""
    rows = []
    for arm in scores.shown(summary):
        tested = scores.answered(arm.runs, readings.names.tolist())
        for column in [*readings.columns, LABEL]:

            def both(of: Categories, tested: Answered = tested, column: str = column) -> stats.Rated:
                return _pair(tested, readings.codes(tested, of, column), readings.answers(tested, of), of)

            close = _closeness(tested, readings, column)
            rows.append([arm.name, _name(column), *_cells(readings, both), *_close_cells(close)])
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


def _cells(readings: _Readings, both: Callable[[Categories], stats.Rated]) -> list[str]:
    """images, patients, agreement, kappa, its interval, and kappa at the first cut."""
    leaves = stats.agreement(both(readings.leaves))
    cells = [str(leaves.images), str(leaves.patients), percent(leaves.share), *_kappa_cells(leaves)]
    if readings.first is not None:
        cells.append(kappa(float(readers.cohen(both(readings.first).counts.sum(axis=0)))))
    return cells


def _closeness(tested: Answered, readings: _Readings, column: str) -> Closeness | None:
    others = [name for name in readings.columns if name != column]
    if not others:
        return None
    of = readings.leaves
    return stats.closeness(
        tested.images["patient"].tolist(),
        tested.true,
        readings.codes(tested, of, column),
        np.stack([readings.codes(tested, of, name) for name in others], axis=1),
        readings.answers(tested, of),
        len(of),
    )


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
