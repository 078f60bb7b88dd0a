"""The grid of a study: the keys of the run spec that vary, their values, and the combinations."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

from pydantic import model_validator

from leukotree import tree_choice
from leukotree.config import Strict
from leukotree.spec import TREE

PARTS = ("product", "zip", "exclude")
VARIANT = "variant"
MOST = 100_000
"""Most cells of a grid. A file system handles about this many run folders in one folder."""


class Grid(Strict):
    """`{key: values, ...}`: all combinations of the values. `zip` and `exclude` are given beside the keys.

    Example: `{loss.gamma: [0, 2], zip: [{optim.lr: [1e-4, 1e-3], optim.epochs: [80, 20]}],
    exclude: [{variant: flat, loss.gamma: 2}]}`
    """

    product: dict[str, list[Any]] = {}  # noqa: RUF012 - pydantic copies it
    """Dotted key -> its values. In a file the keys are given in the grid itself."""
    zip: list[dict[str, list[Any]]] = []  # noqa: RUF012
    """Groups of keys that advance together: their first values are one choice, their second values the
    next."""
    exclude: list[dict[str, Any]] = []  # noqa: RUF012
    """Cells that have all these values are left out. `variant` may be one of the keys."""

    @model_validator(mode="before")
    @classmethod
    def _keys_are_the_product(cls, tree: Any) -> Any:
        if not isinstance(tree, Mapping):
            return tree
        tree = {key: _with_one_form(key, value) for key, value in tree.items()}
        named = {key: value for key, value in tree.items() if key in PARTS}
        keys = {key: value for key, value in tree.items() if key not in PARTS}
        for key, values in keys.items():
            if not isinstance(values, list):
                raise ValueError(f"{key}: expected a list of values, such as [0, 1]")
        product = named.get("product", {})
        return named | {"product": {**product, **keys} if isinstance(product, Mapping) else product}

    @model_validator(mode="after")
    def _check(self) -> Grid:
        groups = [*({key: values} for key, values in self.product.items()), *self.zip]
        keys = [key for group in groups for key in group]
        for key in keys:
            if keys.count(key) > 1:
                raise ValueError(f"{key}: occurs twice in the grid")
        for group in groups:
            if len({len(values) for values in group.values()}) != 1:
                lengths = ", ".join(f"{key} has {len(values)}" for key, values in group.items())
                problem = lengths or "no key is named"
                raise ValueError(f"zip: keys that advance together need equally many values: {problem}")
            rows = [repr(row) for row in zip(*group.values(), strict=True)]
            if not rows or len(set(rows)) < len(rows):
                raise ValueError(f"{', '.join(group)}: {'a value occurs twice' if rows else 'has no values'}")
        cells = math.prod(len(next(iter(group.values()))) for group in groups)
        if cells > MOST:
            raise ValueError(f"{cells:,} cells; a grid has at most {MOST:,}")
        for number, excluded in enumerate(self.exclude):
            self._check_excluded(f"exclude.{number}", excluded)
        return self

    def _check_excluded(self, where: str, excluded: dict[str, Any]) -> None:
        values = self.values()
        if not excluded:
            raise ValueError(f"{where}: names no key, so it would leave out everything")
        for key, value in excluded.items():
            if key == VARIANT:
                continue
            if key not in values:
                raise ValueError(
                    f"{where}.{key}: not a key of this grid; its keys: {', '.join(values)}, {VARIANT}"
                )
            if value not in values[key]:
                raise ValueError(f"{where}.{key}: {value!r} is not one of its values {values[key]}")

    def values(self) -> dict[str, list[Any]]:
        """Every varied key with its values."""
        return {key: values for group in (self.product, *self.zip) for key, values in group.items()}

    def combinations(self) -> list[dict[str, Any]]:
        """All combinations of values, before `exclude`. The last key varies fastest."""
        axes = [[{key: value} for value in values] for key, values in self.product.items()]
        axes += [
            [dict(zip(group, row, strict=True)) for row in zip(*group.values(), strict=True)]
            for group in self.zip
        ]
        return [
            {key: value for part in parts for key, value in part.items()}
            for parts in itertools.product(*axes)
        ]

    def excludes(self, variant: str, values: Mapping[str, Any]) -> bool:
        """Whether a cell is left out."""
        cell = {**values, VARIANT: variant}
        return any(all(cell[key] == value for key, value in excluded.items()) for excluded in self.exclude)


def _with_one_form(key: str, value: Any) -> Any:
    """A part of a grid with each choice of a tree in its one text, since `permuted: 3` can also be given as a
    mapping, and the tree of the data as null. Raises ValueError for a value that is no choice."""
    if key != TREE:
        if isinstance(value, Mapping):
            return {inner: _with_one_form(inner, values) for inner, values in value.items()}
        is_list = isinstance(value, list) and key in PARTS
        return [_with_one_form(key, part) for part in value] if is_list else value
    try:
        given = value if isinstance(value, list) else [value]
        names = [tree_choice.name(one) for one in given]
        return names if isinstance(value, list) else names[0]
    except ValueError as error:
        raise ValueError(f"{TREE}: {error}") from None
