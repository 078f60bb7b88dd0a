"""A run on a label tree of its own: it is the run of the same data packed with that tree, on any number of
ranks and after an interruption."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from hpc.launching.place import Place
from hpc.launching.runs import run_spec
from leukotree import yamlfile
from leukotree.data import trees
from leukotree.data.dataset import Dataset
from leukotree.errors import InputError
from leukotree.evaluation import decide
from leukotree.records import compared, predictions
from leukotree.records.runfolder import read_environment, read_metrics, read_status
from leukotree.runtime import Runtime
from leukotree.spec import RunSpec
from leukotree.taxonomy import Taxonomy
from leukotree.training import checkpoint, plan, run
from tests.helpers.specs import tiny_spec

pytestmark = pytest.mark.slow("trains runs")

RUNTIME = Runtime(device="cpu", threads=1, workers=1, quiet=True)


@pytest.fixture
def spec(shards: Path) -> RunSpec:
    return tiny_spec(shards, {"tree": "permuted:3", "optim.epochs": 2})


def packed_with(tree: Taxonomy, shards: Path, out: Path) -> Path:
    """The same shards with another tree in dataset.json."""
    shutil.copytree(shards, out)
    description = json.loads((out / "dataset.json").read_text())
    (out / "dataset.json").write_text(json.dumps(description | {"taxonomy": tree.nested()}))
    return out


@pytest.mark.parametrize(
    ("variant", "kind"),
    [("multilabel", "focal"), ("base", "focal"), ("multilabel", "soft"), ("flat", "marginal")],
)
@pytest.mark.parametrize("of", ["permuted:3", "file"])
def test_it_is_the_run_of_data_that_were_packed_with_its_tree(
    shards: Path, variant: str, kind: str, of: str, tmp_path: Path
) -> None:
    choice = of
    if of == "file":  # larger than the data's, and in another order
        nested = {
            "top": {
                "x": {"CML": None, "y": ["normal", "ALL", "other"]},
                "z": ["AML", "reactive"],
                "APML": None,
                "CLL": None,
            }
        }
        choice = str(tmp_path / "mine.yaml")
        Path(choice).write_text(yamlfile.dump(nested))
    spec = tiny_spec(shards, {"variant": variant, "loss.kind": kind, "tree": choice})
    tree = trees.open_data(spec).taxonomy
    packed = packed_with(tree, shards, tmp_path / "packed")
    expected = run.run(spec.override({"tree": None, "data.shards": str(packed)}), tmp_path / "a", RUNTIME)
    result = run.run(spec, tmp_path / "b", RUNTIME)
    assert result.metrics == expected.metrics
    frame, logp, stored = predictions.read(result.folder)
    assert list(stored.parent_of.items()) == list(tree.parent_of.items())
    assert (result.folder / "predictions.parquet").read_bytes() == (
        expected.folder / "predictions.parquet"
    ).read_bytes()
    right = np.array(tree.leaves)[decide.greedy(logp, tree)] == frame["leaf"].to_numpy()
    assert read_status(result.folder)["accuracy"] == right.mean()


def test_one_and_two_ranks_give_the_same_predictions(spec: RunSpec, tmp_path: Path) -> None:
    one = run.run(spec, tmp_path / "one", RUNTIME)
    two = run_spec(spec, tmp_path / "two", Place(ranks=2), runtime=RUNTIME)
    assert predictions.read(one.folder)[2] == predictions.read(two.folder)[2]
    np.testing.assert_allclose(predictions.read(one.folder)[1], predictions.read(two.folder)[1], atol=1e-3)


class Kill(BaseException):
    """No time for any cleanup, as in a real kill."""


def test_a_killed_run_continues_on_its_tree(
    spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run.run(spec, tmp_path / "whole", RUNTIME)
    save = checkpoint.save

    def save_and_die(*arguments: object, **options: object) -> None:
        save(*arguments, **options)  # type: ignore[arg-type]
        raise Kill

    monkeypatch.setattr(checkpoint, "save", save_and_die)
    with pytest.raises(Kill):
        run.run(spec, tmp_path / "killed", RUNTIME)
    monkeypatch.setattr(checkpoint, "save", save)
    assert len([row for row in read_metrics(tmp_path / "killed" / spec.run_name)]) > 0
    again = run.run(spec, tmp_path / "killed", RUNTIME)
    assert (again.folder / "predictions.parquet").read_bytes() == (
        whole.folder / "predictions.parquet"
    ).read_bytes()


def test_runs_of_one_data_set_and_two_trees_train_together(spec: RunSpec, tmp_path: Path) -> None:
    specs = [spec.override({"optim.epochs": 1, "tree": tree}) for tree in (None, "permuted:1")]
    together = list(run.lockstep(specs, tmp_path / "together", RUNTIME))
    alone = [run.run(one, tmp_path / "alone", RUNTIME).metrics["macro_f1"] for one in specs]
    assert together[-1]["folds"] == alone


def test_a_file_that_changes_is_noticed_and_a_comment_is_not_a_change(shards: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yamlfile.dump(trees.permuted(Dataset.open(shards).taxonomy, 1).nested()))
    spec = tiny_spec(shards, {"tree": str(path)})
    folder = run.run(spec, tmp_path / "runs", RUNTIME).folder
    assert "tree" in read_environment(folder)
    path.write_text("# a comment\n" + path.read_text())
    compared.check_folder(spec, tmp_path / "runs", trees.open_data(spec))
    path.write_text(yamlfile.dump(trees.permuted(Dataset.open(shards).taxonomy, 2).nested()))
    with pytest.raises(InputError, match="its tree changed since it was begun"):
        compared.check_folder(spec, tmp_path / "runs", trees.open_data(spec))


def test_a_tree_without_a_leaf_of_the_data_is_refused_before_the_run(shards: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("top: [AML, APML]")
    with pytest.raises(InputError, match=r"mine\.yaml: has no leaf 'normal', but .* has images of it"):
        plan.check(tiny_spec(shards, {"tree": str(path)}))
