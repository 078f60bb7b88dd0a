"""The measurements of `leukotree bench`: their work is that of training, and as large as that of the
limit."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leukotree.bench import checkpoints, clock, loader, measure, step
from leukotree.bench.setting import RATES, Row, Setting
from leukotree.data.dataset import Dataset
from leukotree.data.images import codec
from leukotree.data.stream import Loader
from leukotree.distributed.engine import Engine
from leukotree.errors import InputError
from leukotree.models.stages import stages
from leukotree.runtime import Runtime
from leukotree.spec import TRAINED, RunSpec
from leukotree.training.plan import Plan, plan_stage
from leukotree.training.stage_trainer import StageTrainer

HERE = Engine(0, 1, torch.device("cpu"))
BRIEF = 0.001
"""Seconds of a measurement whose numbers do not matter."""


@pytest.fixture
def spec(shards: Path) -> RunSpec:
    return RunSpec().override(
        {
            "data.shards": str(shards),
            "backbone.name": "test_vit",
            "optim": {"batch_size": 12},
            "engine.precision": "fp32",
        }
    )


@pytest.fixture
def setting(spec: RunSpec, tmp_path: Path) -> Setting:
    dataset = Dataset.open(spec.data.shards)
    rows = np.arange(len(dataset))
    [stage] = stages(spec.variant, dataset.taxonomy)
    plan = Plan(spec, dataset, rows, rows, (plan_stage(spec, stage, rows, dataset),))
    return Setting(plan, HERE, 1, BRIEF, tmp_path, tmp_path, None, 1.0)


def test_works_take_turns_of_as_many_repetitions() -> None:
    done: list[tuple[str, int]] = []

    def work(name: str, count: int) -> None:
        done.append((name, sum(1 for _ in range(100 * count)) // 100))

    durations = clock.in_turn(HERE, [partial(work, "a"), partial(work, "b")], BRIEF)
    rounds = done[-2 * clock.ROUNDS :]
    assert [name for name, _ in rounds] == ["a", "b"] * clock.ROUNDS
    assert len(set(rounds)) == 2
    assert all(seconds > 0 for seconds in durations)


def test_a_work_that_lasts_longer_than_asked_is_repeated_once() -> None:
    counts: list[int] = []
    clock.in_turn(HERE, [lambda count: counts.append(sum(1 for _ in range(count * 10**5)) // 10**5)], 1e-9)
    assert set(counts) == {1}


@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3), st.sampled_from([*RATES, "s"]))
def test_the_share_of_the_limit_is_below_one_for_what_is_worse_than_the_limit(
    measured: float, limit: float, unit: str
) -> None:
    share = Row("it", unit, measured, limit, "", None).share
    assert share is not None
    assert (share < 1) == (measured > limit if unit == "s" else measured < limit)


@pytest.mark.slow("measures every part of a step")
@pytest.mark.parametrize("variant", TRAINED)
def test_every_part_of_every_variant_is_measured_and_leaves_nothing_behind(
    spec: RunSpec, variant: str, tmp_path: Path
) -> None:
    runs, scratch = tmp_path / "runs", tmp_path / "scratch"
    runs.mkdir(), scratch.mkdir()
    runtime = Runtime(device="cpu", workers=1)
    measured = measure.measure(
        spec.override({"variant": variant}), list(measure.PARTS), BRIEF, runs, scratch, runtime
    )
    names = ["loader", "loader, cached", "step", "all-reduce", "checkpoint, held up", "checkpoint, written"]
    assert [row.what for row in measured.rows] == names
    for row in measured.rows:
        if row.what == "all-reduce":
            assert (row.measured, row.share, row.limit_is) == (None, None, "one rank: nothing to reduce")
        else:
            assert min(row.measured or 0, row.limit or 0, row.share or 0, row.seconds or 0) > 0
    assert (measured.device, measured.ranks, measured.workers, measured.size) == ("cpu", 1, 1, 48)
    dataset = Dataset.open(spec.data.shards)
    assert measured.images == (dataset.index["fold"] != spec.data.test_fold).sum()
    assert not list(runs.iterdir())


def test_only_what_is_asked_for_is_measured(spec: RunSpec, tmp_path: Path) -> None:
    measured = measure.measure(spec, ["all-reduce"], BRIEF, tmp_path, tmp_path, Runtime(device="cpu"))
    assert [row.what for row in measured.rows] == ["all-reduce"]


def test_without_room_for_a_cache_there_is_no_row_of_it(spec: RunSpec, tmp_path: Path) -> None:
    runtime = Runtime(device="cpu", cache=tmp_path / "decoded", cache_gb=1e-9)
    measured = measure.measure(spec, ["loader"], BRIEF, tmp_path, tmp_path, runtime)
    assert [row.what for row in measured.rows] == ["loader"]


def test_weights_that_are_missing_here_do_not_matter(spec: RunSpec, tmp_path: Path) -> None:
    elsewhere = spec.override({"backbone.weights": "on/the/cluster.safetensors"})
    assert measure.measure(elsewhere, ["step"], BRIEF, tmp_path, tmp_path, Runtime(device="cpu")).rows


def test_bad_input_is_refused_as_for_training(spec: RunSpec, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        measure.measure(
            spec.override({"data.shards": "gone"}), ["step"], BRIEF, tmp_path, tmp_path, Runtime()
        )


def test_the_step_that_is_measured_is_the_trainers_and_is_counted_exactly(setting: Setting) -> None:
    """168 images are 14 steps an epoch: 20 steps pass the end of one."""
    spec = setting.spec.override({"optim.epochs": step.ENDLESS})
    with Loader(setting.dataset, workers=1) as images_:
        trainer = StageTrainer(spec, setting.stage, HERE, images_)
        trainer.begin()
        before = [parameter.clone() for parameter in trainer.model.parameters()]
        for count in (1, 20):
            step._train(trainer, count)
    assert {int(state["step"]) for state in trainer.strategy.optimizer.state.values()} == {21}
    assert any(not torch.equal(old, new) for old, new in zip(before, trainer.model.parameters(), strict=True))


def test_the_bare_loop_trains_a_model_of_its_own_as_often(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, optimizer = setting.network()
    monkeypatch.setattr(Setting, "network", lambda self: (model, optimizer))
    step._bare_loop(setting)(3)
    assert {int(state["step"]) for state in optimizer.state.values()} == {3}


@pytest.mark.parametrize("threads", [1, 3])
def test_the_decoding_limit_decodes_as_many_images_as_the_loader(
    setting: Setting, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[bytes] = []
    decode = codec.decode
    monkeypatch.setattr(codec, "decode", lambda jpeg, buffer: (decoded.append(jpeg), decode(jpeg, buffer)))
    with ThreadPoolExecutor(threads) as pool:
        loader._decoding(setting, pool, threads, setting.rows[:5])(7)
    assert len(decoded) == 7 * setting.spec.optim.batch_size
    assert set(decoded) == {setting.dataset.read(row) for row in range(5)}


def test_a_snapshot_is_measured_against_all_of_its_bytes(setting: Setting) -> None:
    """AdamW keeps two values per parameter, and a step count of four bytes per tensor."""
    model, _ = setting.network()
    parameters = list(model.parameters())
    held = checkpoints.measure(setting)[0]
    expected = 3 * sum(4 * parameter.numel() for parameter in parameters) + 4 * len(parameters)
    assert held.limit_is == f"one copy of {expected / 1e6:.3g} MB from the device"
