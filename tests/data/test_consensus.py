"""Labels from readers: majority and Dawid-Skene, what becomes of the rest, and what dataset.json says."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from leukotree.data import consensus
from leukotree.errors import InputError
from leukotree.taxonomy import Taxonomy

TREE = Taxonomy.paper()


def frame(*rows: str) -> pd.DataFrame:
    """A manifest from rows of a leaf and three readings, "." for none."""
    cells = [[cell.replace(".", "") for cell in row.split()] for row in rows]
    return pd.DataFrame(cells, columns=["leaf", "reader:A", "reader:B", "reader:C"])


def test_a_majority_replaces_the_leaf_and_everything_else_keeps_it() -> None:
    table = frame(
        "ALL AML AML CLL",
        "ALL AML APML .",
        "ALL . . .",
        "ALL AML . .",
        "ALL acute acute AML",
        "ALL acute . .",
    )
    labelled = consensus.relabel(table, "majority", TREE)
    assert labelled["leaf"].tolist() == ["AML", "ALL", "ALL", "AML", "AML", "ALL"]
    assert labelled[consensus.MANIFEST_LEAF].tolist() == ["ALL"] * 6
    said = consensus.summary(labelled, "majority")
    assert said == {
        "from": "majority",
        "readers": ["A", "B", "C"],
        "by_consensus": 3,
        "unread": 2,
        "undecided": 1,
        "changed": 3,
    }
    assert "1 without a majority and 2 without a reading keep the leaf" in consensus.line(said)


def test_dawid_and_skene_is_that_of_another_implementation() -> None:
    """Values of crowd-kit 1.4.2, `DawidSkene(n_iter=10000, tol=1e-10)`, on the same readings."""
    codes = simulated(200, [0.9, 0.55, 0.5])[1]
    posterior = consensus.dawid_skene(codes, 3)
    assert posterior.sum(axis=1) == pytest.approx(1)
    assert posterior[:4] == pytest.approx(np.array(CROWD_KIT), abs=1e-4)


CROWD_KIT = [
    [0.95723, 0.00087, 0.0419],
    [0.53441, 0.46559, 0.0],
    [0.08036, 0.0, 0.91964],
    [0.02224, 0.0, 0.97776],
]


def simulated(images: int, skill: list[float], missing: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """(N,) true leaves and (N, R) codes of readers that are right with their skill."""
    rng = np.random.default_rng(7)
    true = rng.integers(3, size=images)
    codes = np.stack(
        [np.where(rng.random(images) < p, true, rng.integers(3, size=images)) for p in skill], axis=1
    )
    return true, np.where(rng.random(codes.shape) < missing, -1, codes)


@pytest.mark.slow("reads and packs many images")
def test_dawid_and_skene_trusts_the_better_reader() -> None:
    true, codes = simulated(3000, [0.95, 0.4, 0.4, 0.4])
    posterior = consensus.dawid_skene(codes, 3)
    votes = consensus.votes(codes, 3)
    assert (posterior.argmax(axis=1) == true).mean() > (votes.argmax(axis=1) == true).mean() + 0.05


def test_equal_readings_are_the_label_by_both_methods() -> None:
    table = frame(*["normal AML AML AML", "AML normal normal normal", "ALL APML APML APML"] * 5)
    for method in consensus.METHODS:
        assert consensus.relabel(table, method, TREE)["leaf"].tolist() == ["AML", "normal", "APML"] * 5


@pytest.mark.parametrize(("method", "columns", "needs"), [("majority", 1, 2), ("dawid-skene", 2, 3)])
def test_too_few_readers_are_refused(method: str, columns: int, needs: int) -> None:
    table = frame("ALL AML AML AML").iloc[:, : 1 + columns]
    with pytest.raises(InputError, match=f"--label-from {method}: needs {needs} readers, .* has {columns}"):
        consensus.relabel(table, method, TREE)
