"""Reading a study's folder: arms of variants and of grid cells, searches by fold, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from leukotree import yamlfile
from leukotree.errors import InputError
from leukotree.evaluation import decide
from leukotree.report.collect import collect
from leukotree.report.summary import StudySummary, identity
from leukotree.spec import RunSpec
from leukotree.taxonomy import Taxonomy

TREE = Taxonomy.paper().prune(["normal", "reactive", "AML", "APML"])
FOLDS = 3
STUDY: dict[str, Any] = {
    "study": "made-up",
    "base": {"data": {"shards": "absent", "test_fold": 1}, "optim": {"epochs": 2}, "loss": {"gamma": 3.0}},
    "variants": ["flat", "multilabel"],
    "folds": {"outer": FOLDS, "inner": 2},
    "search": {"trials": 2, "space": {"loss.gamma": {"uniform": [0.0, 5.0]}}},
}


def _frame(keys: Sequence[str], fold: int, seed: int) -> pd.DataFrame:
    """Predictions of images with these keys, three of each patient."""
    rng = np.random.default_rng([fold, seed, len(keys)])
    leaves = [TREE.leaves[number % len(TREE.leaves)] for number in range(len(keys))]
    logits = rng.normal(size=(len(keys), len(TREE.edges)))
    for children in TREE.children.values():
        columns = [TREE.edges.index(child) for child in children]
        logits[:, columns] -= np.logaddexp.reduce(logits[:, columns], axis=1, keepdims=True)
    logp = {f"logp:{edge}": logits[:, number].astype(np.float32) for number, edge in enumerate(TREE.edges)}
    patients = [f"p{fold}-{number // 3}" for number in range(len(keys))]
    return pd.DataFrame(
        {"key": keys, "patient": patients, "source": "lab", "fold": fold, "leaf": leaves, **logp}
    )


def _write_run(folder: Path, spec: RunSpec, frame: pd.DataFrame) -> None:
    folder.mkdir(parents=True)
    (folder / "spec.yaml").write_text(spec.dump())
    (folder / "taxonomy.json").write_text(json.dumps(TREE.nested()))
    (folder / "status.json").write_text(json.dumps({"state": "done"}))
    frame.to_parquet(folder / "predictions.parquet", index=False)


def _row(variant: str, fold: int, **more: Any) -> dict[str, Any]:
    return {"run_name": f"{variant}-{fold:012x}", "variant": variant, "test_fold": fold, "seed": 0, **more}


def _outer(root: Path, rows: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """Write finished runs of these rows. Each row gets its own run name."""
    for number, row in enumerate(rows):
        fold = row["test_fold"]
        row["run_name"] = f"{row['variant']}-{number:012x}"
        spec = RunSpec().override({"variant": row["variant"], "data.test_fold": fold})
        _write_run(root / row["run_name"], spec, _frame([f"f{fold}-{n:02}" for n in range(12)], fold, number))
    return rows


def _write_search(folder: Path, variant: str, fold: int, gamma: float, **best: Any) -> None:
    """Write two trials with two inner folds each. The second is chosen."""
    trials = [
        {
            "trial": n,
            "state": "completed",
            "epochs": 2,
            "macro_f1": 0.4 + n / 10,
            "best_macro_f1": 0.5,
            "seconds": 3.0,
            "loss.gamma": gamma,
        }
        for n in (0, 1)
    ]
    folder.mkdir(parents=True)
    pd.DataFrame(trials).to_csv(folder / "trials.csv", index=False)
    (folder / "history.csv").write_text("trial,epoch,macro_f1,seconds\n0,1,0.4,1.0\n1,1,0.5,2.0\n")
    frozen = {
        "variant": variant,
        "test_fold": fold,
        "trial": 1,
        "value": 0.5,
        "chosen": {"loss.gamma": gamma},
        **best,
    }
    (folder / "best.yaml").write_text(yamlfile.dump(frozen))
    for trial in (0, 1):
        for inner in (0, 1):
            spec = RunSpec().override(
                {"variant": variant, "data": {"test_fold": fold, "inner": {"folds": 2, "fold": inner}}}
            )
            keys = [f"t{trial}-{n:02}" for n in range(inner, 20, 2)]  # each image in one inner fold
            _write_run(folder / f"runs/{trial:05d}" / spec.run_name, spec, _frame(keys, 9, inner))


def _expected() -> list[dict[str, Any]]:
    return [_row(variant, fold) for variant in STUDY["variants"] for fold in range(FOLDS)]


def _study(**changes: Any) -> dict[str, Any]:
    return {**STUDY, **changes}


@pytest.fixture
def nested(tmp_path: Path) -> StudySummary:
    root = tmp_path / "made-up"
    for number, variant in enumerate(STUDY["variants"]):
        for fold in range(FOLDS):
            _write_search(root / f"search/{variant}/fold{fold}", variant, fold, gamma=fold + number / 2)
    return collect(root, STUDY, _outer(root, _expected()))


class TestSearches:
    def test_each_outer_fold_has_its_own(self, nested: StudySummary) -> None:
        assert {variant: list(folds) for variant, folds in nested.searches.items()} == {
            "flat": [0, 1, 2],
            "multilabel": [0, 1, 2],
        }
        assert nested.nested
        assert nested.clean_fold is None
        assert [nested.search("multilabel", fold).chosen for fold in range(3)] == [
            {"loss.gamma": fold + 0.5} for fold in range(3)
        ]
        search = nested.searches["flat"][2]
        assert (search.variant, search.test_fold, len(search.trials), len(search.history)) == (
            "flat",
            2,
            2,
            2,
        )
        assert search.reruns is None

    def test_validation_holds_each_image_of_the_inner_folds_once(self, nested: StudySummary) -> None:
        validation = nested.searches["flat"][0].validation
        assert validation is not None
        assert list(validation.images["key"]) == [
            f"t1-{n:02}" for n in range(20)
        ]  # of the chosen trial, the second
        assert validation.logp.shape == (20, len(TREE.edges))
        folder = nested.searches["flat"][0].folder / "runs/00001"
        frame = pd.concat(
            [pd.read_parquet(path) for path in folder.glob("*/predictions.parquet")]
        ).sort_values("key")
        assert list(frame["source"] + "/" + frame["patient"]) == list(validation.images["patient"])
        assert [TREE.leaves[leaf] for leaf in validation.true] == list(frame["leaf"])
        np.testing.assert_array_equal(validation.logp, frame[[f"logp:{edge}" for edge in TREE.edges]])
        other = nested.searches["flat"][0].predictions("0")
        assert other is not None
        assert other.images["key"][0] == "t0-00"

    def test_a_search_on_other_shards_is_refused(self, nested: StudySummary) -> None:
        root = nested.searches["flat"][0].folder.parents[2]
        run = nested.arms[0].runs[0]
        (run.folder / "env.json").write_text(json.dumps({"dataset": "one"}))
        settings = nested.searches["flat"][run.test_fold].folder / "search.yaml"
        rows = [{**_row(one.variant, one.test_fold), "run_name": one.name} for one in nested.runs]
        settings.write_text("dataset: one")
        assert len(collect(root, STUDY, rows).runs) == len(rows)
        settings.write_text("dataset: two")
        with pytest.raises(
            InputError, match=r"search\.yaml: searched on other shards than flat-0+ was made from"
        ):
            collect(root, STUDY, rows)

    def test_without_its_run_folders_there_is_no_validation(self, nested: StudySummary) -> None:
        search = nested.searches["flat"][1]
        (sorted((search.folder / "runs/00001").iterdir())[0] / "predictions.parquet").unlink()
        assert search.validation is None
        assert search.predictions("7") is None

    def test_reruns_are_a_table(self, tmp_path: Path) -> None:
        reruns = {
            "rerun_seeds": [11, 12],
            "reruns": [{"trial": 1, "scores": [0.4, 0.5]}, {"trial": 0, "scores": [0.3, None]}],
        }
        root = tmp_path / "made-up"
        _write_search(root / "search/flat/fold0", "flat", 0, 1.0, **reruns)
        table = collect(root, STUDY, []).searches["flat"][0].reruns
        assert table is not None
        assert table[["trial", "seed"]].to_numpy().tolist() == [["1", 11], ["1", 12], ["0", 11], ["0", 12]]
        np.testing.assert_array_equal(table["macro_f1"], [0.4, 0.5, 0.3, np.nan])

    def test_one_search_for_all_leaves_one_fold_clean(self, tmp_path: Path) -> None:
        root, study = tmp_path / "made-up", _study(search={**STUDY["search"], "nested": False})
        _write_search(root / "search/flat", "flat", 1, gamma=4.0)
        summary = collect(root, study, [])
        assert list(summary.searches["flat"]) == [1]
        assert (summary.nested, summary.clean_fold) == (False, 1)
        assert [summary.search("flat", fold).chosen for fold in range(3)] == [{"loss.gamma": 4.0}] * 3
        assert summary.search("multilabel", 0) is None

    def test_without_trials_no_earlier_search_counts(self, tmp_path: Path) -> None:
        root = tmp_path / "made-up"
        _write_search(root / "search/flat/fold0", "flat", 0, gamma=4.0)
        summary = collect(root, _study(search={"trials": 0}), _outer(root, _expected()))
        assert (summary.searches, summary.nested, summary.clean_fold) == ({}, True, None)


class TestArms:
    def test_variants_are_arms_with_their_runs(self, nested: StudySummary) -> None:
        assert [(arm.name, arm.variant, arm.cell, arm.values) for arm in nested.arms] == [
            ("flat", "flat", None, {}),
            ("multilabel", "multilabel", None, {}),
        ]
        assert [[run.test_fold for run in arm.runs] for arm in nested.arms] == [[0, 1, 2], [0, 1, 2]]
        assert {run.arm for run in nested.arms[1].runs} == {"multilabel"}
        assert len(nested.runs) == 6
        assert nested.primary == (("multilabel", "flat"),)

    def test_cells_are_arms_named_by_what_differs(self, tmp_path: Path) -> None:
        """Isolation has no effect in flat. Tau is the same in all cells."""
        common = {"loss.tau": 0.5}
        cells = [_row("flat", fold, cell=0, **common) for fold in range(2)]
        cells += [_row("multilabel", 0, cell=0, **{"loss.isolation": "shared", **common})]
        cells += [
            _row("multilabel", fold, cell=1, **{"loss.isolation": "detached", **common}) for fold in range(2)
        ]
        root = tmp_path / "made-up"
        _outer(root, cells)
        cells.append(
            {
                **_row("multilabel", 1, cell=0, **{"loss.isolation": "shared", **common}),
                "run_name": "multilabel-gone",
            }
        )
        summary = collect(root, _study(search={}), [], cells)
        assert [(arm.name, arm.cell, len(arm.runs)) for arm in summary.arms] == [
            ("flat", 0, 2),
            ("multilabel isolation=shared", 0, 1),
            ("multilabel isolation=detached", 1, 2),
        ]
        assert summary.arms[2].values == {"loss.isolation": "detached", "loss.tau": 0.5}
        assert [(one.arm, one.name, one.state) for one in summary.missing] == [
            ("multilabel isolation=shared", "multilabel-gone", "not started")
        ]
        assert summary.primary == (
            ("multilabel isolation=shared", "flat"),
            ("multilabel isolation=detached", "flat"),
        )

    def test_each_cell_is_compared_with_flat_of_the_same_values(self, tmp_path: Path) -> None:
        cells = [
            _row(variant, 0, cell=n, **{"loss.gamma": n, "optim.lr": 0.1})
            for n in (0, 1)
            for variant in STUDY["variants"]
        ]
        root = tmp_path / "made-up"
        summary = collect(root, _study(search={}), [], _outer(root, cells))
        assert summary.primary == (
            ("multilabel gamma=0", "flat gamma=0"),
            ("multilabel gamma=1", "flat gamma=1"),
        )

    def test_keys_with_the_same_end_keep_their_whole_name(self, tmp_path: Path) -> None:
        values = [{"backbone.name": "a", "other.name": "x"}, {"backbone.name": "b", "other.name": "y"}]
        cells = [_row("flat", 0, cell=n, **one) for n, one in enumerate(values)]
        root = tmp_path / "made-up"
        summary = collect(root, _study(search={}), [], _outer(root, cells))
        assert [arm.name for arm in summary.arms] == [
            "flat backbone.name=a other.name=x",
            "flat backbone.name=b other.name=y",
        ]

    def test_a_search_and_a_grid_together(self, tmp_path: Path) -> None:
        root = tmp_path / "made-up"
        rows = [*_expected(), *(_row("flat", fold, cell=0, **{"loss.tau": 0.5}) for fold in range(FOLDS))]
        _outer(root, rows)
        summary = collect(root, STUDY, rows[:6], rows[6:])
        assert [(arm.name, arm.cell) for arm in summary.arms] == [
            ("flat", None),
            ("multilabel", None),
            ("flat cell=0", 0),
        ]
        assert summary.primary == (("multilabel", "flat"),)

    def test_declared_comparisons_name_arms(self, nested: StudySummary, tmp_path: Path) -> None:
        root = tmp_path / "made-up"
        declared = _study(primary=[["flat", "multilabel"]])
        assert collect(root, declared, []).primary == (("flat", "multilabel"),)
        ahead = _study(
            primary=[["multilabel isolation=detached", "flat"]],
            grid={"loss.isolation": ["shared", "detached"]},
        )
        assert collect(root, ahead, []).primary == (
            ("multilabel isolation=detached", "flat"),
        )  # its cells are yet to begin
        with pytest.raises(InputError, match="primary: 'base' is none of its arms: flat, multilabel"):
            collect(root, _study(primary=[["base", "flat"]]), [])


class TestDecisions:
    @pytest.mark.parametrize("rule", decide.RULES)
    def test_the_declared_rule_decides_every_run(
        self, nested: StudySummary, tmp_path: Path, rule: str
    ) -> None:
        rows = [
            {"run_name": run.name, "variant": run.variant, "test_fold": run.test_fold, "seed": 0}
            for run in nested.runs
        ]
        summary = collect(tmp_path / "made-up", _study(decision=rule, rope=0.02), rows)
        assert (summary.decision, summary.rope) == (rule, 0.02)
        for run in summary.runs:
            np.testing.assert_array_equal(run.predicted, decide.leaves(run.logp, TREE, rule))

    def test_the_same_rule_for_each_variant_may_be_written_out(
        self, nested: StudySummary, tmp_path: Path
    ) -> None:
        named = _study(decision={"flat": "joint", "multilabel": "joint"})
        assert collect(tmp_path / "made-up", named, []).decision == "joint"

    def test_different_rules_are_refused(self, nested: StudySummary, tmp_path: Path) -> None:
        with pytest.raises(
            InputError, match=r"under different rules \(flat by greedy, multilabel by joint\)"
        ) as caught:
            collect(tmp_path / "made-up", _study(decision={"multilabel": "joint"}), [])
        assert "\n" not in str(caught.value)


def test_nothing_at_all_says_which_command_to_run(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"yet; run `leukotree sweep STUDY.yaml`, then `leukotree folds STUDY.yaml`"
    ):
        collect(tmp_path, STUDY, _expected())
    with pytest.raises(InputError, match=r"nothing to report yet; run `leukotree grid STUDY.yaml`"):
        collect(tmp_path, STUDY, [], [_row("flat", 0, cell=0)])


def test_patients_of_two_sources_with_one_name_are_two() -> None:
    frame = pd.DataFrame(
        {"key": ["a", "b", "c", "d"], "patient": ["1", "1", None, "2"], "source": ["x", "y", "x", None]}
    )
    assert identity(frame)["patient"].tolist() == ["x/1", "y/1", "", "2"]
