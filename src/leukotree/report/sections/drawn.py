"""The part of the section about searches that counts what they drew, and says which equal choices are one
draw."""

from __future__ import annotations

from leukotree.report import draws
from leukotree.report.blocks import Block, Table, plural, text
from leukotree.report.prose import search as prose
from leukotree.report.summary import Search, StudySummary

MOST_NAMED = 6
"""The most groups of equal choices that are listed."""


def blocks(summary: StudySummary) -> list[Block]:
    """The numbers of draws and configurations, the equal choices that are one draw, and a warning where outer
    folds share draws."""
    listed: list[Block] = [_counts(summary), text(prose.DRAWS)]
    groups, fewest = _equal_choices(summary)
    if groups:
        named = [_named(summary, group) for group in groups[:MOST_NAMED]]
        if len(groups) > MOST_NAMED:
            named.append(f"and {len(groups) - MOST_NAMED} more")
        shared = plural(fewest, "draw")
        listed.append(text(prose.EQUAL_CHOICES, "note", groups="; ".join(named), draws=shared, n=fewest))
    return [*listed, *shared_by_folds(summary)]


def shared_by_folds(summary: StudySummary) -> list[Block]:
    """A warning where searches of different outer folds share draws. Such folds are not independent."""
    shared = total = 0
    for searches in summary.searches.values():
        numbers = draws.numbered([search.trials for search in searches.values()], summary.space)
        seen: set[int] = set()
        for own in numbers:
            shared += len(seen.intersection(own.tolist()))
            total += len(own)
            seen.update(own.tolist())
    return [text(prose.FOLDS_SHARE_DRAWS, "warning", shared=shared, total=total)] if shared else []


def _searches(summary: StudySummary) -> list[Search]:
    return [search for searches in summary.searches.values() for search in searches.values()]


def _counts(summary: StudySummary) -> Table:
    """A row per variant, and one for all searches where there are several variants."""
    parts = {f"`{variant}`": list(searches.values()) for variant, searches in summary.searches.items()}
    if len(parts) > 1:
        parts["all"] = _searches(summary)
    rows = []
    for name, searches in parts.items():
        tables = [search.trials for search in searches]
        numbers = {int(number) for own in draws.numbered(tables, summary.space) for number in own}
        choices = [number for _, number in draws.chosen(searches, summary.space)]
        counts = [
            len(searches),
            sum(map(len, tables)),
            len(numbers),
            draws.configurations(tables, summary.space),
            len(choices),
            len(set(choices)),
        ]
        rows.append([name, *map(str, counts)])
    header = [
        "variant",
        "searches",
        "trials",
        "different draws",
        "different configurations",
        "choices",
        "different draws chosen",
    ]
    caption = (
        "Draws of the searches. Configurations are compared in the keys that all searches of the row have."
    )
    return Table(caption, header, rows)


def _equal_choices(summary: StudySummary) -> tuple[list[list[Search]], int]:
    """The groups of searches that chose the same draw, and the number of draws that all searches of a group
    have in common, the fewest of the groups."""
    searches = _searches(summary)
    numbers = draws.numbered([search.trials for search in searches], summary.space)
    tried = {search.folder: set(own.tolist()) for search, own in zip(searches, numbers, strict=True)}
    of_draw: dict[int, list[Search]] = {}
    for search, number in draws.chosen(searches, summary.space):
        of_draw.setdefault(number, []).append(search)
    groups = [group for group in of_draw.values() if len(group) > 1]
    common = [len(set.intersection(*(tried[search.folder] for search in group))) for group in groups]
    return groups, min(common, default=0)


def _named(summary: StudySummary, group: list[Search]) -> str:
    """trial 4 by flat, base (fold 0), flat (fold 1): the searches of a group."""
    assert group[0].best is not None
    by_fold: dict[int, list[str]] = {}
    for search in group:
        by_fold.setdefault(search.test_fold, []).append(search.variant)
    listed = [
        f"{', '.join(variants)} (fold {summary.fold_name(fold)})"
        for fold, variants in sorted(by_fold.items())
    ]
    return f"trial {group[0].best['trial']} by {', '.join(listed)}"
