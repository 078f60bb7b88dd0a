"""The section about the settings that the paper leaves out: the chosen values, and how certain they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from leukotree.report import draws, searchplots, space
from leukotree.report.blocks import Block, Figure, Folded, Section, Table, number, percent, plural, text
from leukotree.report.importance import FLOOR, importance
from leukotree.report.prose import search as prose
from leukotree.report.sections.settings import ASKED, KEYS, NOT_STATED, hours, value_of
from leukotree.report.summary import Search, StudySummary
from leukotree.spec import without_effect_in

TOP = 5
"""The number of a search's best trials whose values make the interval. It is half of the completed trials if
these are fewer than twice this number."""
MAPS = (
    ("optim.lr", "optim.batch_size", "map-lr-batch"),
    ("loss.gamma", "loss.tau", "map-gamma-tau"),
)
"""Key across, key up, name of the figure."""
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
    """The result of the searches of one variant for one key."""

    chosen: dict[int, Any]
    """Outer fold -> the chosen value, of each search that has ended. Of several searches that chose the same
    draw, only the first."""
    top: list[Any]
    """The values of the best trials of each search, each draw once."""
    importance: float | None
    """From the trials of all searches together. None where it is not estimable."""
    borders: dict[int, str]
    """Outer fold -> "lower" or "upper", for the folds whose chosen value lies on the border."""


def answers(searches: Mapping[int, Search], domains: Mapping[str, space.Domain]) -> dict[str, Answer]:
    """Searched key -> its answer. `searches`: outer fold -> search, of one variant."""
    tables = [search.trials for search in searches.values()]
    importances = importance(tables, domains) or {}
    numbers = draws.numbered(tables, domains)
    best = pd.concat(
        [top(table.assign(draw=own)) for table, own in zip(tables, numbers, strict=True)]
    ).drop_duplicates("draw")
    first = draws.chosen_first(searches, domains)
    return {
        key: Answer(
            chosen={fold: search.chosen[key] for fold, search in first.items() if key in search.chosen},
            top=best[key].tolist(),
            importance=importances.get(key),
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
    """A table per variant, warnings, and figures. None for a study that searches nothing."""
    if not summary.searches or not summary.space:
        return None
    of_variants = {
        variant: answers(searches, summary.space) for variant, searches in summary.searches.items()
    }
    inner = int((summary.study.get("folds") or {}).get("inner") or 0)
    tables = [_table(summary, variant, of_keys) for variant, of_keys in of_variants.items()]
    blocks: list[Block] = [_values(summary, of_variants), *_warnings(summary, of_variants)]
    how = text(prose.ANSWER, folds=inner, top=TOP, floor=FLOOR)
    blocks.append(Folded("Each variant by itself, with the importance of each setting.", [*tables, how]))
    if drawn := _figures(summary):
        blocks.append(Folded("A look into the trials.", drawn))
    return Section("The answer: what the paper leaves out", blocks)


def _values(summary: StudySummary, of_variants: Mapping[str, Mapping[str, Answer]]) -> Table:
    """A row for each setting, a column for each variant: the chosen value, its interval over the top trials,
    and whether it lies on the border of the range."""
    rows = []
    searched = [key for key in summary.space if any(key in of_keys for of_keys in of_variants.values())]
    for key in dict.fromkeys([*ASKED, *searched]):
        name, paper = KEYS.get(key, (key, NOT_STATED))
        cells = [_value(summary, variant, key, of.get(key)) for variant, of in of_variants.items()]
        domain = space.as_text(summary.space[key]) if key in searched else "not searched"
        rows.append([name, paper, domain, *cells])
    header = ["setting", "paper's value", "searched range", *of_variants]
    caption = (
        "Chosen values: the median over the searches, with the lowest and the highest where they differ. "
        "Top: the lowest to the highest of the top trials. A border: the value lies on that end of the range."
    )
    return Table(caption, header, rows, labels=len(header), file="values")


def _fixed(summary: StudySummary, variant: str, key: str) -> str:
    """The value of a key that was not searched, if it has an effect in the variant."""
    return "–" if key in without_effect_in(variant) else number(value_of(summary.base, key))


def _value(summary: StudySummary, variant: str, key: str, answer: Answer | None) -> str:
    if answer is None:
        return "–" if key in summary.space else _fixed(summary, variant, key)
    domain = summary.space[key]
    chosen = space.middle(domain, answer.chosen.values()) if answer.chosen else "–"
    border = _border(answer) if answer.borders else ""
    return f"{chosen}; top: {space.span(domain, answer.top)}" + (f"; {border}" if border else "")


def _table(summary: StudySummary, variant: str, of_keys: Mapping[str, Answer]) -> Table:
    """A row for each setting that the paper leaves out, then for each other searched key."""
    rows = []
    for key in dict.fromkeys([*ASKED, *(key for key in summary.space if key in of_keys)]):
        name, paper = KEYS.get(key, (key, NOT_STATED))
        if key not in of_keys:
            rows.append([name, paper, "not searched", _fixed(summary, variant, key), "–", "–", "–"])
            continue
        answer, domain = of_keys[key], summary.space[key]
        chosen = space.middle(domain, answer.chosen.values()) if answer.chosen else "–"
        known = [chosen, space.span(domain, answer.top), _importance(answer), _border(answer)]
        rows.append([name, paper, space.as_text(domain), *known])
    searches = summary.searches[variant]
    folds = sum(search.best is not None for search in searches.values())
    which = f"median and range over the searches of {folds} outer folds" if folds > 1 else "of one search"
    if (chosen_draws := len(draws.chosen_first(searches, summary.space))) < folds:
        which += f", which chose {plural(chosen_draws, 'draw')}"
    return Table(f"`{variant}`: {which}.", HEADER, rows, labels=len(HEADER))


def _importance(answer: Answer) -> str:
    return "not estimable" if answer.importance is None else f"{percent(answer.importance)} %"


def _border(answer: Answer) -> str:
    """The border of the chosen value, as text. For several chosen draws, with the number of those on it."""
    if not answer.chosen:
        return "–"
    sides = [answer.borders[fold] for fold in answer.chosen if fold in answer.borders]
    named = [f"{side} border, {sides.count(side)} of {len(answer.chosen)}" for side in dict.fromkeys(sides)]
    return ("; ".join(named) if len(answer.chosen) > 1 else f"{sides[0]} border") if sides else "no"


def _warnings(summary: StudySummary, of_variants: Mapping[str, Mapping[str, Answer]]) -> list[Block]:
    """Warnings for searches that have not ended, and for chosen values on a border."""
    blocks: list[Block] = []
    if variants := _not_ended(summary):
        blocks.append(text(prose.NO_SEARCH, "warning", variants=", ".join(variants)))
    on_border = []
    for variant, of_keys in of_variants.items():
        for key, answer in of_keys.items():
            folds = f" (fold {', '.join(map(summary.fold_name, answer.borders))})" if summary.nested else ""
            on_border += [f"{key} of {variant}{folds}"] if answer.borders else []
    if on_border:
        share = round(100 * space.BORDER_SHARE)
        blocks.append(text(prose.BORDER, "warning", share=share, keys=", ".join(on_border)))
    return blocks


def _not_ended(summary: StudySummary) -> list[str]:
    """The variants whose search has not ended, with the folds where searches are nested."""
    folds = int((summary.study.get("folds") or {}).get("outer") or 0) * summary.repeats
    expected = range(folds) if summary.nested else [summary.base.data.test_fold]
    variants = []
    for variant in summary.variants:
        ended = {fold for fold, search in summary.searches.get(variant, {}).items() if search.best}
        missing = [summary.fold_name(fold) for fold in expected if fold not in ended]
        name = f"{variant} (fold {', '.join(missing)})" if summary.nested else variant
        variants += [name] if missing else []
    return variants


def _figures(summary: StudySummary) -> list[Block]:
    """Maps of two keys, the score against each key, and the best score against cost. Empty without a scored
    trial."""
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
    blocks: list[Block] = [*_maps(trials, domains)]
    if domains:
        blocks.append(Figure("marginals", text(prose.MARGINALS).text, searchplots.marginals(trials, domains)))
        caption = text(prose.PARALLEL).text
        blocks.append(Figure("parallel", caption, searchplots.parallel(trials, domains)))
    unit = hours(summary)
    caption = (
        f"The best score of the completed trials against the {unit} of all trials. Each line is a search."
    )
    blocks.append(Figure("best-so-far", caption, searchplots.best_so_far(trials, unit)))
    return blocks


def _maps(trials: searchplots.Trials, domains: Mapping[str, space.Domain]) -> list[Figure]:
    """A figure for each pair of MAPS that was searched, of the variants whose trials have both keys."""
    maps = []
    for across, up, name in MAPS:
        both = {
            variant: tables
            for variant, tables in trials.items()
            if all({across, up} <= set(table) for table in tables)
        }
        if both and {across, up} <= set(domains):
            caption = f"`{across}` against `{up}`. Trials are coloured by score. Hollow: stopped early."
            png = searchplots.plane(both, (across, domains[across]), (up, domains[up]))
            maps.append(Figure(name, caption, png))
    return maps
