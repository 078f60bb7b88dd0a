"""YAML files: safe loading only. A key given twice, and a text over the limits below, are refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from leukotree.errors import InputError, one_line

MAX_BYTES = 2**20
"""Largest file that is read."""
MAX_DEPTH = 40
"""Most mappings and lists inside each other."""
MAX_VALUES = 100_000
"""Most values of a text. Each use of an alias counts, since a few lines of aliases can stand for billions."""


_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's loader, which is several times as fast, where PyYAML has it."""


class _StrictLoader(_Loader):
    """A safe loader that refuses a key given twice (plain YAML keeps the last one) and reads 1e-6 as a
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
    return yaml.constructor.SafeConstructor.construct_mapping(loader, node, deep=deep)


def _integer(loader: _StrictLoader, node: yaml.ScalarNode) -> int:
    value = int(loader.construct_yaml_int(node))
    if abs(value) >= 2**63:  # Python refuses to print far larger ones
        raise yaml.constructor.ConstructorError(
            None, None, "a whole number of more than 63 bits", node.start_mark
        )
    return value


_StrictLoader.add_constructor("tag:yaml.org,2002:int", _integer)
_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
# YAML 1.1, which PyYAML reads, takes "1e-6" for a text because it has no dot. Learning rates are often
# written so.
_FLOAT = re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$")
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789"))


def parse(text: str, where: str = "text") -> Any:
    """The value of a YAML text. Raises InputError naming `where` if it is not valid YAML or over a limit."""
    loader = None
    try:
        _check_depth(text)
        loader = _StrictLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _measure(node, {})
        return loader.construct_document(node)
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        problem = getattr(error, "problem", None) or str(error)
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise InputError(f"{where}{line}: not valid YAML: {one_line(problem)[:300]}") from error
    finally:
        if loader is not None:
            loader.dispose()


def _check_depth(text: str) -> None:
    """Raises ValueError for a text that is nested too deep, and YAMLError. It looks at one part of the text
    after another; what is made of them is made by functions that call themselves, and those of libyaml end
    the process where the stack ends."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH + 1:
                raise ValueError(f"nested deeper than {MAX_DEPTH}")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _measure(node: yaml.Node, measured: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """(values, depth) of a node, with what its aliases repeat. Raises ValueError over a limit, or for an
    alias inside of the value that it names."""
    if id(node) in measured:
        if (known := measured[id(node)]) is None:
            raise ValueError("recursive: an alias is inside of the value that it names")
        return known
    measured[id(node)] = None
    inner = [_measure(part, measured) for part in _parts(node)]
    values, depth = 1 + sum(value for value, _ in inner), 1 + max((deep for _, deep in inner), default=-1)
    if values > MAX_VALUES:
        raise ValueError(f"over {MAX_VALUES} values, counting what aliases repeat")
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    measured[id(node)] = values, depth
    return values, depth


def _parts(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [inner for pair in node.value for inner in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def load(path: str | Path) -> Any:
    """The value of a YAML file. Raises InputError naming the file if it is missing, unreadable, not valid
    YAML or over a limit."""
    return parse(read(path), str(path))


def read(path: str | Path) -> str:
    """The text of a YAML file. Raises InputError naming the file if it is missing, unreadable or over a
    limit."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise InputError(
                f"{path}: over {MAX_BYTES} bytes; a spec, study, site or taxonomy takes a few thousand"
            )
        return content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InputError(f"{path}: cannot be read: {reason}") from error


def require_plain(tree: Any, where: str) -> None:
    """Raises InputError for dates and other values that YAML has and a study does not."""
    pending = [tree]
    while pending:
        value = pending.pop()
        if isinstance(value, Mapping):
            pending += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            pending += value
        elif not isinstance(value, bool | int | float | str | None):
            raise InputError(f"{where}: {value}: a study may only have texts, numbers, lists and mappings")


def dump(value: Any) -> str:
    """Block-style YAML in the order of the keys."""
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
