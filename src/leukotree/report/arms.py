"""The arms of a study, their names, and the comparisons that the study declares between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from leukotree import spec as specs
from leukotree.errors import InputError
from leukotree.report.summary import Arm

Row = Mapping[str, Any]
"""An expected run, see `collect.collect`."""
RUN_COLUMNS = ("run_name", "cell", "variant", "repeat", "test_fold", "seed")
"""The columns of a grid's rows that are not keys of the grid."""
MATCHED = ("base", "ensemble")
"""Variants with as many models, steps and parameters: what differs is the tree."""


def from_rows(expected: Sequence[Row], cells: Sequence[Row]) -> list[tuple[Arm, list[Row]]]:
    """The arms without runs, each with the rows of its runs: one for each variant of `expected`, and one for
    each cell and variant of `cells`."""
    of_variant: dict[str, list[Row]] = {}
    for row in expected:
        of_variant.setdefault(row["variant"], []).append(row)
    of_cell: dict[tuple[str, int], list[Row]] = {}
    for row in cells:
        of_cell.setdefault((row["variant"], row["cell"]), []).append(row)
    values = {
        place: {key: value for key, value in rows[0].items() if key not in RUN_COLUMNS}
        for place, rows in of_cell.items()
    }
    pairs = [(Arm(variant, variant, None, {}, ()), rows) for variant, rows in of_variant.items()]
    used = set(of_variant)
    for (variant, cell), rows in of_cell.items():
        of_all = [values[place] for place in of_cell if place[0] == variant]
        name = _name(variant, values[variant, cell], of_all)
        name = f"{variant} cell={cell}" if name in used else name
        used.add(name)
        pairs.append((Arm(name, variant, cell, values[variant, cell], ()), rows))
    return pairs


def _name(variant: str, values: Mapping[str, Any], of_all: Sequence[Mapping[str, Any]]) -> str:
    """The name of a cell: the variant, and the values of the keys that differ between the variant's cells."""
    differ = [key for key in values if len({repr(other.get(key)) for other in of_all}) > 1]
    short = [key.rpartition(".")[2] for key in differ]
    named = [last if short.count(last) == 1 else key for key, last in zip(differ, short, strict=True)]
    return " ".join([variant, *(f"{name}={values[key]}" for key, name in zip(differ, named, strict=True))])


def primary(
    study: Mapping[str, Any], variants: Sequence[str], arms: Sequence[Arm]
) -> tuple[tuple[str, str], ...]:
    """The declared comparisons: pairs of arms' names (challenger, reference).

    A study that declares none compares each arm with the flat arm that has the same values, and `base` also
    with the ensemble of as many models. Raises InputError for a name that is no arm. Before a grid has begun
    its arms are not known, so any name is accepted.
    """
    declared = study.get("primary")
    # A variant is no arm before its search has ended, but it can be named.
    names = list(dict.fromkeys([*(arm.name for arm in arms), *variants]))
    grid_to_come = study.get("grid") and all(arm.cell is None for arm in arms)
    for name in [name for pair in declared or () for name in pair]:
        if name not in names and not grid_to_come:
            raise InputError(
                f"study {study.get('study')}: primary: {name!r} is none of its arms: {', '.join(names)}"
            )
    if declared is not None:
        return tuple((challenger, reference) for challenger, reference in declared)
    return tuple(
        (arm.name, flat.name)
        for arm in arms
        for flat in arms
        if ((arm.variant != "flat" and flat.variant == "flat") or (arm.variant, flat.variant) == MATCHED)
        and (arm.cell is None) == (flat.cell is None)
        and all(arm.values.get(key) == value for key, value in flat.values.items())
    )


def check_primary(study: Mapping[str, Any], cells: Sequence[Row]) -> None:
    """Raises InputError where `primary` names an arm that a study with these cells (see `collect.collect`)
    cannot have."""
    searched = (study.get("search") or {}).get("trials") != 0
    variants = tuple(study.get("variants") or specs.COMPARED)
    expected = [{"variant": variant} for variant in variants if searched]
    primary(study, variants, [arm for arm, _ in from_rows(expected, cells)])
