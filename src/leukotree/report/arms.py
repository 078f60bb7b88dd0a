"""The arms of a study, their names, and the comparisons that the study declares between them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from leukotree import spec as specs
from leukotree.errors import InputError
from leukotree.report.summary import Arm

Row = Mapping[str, Any]
"""An expected run, see `collect.collect`."""
RUN_COLUMNS = ("run_name", "cell", "variant", "repeat", "test_fold", "seed")
"""The columns of a grid's rows that are not keys of the grid."""
TRAIN = "backbone.train"
ALIKE = {"loss.isolation": ("shared",), "loss.kind": ("focal", "conditional")}
"""The values with which a head of `multilabel` on a frozen backbone has the inputs and the loss of one of
`base`."""
MATCHED = ("base", "ensemble")
"""Variants with as many models, steps and parameters: what differs is the tree."""
MOST_NAMES = 50
"""Largest number of arms in an error."""


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
    differing = _differing(values)
    for (variant, cell), rows in of_cell.items():
        name = _name(variant, values[variant, cell], differing[variant])
        name = f"{variant} cell={cell}" if name in used else name
        used.add(name)
        pairs.append((Arm(name, variant, cell, values[variant, cell], ()), rows))
    return pairs


def _differing(values: Mapping[tuple[str, int], Mapping[str, Any]]) -> dict[str, set[str]]:
    """Variant -> the keys that differ between its cells, from (variant, cell) -> the values of the cell. A
    cell without a key differs from those that have it."""
    of_variant: dict[str, list[Mapping[str, Any]]] = {}
    for (variant, _), of_cell in values.items():
        of_variant.setdefault(variant, []).append(of_cell)
    differing: dict[str, set[str]] = {}
    for variant, cells in of_variant.items():
        keys = {key for cell in cells for key in cell}
        differing[variant] = {key for key in keys if len({repr(cell.get(key)) for cell in cells}) > 1}
    return differing


def _name(variant: str, values: Mapping[str, Any], differing: Collection[str]) -> str:
    """The name of a cell: the variant, and the values of the keys that differ between the variant's cells."""
    differ = [key for key in values if key in differing]
    short = [key.rpartition(".")[2] for key in differ]
    named = [last if short.count(last) == 1 else key for key, last in zip(differ, short, strict=True)]
    return " ".join([variant, *(f"{name}={values[key]}" for key, name in zip(differ, named, strict=True))])


def primary(
    study: Mapping[str, Any], variants: Sequence[str], arms: Sequence[Arm]
) -> tuple[tuple[str, str], ...]:
    """The declared comparisons: pairs of arms' names (challenger, reference).

    A study that declares none compares each arm with the flat arm that has the same values, and `base` also
    with the ensemble of as many models. `logistic` and `neighbours` are compared only where that is declared.
    On a frozen backbone `base` and `multilabel` are nearly the same, so there `base` is left out where both
    are. Raises InputError for a name that is no arm. Before a grid has begun its arms are not known, so any
    name is accepted.
    """
    declared = study.get("primary")
    # A variant is no arm before its search has ended, but it can be named.
    names = dict.fromkeys([*(arm.name for arm in arms), *variants])
    grid_to_come = study.get("grid") and all(arm.cell is None for arm in arms)
    for name in [name for pair in declared or () for name in pair]:
        if name not in names and not grid_to_come:
            raise InputError(
                f"study {study.get('study')}: primary: {name!r} is none of its arms: {_listed(names)}"
            )
    if declared is not None:
        return tuple((challenger, reference) for challenger, reference in declared)
    same = set(like_multilabel(arms, study.get("base") or {}))
    pairs = _with_references(arms)
    return tuple((arm.name, reference.name) for arm, reference in pairs if arm.name not in same)


def like_multilabel(arms: Sequence[Arm], base: Mapping[str, Any]) -> list[str]:
    """The names of the arms of `base` on a frozen backbone, if there are arms of `multilabel` there whose
    heads have the same inputs and losses. `base`: the values of an arm that has none of its own."""

    def value(arm: Arm, key: str) -> Any:
        group, name = key.split(".")
        return arm.values.get(key, (base.get(group) or {}).get(name))

    on_heads = [arm for arm in arms if value(arm, TRAIN) == "head"]
    if not any(
        arm.variant == "multilabel" and all(value(arm, key) in (None, *same) for key, same in ALIKE.items())
        for arm in on_heads
    ):
        return []
    return [arm.name for arm in on_heads if arm.variant == "base"]


def _listed(names: Collection[str]) -> str:
    """The first names, and the number of the others."""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(list(names)[:MOST_NAMES]) + more


def _with_references(arms: Sequence[Arm]) -> Iterator[tuple[Arm, Arm]]:
    """Each arm with the arms that it is compared with where nothing is declared, see `primary`.

    Arms are looked up by their values: a grid may have ten thousand, and pairs of them are a hundred million.
    """
    # (whether it is a cell, variant, keys) -> values -> places of such arms
    places: dict[tuple[bool, str, tuple[str, ...]], dict[Any, list[int]]] = {}
    for place, arm in enumerate(arms):
        keys = tuple(sorted(arm.values))
        of_keys = places.setdefault((arm.cell is None, arm.variant, keys), {})
        of_keys.setdefault(_hashable([arm.values[key] for key in keys]), []).append(place)
    for arm in arms:
        found: list[int] = []
        for (is_variant, variant, keys), of_keys in places.items():
            against_flat = variant == "flat" and arm.variant not in ("flat", *specs.PLAIN)
            compared = against_flat or (arm.variant, variant) == MATCHED
            if compared and is_variant == (arm.cell is None):
                found += of_keys.get(_hashable([arm.values.get(key) for key in keys]), [])
        yield from ((arm, arms[place]) for place in sorted(found))


def _hashable(value: Any) -> Any:
    """A value of a spec as a key of a dictionary. Equal values give equal keys."""
    if isinstance(value, Mapping):
        return frozenset((key, _hashable(one)) for key, one in value.items())
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value


def check_primary(study: Mapping[str, Any], cells: Sequence[Row]) -> None:
    """Raises InputError where `primary` names an arm that a study with these cells (see `collect.collect`)
    cannot have."""
    searched = (study.get("search") or {}).get("trials") != 0
    variants = tuple(study.get("variants") or specs.COMPARED)
    expected = [{"variant": variant} for variant in variants if searched]
    primary(study, variants, [arm for arm, _ in from_rows(expected, cells)])
