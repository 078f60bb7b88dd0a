"""What an unknown key of a spec or a study may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

MOST = 3
"""Keys that are offered at once."""
LIKE = 0.8
"""How alike an unknown key and one in another place must be (difflib's ratio); beside each other its usual
0.6 are enough."""


def hint(model: type[BaseModel], location: tuple[int | str, ...], given: Any) -> str:
    """What follows "unknown key ..." in an error: the key meant, or those that there are.

    Args: location: where the unknown key stands in the model's tree; its last step is unknown. given: the
        value there; of a mapping of one key that one counts, too: `{"optim": {"epochs": 5}}` is
        `optim.epochs`.
    """
    owner = _below(model, location[:-1])
    if owner is None:  # among the keys of a plain mapping
        return ""
    known = list(owner.model_fields)
    if close := difflib.get_close_matches(str(location[-1]), known, n=1):
        return f", did you mean {_dotted([*location[:-1], close[0]])!r}?"
    key = _dotted([*location, *_only(given)])
    if meant := elsewhere(key, paths(model)):
        return f", did you mean {' or '.join(map(repr, meant))}?"
    return f"; known keys: {', '.join(known)}"


def elsewhere(key: str, known: Iterable[str]) -> list[str]:
    """The known dotted keys that one may have meant which lacks their first steps, has some before them, or
    is spelled a little otherwise; those that fit it exactly before the others. At most MOST."""
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
    """All dotted keys of a model: groups, and what is in them."""
    for name, field in model.model_fields.items():
        yield prefix + name
        if inner := _model(field.annotation):
            yield from paths(inner, f"{prefix}{name}.")


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted keys of a model that hold values; a group that may be None is one."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from leaves(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name


def _model(annotation: Any) -> type[BaseModel] | None:
    """The model of a field, also of one that may be None."""
    options = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return next((one for one in options if isinstance(one, type) and issubclass(one, BaseModel)), None)


def _below(model: type[BaseModel], way: Iterable[int | str]) -> type[BaseModel] | None:
    owner: type[BaseModel] | None = model
    for step in way:
        field = owner.model_fields.get(str(step)) if owner else None
        owner = _model(field.annotation) if field else None
    return owner


def _only(given: Any) -> list[str]:
    """The steps below a value that has but one way down."""
    way = []
    while isinstance(given, Mapping) and len(given) == 1:
        [(step, given)] = given.items()
        way.append(str(step))
    return way


def _dotted(steps: Iterable[int | str]) -> str:
    return ".".join(map(str, steps))


def _ends(path: str) -> list[str]:
    """A dotted key, and what is left of it without its first step, its first two, ..."""
    steps = path.split(".")
    return [".".join(steps[start:]) for start in range(len(steps))]
