"""The answer: the values that the paper leaves out, as the searches of each variant found them, and how well
that is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from leukotree.report import prose, searchplots, space
from leukotree.report.blocks import Block, Figure, Section, Table, number, percent, text
from leukotree.report.importance import FLOOR, importance
from leukotree.report.sections.settings import ASKED, KEYS, NOT_STATED, hours, value_of
from leukotree.report.summary import Search, StudySummary

TOP = 5
"""Trials of a search whose values make the interval; half of the completed ones if there are fewer than twice
as many."""
MAPS = (("optim.lr", "optim.batch_size", "map-lr-batch"), ("loss.gamma", "loss.tau", "map-gamma-tau"))
HEADER = (
    "setting",
    "paper's value",
    "searched range",
    "chosen value",
    "interval over the top trials",
    "importance",
    "on the border?",
)


@dataclass(frozen=True)
class Answer:
    """What the searches of one variant say about one key."""

    chosen: list[Any]
    """Of each search that has ended."""
    top: list[Any]
    """Of the best trials of each search, by its own scores."""
    importance: float | None
    """From the trials of all searches together; None where it is not estimable."""
    borders: dict[int, str]
    """Outer fold -> "lower" or "upper", where the chosen value lies on the border."""


def answers(searches: Mapping[int, Search], domains: Mapping[str, space.Domain]) -> dict[str, Answer]:
    """Searched key -> what is known of it; `searches`: outer fold -> search, of one variant."""
    known = importance([search.trials for search in searches.values()], domains) or {}
    best = pd.concat([top(search.trials) for search in searches.values()])
    return {
        key: Answer(
            chosen=[search.chosen[key] for search in searches.values() if key in search.chosen],
            top=best[key].tolist(),
            importance=known.get(key),
            borders={
                fold: side
                for fold, search in searches.items()
                if key in search.chosen and (side := space.border(domain, search.chosen[key]))
            },
        )
        for key, domain in domains.items()
        if key in best
    }


def top(trials: pd.DataFrame) -> pd.DataFrame:
    """The best completed trials of a search, the best first."""
    done = trials[(trials["state"] == "completed") & trials["macro_f1"].notna()]
    return done.sort_values("macro_f1", ascending=False, kind="stable").head(min(TOP, -(-len(done) // 2)))


def section(summary: StudySummary) -> Section | None:
    """A table per variant, warnings, maps, marginals and cost; None for a study that searches nothing."""
    if not summary.searches or not summary.space:
        return None
    found = {variant: answers(searches, summary.space) for variant, searches in summary.searches.items()}
    inner = int((summary.study.get("folds") or {}).get("inner") or 0)
    tables = [_table(summary, variant, keys) for variant, keys in found.items()]
    blocks: list[Block] = [*tables, *_warnings(summary, found)]
    blocks.append(text(prose.ANSWER, folds=inner, top=TOP, floor=FLOOR))
    return Section("The answer: what the paper leaves out", [*blocks, *_figures(summary)])


def _table(summary: StudySummary, variant: str, found: Mapping[str, Answer]) -> Table:
    """The keys that the paper leaves open, then whatever else is searched."""
    rows = []
    for key in dict.fromkeys([*ASKED, *(key for key in summary.space if key in found)]):
        name, paper = KEYS.get(key, (key, NOT_STATED))
        if key not in found:
            rows.append([name, paper, "not searched", number(value_of(summary.base, key)), "–", "–", "–"])
            continue
        answer, domain = found[key], summary.space[key]
        chosen = space.middle(domain, answer.chosen) if answer.chosen else "–"
        rows.append(
            [
                name,
                paper,
                space.shown(domain),
                chosen,
                space.span(domain, answer.top),
                _importance(answer),
                _border(answer),
            ]
        )
    folds = sum(search.best is not None for search in summary.searches[variant].values())
    which = f"median and range over the searches of {folds} outer folds" if folds > 1 else "of one search"
    return Table(f"`{variant}`: {which}.", HEADER, rows, labels=len(HEADER))


def _importance(answer: Answer) -> str:
    return "not estimable" if answer.importance is None else f"{percent(answer.importance)} %"


def _border(answer: Answer) -> str:
    if not answer.chosen:
        return "–"
    sides = list(answer.borders.values())
    named = [f"{side} border, {sides.count(side)} of {len(answer.chosen)}" for side in dict.fromkeys(sides)]
    return ("; ".join(named) if len(answer.chosen) > 1 else f"{sides[0]} border") if sides else "no"


def _warnings(summary: StudySummary, found: Mapping[str, Mapping[str, Answer]]) -> list[Block]:
    blocks: list[Block] = []
    if waiting := pending(summary):
        blocks.append(text(prose.NO_SEARCH, "warning", variants=", ".join(waiting)))
    flagged = []
    for variant, keys in found.items():
        for key, answer in keys.items():
            folds = f" (fold {', '.join(map(str, answer.borders))})" if summary.nested else ""
            flagged += [f"{key} of {variant}{folds}"] if answer.borders else []
    if flagged:
        blocks.append(
            text(prose.BORDER, "warning", share=round(100 * space.BORDER_SHARE), keys=", ".join(flagged))
        )
    return blocks


def pending(summary: StudySummary) -> list[str]:
    """The variants, with folds where searches are nested, whose search has not ended."""
    folds = int((summary.study.get("folds") or {}).get("outer") or 0)
    wanted = range(folds) if summary.nested else [summary.base.data.test_fold]
    waiting = []
    for variant in summary.variants:
        ended = {fold for fold, search in summary.searches.get(variant, {}).items() if search.best}
        missing = [str(fold) for fold in wanted if fold not in ended]
        named = f"{variant} (fold {', '.join(missing)})" if summary.nested else variant
        waiting += [named] if missing else []
    return waiting


def _figures(summary: StudySummary) -> list[Block]:
    scored = {
        variant: [search.trials for search in searches.values() if search.trials["macro_f1"].notna().any()]
        for variant, searches in summary.searches.items()
    }
    if not (trials := {variant: tables for variant, tables in scored.items() if tables}):
        return []
    domains = {
        key: domain
        for key, domain in summary.space.items()
        if any(key in table for tables in trials.values() for table in tables)
    }
    blocks: list[Block] = []
    for across, up, name in MAPS:
        both = {
            variant: tables
            for variant, tables in trials.items()
            if all({across, up} <= set(table) for table in tables)
        }
        if both and {across, up} <= set(domains):
            caption = f"`{across}` against `{up}`: the trials, coloured by score. Hollow: stopped early."
            blocks.append(
                Figure(name, caption, searchplots.plane(both, (across, domains[across]), (up, domains[up])))
            )
    if domains:
        blocks.append(Figure("marginals", text(prose.MARGINALS).text, searchplots.marginals(trials, domains)))
    unit = hours(summary)
    caption = (
        f"The best completed trial so far against the {unit} of all trials until then; a line per search."
    )
    blocks.append(Figure("best-so-far", caption, searchplots.best_so_far(trials, unit)))
    return blocks
