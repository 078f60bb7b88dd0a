"""Nested mappings with dotted keys, and the errors of a model."""

from __future__ import annotations

import pytest

from leukotree import config
from leukotree.config import Strict
from leukotree.errors import InputError

TREE = {"a": {"b": 1, "c": None}, "d": [1]}


class Inner(Strict):
    size: int = 3


class Outer(Strict):
    inner: Inner = Inner()
    name: str = ""


def test_flatten_is_the_opposite_of_merge() -> None:
    assert config.flatten(TREE) == {"a.b": 1, "a.c": None, "d": [1]}
    assert config.merge({}, config.flatten(TREE)) == TREE


def test_merge_changes_a_copy() -> None:
    assert config.merge(TREE, {"a.c.e": 2}) == {"a": {"b": 1, "c": {"e": 2}}, "d": [1]}
    assert TREE["a"] == {"b": 1, "c": None}
    with pytest.raises(InputError, match=r"a\.b\.x: 'b' holds a value"):
        config.merge(TREE, {"a.b.x": 1})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "file: expected a mapping of keys, got list"),
        ({"inner": {"sise": 1}}, "file: unknown key 'inner.sise', did you mean 'inner.size'?"),
        ({"size": 1}, "file: unknown key 'size', did you mean 'inner.size'?"),
        ({"name": ["x" * 80]}, r"file: name: .*\(got \['x{55}\.\.\.\)"),
    ],
)
def test_an_error_is_one_line_that_names_the_key(value: object, message: str) -> None:
    with pytest.raises(InputError, match=message.replace("?", r"\?")) as error:
        config.parse(Outer, value, "file")
    assert "\n" not in str(error.value)


def test_overrides_are_yaml() -> None:
    overrides = config.parse_overrides(["optim.lr=1e-3", "name=", "list=[1, a]", "a=b=c"])
    assert overrides == {"optim.lr": 0.001, "name": None, "list": [1, "a"], "a": "b=c"}
    with pytest.raises(InputError, match="override 'lr': expected key=value"):
        config.parse_overrides(["lr"])
