"""The cells of a grid as runs: expanded, without doubles, listed, written down and compared."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc.studies.study import Study
from hpc.tables import align
from leukotree import files, yamlfile
from leukotree.config import flatten, parse
from leukotree.errors import InputError
from leukotree.spec import RunSpec

FILE = "cells.csv"
MOST_LINES = 200
"""Cells that the table lists; cells.csv has them all."""


@dataclass(frozen=True)
class Cell:
    """One run of a grid."""

    number: int
    """Of the combination of values, from 0; the variants, folds and seeds share it."""
    values: dict[str, Any]
    """Dotted key -> value, of those that say something to the variant."""
    spec: RunSpec
    run_name: str


def expand(study: Study) -> list[Cell]:
    """Combinations x variants x outer folds x seeds, without those that are excluded, and each run once:
    values that say nothing to a variant make no more runs of it. Raises InputError for values that a RunSpec
    refuses together."""
    grid = study.require_grid()
    found: dict[str, Cell] = {}
    for number, values in enumerate(grid.combinations()):
        for variant in study.variants:
            if grid.excludes(variant, values):
                continue
            ours = study.telling(variant, values)
            for fold in range(study.folds.outer):
                for seed in study.seeds:
                    spec = _spec(study, variant, ours, fold, seed)
                    found.setdefault(spec.run_name, Cell(number, ours, spec, spec.run_name))
    if not found:
        raise InputError(f"study {study.study!r}: grid.exclude leaves nothing of the grid")
    return list(found.values())


def _spec(study: Study, variant: str, values: Mapping[str, Any], fold: int, seed: int) -> RunSpec:
    try:
        return study.spec(variant, values, fold, seed)
    except InputError as error:
        cell = ", ".join(f"{key}: {value}" for key, value in {"variant": variant, **values}.items())
        raise InputError(
            f"study {study.study!r}: no run can be {{{cell}}} ({error}); leave it out by grid.exclude"
        ) from None


def keys_of(cells: Sequence[Cell]) -> list[str]:
    """The keys of the grid; a cell has those that say something to its variant."""
    return list(dict.fromkeys(key for cell in cells for key in cell.values))


def differing(cells: Sequence[Cell]) -> list[str]:
    """The keys of the grid that have more than one value."""
    return [
        key
        for key in keys_of(cells)
        if len({repr(cell.values[key]) for cell in cells if key in cell.values}) > 1
    ]


def table(cells: Sequence[Cell]) -> list[str]:
    """For people: how many runs, then the cells with the keys that differ."""
    by_number: dict[int, list[Cell]] = {}
    for cell in cells:
        by_number.setdefault(cell.number, []).append(cell)
    keys = differing(cells)
    lines = [["cell", *keys, "variants", "runs"]]
    for number, group in list(by_number.items())[:MOST_LINES]:
        variants = " ".join(dict.fromkeys(cell.spec.variant for cell in group))
        values = {key: value for cell in group for key, value in cell.values.items()}
        lines.append([str(number), *(str(values.get(key, "-")) for key in keys), variants, str(len(group))])
    more = len(by_number) - MOST_LINES
    rest = [f"... and {more} more"] if more > 0 else []
    return [f"{len(by_number)} cells, {len(cells)} runs", *align(lines), *rest]


def write(root: Path, cells: Sequence[Cell]) -> Path:
    """Write cells.csv into the study's folder: run_name, cell, variant, test_fold, seed and the grid's keys
    (empty where one says nothing to the variant)."""
    text = io.StringIO()
    table = rows(cells)
    writer = csv.DictWriter(
        text, list(dict.fromkeys(key for row in table for key in row)), lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(table)
    root.mkdir(parents=True, exist_ok=True)
    files.write_atomic(root / FILE, text.getvalue())
    return root / FILE


def rows(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """The rows of cells.csv, one for each run."""
    return [
        {
            "run_name": cell.run_name,
            "cell": cell.number,
            "variant": cell.spec.variant,
            "test_fold": cell.spec.data.test_fold,
            "seed": cell.spec.seed,
            **cell.values,
        }
        for cell in cells
    ]


def difference(root: Path, cells: Sequence[Cell], one: str, other: str) -> list[str]:
    """What differs between two cells (by number) or runs (by name, the begin of one, or folder), a line for
    each key."""
    lefts, rights = _find(root, cells, one), _find(root, cells, other)
    pairs = (
        (left, right) for left in lefts for right in rights if left.variant == right.variant
    )  # a cell has several
    left, right = next(pairs, (lefts[0], rights[0]))
    first, second = flatten(left.model_dump(mode="json")), flatten(right.model_dump(mode="json"))
    changed = [
        [key, str(first.get(key)), str(second.get(key))]
        for key in {**first, **second}
        if first.get(key) != second.get(key)
    ]
    return align([["key", one, other], *changed]) if changed else [f"{one} and {other} are the same run"]


def _find(root: Path, cells: Sequence[Cell], name: str) -> list[RunSpec]:
    """The runs of a cell, or one run."""
    found = [cell.spec for cell in cells if str(cell.number) == name or cell.run_name == name]
    found = found or [cell.spec for cell in cells if cell.run_name.startswith(name)]
    if found and (name.isdigit() or len(found) == 1):
        return found
    if found:
        raise InputError(f"--diff {name}: the begin of {len(found)} runs; give more of it")
    for folder in (root / name, Path(name)):
        if (folder / "spec.yaml").is_file():
            return [parse(RunSpec, yamlfile.load(folder / "spec.yaml"), str(folder / "spec.yaml"))]
    raise InputError(
        f"--diff {name}: no cell of this grid, and no run folder; --dry-run in place of --diff lists the cells"
    )
