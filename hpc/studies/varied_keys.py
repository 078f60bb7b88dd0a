"""The keys of the run spec that a study varies, and the check that their values can be used."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from leukotree.errors import InputError
from leukotree.keys import elsewhere, leaves
from leukotree.spec import NEEDS, TREE, RunSpec, tree_has_effect, value_of, without_effect, without_effect_in

FIXED = {
    "variant": "the study's `variants` decides it",
    "seed": "the study's `seeds` decides it",
    "data.repeat": "the study's `folds` decides it",
    "data.inner": "the study's `folds` decides it",
    "data.test_fold": "the study's `folds` decides it",
    "data.all_folds": "the command `refit` decides it",
}
"""Keys that neither a search nor a grid may vary, and the reason."""
FIXED_IN_SEARCH = FIXED | {
    "data.shards": "all trials see the same images",
    "tree": "trees are compared as arms; give them in a grid",
    "optim.epochs": "all trials get the same epochs",
    "optim.steps": "all trials get the same steps",
}
FIXED_IN_GRID = FIXED | {"data.shards": "a study has one data set; make another study for another data set"}


def check_search(base: RunSpec, variants: Sequence[str], values: Mapping[str, Iterable[Any]]) -> None:
    """Raises ValueError for a key that a search cannot vary, or a value that a variant refuses.
    `values`: dotted key -> the values to try."""
    _check("search.space.", base, variants, values, FIXED_IN_SEARCH, all)


def check_grid(base: RunSpec, variants: Sequence[str], values: Mapping[str, Iterable[Any]]) -> None:
    """As `check_search`, for a grid. One variant that accepts a value is enough: `exclude` may leave the
    value out of the others."""
    _check("grid.", base, variants, values, FIXED_IN_GRID, any)


def _check(
    where: str,
    base: RunSpec,
    variants: Sequence[str],
    values: Mapping[str, Iterable[Any]],
    fixed: Mapping[str, str],
    enough: Callable[..., bool],
) -> None:
    """`enough`: whether all variants, or any variant, must accept a value."""
    known = list(leaves(RunSpec))
    for key, samples in values.items():
        if reason := fixed.get(key):
            raise ValueError(f"{where}{key}: cannot be varied, {reason}")
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1) or elsewhere(key, known)
            hint = f", did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"{where}{key}: no key of a run spec{hint}")
        _check_effect(where, base, key, values)
        affected = [variant for variant in variants if key not in _never(base, variant, values)]
        if not affected:
            raise ValueError(f"{where}{key}: has no effect in {', '.join(variants)}")
        for value in samples:
            problems = [_problem(base, variant, key, value, values) for variant in affected]
            if not enough(problem is None for problem in problems):
                raise ValueError(f"{where}{key}: {next(filter(None, problems))}")


def _check_effect(where: str, base: RunSpec, key: str, varied: Iterable[str]) -> None:
    """Raises ValueError where a key has no effect beside the other settings of the run."""
    other, needed = NEEDS.get(key, ("", ()))
    if other and other not in varied and (value := value_of(base, other)) not in needed:
        raise ValueError(f"{where}{key}: has no effect with {other} {value}; set it to {' or '.join(needed)}")


def _never(base: RunSpec, variant: str, varied: Mapping[str, Iterable[Any]]) -> set[str]:
    """The keys without effect in a variant, whatever the varied values are."""
    losses = [key for key in varied if key.startswith("loss.")]
    tree = set() if losses or tree_has_effect(variant, base.loss) else {TREE}
    return {*without_effect_in(variant)} | tree


def _problem(
    base: RunSpec, variant: str, key: str, value: Any, varied: Mapping[str, Iterable[Any]]
) -> str | None:
    """Why a variant refuses a value; None if it accepts it. The value is tried beside a value of `varied`
    with which its key has an effect, where it needs one."""
    other, needed = NEEDS.get(key, ("", ()))
    changes = {key: value}
    if beside := [sample for sample in varied.get(other, ()) if sample in needed]:
        changes[other] = beside[0]
    idle = without_effect(variant, base, changes)
    kept = {name: default for name, default in idle.items() if name != key}
    try:
        base.override({**changes, **kept, "variant": variant})
    except InputError as error:
        return str(error).removeprefix("override: ").removeprefix(f"{key}: ")
    return None
