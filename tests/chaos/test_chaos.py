"""Runs of two ranks that are interrupted again and again end with the bits of an undisturbed one."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from hpc.launching.ranks import in_ranks
from leukotree import signals
from leukotree.errors import Preempted, RunFailed
from leukotree.records.runfolder import read_metrics, read_status
from leukotree.runtime import Runtime
from leukotree.spec import RunSpec
from leukotree.training import checkpoint
from tests.helpers.interruptions import Interruption
from tests.helpers.interruptions import run as interrupted_run
from tests.helpers.specs import tiny_spec

pytestmark = pytest.mark.slow("each attempt starts two ranks, and there are thirty")

RANKS = 2


@pytest.mark.parametrize(
    ("variant", "strategy", "interruptions"),
    [
        ("flat", "ddp", 4),
        ("base", "ddp", 4),
        ("multilabel", "ddp", 6),
        pytest.param("ensemble", "ddp", 8, marks=pytest.mark.long("its stages are those of `base`")),
        pytest.param("multilabel", "zero1", 8, marks=pytest.mark.long("imports DeepSpeed for each attempt")),
    ],
)
def test_interrupted_at_random_moments_a_run_ends_with_the_same_bits(
    shards: Path, tmp_path: Path, variant: str, strategy: str, interruptions: int
) -> None:
    changes = {"variant": variant, "backbone.drop_path": 0.1, "engine.strategy": strategy}
    spec = tiny_spec(shards, {**changes, "optim.epochs": 10})
    undisturbed_ranks(spec, tmp_path / "whole")
    undisturbed, folder = tmp_path / "whole" / spec.run_name, tmp_path / "interrupted" / spec.run_name

    numbers = random.Random(f"{variant} {strategy}")
    for _ in range(interruptions):
        attempt(spec, folder, numbers)
    undisturbed_ranks(spec, folder.parent)
    assert read_status(folder)["state"] == "done"
    assert len((folder / "attempts.jsonl").read_text().splitlines()) == interruptions + 1

    assert losses(folder) == losses(undisturbed)
    assert scores(folder) == scores(undisturbed)
    assert (folder / "predictions.parquet").read_bytes() == (undisturbed / "predictions.parquet").read_bytes()


def test_three_ranks_stopped_in_an_epoch_go_on_with_the_same_bits(shards: Path, tmp_path: Path) -> None:
    """The order of a sum of two does not matter. DDP sorts its buckets again after the first backward pass,
    also in a run that is continued. With three ranks that could change bits."""
    spec = tiny_spec(shards, {"optim.epochs": 2})
    runtime, stop = Runtime(threads=1), Interruption("SIGUSR2", "training", 5, 0, False)
    undisturbed_ranks(spec, tmp_path / "whole", ranks=3)
    with signals.watched(), pytest.raises(Preempted):
        in_ranks(interrupted_run, spec, tmp_path / "stopped", stop, runtime=runtime, ranks=3)
    assert checkpoint.load_latest(tmp_path / "stopped" / spec.run_name / "checkpoints")[1]["epoch"] == 0
    undisturbed_ranks(spec, tmp_path / "stopped", ranks=3)
    assert losses(tmp_path / "stopped" / spec.run_name) == losses(tmp_path / "whole" / spec.run_name)


def undisturbed_ranks(spec: RunSpec, root: Path, ranks: int = RANKS) -> None:
    """Train to the end. A signal of an attempt before it is forgotten: it came to this process, too."""
    with signals.watched():
        in_ranks(interrupted_run, spec, root, None, runtime=Runtime(threads=1), ranks=ranks)


def attempt(spec: RunSpec, folder: Path, numbers: random.Random) -> None:
    """Train until a drawn interruption."""
    interruption = Interruption.draw(numbers, RANKS)
    # Some attempts save at every step, others only when they are asked to, or at the end of an epoch.
    runtime = Runtime(threads=1, save_s=numbers.choice([0, 0, 600]))
    killed = interruption.how.startswith("kill")
    with signals.watched(), pytest.raises(RunFailed if killed else Preempted) as ended:
        in_ranks(interrupted_run, spec, folder.parent, interruption, runtime=runtime, ranks=RANKS)
    if killed:
        assert ended.value.kind == "node", (interruption, ended.value)  # type: ignore[attr-defined]
    else:
        assert read_status(folder)["state"] == "preempted"
    steps = losses(folder)
    assert len({row[:2] for row in steps}) == len(steps), f"a step counted twice after {interruption}"


def losses(folder: Path) -> list[tuple[str, int, float]]:
    return [(row["stage"], row["step"], row["loss"]) for row in read_metrics(folder) if row["kind"] == "step"]


def scores(folder: Path) -> list[str]:
    rows = [row for row in read_metrics(folder) if row["kind"] == "epoch"]
    return [json.dumps([row["epoch"], row["macro_f1"]]) for row in rows]
