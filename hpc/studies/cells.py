"""The cells of a grid as runs: expand, list, write and compare them."""

from __future__ import annotations

import contextlib
import csv
import gc
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc.studies.grid import Grid
from hpc.studies.study import Study
from hpc.tables import align
from leukotree import files
from leukotree.config import flatten
from leukotree.errors import InputError
from leukotree.records import runfolder
from leukotree.spec import RunSpec

FILE = "cells.csv"
MOST_LINES = 200
"""The table lists this many cells at most. cells.csv has all of them."""


@dataclass(frozen=True)
class Cell:
    """One run of a grid."""

    number: int
    """Number of the combination of values, from 0. All variants, folds and seeds of it have this number."""
    values: dict[str, Any]
    """Dotted key -> value, for the keys that have an effect in the variant."""
    spec: RunSpec
    run_name: str


def expand(study: Study) -> list[Cell]:
    """The cells of combinations x variants x outer folds x seeds, without the excluded ones. Each run occurs
    once: values without effect in a variant add no runs of it. Raises InputError for a combination that
    RunSpec refuses."""
    grid = study.require_grid()
    with _no_collection():
        cells = _expanded(study, grid)
    if not cells:
        raise InputError(f"study {study.study!r}: grid.exclude leaves nothing of the grid")
    return list(cells.values())


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """The context in which Python looks for no circles of objects. Specs have none, and to look through ten
    thousands of them again and again takes a third of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _expanded(study: Study, grid: Grid) -> dict[str, Cell]:
    """Run name -> cell."""
    places = [(repeat, fold, seed) for repeat, fold in study.outer_folds.values() for seed in study.seeds]
    cells: dict[str, Cell] = {}
    for number, values in enumerate(grid.combinations()):
        for variant in study.variants:
            if grid.excludes(variant, values):
                continue
            effective = study.with_effect(variant, values)
            # Parsed once for each combination: the folds and seeds of a study are checked.
            first = _spec(study, variant, effective, places[0])
            for spec in first.placed(places):
                name = spec.run_name
                cells.setdefault(name, Cell(number, effective, spec, name))
    return cells


def _spec(study: Study, variant: str, values: Mapping[str, Any], place: tuple[int, int, int]) -> RunSpec:
    repeat, fold, seed = place
    try:
        return study.spec(variant, values, fold, seed, repeat=repeat)
    except InputError as error:
        cell = ", ".join(f"{key}: {value}" for key, value in {"variant": variant, **values}.items())
        raise InputError(
            f"study {study.study!r}: no run can be {{{cell}}} ({error}); leave it out by grid.exclude"
        ) from None


def keys_of(cells: Sequence[Cell]) -> list[str]:
    """The keys of the grid that have an effect in some cell."""
    return list(dict.fromkeys(key for cell in cells for key in cell.values))


def differing(cells: Sequence[Cell]) -> list[str]:
    """The keys of the grid that have more than one value."""
    return [
        key
        for key in keys_of(cells)
        if len({repr(cell.values[key]) for cell in cells if key in cell.values}) > 1
    ]


def table(cells: Sequence[Cell]) -> list[str]:
    """A table for people: the number of runs, then the cells with the keys that differ."""
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
    """Write cells.csv into the study's folder: run_name, cell, variant, repeat, test_fold, seed and the
    grid's keys. A key without effect in the variant is empty."""
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
    """The rows of cells.csv, one per run."""
    return [
        {
            "run_name": cell.run_name,
            "cell": cell.number,
            "variant": cell.spec.variant,
            "repeat": cell.spec.data.repeat,
            "test_fold": cell.spec.data.test_fold,
            "seed": cell.spec.seed,
            **cell.values,
        }
        for cell in cells
    ]


def difference(root: Path, cells: Sequence[Cell], one: str, other: str) -> list[str]:
    """The keys that differ between two cells or runs, one line per key. A cell is given by its number. A run
    is given by its name, the start of its name, or its folder."""
    lefts, rights = _find(root, cells, one), _find(root, cells, other)
    # A cell has runs of several variants.
    pairs = ((left, right) for left in lefts for right in rights if left.variant == right.variant)
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
    specs = [cell.spec for cell in cells if str(cell.number) == name or cell.run_name == name]
    specs = specs or [cell.spec for cell in cells if cell.run_name.startswith(name)]
    if specs and (name.isdigit() or len(specs) == 1):
        return specs
    if specs:
        raise InputError(f"--diff {name}: the start of {len(specs)} run names; give more letters")
    for folder in (root / name, Path(name)):
        if (folder / runfolder.SPEC).is_file():
            return [runfolder.read_spec(folder)]
    raise InputError(
        f"--diff {name}: no cell of this grid and no run folder; use --dry-run instead to list the cells"
    )
