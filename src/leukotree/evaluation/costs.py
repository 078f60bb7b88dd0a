"""The costs of mistakes that a study gives: true leaf -> predicted leaf -> cost.

The unit is one level of the label tree: a pair that is not given costs the height of the lowest common
ancestor (`Taxonomy.lca_heights`). So `{APML: {AML: 20}}` says that an APML that is called AML is as bad as
20 mistakes between siblings.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from leukotree.errors import InputError
from leukotree.taxonomy import Taxonomy

Costs = Mapping[str, Mapping[str, float]]
"""True leaf -> predicted leaf -> cost. Pairs may be missing."""


def check_values(costs: Costs) -> None:
    """Raises ValueError for a right answer with a cost, and for a cost below 0."""
    for true, row in costs.items():
        for predicted, cost in row.items():
            if true == predicted and cost != 0:
                raise ValueError(
                    f"costs.{true}.{predicted}: a right answer costs 0, not {cost:g}; leave it out"
                )
            if not 0 <= cost < float("inf"):
                raise ValueError(f"costs.{true}.{predicted}: {cost:g} is no cost; give 0 or more")


def matrix(costs: Costs | None, taxonomy: Taxonomy, where: str = "costs") -> np.ndarray:
    """(L, L) float64 costs: rows are true leaves, columns predicted ones. A pair that is not given costs its
    LCA height.

    Raises InputError, which begins with `where`, for a name that is no leaf of the tree.
    """
    table = taxonomy.lca_heights.astype(np.float64)
    place = {leaf: index for index, leaf in enumerate(taxonomy.leaves)}
    for true, row in (costs or {}).items():
        for predicted, cost in {true: 0.0, **row}.items():
            for name in (true, predicted):
                if name not in place:
                    raise InputError(f"{where}: {name!r} is no leaf of the data; use {', '.join(place)}")
            table[place[true], place[predicted]] = cost
    return table


def apply(costs: Costs | None, taxonomy: Taxonomy, where: str = "costs") -> Taxonomy:
    """The same tree, with these costs of its leaves. Raises InputError as `matrix`."""
    return taxonomy.with_costs(matrix(costs, taxonomy, where)) if costs else taxonomy
