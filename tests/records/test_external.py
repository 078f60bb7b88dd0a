"""Predictions for another data set are stored once, and only used with the images and the run they are of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from leukotree.errors import Busy, InputError
from leukotree.records import external
from leukotree.records.external import About, Stored
from tests.helpers import study_results
from tests.helpers.study_results import TREE

ABOUT = About("data/other", "a" * 64, 3, {}, [])
FRAME = pd.DataFrame(
    [("k1", "p 1", "here", "AML"), ("k2", "", "hère", "normal"), ("k3", "p2", "here", "AML")],
    columns=external.IDENTITY,
).assign(site=["x", "", "y"])
LOGP = study_results.log_probabilities(FRAME, 1.0, [1]).astype(np.float32)


@pytest.fixture
def run(copy: Path) -> Path:
    return copy / study_results.expected_runs()[0]["run_name"]


@pytest.fixture
def place(copy: Path, run: Path) -> Path:
    place = external.folder(copy, "other")
    with external.locked(place):
        external.write_about(place, ABOUT)
        external.write(place, run, Stored(FRAME, LOGP), TREE, ABOUT.fingerprint)
    return place


def test_what_is_written_is_read(place: Path, run: Path, copy: Path) -> None:
    assert external.names(copy) == ["other"]
    assert external.read_about(place) == ABOUT
    stored = external.read(place, run, TREE, ABOUT)
    assert stored is not None
    pd.testing.assert_frame_equal(stored.frame, FRAME)
    assert np.array_equal(stored.logp, LOGP)


def test_other_images_or_other_weights_are_not_done(place: Path, run: Path) -> None:
    assert external.is_done(place, run, ABOUT.fingerprint)
    assert not external.is_done(place, run, "b" * 64)
    images = study_results.images_of_fold(0)
    study_results.write_predictions(run, images, study_results.log_probabilities(images, 2.0, [8]))
    assert not external.is_done(place, run, ABOUT.fingerprint)
    assert external.read(place, run, TREE, ABOUT) is None


def test_a_file_that_was_cut_short_is_not_done(place: Path, run: Path) -> None:
    path = place / f"{run.name}.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    assert not external.is_done(place, run, ABOUT.fingerprint)


def test_one_name_is_one_set_of_images(place: Path) -> None:
    with pytest.raises(InputError, match="has predictions of other images"):
        external.write_about(place, ABOUT._replace(fingerprint="b" * 64))
    external.write_about(place, ABOUT._replace(given="moved/other"))


@pytest.mark.parametrize("content", ["", "[]", "{}", json.dumps(ABOUT._asdict() | {"left_out": 3})])
def test_a_damaged_file_is_named(content: str, place: Path) -> None:
    (place / "about.json").write_text(content)
    with pytest.raises(InputError, match=r"about\.json"):
        external.read_about(place)


@pytest.mark.parametrize("name", ["..", "a/b", "", ".hidden", "a b"])
def test_a_name_is_no_path(name: str, copy: Path) -> None:
    with pytest.raises(InputError, match="--name"):
        external.folder(copy, name)


def test_two_processes_do_not_write_at_once(place: Path) -> None:
    with external.locked(place), pytest.raises(Busy, match="another `evaluate`"), external.locked(place):
        pass


def test_the_fingerprint_is_of_images_leaves_and_patients() -> None:
    table = FRAME.assign(sha256=["1" * 64, "2" * 64, "3" * 64])
    first = external.fingerprint(table)
    assert first == external.fingerprint(table.assign(key=["x", "y", "z"]))
    for column, value in (("leaf", "APML"), ("patient", "p9"), ("sha256", "4" * 64), ("site", "z")):
        assert external.fingerprint(table.assign(**{column: value})) != first
