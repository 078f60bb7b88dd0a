"""Known keys of a spec or a study, and which of them an unknown key was meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

MOST = 3
"""Most keys that are suggested at once."""
LIKE = 0.8
"""How similar (difflib's ratio) an unknown key must be to a key in another group. In the same group difflib's
default of 0.6 is enough."""


def hint(model: type[BaseModel], location: tuple[int | str, ...], given: Any) -> str:
    """The end of an error about an unknown key: the most similar known key, or all known ones.

    Args:
        location: path of the unknown key in the model. Its last step is the unknown key.
        given: the value there. `{"optim": {"epochs": 5}}` is read as the key `optim.epochs`.
    """
    owner = _below(model, location[:-1])
    if owner is None:  # among the keys of a plain mapping
        return ""
    known = list(owner.model_fields)
    # A group of another group's keys, such as `loss` in a study, is not a misspelt key.
    is_group = isinstance(given, Mapping) and any(path.endswith(f".{location[-1]}") for path in paths(model))
    if not is_group and (close := difflib.get_close_matches(str(location[-1]), known, n=1)):
        return f", did you mean {_dotted([*location[:-1], close[0]])!r}?"
    key = _dotted([*location, *_only(given)])
    if meant := elsewhere(key, paths(model)):
        return f", did you mean {' or '.join(map(repr, meant))}?"
    return f"; known keys: {', '.join(known)}"


def elsewhere(key: str, known: Iterable[str]) -> list[str]:
    """Known dotted keys that `key` may be meant to be: keys that end with it, keys that it ends with, or a
    key with a similar end. At most MOST."""
    known = list(known)
    ends = {end: path for path in known for end in _ends(path)}
    exact = [path for path in known if path.endswith(f".{key}")]
    exact = exact or [path for end in _ends(key)[1:] for path in known if path == end][:1]
    if exact:
        return exact[:MOST]
    close = [
        ends[end] for start in _ends(key) for end in difflib.get_close_matches(start, ends, n=1, cutoff=LIKE)
    ]
    return list(dict.fromkeys(close))[:1]


def paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """All dotted keys of a model: groups, and the keys in them."""
    for name, field in model.model_fields.items():
        yield prefix + name
        if inner := _model(field.annotation):
            yield from paths(inner, f"{prefix}{name}.")


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted keys of a model that hold values. A group that may be None counts as a value."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from leaves(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name


def _model(annotation: Any) -> type[BaseModel] | None:
    """The model of a field, also if the field may be None."""
    options = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return next((one for one in options if isinstance(one, type) and issubclass(one, BaseModel)), None)


def _below(model: type[BaseModel], steps: Iterable[int | str]) -> type[BaseModel] | None:
    """The model that a path leads to; None if it leads to a value."""
    owner: type[BaseModel] | None = model
    for step in steps:
        field = owner.model_fields.get(str(step)) if owner else None
        owner = _model(field.annotation) if field else None
    return owner


def _only(given: Any) -> list[str]:
    """The keys below a value, as long as each mapping has one key."""
    steps = []
    while isinstance(given, Mapping) and len(given) == 1:
        [(step, given)] = given.items()
        steps.append(str(step))
    return steps


def _dotted(steps: Iterable[int | str]) -> str:
    return ".".join(map(str, steps))


def _ends(path: str) -> list[str]:
    """A dotted key, then the key without its first step, without its first two, ..."""
    steps = path.split(".")
    return [".".join(steps[start:]) for start in range(len(steps))]
