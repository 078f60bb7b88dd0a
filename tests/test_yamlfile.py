"""YAML files: numbers are read as people write them, and keys that are given twice are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leukotree import yamlfile
from leukotree.errors import InputError


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-6", 1e-6), ("1.0e-6", 1e-6), ("-2E3", -2000.0), ("3", 3), ("e5", "e5"), ("1e", "1e")],
)
def test_numbers_are_read_as_people_write_them(text: str, value: object) -> None:
    assert yamlfile.parse(text) == value


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_survives(value: float) -> None:
    assert yamlfile.parse(yamlfile.dump({"x": value})) == {"x": value}
    assert yamlfile.parse(f"x: {value!r}") == {"x": value}


@given(st.text(max_size=40))
def test_any_text_is_a_value_or_one_line(text: str) -> None:
    try:
        yamlfile.parse(text, "file.yaml")
    except InputError as refused:
        message = str(refused)
    else:
        message = "file.yaml"
    assert message.startswith("file.yaml")
    assert "\n" not in message


@pytest.mark.parametrize(
    "text", ["!!python/object/apply:os.system [true]", "!!python/name:os.system", "? [a]\n: 1", "a: 1\na: 2"]
)
def test_code_odd_keys_and_keys_given_twice_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        yamlfile.parse(text)


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 100_000, "- " * 100_000 + "1"])
def test_a_text_that_is_nested_too_deep_is_one_line(text: str) -> None:
    """libyaml would end the process."""
    with pytest.raises(InputError, match=r"^a.yaml: not valid YAML: nested deeper than 40$"):
        yamlfile.parse(text, "a.yaml")
