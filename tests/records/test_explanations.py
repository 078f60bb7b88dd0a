"""The files of explanations in the folder of a run."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from leukotree.errors import InputError
from leukotree.records import explanations


def row(**changes: object) -> pd.DataFrame:
    texts = dict.fromkeys(explanations.TEXTS, "a")
    return pd.DataFrame([{**texts, **dict.fromkeys(explanations.NUMBERS, 0.5), **changes}])


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = explanations.table(tmp_path)
    frame = pd.concat([row(key="Zelle 1"), row(decision="", energy=float("nan"))], ignore_index=True)
    explanations.write(path, [row(key="Zelle 1"), row(decision="", energy=float("nan"))])
    pd.testing.assert_frame_equal(explanations.read(path), frame[list(explanations.COLUMNS)])


def test_the_tables_of_a_run_are_found_by_name(tmp_path: Path) -> None:
    assert explanations.names(tmp_path) == []
    for name in ("krd", "", "pbc.2"):
        explanations.write(explanations.table(tmp_path, name), [row()])
    (tmp_path / "explanations-a b.parquet").touch()  # of somebody else
    assert explanations.names(tmp_path) == ["", "krd", "pbc.2"]


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("data/krd", "krd-01234567"),
        ("data/krd.csv", "krd-01234567"),
        ("a b/Müller 2", "M-ller-2-01234567"),
        ("x" * 99, "x" * 50 + "-01234567"),
        ("/", "other-01234567"),
    ],
)
def test_another_data_set_has_the_name_of_its_folder_and_its_fingerprint(folder: str, name: str) -> None:
    assert explanations.name_of(folder, "0123456789abcdef") == name


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b"PAR1"),
        lambda path: row().drop(columns="energy").to_parquet(path),
        lambda path: row(energy="much").to_parquet(path),
        lambda path: path.mkdir(),
    ],
)
def test_a_file_that_is_no_table_is_named(spoil, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = explanations.table(tmp_path)
    spoil(path)
    with pytest.raises(InputError, match=f"{path}: is no table of explanations"):
        explanations.read(path)
