"""The interference probe: right numbers, beside a control, and no bit of the training changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hpc.launching.place import Place
from hpc.launching.runs import run_spec
from leukotree.data.dataset import Dataset
from leukotree.data.stream import Loader
from leukotree.distributed.engine import Engine
from leukotree.models.stages import stages
from leukotree.records import runfolder
from leukotree.records.runfolder import read_metrics
from leukotree.runtime import Runtime
from leukotree.spec import RunSpec
from leukotree.training import interference, run
from leukotree.training.plan import plan_stage
from leukotree.training.stage_trainer import StageTrainer
from tests.helpers.commandline import leukotree
from tests.helpers.specs import tiny_spec

pytestmark = pytest.mark.slow("trains runs")

HERE = Engine(0, 1, torch.device("cpu"))
RUNTIME = Runtime(device="cpu", threads=1, workers=0, quiet=True)
PROBED = Runtime(device="cpu", threads=1, workers=0, quiet=True, probe=1)


@pytest.fixture
def spec(shards: Path) -> RunSpec:
    return tiny_spec(shards, {"optim.epochs": 2})


@pytest.fixture
def loader(shards: Path) -> Iterator[Loader]:
    with Loader(Dataset.open(shards), workers=0) as loader:
        yield loader


def trainer(spec: RunSpec, loader: Loader) -> StageTrainer:
    [stage] = stages("multilabel", loader.dataset.taxonomy)
    rows = np.flatnonzero(loader.dataset.index["fold"] != 0)
    return StageTrainer(spec, plan_stage(spec, stage, rows, loader.dataset), HERE, loader)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / runfolder.INTERFERENCE).read_text().splitlines()]


@pytest.mark.parametrize("micro", [None, 5])
def test_the_numbers_are_those_of_a_computation_by_hand(
    spec: RunSpec, loader: Loader, micro: int | None
) -> None:
    """Levels 1 and 2 on the third block, from the whole gradients; also where a batch does not fit at
    once."""
    training = trainer(spec.override({"optim.batch_size": 10, "engine.micro_batch": micro}), loader)
    probing = interference.Probe(training, 1)
    [row] = [row for row in probing.after(4) if row["block"] == "blocks.2" and row["levels"] == [1, 2]]
    leaves = torch.from_numpy(loader.dataset.leaf_ids)
    block = list(training.model.backbone.blocks[2].parameters())
    training.model.eval()
    cosines: dict[str, list[float]] = {"labels": [], "shuffled": []}
    ratios = []
    for rows, order in probing.batches():
        [batch] = loader.evaluate(rows, len(rows))
        for name, labels in (("labels", leaves[rows]), ("shuffled", leaves[rows][order])):
            losses = training.objective(
                training.model(training.inputs(batch)), labels, training.objective.counts(labels)
            )
            first, second = (
                torch.cat([g.flatten() for g in torch.autograd.grad(losses[level], block, retain_graph=True)])
                for level in (0, 1)
            )
            cosines[name].append(float(torch.cosine_similarity(first, second, dim=0)))
            if name == "labels":
                ratios.append(float(first.norm() / second.norm()))
    assert row["epoch"] == 4
    assert row["cosine"] == pytest.approx(np.mean(cosines["labels"]), abs=1e-4)
    assert row["control"] == pytest.approx(np.mean(cosines["shuffled"]), abs=1e-4)
    assert row["norm_ratio"] == pytest.approx(np.mean(ratios), rel=1e-4)
    assert row["conflict"] == np.mean(np.array(cosines["labels"]) < 0)
    assert abs(row["cosine"] - row["control"]) > 1e-3


@pytest.mark.parametrize(
    ("backbone", "blocks"),
    [
        ("test_vit", ["stem", *(f"blocks.{number}" for number in range(6)), "rest"]),
        ("test_convnext", ["stem", *(f"stages.{number}" for number in range(4)), "rest"]),
        ("test_resnet", ["stem", *(f"layer{number}" for number in range(1, 5))]),
    ],
)
def test_each_block_has_a_row_for_each_two_levels(
    spec: RunSpec, loader: Loader, backbone: str, blocks: list[str]
) -> None:
    rows = interference.Probe(trainer(spec.override({"backbone.name": backbone}), loader), 2).after(1)
    assert [(row["block"], row["levels"]) for row in rows] == [
        (block, pair) for block in blocks for pair in ([1, 2], [1, 3], [2, 3])
    ]
    for row in rows:
        assert -1 <= row["cosine"] <= 1
        assert -1 <= row["control"] <= 1
        assert row["conflict"] in (0, 0.25, 0.5, 0.75, 1)
        assert row["norm_ratio"] > 0


def test_where_one_level_trains_the_backbone_there_is_no_interference(spec: RunSpec, loader: Loader) -> None:
    for isolated in ("detached", "branched"):
        assert (
            interference.Probe(trainer(spec.override({"loss.isolation": isolated}), loader), 1).after(0) == []
        )


@pytest.mark.parametrize(
    ("part", "blocks"),
    [
        ({"backbone.train": "head"}, []),
        ({"backbone.train": "last", "backbone.last": 2}, ["blocks.4", "blocks.5", "rest"]),
        ({"backbone.train": "lora"}, [f"blocks.{number}" for number in range(6)]),
    ],
    ids=lambda value: str(value.get("backbone.train")) if isinstance(value, dict) else "",
)
def test_it_is_measured_where_weights_train(
    spec: RunSpec, loader: Loader, part: dict[str, Any], blocks: list[str]
) -> None:
    rows = interference.Probe(trainer(spec.override(part), loader), 1).after(0)
    # The adapters' A have no gradient before the first step, their B have.
    assert list(dict.fromkeys(row["block"] for row in rows)) == blocks


@pytest.mark.parametrize(("every", "measured"), [(0, []), (1, [0, 1, 2, 3]), (2, [1, 3]), (3, [2])])
def test_it_measures_every_so_many_epochs(
    spec: RunSpec, loader: Loader, every: int, measured: list[int]
) -> None:
    probing = interference.Probe(trainer(spec.override({"optim.batch_size": 4}), loader), every)
    assert [epoch for epoch in range(4) if probing.after(epoch)] == measured


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize(("backbone", "isolated"), [("test_resnet", "shared"), ("test_vit", "projected")])
def test_it_changes_no_bit_of_the_training(
    spec: RunSpec, backbone: str, isolated: str, ranks: int, tmp_path: Path
) -> None:
    """With BatchNorm and with stochastic depth, scored after the last epoch only."""
    changes = {"backbone.name": backbone, "backbone.drop_path": 0.3, "loss.isolation": isolated}
    plain, probed = (
        run_spec(spec.override(changes), tmp_path / name, Place(ranks=ranks), runtime=runtime).folder
        for name, runtime in (("plain", RUNTIME), ("probed", PROBED))
    )
    steps = [[row for row in read_metrics(folder) if row["kind"] == "step"] for folder in (plain, probed)]
    assert steps[0] == steps[1]
    assert (plain / "predictions.parquet").read_bytes() == (probed / "predictions.parquet").read_bytes()
    assert not (plain / runfolder.INTERFERENCE).exists()
    assert {row["epoch"] for row in rows_of(probed)} == {0, 1}


def test_a_resumed_run_writes_no_epoch_twice(spec: RunSpec, tmp_path: Path) -> None:
    spec = spec.override({"optim.epochs": 3})
    whole = run.run(spec, tmp_path / "whole", PROBED)
    stopped = run.lockstep([spec], tmp_path / "stopped", PROBED, each_epoch=False)
    next(stopped)
    stopped.close()
    # What a kill between the measurement of the second epoch and its checkpoint leaves.
    kept = rows_of(tmp_path / "stopped" / spec.run_name)
    interference.write(tmp_path / "stopped" / spec.run_name, 1, [{**row, "epoch": 1} for row in kept])
    again = run.run(spec, tmp_path / "stopped", PROBED)
    assert rows_of(again.folder) == rows_of(whole.folder)


@pytest.mark.parametrize(
    "changes", [{"variant": "flat"}, {"variant": "base"}, {"engine.strategy": "zero1"}, {"loss.kind": "soft"}]
)
def test_what_has_no_levels_or_no_whole_model_is_not_measured(
    spec: RunSpec, changes: dict[str, Any], loader: Loader
) -> None:
    stage = stages(spec.override(changes).variant, loader.dataset.taxonomy)[0]
    rows = np.flatnonzero(loader.dataset.index["fold"] != 0)
    trained = spec.override({**changes, "engine.strategy": "ddp"})
    whole = StageTrainer(trained, plan_stage(trained, stage, rows, loader.dataset), HERE, loader)
    whole.spec = spec.override(changes)
    assert interference.Probe(whole, 1).after(0) == []


def test_the_command_line_asks_for_it(spec: RunSpec, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        spec.override({"data.shards": str(Path(spec.data.shards).resolve())}).dump()
    )
    done = leukotree("train", "run.yaml", "--probe", "2", "--device", "cpu", "--threads", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    [file] = tmp_path.rglob(runfolder.INTERFERENCE)
    assert {row["epoch"] for row in rows_of(file.parent)} == {1}
