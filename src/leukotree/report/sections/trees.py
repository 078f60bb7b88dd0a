"""The section about label trees: does the tree of the data help, or would any tree of its shape do?"""

from __future__ import annotations

import math
from collections.abc import Sequence

from leukotree.report import placed_trees, treeplots
from leukotree.report.blocks import (
    Block,
    Figure,
    Section,
    Table,
    Text,
    interval,
    p_value,
    percent,
    plural,
    points,
    text,
)
from leukotree.report.placed_trees import Folds, Placed
from leukotree.report.prose import verdicts as prose
from leukotree.report.summary import StudySummary
from leukotree.spec import TREE
from leukotree.stats import Judged

OF_ANY = {
    "equivalent": "this one is practically the same",
    "better": "this one is better than their mean, but not beyond their spread",
    "worse": "this one is worse than their mean",
}
"""Verdict against the mean of the permuted trees -> what it means where any tree helps."""


def section(summary: StudySummary) -> Section | None:
    """A sentence for each tree, the comparisons, the place among the permuted trees, and a figure. None for a
    study with one tree, that of the data."""
    if not any(run.tree for run in summary.runs):
        return None
    placed = placed_trees.place(summary)
    blocks: list[Block] = [Text(_sentence(one)) for one in placed]
    if not placed:
        blocks.append(text(prose.NO_CONTROL))
    else:
        blocks += [_comparisons(placed), _places(placed), _figure(placed)]
        blocks.append(text(prose.PERMUTED_TREES))
    return Section("Is it the tree?", [*blocks, *_notes(summary, placed), text(prose.ON_ONE_TREE)])


def _sentence(one: Placed) -> str:
    """What can be concluded about a tree, in one sentence."""
    controls = plural(one.place.controls, "permuted tree")
    by = f"{points(one.against_permuted.mean)} points against the mean of {controls}"
    start, verdict = f"`{one.group.name}`, tree `{one.tree}`:", one.against_permuted.verdict
    if one.answer == "tree helps":
        flat = _against_flat(one.against_flat)
        return f"{start} the tree helps. It is better than {flat}, and than trees of its shape ({by})."
    if one.answer == "tree hurts":
        return f"{start} the tree is worse than other trees of its shape ({by})."
    if one.answer == "any tree helps":
        flat = _against_flat(one.permuted_against_flat)
        more = OF_ANY.get(verdict, "it cannot be said whether this one helps more")
        of_all = f"any tree of this shape helps. Permuted trees are better than {flat}"
        return f"{start} {of_all}, and {more} ({by})."
    flat = "there is no flat arm on these folds"
    if one.against_flat is not None:
        flat = f"against {_against_flat(one.against_flat)} it is {one.against_flat.verdict}"
    return f"{start} it cannot be said whether the tree helps: {flat}; and {verdict}, {by}."


def _against_flat(row: Judged | None) -> str:
    return "flat" if row is None else f"flat ({points(row.mean)} points)"


def _comparisons(placed: Sequence[Placed]) -> Table:
    rows, seen = [], set()
    for one in placed:
        compared = {
            f"{one.tree} − flat": one.against_flat,
            "mean of the permuted − flat": one.permuted_against_flat,
            f"{one.tree} − mean of the permuted": one.against_permuted,
        }
        for name, row in compared.items():
            if row is None or (one.group.name, name) in seen:
                continue
            seen.add((one.group.name, name))
            numbers = [points(row.mean), interval(row.interval), p_value(row.p), p_value(row.p_holm)]
            rows.append([one.group.name, name, row.verdict, *numbers, str(row.folds)])
    caption = (
        "Differences in macro F1 of images, percentage points, by the corrected test over folds. These "
        "comparisons are a family of their own."
    )
    header = ["arm", "difference", "verdict", "mean", "Nadeau-Bengio 95 %", "p", "Holm p", "folds"]
    return Table(caption, header, rows, labels=3)


def _places(placed: Sequence[Placed]) -> Table:
    rows = []
    for one in placed:
        spread = (one.place.low, one.place.high)
        wins = [_won(one, other) for other in one.group.permuted.values()]
        folds = len(one.group.mean)
        rows.append(
            [
                one.group.name,
                one.tree,
                percent(one.score),
                f"{one.place.rank} of {one.place.controls + 1}",
                p_value(one.place.p),
                p_value(one.place.smallest_p),
                interval(None if math.isnan(spread[0]) else spread),
                f"{sum(wins)} of {folds * len(wins)}",
            ]
        )
    caption = "The place of each tree among the permuted ones, by the macro F1 of images in per cent."
    header = [
        "arm",
        "tree",
        "macro F1",
        "rank",
        "p of the rank",
        "smallest possible p",
        "95 % of permuted trees",
        "folds won",
    ]
    return Table(caption, header, rows, labels=2)


def _won(one: Placed, other: Folds) -> int:
    """The number of folds in which a tree is better than a permuted one."""
    own = one.group.named[one.tree]
    return sum(own[fold] > other[fold] for fold in own)


def _figure(placed: Sequence[Placed]) -> Figure:
    groups: dict[str, treeplots.Trees] = {}
    for one in placed:
        group = one.group
        groups[group.name] = treeplots.Trees(
            {tree: placed_trees.mean(folds) for tree, folds in group.named.items()},
            {tree: placed_trees.mean(folds) for tree, folds in group.permuted.items()},
            None if group.flat is None else placed_trees.mean(group.flat),
            {
                tree: {
                    name: [folds[fold] - other[fold] for fold in folds]
                    for name, other in group.permuted.items()
                }
                for tree, folds in group.named.items()
            },
        )
    caption = (
        "Left: each tree, mean over folds; grey points are permuted trees, the dashed line is flat. Right: "
        "the difference of each fold from each permuted tree; the bar is the mean."
    )
    return Figure("trees", caption, treeplots.trees(groups))


def _notes(summary: StudySummary, placed: Sequence[Placed]) -> list[Block]:
    """What is missing: permuted trees without results, and trees of another shape."""
    notes: list[Block] = []
    short = {one.group.name: one.group for one in placed if len(one.group.permuted) < one.group.expected}
    for name, group in short.items():
        shown = f"{len(group.permuted)} of {group.expected}"
        notes.append(Text(f"`{name}`: {shown} permuted trees have results on all of these folds.", "note"))
    known = {(one.group.variant, one.tree) for one in placed}
    with_tree = [
        arm for arm in summary.arms if arm.runs and TREE in arm.values and not placed_trees.is_permuted(arm)
    ]
    others = [arm.name for arm in with_tree if (arm.variant, placed_trees.tree_of(arm)) not in known]
    if placed and others:
        listed = ", ".join(others)
        notes.append(Text(f"Not placed, since no permuted tree has their shape: {listed}.", "note"))
    return notes
