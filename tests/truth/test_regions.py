"""Simulated searches of a known optimum: the surfaces are as they say, and the table counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hpc.search import posterior
from tests.truth import regions
from tests.truth.regions import KINDS, Kind, judged, searched
from tests.truth.surfaces import CUBE, SHAPES, Surface

CSV = Path(__file__).parents[2] / "results" / "simulated" / "regions.csv"


@pytest.mark.parametrize("shape", SHAPES)
def test_no_configuration_is_better_than_the_best(shape: str) -> None:
    units = CUBE.snapped(np.random.default_rng(1).random((20000, len(CUBE.keys))))
    for number in range(5):
        surface = Surface(shape, number)
        best = float(surface(surface.best[None])[0])
        assert best >= surface(units).max() - 1e-9
        shares = surface.shares()
        assert (shares >= 0).all()
        assert shares.sum() <= 1.01


def test_scores_without_noise_show_the_best(tmp_path: Path) -> None:
    surface = Surface("bowl", 3)
    found = posterior.optimum(searched(Kind("bowl", 8, "none"), surface, 3, tmp_path, noise=0.0))
    most = int(surface.shares()[:3].argmax())
    away = np.abs(np.median(found.at[:, most]) - surface.best[most])
    assert away < 0.15


def test_a_search_is_judged_again_with_the_same_result() -> None:
    one, other = (judged(KINDS[1], 0) for _ in range(2))
    assert one == other
    assert [row["key"] for row in one] == list(CUBE.keys)


def test_the_table_counts(tmp_path: Path) -> None:
    rows = [row for kind in KINDS[:2] for row in judged(kind, 1)]
    regions.write(tmp_path, pd.DataFrame(rows))
    table = pd.read_csv(tmp_path / "regions.csv").set_index("searches")
    assert table.loc["all", "n"] == 2
    ranges = [row["held"] for row in rows if row["key"] != "optim.batch_size"]
    assert table.loc["all", "ranges"] == pytest.approx(np.mean(ranges), abs=1e-3)
    assert "| all | 2 |" in (tmp_path / "regions.md").read_text()


def test_the_regions_hold_the_truth_about_as_often_as_they_say() -> None:
    """The committed table, of searches that chose no prior."""
    table = pd.read_csv(CSV).set_index("searches")
    assert table.loc["all", "n"] >= 200
    parts = table.loc[["all", "one at a time", "8 at once", "without stopping", "with ASHA"]]
    assert parts["ranges"].between(0.72, 0.88).all()
    assert (parts["choices"] - parts["stated"]).abs().max() < 0.05
    assert table.loc["all", "importance"] >= 0.85
