"""The section about label trees: where a tree stands among permuted ones, and what can be concluded. Arms on
other trees are compared on the tree of the data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from leukotree import stats
from leukotree.data import trees as of_data
from leukotree.errors import InputError
from leukotree.evaluation import decide, metrics
from leukotree.records import runfolder
from leukotree.report import placed_trees, scores
from leukotree.report.collect import collect
from leukotree.report.sections import trees
from leukotree.report.summary import StudySummary
from leukotree.spec import RunSpec
from leukotree.taxonomy import Taxonomy
from tests.helpers.study_results import (
    STUDY,
    TREE,
    cells,
    images_of_fold,
    markdown_of,
    report,
    section,
    table_row,
    texts,
    write_run,
)

FOLDS = 5
PERMUTED = ("permuted:0", "permuted:1", "permuted:3")
GRID = {
    **STUDY,
    "variants": ["flat", "multilabel"],
    "seeds": [0],
    "search": {"trials": 0},
    "folds": {"outer": FOLDS, "inner": 2},
}


def leaf_probabilities(images: pd.DataFrame, skill: float, seed: int) -> np.ndarray:
    """(N, L) log p(leaf) in the order of TREE: noise that favours the true leaf by `skill`."""
    logits = np.random.default_rng(seed).normal(size=(len(images), len(TREE.leaves)))
    logits += skill * (np.array(TREE.leaves) == images["leaf"].to_numpy()[:, None])
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


def write(root: Path, row: Mapping[str, Any], tree: Taxonomy, skill: float, seed: int) -> None:
    """The folder of a finished run on a tree. `row`: of `collect`'s cells."""
    images = images_of_fold(row["test_fold"])
    folder = write_run(root, row, images)
    leaf = leaf_probabilities(images, skill, seed)[:, decide.leaf_places(tree, TREE)]
    edges = decide.edge_logp(leaf, tree).astype(np.float32)
    frame = images.assign(**{f"logp:{edge}": edges[:, place] for place, edge in enumerate(tree.edges)})
    frame.to_parquet(folder / "predictions.parquet")
    (folder / "taxonomy.json").write_text(json.dumps(tree.nested()))
    choice = row.get("tree")
    spec = {"variant": row["variant"], "tree": choice, "data": {"test_fold": row["test_fold"]}}
    (folder / "spec.yaml").write_text(RunSpec.model_validate(spec).dump())


def study(root: Path, skills: Mapping[str | None, float], same_noise: bool = False) -> list[dict[str, Any]]:
    """The rows of a grid: None is flat, the others are trees of multilabel. All folds are done."""
    rows = []
    for number, (choice, skill) in enumerate(skills.items()):
        variant = "flat" if choice is None else "multilabel"
        tree = of_data.resolve(None if choice in (None, "data") else choice, TREE, "absent")
        for fold in range(FOLDS):
            name = f"{variant}-{number:06x}{fold:06x}"
            row = {"variant": variant, "test_fold": fold, "seed": 0, "run_name": name, "cell": number}
            row |= {} if choice is None else {"tree": choice}
            write(root, row, tree, skill, fold if same_noise else 100 * number + fold)
            rows.append(row)
    return rows


def summarised(root: Path, skills: Mapping[str | None, float], **fields: Any) -> StudySummary:
    return collect(root, GRID | fields, [], study(root, skills))


def permuted(skill: float) -> dict[str | None, float]:
    return dict.fromkeys(PERMUTED, skill)


def test_the_permuted_trees_here_are_different_ones() -> None:
    sets = {of_data.decided_sets(of_data.resolve(choice, TREE, "absent")) for choice in PERMUTED}
    assert len({*sets, of_data.decided_sets(TREE)}) == 1 + len(PERMUTED)


@pytest.mark.slow("writes and reads many runs")
@pytest.mark.parametrize(
    ("skills", "answer", "says"),
    [
        (
            {None: 0.5, "data": 3.0, **permuted(0.5)},
            "tree helps",
            "the tree helps. It is better than flat (+",
        ),
        ({None: 0.0, "data": 3.0, **permuted(3.0)}, "any tree helps", "any tree of this shape helps."),
        ({None: 3.0, "data": 0.3, **permuted(3.0)}, "tree hurts", "the tree is worse than other trees"),
        ({None: 1.0, "data": 1.0, **permuted(1.0)}, "cannot say", "it cannot be said whether the tree helps"),
        ({"data": 3.0, **permuted(0.5)}, "cannot say", "there is no flat arm on these folds; and better"),
    ],
)
def test_what_can_be_concluded(
    tmp_path: Path, skills: Mapping[str | None, float], answer: str, says: str
) -> None:
    summary = summarised(tmp_path, skills)
    [placed] = placed_trees.place(summary)
    assert placed.answer == answer
    part = trees.section(summary)
    assert part is not None
    assert says in texts(part)
    assert "It is above 0.05 with fewer than 19 permuted trees." in texts(part)


@pytest.mark.slow("writes and reads many runs")
def test_the_numbers_are_those_of_the_fold_scores(tmp_path: Path) -> None:
    summary = summarised(
        tmp_path, {None: 0.8, "data": 1.4, "permuted:0": 1.0, "permuted:1": 1.6, "permuted:3": 0.9}
    )
    score = {
        arm.values.get("tree", "flat"): np.array(
            [metrics.macro_f1(run.true, run.predicted, len(TREE.leaves)) for run in arm.runs]
        )
        for arm in summary.arms
    }
    mean = np.mean([score[choice] for choice in PERMUTED], axis=0)
    part = trees.section(summary)
    assert part is not None
    pairs = {
        "data − flat": score["data"] - score["flat"],
        "mean of the permuted − flat": mean - score["flat"],
        "data − mean of the permuted": score["data"] - mean,
    }
    tests = {name: stats.nadeau_bengio(list(values), scores.ratio(summary)) for name, values in pairs.items()}
    holm = stats.holm([test.p for test in tests.values() if test])
    for (name, test), adjusted in zip(tests.items(), holm, strict=True):
        assert test is not None
        row = cells(part, "multilabel", name)
        assert row[3:] == [
            f"{100 * test.mean:+.1f}",
            f"{100 * test.low:.1f} to {100 * test.high:.1f}",
            f"{test.p:.3f}" if test.p >= 0.001 else "< 0.001",
            f"{adjusted:.3f}" if adjusted >= 0.001 else "< 0.001",
            str(FOLDS),
        ]
    means = {choice: float(score[choice].mean()) for choice in (*PERMUTED, "data")}
    place = stats.place(means["data"], [means[choice] for choice in PERMUTED])
    won = sum(int((score["data"] > score[choice]).sum()) for choice in PERMUTED)
    assert cells(part, "multilabel", "data")[2:] == [
        f"{100 * means['data']:.1f}",
        f"{place.rank} of 4",
        f"{place.p:.3f}",
        "0.250",
        f"{100 * place.low:.1f} to {100 * place.high:.1f}",
        f"{won} of {FOLDS * 3}",
    ]


@pytest.mark.slow("writes and reads many runs")
def test_a_permuted_tree_without_all_folds_is_left_out_and_said(tmp_path: Path) -> None:
    rows = study(tmp_path, {None: 0.5, "data": 3.0, **permuted(0.5)})
    lost = next(row for row in rows if row.get("tree") == "permuted:1" and row["test_fold"] == 2)
    (tmp_path / lost["run_name"] / "status.json").write_text(json.dumps({"state": "running"}))
    summary = collect(tmp_path, GRID, [], rows)
    [placed] = placed_trees.place(summary)
    assert list(placed.group.permuted) == ["permuted:0", "permuted:3"]
    part = trees.section(summary)
    assert part is not None
    assert "2 of 3 permuted trees have results on all of these folds" in texts(part)


@pytest.mark.slow("writes and reads many runs")
def test_one_fold_or_no_control_gives_no_conclusion(tmp_path: Path) -> None:
    rows = study(tmp_path, {None: 0.5, "data": 3.0, **permuted(0.5)})
    first = [row for row in rows if row["test_fold"] == 0]
    [placed] = placed_trees.place(collect(tmp_path, GRID, [], first))
    assert placed.answer == "cannot say"
    assert placed.against_permuted.verdict == "not estimable"
    alone = [row for row in rows if row.get("tree") in (None, "data", "permuted:0")]
    [placed] = placed_trees.place(collect(tmp_path, GRID, [], alone))
    assert placed.answer == "cannot say"  # with one control there is no spread
    without = [row for row in rows if row.get("tree") in (None, "permuted:0", "permuted:1")]
    part = trees.section(collect(tmp_path, GRID, [], without))
    assert part is not None
    assert "cannot tell the tree from any other tree" in texts(part)


def test_a_study_on_the_tree_of_the_data_has_no_section(tmp_path: Path) -> None:
    assert trees.section(summarised(tmp_path, {None: 0.5, "data": 1.0})) is None


def test_among_trees_of_equal_worth_the_answer_is_rarely_that_this_one_helps() -> None:
    """Trees with effects of their own, drawn alike: about half of them are above the mean of the others."""
    rng = np.random.default_rng(0)
    answers = []
    for _ in range(400):
        effects = rng.normal(0, 0.04, 1 + len(PERMUTED))  # the first one is the tree
        folds = 0.6 + effects[:, None] + rng.normal(0, 0.01, (len(effects), FOLDS))
        place = stats.place(float(folds[0].mean()), folds[1:].mean(axis=1).tolist())
        answers.append(place.rank == 1 and folds[0].mean() > place.high)
    assert np.mean(answers) < 0.05


@pytest.mark.slow("renders two reports")
def test_leaf_probabilities_give_the_same_report_on_any_tree(tmp_path: Path) -> None:
    """Under a rule that does not depend on the tree, an arm on a permuted tree has the numbers of an arm on
    the tree of the data with the same leaf probabilities."""
    skills: dict[str | None, float] = {None: 0.7, "data": 1.4, "permuted:1": 1.4}
    rows = study(tmp_path / "study", skills, same_noise=True)
    markdown = markdown_of(tmp_path / "study", tmp_path / "out", GRID | {"decision": "joint"}, [], rows)
    one, other = "multilabel tree=data", "multilabel tree=permuted:1"
    for title in (
        "",
        "Tree",
        "Decisions and depths",
        "Calibration",
        "Leaves",
        "Patients",
        "Cells between two leaves",
    ):
        lines = [line for line in section(markdown, title).splitlines() if line.startswith("| multilabel")]
        assert lines
        of_one = [line.replace(one, "X") for line in lines if line.startswith(f"| {one} ")]
        assert of_one == [line.replace(other, "X") for line in lines if line.startswith(f"| {other} ")], title
    assert "Each arm decides leaves by the study's rule on its own tree." in " ".join(markdown.split())


def test_leaves_are_decided_on_the_tree_of_the_run(tmp_path: Path) -> None:
    summary = summarised(tmp_path, {None: 0.7, "data": 1.0, "permuted:1": 1.0})
    run = next(arm.runs[0] for arm in summary.arms if arm.values.get("tree") == "permuted:1")
    assert run.own is not None
    own = run.own.taxonomy
    greedy = np.array(own.leaves)[decide.greedy(run.own.logp, own)]
    assert np.array(TREE.leaves)[run.predicted].tolist() == greedy.tolist()
    assert (decide.greedy(run.logp, run.taxonomy) != run.predicted).any()
    assert run.taxonomy == TREE
    frame = pd.read_parquet(run.folder / runfolder.PREDICTIONS).sort_values("key")
    assert np.array(TREE.leaves)[run.true].tolist() == frame["leaf"].tolist()
    np.testing.assert_allclose(
        decide.leaf_logp(run.logp, TREE),
        decide.leaf_logp(run.own.logp, own)[:, decide.leaf_places(TREE, own)],
        atol=1e-6,
    )
    for rule in metrics.RULES:  # groups are decided on the own tree, and counted on that of the data
        groups = scores.groups(run, rule, "greedy")
        assert list(zip(groups.patient, groups.true, strict=True)) == sorted(
            zip(groups.patient, groups.true, strict=True)
        )
        on_own = metrics.by_patient(
            run.images["patient"].tolist(), decide.leaf_places(TREE, own)[run.true], run.own.logp, own, rule
        )
        named = zip(
            on_own.patient,
            np.array(own.leaves)[on_own.true],
            np.array(own.leaves)[on_own.predicted],
            strict=True,
        )
        leaves = np.array(TREE.leaves)
        assert sorted(named) == sorted(
            zip(groups.patient, leaves[groups.true], leaves[groups.predicted], strict=True)
        )


def test_a_run_with_other_leaves_or_another_tree_of_the_same_name_is_refused(tmp_path: Path) -> None:
    rows = study(tmp_path, {None: 0.7, "data": 1.0, "permuted:1": 1.0})
    wrong = next(row for row in rows if row.get("tree") == "permuted:1" and row["test_fold"] == 1)
    for tree in (of_data.permuted(TREE, 0), Taxonomy.from_nested({"root": ["normal", "AML", "APML", "CLL"]})):
        path = tmp_path / wrong["run_name"] / "taxonomy.json"
        path.write_text(json.dumps(tree.nested()))
        frame = pd.read_parquet(path.with_name("predictions.parquet"))
        edges = {f"logp:{edge}": np.float32(-1) for edge in tree.edges}
        frame.assign(**edges).to_parquet(path.with_name("predictions.parquet"))
        with pytest.raises(InputError, match=r"taxonomy\.json: differs from that of|has the unknown leaf"):
            collect(tmp_path, GRID, [], rows)


def test_without_the_data_and_without_a_run_on_their_tree_nothing_is_compared(tmp_path: Path) -> None:
    rows = study(tmp_path, permuted(1.0))
    with pytest.raises(InputError, match=r"^absent: not here, and no run has the label tree of the data"):
        collect(tmp_path, GRID, [], rows)


@pytest.mark.slow("makes a report")
def test_the_figure_and_the_table_are_in_the_page(tmp_path: Path) -> None:
    rows = study(tmp_path / "study", {None: 0.5, "data": 3.0, **permuted(0.5)})
    markdown, _ = report(tmp_path / "study", tmp_path / "out", GRID, [], rows)
    assert (tmp_path / "out/figures/trees.png").read_bytes().startswith(b"\x89PNG")
    assert table_row(markdown, "Is it the tree?", "multilabel", "data")[3] == "1 of 4"
