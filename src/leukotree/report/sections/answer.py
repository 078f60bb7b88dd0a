"""The section about the settings that the paper leaves out: the chosen values, and how certain they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from leukotree.report import draws, searchplots, space
from leukotree.report.blocks import (
    Block,
    Figure,
    Folded,
    Section,
    Table,
    number,
    percent,
    probability,
    share,
    text,
)
from leukotree.report.optimum import posterior
from leukotree.report.prose import search as prose
from leukotree.report.sections.settings import ASKED, KEYS, NOT_STATED, hours, value_of
from leukotree.report.summary import Search, StudySummary
from leukotree.spec import without_effect_in
from leukotree.stats import optimum
from leukotree.stats.optimum import Optimum, Region

MAPS = (
    ("optim.lr", "optim.batch_size", "map-lr-batch"),
    ("loss.gamma", "loss.tau", "map-gamma-tau"),
)
"""Key across, key up, name of the figure."""
NOT_ESTIMABLE = "not estimable"
QUESTIONS = ("chosen", "80 % region of the best", "best on the border", "good enough", "importance")
"""The rows of a searched key."""


@dataclass(frozen=True)
class Answer:
    """The result of the searches of one variant for one key."""

    chosen: dict[int, Any]
    """Outer fold -> the chosen value, of each search that has ended. Of several searches that chose the same
    draw, only the first."""
    borders: dict[int, str]
    """Outer fold -> "lower" or "upper", for the folds whose chosen value lies on the border."""
    known: Known | None
    """What the trials of all searches together say. None where it is not estimable."""


@dataclass(frozen=True)
class Known:
    """What a posterior says of one key."""

    region: Region
    border: float
    """The probability that the best value is on the border. NaN for a choice without an order."""
    default: float
    """The probability that the default is good enough. NaN for a default outside of the range."""
    importance: tuple[float, tuple[float, float]]
    """The share of the variance that the key explains by itself, with its 90 % interval."""


def answers(
    searches: Mapping[int, Search],
    domains: Mapping[str, space.Domain],
    found: Optimum | None,
    defaults: Mapping[str, Any],
) -> dict[str, Answer]:
    """Searched key -> its answer.

    Args:
        searches: outer fold -> search, of one variant.
        found: their posterior.
        defaults: searched key -> the paper's value, or the default.
    """
    first = draws.chosen_first(searches, domains)
    return {
        key: Answer(
            chosen={fold: search.chosen[key] for fold, search in first.items() if key in search.chosen},
            borders={
                fold: side
                for fold, search in searches.items()
                if key in search.chosen and (side := space.border(domain, search.chosen[key]))
            },
            known=_known(found, key, defaults[key]) if found and key in found.cube.keys else None,
        )
        for key, domain in domains.items()
        if any(key in search.trials for search in searches.values())
    }


def _known(found: Optimum, key: str, default: Any) -> Known:
    k = found.cube.keys.index(key)
    shares = found.shares[:, k]
    importance = float(shares.mean()), optimum.interval(shares)
    return Known(found.region(k), found.border(k), found.within(k, default), importance)


def section(summary: StudySummary) -> Section | None:
    """A table with a column per variant, warnings, and figures. None for a study that searches nothing."""
    if not summary.searches or not summary.space:
        return None
    posteriors = {
        variant: posterior(list(searches.values()), summary.space)
        for variant, searches in summary.searches.items()
    }
    defaults = {key: _default(summary, key)[1] for key in summary.space}
    of_variants = {
        variant: answers(searches, summary.space, posteriors[variant], defaults)
        for variant, searches in summary.searches.items()
    }
    inner = int((summary.study.get("folds") or {}).get("inner") or 0)
    floor, width = optimum.floor(len(summary.space)), round(100 * space.BORDER_SHARE)
    how = text(prose.ANSWER, folds=inner, floor=floor, share=width)
    blocks: list[Block] = [_values(summary, of_variants), *_warnings(summary, of_variants), how]
    if drawn := _figures(summary, posteriors):
        blocks.append(Folded("A look into the trials.", drawn))
    return Section("The answer: what the paper leaves out", blocks)


def _default(summary: StudySummary, key: str) -> tuple[str, Any]:
    """Whose value a key has without a search, and the value: the paper's where it states one."""
    paper = KEYS.get(key, (key, NOT_STATED))[1]
    try:
        return "the paper's", float(paper)
    except ValueError:
        return "the default", value_of(summary.base, key)


def _values(summary: StudySummary, of_variants: Mapping[str, Mapping[str, Answer]]) -> Table:
    """A row for each question about a setting, a column for each variant."""
    rows = []
    searched = [key for key in summary.space if any(key in of_keys for of_keys in of_variants.values())]
    for key in dict.fromkeys([*ASKED, *searched]):
        name, paper = KEYS.get(key, (key, NOT_STATED))
        if key not in searched:
            cells = [_fixed(summary, variant, key) for variant in of_variants]
            rows.append([name, paper, "not searched", "fixed", *cells])
            continue
        domain = summary.space[key]
        columns = [_column(domain, of[key]) if key in of else NOTHING for of in of_variants.values()]
        whose, default = _default(summary, key)
        for i, question in enumerate(QUESTIONS):
            asked = f"{whose} {number(default)} is good enough" if i == 3 else question
            rows.append([name, paper, space.as_text(domain), asked, *(column[i] for column in columns)])
    header = ["setting", "paper's value", "searched range", "what", *of_variants]
    caption = (
        "Chosen: the median over the searches, with the lowest and the highest where they differ. On the "
        "border, good enough: probabilities. Importance: per cent of the variance, with its 90 % interval."
    )
    return Table(caption, header, rows, labels=len(header), file="values")


NOTHING = ["–"] * len(QUESTIONS)
"""The cells of a key without effect in a variant."""


def _column(domain: space.Domain, answer: Answer) -> list[str]:
    """The cells of a searched key in one variant, see QUESTIONS."""
    chosen = space.middle(domain, answer.chosen.values()) if answer.chosen else "–"
    border = f"; {_border(answer)}" if answer.borders else ""
    if (known := answer.known) is None:
        return [chosen + border, *[NOT_ESTIMABLE] * (len(QUESTIONS) - 1)]
    return [
        chosen + border,
        _region(domain, known.region),
        probability(known.border),
        probability(known.default),
        share(*known.importance),
    ]


def _region(domain: space.Domain, region: Region) -> str:
    """A range from its lowest to its highest value. Options with their probability."""
    if "choice" in domain:
        return f"{', '.join(map(number, region.values))} ({percent(region.mass)} %)"
    return " to ".join(number(float(value)) for value in region.values)


def _fixed(summary: StudySummary, variant: str, key: str) -> str:
    """The value of a key that was not searched, if it has an effect in the variant."""
    return "–" if key in without_effect_in(variant) else number(value_of(summary.base, key))


def _border(answer: Answer) -> str:
    """The border of the chosen value, as text. For several chosen draws, with the number of those on it."""
    sides = [answer.borders[fold] for fold in answer.chosen if fold in answer.borders]
    named = [f"{side} border, {sides.count(side)} of {len(answer.chosen)}" for side in dict.fromkeys(sides)]
    return "; ".join(named) if len(answer.chosen) > 1 else f"{sides[0]} border"


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
        width = round(100 * space.BORDER_SHARE)
        blocks.append(text(prose.BORDER, "warning", share=width, keys=", ".join(on_border)))
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


def _figures(summary: StudySummary, posteriors: Mapping[str, Optimum | None]) -> list[Block]:
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
        found = {variant: posteriors[variant] for variant in trials}
        marginals = searchplots.marginals(trials, domains, found)
        blocks.append(Figure("marginals", text(prose.MARGINALS).text, marginals))
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
