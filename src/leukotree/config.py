"""Settings as nested mappings: strict models, dotted keys, overrides, and errors of one line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from leukotree import keys, yamlfile
from leukotree.errors import InputError

SHOWN = 60
"""Characters of a bad value that an error shows."""


class Strict(BaseModel):
    """A frozen model that refuses unknown keys, infinities and NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


Model = TypeVar("Model", bound=BaseModel)


def parse(model: type[Model], value: Any, where: str) -> Model:
    """A validated model. Raises InputError with one line: `where`, the key, the problem, the nearest known
    key."""
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: expected a mapping of keys, got {type(value).__name__}")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(step) for step in first["loc"])
        if first["type"] == "extra_forbidden":
            raise InputError(
                f"{where}: unknown key {key!r}{keys.hint(model, first['loc'], first['input'])}"
            ) from None
        message = " ".join(first["msg"].removeprefix("Value error, ").split())
        given = first.get("input")
        shown = "" if isinstance(given, Mapping) else f" (got {_short(given)})"
        raise InputError(f"{where}: {key + ': ' if key else ''}{message}{shown}") from None


def parse_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    """["optim.lr=1e-3"] -> {"optim.lr": 0.001}; values are YAML. Raises InputError for one without `=`."""
    changes = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise InputError(f"override {override!r}: expected key=value, for example optim.lr=1e-3")
        changes[key] = yamlfile.parse(text, f"override {override!r}")
    return changes


def merge(tree: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A deep copy of nested mappings with dotted keys set. Raises InputError where a key passes through a
    plain value."""
    merged = json.loads(json.dumps(tree))
    for dotted, value in changes.items():
        *groups, last = dotted.split(".")
        group = merged
        for name in groups:
            if not isinstance(group.get(name), dict):
                if group.get(name) is not None:
                    raise InputError(f"{dotted}: {name!r} holds a value, not a group of keys")
                group[name] = {}
            group = group[name]
        group[last] = value
    return merged


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"optim": {"lr": 0.1}} -> {"optim.lr": 0.1}; the opposite of `merge`."""
    values: dict[str, Any] = {}
    for key, value in tree.items():
        values |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return values


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."
