"""The choice of a run's label tree, as a spec, a study or the command line gives it, and its one text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

DATA, PAPER, PERMUTED = "data", "paper", "permuted"
MAX_SEED = 2**31 - 1
_SEED = re.compile(rf"{PERMUTED}:\s*(\d+)", re.ASCII)
_FORMS = f"{DATA}, {PAPER}, the path of a YAML file, or {PERMUTED}:SEED"


def parse(value: Any) -> str | None:
    """The choice as a spec stores it: None (the tree of the data set), "paper", "permuted:SEED", or the path
    of a file.

    `{"permuted": 3}` is "permuted:3", and "data" is None. A file of such a name is "./paper". Raises
    ValueError for anything else.
    """
    if isinstance(value, Mapping) and list(value) == [PERMUTED] and type(value[PERMUTED]) is int:
        value = f"{PERMUTED}:{value[PERMUTED]}"
    if value is None or value == DATA:
        return None
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError(f"expected {_FORMS}")
    if value.partition(":")[0] != PERMUTED:
        return value
    if not (given := _SEED.fullmatch(value)) or len(given[1]) > 10 or int(given[1]) > MAX_SEED:
        raise ValueError(f"expected {PERMUTED}:SEED with a whole number from 0 to {MAX_SEED}")
    return f"{PERMUTED}:{int(given[1])}"


def name(value: Any) -> str:
    """The choice as one text for tables and names of arms: "data" for None. Raises ValueError as `parse`."""
    return parse(value) or DATA


def seed(choice: str | None) -> int | None:
    """The seed of a parsed choice; None for a tree that is not permuted."""
    given = _SEED.fullmatch(choice or "")
    return int(given[1]) if given else None


def file(choice: str | None) -> str | None:
    """The path that a parsed choice names; None for a choice that is no file."""
    return None if choice in (None, PAPER) or seed(choice) is not None else choice
