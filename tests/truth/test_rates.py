"""A draw goes the whole way of a study, a second call keeps it, and the table counts verdicts by what is
true."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from leukotree.config import parse
from leukotree.data import trees
from tests.truth import rates, tables
from tests.truth.scenarios import LEAVES, SCENARIOS, Scenario

SMALL: dict[str, Any] = {"images": dict.fromkeys(LEAVES, 2), "epochs": 1, "patients": 2, "folds": 2}
PERMUTED = 2
"""Permuted trees of a small study."""


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.slow("trains a study")
def test_each_draw_is_a_study(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "WORK", tmp_path)
    monkeypatch.setitem(rates.SCENARIOS, name, _small(SCENARIOS[name]))
    rates._study((name, 7))
    row = json.loads((tmp_path / f"{name}-0007.json").read_text())
    assert (row["scenario"], row["draw"]) == (name, 7)
    assert row["verdict"] in tables.COLOURS
    assert ("answer" in row) == (SCENARIOS[name].permuted > 0) == (name in tables.TREES)
    assert -1 <= row["mean"] <= 1
    assert [path.name for path in tmp_path.iterdir()] == [
        f"{name}-0007.json"
    ]  # images, shards and runs are removed


def _small(scenario: Scenario) -> Scenario:
    return dataclasses.replace(scenario, **SMALL, permuted=min(scenario.permuted, PERMUTED))


def test_scenarios_are_studies_that_name_a_pair() -> None:
    from hpc.studies.study import Study

    for name, scenario in SCENARIOS.items():
        plan = parse(Study, scenario.study(3), name)
        assert plan.variants == ("flat", scenario.challenger)
        assert plan.folds.outer == scenario.folds
        assert scenario.patients >= scenario.folds  # each fold tests every leaf


def test_the_leaves_of_a_dealt_tree_differ_between_draws() -> None:
    """So over many draws it is as good as a permuted one."""
    dealt = [scenario for scenario in SCENARIOS.values() if scenario.dealt]
    assert dealt
    for scenario in dealt:
        taxonomies = [scenario.taxonomy(draw) for draw in range(8)]
        assert len({trees.shape(tree) for tree in taxonomies}) == 1
        assert len({trees.decided_sets(tree) for tree in taxonomies}) == 8


def test_verdicts_are_counted_by_what_is_true(tmp_path: Path) -> None:
    verdicts = {
        "same": [
            "equivalent",
            "inconclusive",
            "inconclusive",
            "worse",
        ],  # a verdict that no study gives is drawn by none
        "helps": ["better", "better", "better", "equivalent"],
        "hurts": ["worse", "worse", "inconclusive", "better"],
    }
    rows = [
        {"scenario": name, "draw": draw, "verdict": verdict, "mean": 0.01 * draw, "detectable": 0.1}
        for name, draws in verdicts.items()
        for draw, verdict in enumerate(draws)
    ]
    tables.write(tmp_path, pd.DataFrame(rows).sample(frac=1, random_state=0))
    text = (tmp_path / "README.md").read_text()
    shown = {}
    for line in text.splitlines():
        if line.startswith("| `"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            shown[cells[0].strip("`")] = [cell.split(" %")[0] for cell in cells[-3:]]
    assert shown == {"same": ["25", "50", "25"], "helps": ["75", "0", "25"], "hurts": ["50", "25", "25"]}
    assert pd.read_csv(tmp_path / "rates.csv")["scenario"].tolist() == [
        name for name in verdicts for _ in range(4)
    ]
    assert (tmp_path / "verdicts.png").read_bytes().startswith(b"\x89PNG")


def test_answers_about_the_tree_are_counted_by_what_is_true(tmp_path: Path) -> None:
    answers = {
        "helps": ["tree helps", "tree helps", "any tree helps", "cannot say"],
        "any tree": ["any tree helps", "any tree helps", "cannot say", "tree helps"],
    }
    rows = [
        {"scenario": name, "draw": draw, "verdict": "better", "mean": 0.1, "detectable": 0.1}
        | {"answer": answer, "against_permuted": "better" if answer == "tree helps" else "inconclusive"}
        | {"mean_permuted": 0.01 * draw, "permuted_against_flat": "better", "rank": 1}
        for name, draws in answers.items()
        for draw, answer in enumerate(draws)
    ]
    without = {"scenario": "same", "draw": 0, "verdict": "inconclusive", "mean": 0.0, "detectable": 0.1}
    tables.write(tmp_path, pd.DataFrame([*rows, without]))
    text = (tmp_path / "README.md").read_text().partition("## Is it the tree?")[2]
    shown = {}
    for line in text.partition("## The scenarios")[0].splitlines():
        if line.startswith("| `"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            shown[cells[0].strip("`")] = (cells[1], [cell.split(" %")[0] for cell in cells[4:]])
    assert shown == {
        "helps": ("tree helps", ["50", "0", "50", "25", "25"]),
        "any tree": ("any tree helps", ["25", "0", "50", "25", "25"]),
    }


def test_a_call_goes_on_from_the_committed_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of unpaired arms are left out; a row in data/truth and a committed one are two draws."""
    for name, folder in (("WORK", tmp_path / "work"), ("RESULTS", tmp_path / "results")):
        folder.mkdir()
        monkeypatch.setattr(rates, name, folder)
    row = {"verdict": "inconclusive", "mean": 0.0, "detectable": 0.1}
    committed = [
        {"scenario": "same", "draw": draw, rates.STREAMS: streams, **row}
        for draw, streams in ((100, 1), (101, 2), (102, 3))
    ]
    pd.DataFrame(committed).to_csv(tmp_path / "results" / "rates.csv", index=False)
    for name, draw in (("same", 100), ("same", 102), ("hurts", 100)):
        new = {"scenario": name, "draw": draw, rates.STREAMS: 3, **row, "mean": 0.5}
        (tmp_path / "work" / f"{name}-{draw:04d}.json").write_text(json.dumps(new))
    monkeypatch.setattr("sys.argv", ["rates", "--draws", "1", "--only", "same", "--workers", "1"])
    rates.main()
    rows = pd.read_csv(tmp_path / "results" / "rates.csv")
    assert dict(zip(zip(rows["scenario"], rows["draw"], strict=True), rows["mean"], strict=True)) == {
        ("same", 100): 0.5,
        ("same", 101): 0.0,
        ("same", 102): 0.0,
        ("hurts", 100): 0.5,
    }
