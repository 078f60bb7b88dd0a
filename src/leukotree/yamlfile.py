"""YAML in and out: safe loading only, and a key given twice is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from leukotree.errors import InputError, one_line

MAX_BYTES = 2**20
"""Of a file; a larger one is refused unread."""
MAX_DEPTH = 40
"""Mappings and lists inside each other."""
MAX_VALUES = 100_000
"""Values of a text, each repetition by an alias counted."""


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice (plain YAML keeps the last one silently) and reads 1e-6 as a
    number."""


def _mapping(loader: _StrictLoader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    seen = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str | int | float | bool | None):
            raise yaml.constructor.ConstructorError(
                None, None, "a key is not a plain value", key_node.start_mark
            )
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"key {key!r} is given twice", key_node.start_mark
            )
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=deep)


def _integer(loader: _StrictLoader, node: yaml.ScalarNode) -> int:
    value = int(loader.construct_yaml_int(node))
    if abs(value) >= 2**63:  # Python refuses to print far larger ones
        raise yaml.constructor.ConstructorError(
            None, None, "a whole number of more than 63 bits", node.start_mark
        )
    return value


_StrictLoader.add_constructor("tag:yaml.org,2002:int", _integer)
_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
# YAML 1.1, which PyYAML speaks, takes "1e-6" for a string because it has no dot; people write learning rates
# that way.
_FLOAT = re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$")
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789"))


def parse(text: str, where: str = "text") -> Any:
    """The value that a YAML text stands for. Raises InputError naming `where` if it is not valid YAML or over
    a limit."""
    loader = None
    try:
        loader = _StrictLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _bound(node)
        return loader.construct_document(node)
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        problem = getattr(error, "problem", None) or str(error)
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise InputError(f"{where}{line}: not valid YAML: {one_line(problem)[:300]}") from error
    finally:
        if loader is not None:
            loader.dispose()


def _bound(root: yaml.Node) -> None:
    """Raises ValueError for a text whose aliases stand for too many values, or for one inside itself, or
    nested too deep."""
    sizes: dict[int, int] = {}
    open_: set[int] = set()
    pending: list[tuple[yaml.Node, bool]] = [(root, False)]
    while pending:
        node, done = pending.pop()
        if id(node) in sizes:
            continue
        below = _below(node)
        if done:
            open_.discard(id(node))
            sizes[id(node)] = 1 + sum(sizes[id(inner)] for inner in below)
            if sizes[id(node)] > MAX_VALUES:
                raise ValueError(f"over {MAX_VALUES} values, counting what aliases repeat")
        elif id(node) in open_:
            raise ValueError("recursive: an alias stands inside what it names")
        else:
            if below:
                open_.add(id(node))
                if len(open_) > MAX_DEPTH:
                    raise ValueError(f"nested deeper than {MAX_DEPTH}")
            pending.append((node, True))
            pending += [(inner, False) for inner in below]


def _below(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [inner for pair in node.value for inner in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def load(path: str | Path) -> Any:
    """The value in a YAML file. Raises InputError naming the file if it is missing, unreadable, malformed or
    over the limits."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise InputError(
                f"{path}: over {MAX_BYTES} bytes; a spec, study, site or taxonomy takes a few thousand"
            )
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InputError(f"{path}: cannot be read: {reason}") from error
    return parse(text, str(path))


def require_plain(tree: Any, where: str) -> None:
    """Raises InputError for dates and other values that YAML knows and a study does not."""
    pending = [tree]
    while pending:
        value = pending.pop()
        if isinstance(value, Mapping):
            pending += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            pending += value
        elif not isinstance(value, bool | int | float | str | None):
            raise InputError(
                f"{where}: {value}: only texts, numbers, lists and mappings may stand in a study"
            )


def dump(value: Any) -> str:
    """Block-style YAML in the order of the keys."""
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
