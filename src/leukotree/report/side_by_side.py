"""The report of several studies: their arms side by side, and the differences between them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from leukotree.evaluation import decide
from leukotree.report import beside, figures, rendering, scores
from leukotree.report.beside import Candidate, Difference
from leukotree.report.blocks import (
    Block,
    Figure,
    Section,
    Table,
    Text,
    interval,
    mean_sd,
    number,
    percent,
    plural,
    points,
    text,
)
from leukotree.report.prose import verdicts as prose
from leukotree.report.rendering import Rendered
from leukotree.report.sections.card import MOST, Card, Row
from leukotree.report.summary import StudySummary

PAIRED, UNPAIRED = "paired by patient", "unpaired"


def render(summaries: Sequence[StudySummary], out: Path) -> Rendered:
    """The report of two or more studies: `report.md`, `report.html`, figures and tables.

    Raises InputError, see `beside.candidates`.
    """
    of_all = beside.candidates(summaries)
    rows = beside.differences(of_all)
    names = list(dict.fromkeys(one.study for one in of_all))
    card = _card(of_all, rows)
    rule = decide.RULES[summaries[0].decision].words
    about = text(prose.SIDE_BY_SIDE, rule=rule).text
    lead = Section("Arms", [Text(card.headline), _scores(of_all), *_warnings(of_all)], lead=True)
    sections = [lead, _differences(rows), *_settings(names, summaries)]
    pages = rendering.pages(f"Studies {' and '.join(names)}", about, card, sections, out)
    lines = [f"Studies {', '.join(names)}: {plural(len(of_all), 'arm')}", card.headline.replace("`", "")]
    lines += [f"{row.name} {row.difference} ({row.interval}), {row.verdict}" for row in card.rows[:3]]
    return Rendered(pages, lines)


def _card(of_all: Sequence[Candidate], rows: Sequence[Difference]) -> Card:
    bars = [
        figures.Bar(
            f"{row.challenger.name} − {row.reference.name}",
            PAIRED if row.paired else UNPAIRED,
            row.value,
            *(row.interval or (math.nan, math.nan)),
        )
        for row in rows[: 2 * MOST]
    ]
    label = "difference in macro F1 of all test images, points"
    caption = (
        "Differences with 95 % intervals by the bootstrap over patients. The intervals are not adjusted for "
        "their number."
    )
    folds = {one.name: beside.folds(one) for one in of_all}
    return Card(
        headline=_headline(rows),
        rows=[_row(row) for row in rows[:MOST]],
        more=f"{plural(len(rows) - MOST, 'more difference')} in the table." if len(rows) > MOST else "",
        early="",
        facts=[
            (name, f"{one.patients or 'unknown'} patients, {one.clusters.counts.sum():.0f} images")
            for name, one in {one.study: one for one in reversed(of_all)}.items()
        ][::-1],
        figures=[
            Figure("verdict", caption, figures.forest(bars, 0.0, label, width=4.6)),
            Figure("scores", "Macro F1 of each fold, and their mean.", figures.reach(folds, {})),
        ],
        word="pairing",
        caption="Differences in macro F1 of all test images, in percentage points.",
    )


def _headline(rows: Sequence[Difference]) -> str:
    """The one difference in a sentence, or how many of several have an interval without 0."""
    if len(rows) == 1:
        row = rows[0]
        more = "more" if row.value >= 0 else "less"
        how = PAIRED if row.paired else f"unpaired: {row.why}"
        return (
            f"`{row.challenger.name}` has {abs(100 * row.value):.1f} points of macro F1 {more} than "
            f"`{row.reference.name}` (95 % {interval(row.interval)}, {how})."
        )
    clear = sum(row.interval is not None and not row.interval[0] <= 0 <= row.interval[1] for row in rows)
    paired = sum(row.paired for row in rows)
    return (
        f"{clear} of {plural(len(rows), 'difference')} between the studies {'has' if clear == 1 else 'have'} "
        f"a 95 % interval without 0. {paired} of {len(rows)} are paired by patient."
    )


def _row(row: Difference) -> Row:
    mean, around = beside.over_folds(row)
    said = (
        f"Mean over folds: {points(mean)} ({interval(around)}, Nadeau and Bengio)."
        if row.paired
        else f"Unpaired: {row.why}. The patients of the two studies are drawn separately."
    )
    name = f"{row.challenger.name} − {row.reference.name}"
    return Row(name, points(row.value), interval(row.interval), PAIRED if row.paired else UNPAIRED, said)


def _scores(of_all: Sequence[Candidate]) -> Table:
    rows = [
        [
            one.study,
            one.arm.name,
            mean_sd(beside.folds(one)),
            percent(one.macro_f1),
            str(one.n_folds),
            str(round(float(one.clusters.counts.sum()))),
            str(one.patients or "unknown"),
        ]
        for one in of_all
    ]
    header = ["study", "arm", "macro F1, mean over folds", "macro F1, pooled", "folds", "images", "patients"]
    return Table("The arms of all studies, in per cent.", header, rows, labels=2, file="scores")


def _differences(rows: Sequence[Difference]) -> Section:
    cells = []
    for row in rows:
        mean, around = beside.over_folds(row)
        cells.append(
            [
                f"{row.challenger.name} − {row.reference.name}",
                PAIRED if row.paired else f"{UNPAIRED}: {row.why}",
                points(row.value),
                interval(row.interval),
                points(mean),
                interval(around) if row.paired else "–",
            ]
        )
    header = ["difference", "pairing", "pooled", "bootstrap 95 %", "mean over folds", "Nadeau-Bengio 95 %"]
    caption = "Differences in macro F1 of images, in percentage points. A positive one favours the first arm."
    table = Table(caption, header, cells, labels=2, file="differences")
    return Section("Differences between studies", [table, text(prose.BETWEEN_STUDIES, "note")])


def _warnings(of_all: Sequence[Candidate]) -> list[Block]:
    """A warning for each study that lacks runs, and for each with one search for all folds."""
    blocks: list[Block] = []
    for name, summary in {one.study: one.summary for one in of_all}.items():
        if summary.missing:
            total = len(summary.missing) + len(summary.runs)
            blocks.append(Text(f"{name}: {len(summary.missing)} of {total} runs have no result.", "warning"))
        if summary.clean_fold is not None:
            blocks.append(Text(f"{name}: one search for all folds, so its scores are optimistic.", "warning"))
    return blocks


def _settings(names: Sequence[str], summaries: Sequence[StudySummary]) -> list[Section]:
    """What differs between the studies: the settings that no search chose, and the data."""
    flat = [_flat(summary.base.model_dump(mode="json")) for summary in summaries]
    keys = [key for key in flat[0] if len({repr(of_study.get(key)) for of_study in flat}) > 1]
    rows = [[key, *(number(of_study.get(key)) for of_study in flat)] for key in keys]
    data = [", ".join(one[:12] for one in scores.fingerprints(summary.runs)) or "–" for summary in summaries]
    rows.append(["fingerprint of the data", *data])
    header = ["setting", *names]
    table = Table("Settings of `base` that differ, and the data.", header, rows, labels=len(header))
    return [Section("What differs between the studies", [table])]


def _flat(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Dotted key -> value."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{above}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat
