"""Advice from made-up measurements: a step of one second whose parts are known."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc.bench.advice import Setup, Speeds, advice, shares

GPU = Setup(
    cores=32,
    gpus=4,
    device="cuda",
    ranks=4,
    workers=7,
    threads=1,
    cache=False,
    batch_size=256,
    precision="bf16",
    compile=True,
    steps=100,
    epochs=10,
)
CPU = replace(
    GPU, cores=8, gpus=0, device="cpu", ranks=1, workers=1, threads=7, precision="fp32", compile=False
)
seconds = st.floats(1e-6, 1e3)


def only_line(speeds: Speeds, setup: Setup, bottleneck: str) -> str:
    named, lines = advice(speeds, setup)
    assert named == bottleneck
    assert len(lines) == 1
    return lines[0]


def test_a_slow_loader_calls_for_the_cache_if_that_is_faster() -> None:
    speeds = Speeds(step=1.0, bare=0.2, loader=1.0, cached=0.1)
    assert "--cache" in only_line(speeds, GPU, "loader")
    assert "80%" in only_line(speeds, GPU, "loader")
    assert "10 times" in only_line(speeds, GPU, "loader")


def test_a_slow_loader_calls_for_more_workers_if_cores_are_idle() -> None:
    slow = Speeds(step=1.0, bare=0.2, loader=1.0, cached=0.9)
    assert "--workers 7" in only_line(slow, replace(GPU, workers=2), "loader")
    assert "pack smaller images" in only_line(slow, GPU, "loader")
    assert "pack smaller images" in only_line(replace(slow, cached=0.1), replace(GPU, cache=True), "loader")


def test_a_busy_model_calls_for_cheaper_computing() -> None:
    speeds = Speeds(step=1.0, bare=0.98, loader=0.1)
    assert "engine.precision=bf16, engine.compile=true, --ranks 4" in only_line(
        speeds, replace(GPU, precision="fp32", compile=False, ranks=1), "compute"
    )
    assert "smaller backbone" in only_line(speeds, GPU, "compute")
    assert "a GPU" in only_line(speeds, CPU, "compute")


def test_ranks_that_wait_for_each_other_call_for_less_exchange() -> None:
    speeds = Speeds(step=1.0, bare=0.6, loader=0.1, exchange=0.5)
    assert "optim.batch_size=512" in only_line(speeds, GPU, "communication")
    assert shares(speeds, GPU)["communication"] == pytest.approx(
        0.4
    )  # the rest hides behind the backward pass


def test_a_loader_as_fast_as_the_model_is_balanced() -> None:
    assert "--cache" in only_line(Speeds(step=1.0, bare=0.97, loader=0.9), GPU, "balanced")


def test_a_slow_host_calls_for_larger_batches() -> None:
    speeds = Speeds(step=1.0, bare=0.5, loader=0.1)
    assert "optim.batch_size=512" in only_line(speeds, GPU, "loop")
    assert "engine.compile=true" in only_line(speeds, replace(GPU, compile=False), "loop")


def test_too_many_threads_on_the_cpu_are_named() -> None:
    speeds = Speeds(step=1.0, bare=0.5, loader=0.1)
    assert "--threads 7" in only_line(speeds, replace(CPU, threads=8), "loop")
    assert "--threads" not in only_line(speeds, CPU, "loop")


def test_slow_saves_and_short_trials() -> None:
    speeds = Speeds(step=1.0, bare=1.0, loader=0.1)
    assert "faster disk" in only_line(replace(speeds, held=50.0), GPU, "checkpoint")
    assert "faster disk" in only_line(replace(speeds, written=150.0), GPU, "checkpoint")
    assert only_line(replace(speeds, written=99.0), GPU, "compute")  # written while the next epoch trains
    assert "--gpus-per-trial" in only_line(replace(speeds, trial=500.0), GPU, "trials")
    assert "--gpus-per-trial" not in only_line(replace(speeds, trial=500.0), CPU, "trials")


def test_a_second_notable_loss_has_a_line_of_its_own() -> None:
    named, lines = advice(Speeds(step=1.0, bare=0.3, loader=0.8, exchange=0.2), GPU)
    assert named == "loader"
    assert len(lines) == 2
    assert "gradients" in lines[1]


def test_without_a_measured_step_there_is_no_advice() -> None:
    assert advice(Speeds(step=None, bare=None, loader=1.0), GPU) == (None, [])


@given(st.builds(Speeds, *[seconds] * 8), st.sampled_from([GPU, CPU]))
def test_the_shares_sum_to_one_and_there_is_always_advice(speeds: Speeds, setup: Setup) -> None:
    parts = shares(speeds, setup)
    assert min(parts.values()) >= 0
    assert sum(parts.values()) == pytest.approx(1)
    named, lines = advice(speeds, setup)
    assert named in {*parts, "balanced"}
    assert 1 <= len(lines) <= 2
