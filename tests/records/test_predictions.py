"""Predictions: joined over ranks, written and read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leukotree.data.dataset import Dataset
from leukotree.data.pack import pack
from leukotree.errors import InputError
from leukotree.records import predictions, tested
from leukotree.records.predictions import Predictions
from leukotree.report.summary import identity
from tests.helpers import patients


def part(rows: list[int]) -> tuple[np.ndarray, np.ndarray]:
    return np.array(rows, dtype=np.int64), np.array(rows, dtype=np.float32)[:, None] * [[-1.0, -2.0]]


@given(st.lists(st.integers(0, 500), unique=True, min_size=1), st.integers(1, 5))
def test_the_parts_of_the_ranks_are_joined_in_the_order_of_the_index(rows: list[int], world: int) -> None:
    joined = Predictions.join([part(rows[rank::world]) for rank in range(world)], np.array(rows))
    assert joined.rows.tolist() == sorted(rows)
    np.testing.assert_array_equal(joined.logp[:, 0], -joined.rows.astype(np.float32))


@pytest.mark.parametrize("parts", [[[1, 2], [2]], [[1], [2]], [[1, 2], [3, 4]], [[1, 1, 2]]])
def test_a_sample_missing_or_seen_twice_is_an_error(parts: list[list[int]]) -> None:
    with pytest.raises(RuntimeError, match="expected 3"):
        Predictions.join([part(rows) for rows in parts], np.array([1, 2, 3]))


def test_what_is_written_is_read_and_damage_is_named(shards: Path, tmp_path: Path) -> None:
    dataset = Dataset.open(shards)
    logp = np.random.default_rng(0).standard_normal((3, len(dataset.taxonomy.edges))).astype(np.float32)
    predictions.write(tmp_path / "predictions.parquet", Predictions(np.array([0, 2, 5]), logp), dataset)
    with pytest.raises(InputError, match="cannot be read"):
        predictions.read(tmp_path)  # without its taxonomy
    (tmp_path / "taxonomy.json").write_text(json.dumps(dataset.taxonomy.nested()))
    frame, again, tree = predictions.read(tmp_path)
    assert frame["key"].tolist() == dataset.index["key"].iloc[[0, 2, 5]].tolist()
    np.testing.assert_array_equal(again, logp)
    assert tree == dataset.taxonomy
    data = (tmp_path / "predictions.parquet").read_bytes()
    (tmp_path / "predictions.parquet").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="cannot be read") as error:
        predictions.read(tmp_path)
    assert "\n" not in str(error.value)


def test_site_scanner_and_readers_are_kept_where_the_data_set_has_them(tmp_path: Path) -> None:
    """Predictions of a data set without them, and those of older versions, lack the columns."""
    table = patients.manifest(
        tmp_path, [(leaf, f"{leaf}{n}", "lab", 1) for leaf in ("AML", "ALL") for n in range(3)]
    )
    plain = pd.read_csv(table)
    logp = np.zeros((6, 5), np.float32)
    for name, frame in (
        ("old", plain),
        ("new", plain.assign(**{"scanner": "s", "reader:A": ["acute", "", "AML", "ALL", "", "CML"]})),
    ):
        frame.to_csv(table, index=False)
        dataset = pack(table, tmp_path / f"shards-{name}", folds=2, size=8, workers=1).dataset
        folder = tmp_path / name
        folder.mkdir()
        logp = np.zeros((6, len(dataset.taxonomy.edges)), np.float32)
        predictions.write(folder / "predictions.parquet", Predictions(np.arange(6), logp), dataset)
        (folder / "taxonomy.json").write_text(json.dumps(dataset.taxonomy.nested()))
    old, new = (identity(predictions.read(tmp_path / name)[0]) for name in ("old", "new"))
    assert list(old) == ["key", "patient", "source"]
    assert list(new) == ["key", "patient", "source", "scanner", "reader:A"]
    assert sorted(new["reader:A"]) == ["", "", "ALL", "AML", "CML", "acute"]


def test_a_patient_of_several_sources_is_one_where_the_data_set_says_so(tmp_path: Path) -> None:
    """Statistics resample patients: two scanners' images of one patient belong together only if the pack
    joined them."""
    rows = [
        (leaf, f"{leaf}{number}", source, 1)
        for leaf in ("AML", "ALL")
        for number in range(4)
        for source in ("old", "new")
    ]
    table = patients.manifest(tmp_path, rows)
    for across, persons in ((False, 16), (True, 8)):
        folder = tmp_path / f"run-{across}"
        folder.mkdir()
        options = {"folds": 2, "size": 8, "workers": 1}
        dataset = pack(
            table, tmp_path / f"shards-{across}", patients_across_sources=across, **options
        ).dataset  # type: ignore[arg-type]
        logp = np.zeros((len(dataset), len(dataset.taxonomy.edges)), np.float32)
        predictions.write(folder / "predictions.parquet", Predictions(np.arange(len(dataset)), logp), dataset)
        (folder / "taxonomy.json").write_text(json.dumps(dataset.taxonomy.nested()))
        frame, _, _ = predictions.read(folder)
        assert identity(frame)["patient"].nunique() == persons
        assert set(identity(frame)["source"]) == {"old", "new"}
        assert ("person" in frame) is across
        images_of_fold, right = frame[frame["fold"] == 0], tested.whole(dataset, 0)
        images = [identity(one).assign(leaf=one["leaf"]) for one in (images_of_fold, right)]
        assert not tested.difference(*images), (
            "a report refuses runs whose images are not those of their fold"
        )
