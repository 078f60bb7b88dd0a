"""DDP and DeepSpeed train the same way.

They have equal losses, one format of checkpoints for any number of ranks, and evaluate whole models.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch

from hpc.deepspeed import settings
from hpc.launching.ranks import in_ranks
from leukotree.data.dataset import Dataset
from leukotree.data.stream import Loader
from leukotree.distributed import strategies
from leukotree.distributed.engine import Engine, start
from leukotree.errors import InputError
from leukotree.models.stages import stages
from leukotree.runtime import Runtime
from leukotree.spec import RunSpec
from leukotree.training import checkpoint, run
from leukotree.training.plan import plan_stage
from leukotree.training.stage_trainer import StageTrainer
from tests.helpers.specs import tiny_spec

pytestmark = pytest.mark.slow("starts ranks with DeepSpeed")

STRATEGIES = ("ddp", "zero0", "zero1", "zero2", "zero3")
SHARING = ("zero1", "zero2", "zero3")
STEPS, SAVED, RESUMED = 20, 6, 10
RUNTIME = Runtime(device="cpu", threads=1, workers=0, quiet=True, deepspeed=settings.settings())
ACCUMULATED = {"engine.micro_batch": 2, "optim.clip": 0.5}
NORMED = {"backbone.name": "test_resnet"}
"""With BatchNorm, whose buffers no gradient moves."""
WIRED: dict[str, dict[str, Any]] = {
    "branched": {"loss": {"isolation": "branched", "leader": 2, "branch_blocks": 2}},
    "chained": {"loss": {"isolation": "chained", "kind": "conditional"}},
    "uncertainty": {"loss": {"weighting": "uncertainty", "variance_lr": 0.1}},
}
"""Models that are more than a backbone and heads on it."""
TRANSFERS = {
    "alone": [("ddp-2", "ddp"), ("zero1-2", "zero1"), ("zero3-2", "zero3")],
    "two": [
        *(("ddp-2", "ddp"), ("zero1-2", "zero1"), ("zero2-2", "zero2"), ("zero3-2", "zero3")),
        *(("ddp-1", "ddp"), ("zero1-1", "zero1"), ("zero3-1", "zero3")),
        *(("zero1-2", "zero3"), ("zero3-2", "ddp"), ("ddp-2", "zero1")),
    ],
}
"""Number of ranks -> pairs of a checkpoint (its strategy and ranks) and the strategy that continues it."""


def spec_of(shards: Path, name: str, changes: dict[str, Any]) -> RunSpec:
    small = {"optim.batch_size": 8, "optim.epochs": 4}
    return tiny_spec(shards, {**small, "engine.strategy": name, **changes})


class Rank(NamedTuple):
    """A rank of a process group, with the data."""

    engine: Engine
    loader: Loader
    shards: Path

    def trainer(self, name: str, **changes: Any) -> StageTrainer:
        spec = spec_of(self.shards, name, changes)
        [stage] = stages("multilabel", self.loader.dataset.taxonomy)
        rows = np.flatnonzero(self.loader.dataset.index["fold"] != 0)
        return StageTrainer(
            spec, plan_stage(spec, stage, rows, self.loader.dataset), self.engine, self.loader
        )

    def losses(self, trainer: StageTrainer, end: int) -> np.ndarray:
        """The losses of the steps before `end` that were not done, summed over the ranks."""
        trainer.begin()
        trainer.train_until(end)
        return np.sum(self.engine.gather(trainer.collect()), axis=(0, 2))

    def logits(self, trainer: StageTrainer) -> list[np.ndarray]:
        """The logits of one image from each rank. The second rank scores one image more."""
        with trainer.evaluating(), torch.inference_mode():
            image = torch.linspace(-1, 1, 3 * 48 * 48).reshape(1, 3, 48, 48)
            for _ in range(1 + self.engine.rank):
                logits = trainer.logits(image)
        return self.engine.gather(logits.numpy())

    def save(self, trainer: StageTrainer, folder: Path) -> None:
        state = trainer.state()
        if self.engine.is_main:
            checkpoint.save(folder, trainer.step, checkpoint.snapshot(state))

    def overflow(self, name: str) -> tuple[bool, bool, bool]:
        """(an infinite step was done, it moved a weight, the next step was done and moved one)."""
        trainer = self.trainer(name, **{"optim.clip": 1.0})
        before = checkpoint.snapshot(trainer.state())["model"]
        made = []
        for factor in (float("inf"), 1.0):
            with trainer.strategy.micro_batch(last=True):
                trainer.strategy.backward(trainer.strategy.forward(torch.ones(2, 3, 48, 48)).sum() * factor)
            made.append(trainer.strategy.update(1.0))
            moved = [not torch.equal(value, before[key]) for key, value in trainer.state()["model"].items()]
            made.append(any(moved))
        return made[0], made[1], made[2] and made[3]

    def resumed(
        self, folder: Path, transfers: Iterable[tuple[str, str]]
    ) -> dict[tuple[str, str], np.ndarray]:
        """The losses of the steps after a checkpoint."""
        losses = {}
        for source, name in transfers:
            trainer = self.trainer(name)
            saved = checkpoint.load_latest(folder / source)
            assert saved is not None
            trainer.load(saved[1])
            assert trainer.step == SAVED
            losses[source, name] = self.losses(trainer, RESUMED)
        return losses

    def through(self, name: str, folder: Path, end: int, **changes: Any) -> tuple[np.ndarray, StageTrainer]:
        """Losses of a training that was saved once, and not interrupted."""
        trainer = self.trainer(name, **changes)
        before = self.losses(trainer, SAVED)
        self.save(trainer, folder)
        return np.concatenate([before, self.losses(trainer, end)]), trainer


def first_pair(shards: Path, folder: Path, runtime: Runtime) -> dict[str, Any]:
    results: dict[str, Any] = {}
    with start(runtime) as engine, Loader(Dataset.open(shards), workers=0) as loader:
        rank = Rank(engine, loader, shards)
        for name in STRATEGIES:
            results[name], trainer = rank.through(name, folder / f"{name}-2", STEPS)
            results[name, "logits"] = rank.logits(trainer)
            moments = [
                value for state in trainer.strategy.optimizer.state.values() for value in state.values()
            ]
            results[name, "moments"] = engine.gather(sum(value.numel() for value in moments))
            results[name, "clipped"] = rank.losses(rank.trainer(name, **ACCUMULATED), 4)
        for name in SHARING:
            results[name, "offload"] = rank.losses(rank.trainer(name, **{"engine.offload": True}), 4)
        for wired in WIRED:
            for name in ("ddp",) if wired == "uncertainty" else ("ddp", "zero1", "zero3"):
                results[name, wired] = rank.losses(rank.trainer(name, **WIRED[wired]), 4)
        for name in ("ddp", "zero1", "zero3"):
            normed = rank.trainer(name, **NORMED, **{"engine.precision": "bf16"})
            results[name, "bf16"] = rank.losses(normed, 4)
            results[name, "normed"] = rank.logits(normed)
    return results


def alone(shards: Path, folder: Path, runtime: Runtime) -> dict[Any, Any]:
    with start(runtime) as engine, Loader(Dataset.open(shards), workers=0) as loader:
        rank = Rank(engine, loader, shards)
        results = {
            f"{name}-1": rank.through(name, folder / f"{name}-1", RESUMED)[0]
            for name in ("ddp", "zero1", "zero3")
        }
        overflown = {f"{name}-overflow": rank.overflow(name) for name in SHARING}
        wired = {
            ("ddp", name): rank.losses(rank.trainer("ddp", **changes), 4) for name, changes in WIRED.items()
        }
        return results | overflown | wired | rank.resumed(folder, TRANSFERS["alone"])


def second_pair(shards: Path, folder: Path, runtime: Runtime) -> dict[Any, Any]:
    with start(runtime) as engine, Loader(Dataset.open(shards), workers=0) as loader:
        rank = Rank(engine, loader, shards)
        again = {f"{name}-again": rank.losses(rank.trainer(name), RESUMED) for name in ("zero1", "zero3")}
        return again | rank.resumed(folder, TRANSFERS["two"])


def compiled_pair(shards: Path, runtime: Runtime) -> dict[str, Any]:
    """Losses with and without torch.compile. Its usual backend would need a compiler and a minute."""
    torch.compile = functools.partial(torch.compile, backend="aot_eager")  # type: ignore[assignment]
    with start(runtime) as engine, Loader(Dataset.open(shards), workers=0) as loader:
        rank, results = Rank(engine, loader, shards), {}
        for name, changes in {"plain": {}, "accumulated": ACCUMULATED, "branched": WIRED["branched"]}.items():
            for compiled in (False, True):
                trainer = rank.trainer(
                    "ddp", **changes, **{"engine.compile": compiled, "engine.bucket_mb": 1.0}
                )
                results[f"{name} {compiled}"] = rank.losses(trainer, 4)
        return results


@pytest.mark.long("compiles C++ for minutes")
def test_a_compiled_model_trains_the_same(shards: Path) -> None:
    losses = in_ranks(compiled_pair, shards, runtime=RUNTIME, ranks=2)
    for name in ("plain", "accumulated", "branched"):
        np.testing.assert_allclose(losses[f"{name} True"], losses[f"{name} False"], rtol=1e-4)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("strategies")


@pytest.fixture(scope="module")
def first(shards: Path, checkpoints: Path) -> dict[Any, Any]:
    return in_ranks(first_pair, shards, checkpoints, runtime=RUNTIME, ranks=2)


@pytest.fixture(scope="module")
def one(shards: Path, checkpoints: Path, first: dict[Any, Any]) -> dict[Any, Any]:
    return in_ranks(alone, shards, checkpoints, runtime=RUNTIME, ranks=1)


@pytest.fixture(scope="module")
def second(shards: Path, checkpoints: Path, one: dict[Any, Any]) -> dict[Any, Any]:
    """Results of new processes, which share no memory with the first two."""
    return in_ranks(second_pair, shards, checkpoints, runtime=RUNTIME, ranks=2)


@pytest.mark.parametrize("name", STRATEGIES[1:])
def test_every_stage_of_zero_has_the_losses_of_ddp(first: dict[Any, Any], name: str) -> None:
    assert len(first[name]) == STEPS
    assert first["ddp"][-1] < 0.7 * first["ddp"][0]  # it learns, so the steps had an effect
    np.testing.assert_allclose(first[name], first["ddp"], rtol=1e-3)


@pytest.mark.parametrize("name", STRATEGIES[1:])
def test_accumulation_and_clipping_mean_the_same(first: dict[Any, Any], name: str) -> None:
    np.testing.assert_allclose(first[name, "clipped"], first["ddp", "clipped"], rtol=1e-4)
    assert not np.allclose(first["ddp", "clipped"], first["ddp"][:4], rtol=1e-3)


@pytest.mark.parametrize("name", SHARING)
def test_offload_changes_where_and_not_what(first: dict[Any, Any], name: str) -> None:
    np.testing.assert_allclose(first[name, "offload"], first["ddp"][:4], rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "wired"), [(name, wired) for name in ("zero1", "zero3") for wired in ("branched", "chained")]
)
def test_an_isolated_model_is_shared_as_any_other(first: dict[Any, Any], name: str, wired: str) -> None:
    np.testing.assert_allclose(first[name, wired], first["ddp", wired], rtol=1e-3)


@pytest.mark.parametrize("wired", list(WIRED))
def test_two_ranks_have_the_losses_of_one_in_any_wiring(
    first: dict[Any, Any], one: dict[Any, Any], wired: str
) -> None:
    np.testing.assert_allclose(first["ddp", wired], one["ddp", wired], rtol=1e-4)
    assert not np.allclose(first["ddp", wired], first["ddp"][:4], rtol=1e-4)


@pytest.mark.parametrize("name", ["zero1", "zero3"])
def test_bf16_is_the_same_autocast(first: dict[Any, Any], name: str) -> None:
    np.testing.assert_allclose(first[name, "bf16"], first["ddp", "bf16"], rtol=1e-3)


@pytest.mark.parametrize("name", STRATEGIES)
def test_ranks_score_with_one_whole_model(first: dict[Any, Any], name: str) -> None:
    """Also where they score unequal numbers of batches."""
    main, second = first[name, "logits"]
    np.testing.assert_array_equal(main, second)
    np.testing.assert_allclose(main, first["ddp", "logits"][0], rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("name", ["ddp", "zero1", "zero3"])
def test_ranks_score_with_the_same_running_statistics(first: dict[Any, Any], name: str) -> None:
    main, second = first[name, "normed"]
    np.testing.assert_array_equal(main, second)
    np.testing.assert_allclose(main, first["ddp", "normed"][0], rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("name", SHARING)
def test_gradients_that_are_not_finite_move_nothing_and_are_reported(one: dict[Any, Any], name: str) -> None:
    assert one[f"{name}-overflow"] == (False, False, True)


def test_from_stage_1_on_the_ranks_share_the_state_of_the_optimiser(first: dict[Any, Any]) -> None:
    [whole, _] = first["ddp", "moments"]
    for name in STRATEGIES[1:]:
        share = 1 if name == "zero0" else 0.5
        assert max(first[name, "moments"]) == pytest.approx(share * whole, rel=0.02)


@pytest.mark.parametrize("source", ["ddp-2", "zero1-2", "zero2-2", "zero3-2"])
def test_a_resume_on_as_many_ranks_has_the_same_bits(
    first: dict[Any, Any], second: dict[Any, Any], source: str
) -> None:
    name = source.partition("-")[0]
    np.testing.assert_array_equal(second[source, name], first[name][SAVED:RESUMED])


@pytest.mark.parametrize("name", ["zero1", "zero3"])
def test_the_same_training_has_the_same_bits(
    first: dict[Any, Any], second: dict[Any, Any], name: str
) -> None:
    np.testing.assert_array_equal(second[f"{name}-again"], first[name][:RESUMED])


@pytest.mark.parametrize(("source", "name"), TRANSFERS["alone"])
def test_a_checkpoint_of_two_ranks_goes_on_on_one(
    first: dict[Any, Any], one: dict[Any, Any], source: str, name: str
) -> None:
    np.testing.assert_allclose(one[source, name], first[name][SAVED:RESUMED], rtol=1e-4)


@pytest.mark.parametrize(("source", "name"), [pair for pair in TRANSFERS["two"] if pair[0].endswith("-1")])
def test_a_checkpoint_of_one_rank_goes_on_on_two(
    one: dict[Any, Any], second: dict[Any, Any], source: str, name: str
) -> None:
    np.testing.assert_allclose(second[source, name], one[source][SAVED:], rtol=1e-4)


@pytest.mark.parametrize(("source", "name"), TRANSFERS["two"][-3:])
def test_a_checkpoint_of_one_strategy_goes_on_in_another(
    first: dict[Any, Any], second: dict[Any, Any], source: str, name: str
) -> None:
    np.testing.assert_allclose(second[source, name], first[name][SAVED:RESUMED], rtol=1e-4)


@pytest.mark.parametrize("source", ["zero0-2", "zero1-2", "zero2-2", "zero3-2"])
def test_a_checkpoint_is_that_of_ddp(first: dict[Any, Any], checkpoints: Path, source: str) -> None:
    """The same keys, shapes and kinds of values, and nearly the same values."""
    [(_, expected), (_, actual)] = [
        checkpoint.load_latest(checkpoints / name) or (0, {}) for name in ("ddp-2", source)
    ]
    assert list(actual) == list(expected)
    for part in ("model", "optimizer"):
        _same(actual[part], expected[part])


def _same(actual: Any, expected: Any) -> None:
    assert type(actual) is type(expected)
    if isinstance(expected, dict):
        assert actual.keys() == expected.keys()
        for key in expected:
            _same(actual[key], expected[key])
    elif isinstance(expected, list):
        for pair in zip(actual, expected, strict=True):
            _same(*pair)
    elif isinstance(expected, torch.Tensor):
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-5)
    else:
        assert actual == expected


def test_the_four_models_of_base_train_together_and_deepspeed_is_quiet(shards: Path, tmp_path: Path) -> None:
    spec = spec_of(shards, "zero2", {"variant": "base", "optim.epochs": 1})
    (tmp_path / "run.yaml").write_text(spec.override({"data.shards": str(shards.resolve())}).dump())
    leukotree = Path(sys.executable).with_name("leukotree")
    command = [leukotree, "train", "run.yaml", "--ranks", "2", "--threads", "1", "--device", "cpu"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    [line] = done.stdout.splitlines()
    assert line.startswith("results/runs/single/base-")
    assert done.stderr == ""
    [zero] = tmp_path.rglob("predictions.parquet")
    alone = run.run(
        spec.override({"engine.strategy": "ddp"}),
        tmp_path / "alone",
        Runtime(device="cpu", threads=1, quiet=True),
    )
    frames = [
        pd.read_parquet(path).sort_values("key") for path in (zero, alone.folder / "predictions.parquet")
    ]
    columns = [name for name in frames[0] if name.startswith("logp:")]
    assert list(frames[0]["key"]) == list(frames[1]["key"])
    np.testing.assert_allclose(frames[0][columns], frames[1][columns], rtol=2e-2, atol=2e-3)


@pytest.mark.parametrize(
    ("name", "changes"), [("ddp", "offload"), ("zero0", "offload"), ("zero1", "compile")]
)
def test_what_a_strategy_cannot_do_is_refused(name: str, changes: str) -> None:
    with pytest.raises(InputError, match=f"engine: {changes}: .*{name}.*; use ") as error:
        RunSpec().override({"engine.strategy": name, f"engine.{changes}": True})
    assert "\n" not in str(error.value)


def test_zero_without_deepspeed_is_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    strategies.check(RunSpec())
    with pytest.raises(
        InputError, match="zero2: deepspeed is not installed; pip install deepspeed, or use ddp"
    ):
        strategies.check(RunSpec().override({"engine.strategy": "zero2"}))


def test_deepspeed_is_imported_only_when_asked_for() -> None:
    code = "import sys, hpc.launching.runs, leukotree.training.run; sys.exit('deepspeed' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ}, check=False).returncode == 0
