"""One process without torchrun's variables is a group of one; the named random streams are independent."""

import os
import socket

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leukotree import seeds
from leukotree.distributed.engine import Engine, _device, start
from leukotree.errors import InputError, RunFailed
from leukotree.runtime import Runtime
from leukotree.spec import EngineSpec


def test_alone_there_is_nobody_to_wait_for() -> None:
    with start(Runtime(device="cpu")) as engine:
        assert (engine.rank, engine.world, engine.is_main) == (0, 1, True)
        assert engine.gather({"a": 1}) == [{"a": 1}]
        engine.barrier()
    assert not torch.distributed.is_initialized()


def test_fp32_is_not_rounded_to_tf32_where_the_environment_asks_for_it() -> None:
    """TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1, as in NVIDIA's containers, makes torch begin with `high`."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with start(Runtime(device="cpu")):
            assert torch.get_float32_matmul_precision() == "highest"
            assert not torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cuda_that_is_not_there_is_bad_input() -> None:
    with pytest.raises(InputError, match="no CUDA device"), start(Runtime(device="cuda")):
        pass


@pytest.mark.parametrize(
    ("gpus", "environment", "wanted", "expected"),
    [
        (0, {}, "auto", "cpu"),
        (0, {"SLURM_JOB_ID": "7"}, "auto", "cpu"),
        (2, {}, "cpu", "cpu"),
        (2, {"LOCAL_RANK": "1"}, "auto", "cuda:1"),
        (4, {"LOCAL_RANK": "3", "SLURM_PROCID": "7"}, "cuda", "cuda:3"),
        (1, {"LOCAL_RANK": "3", "SLURM_PROCID": "3"}, "cuda", "cuda:0"),  # each task sees its own
        (2, {"LOCAL_RANK": "2"}, "auto", "--ranks: rank 2 of this machine has no GPU: there are 2"),
        (1, {"LOCAL_RANK": "1"}, "cuda", "--ranks: rank 1 of this machine has no GPU: there are 1"),
    ],
)
def test_a_rank_takes_the_device_of_its_number(
    gpus: int, environment: dict[str, str], wanted: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a fake CUDA: the test machine may have none."""
    for name in ("LOCAL_RANK", "SLURM_JOB_ID", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    if expected.startswith("--"):
        with pytest.raises(InputError, match=expected):
            _device(wanted)
    else:
        assert _device(wanted) == torch.device(expected)


def test_a_job_whose_gpu_is_broken_is_tried_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RunFailed, match="no CUDA device that works") as failed:
        _device("cuda")
    assert failed.value.kind == "node"


@pytest.mark.parametrize(
    ("cores", "device", "ranks", "workers"),
    [
        (2, "cpu", 1, 1),  # one thread of torch computes
        (16, "cpu", 1, 8),
        (1, "cpu", 1, 1),
        (2, "cpu", 2, 1),
        (12, "cuda", 4, 2),
        (128, "cuda", 8, 8),
    ],
)
def test_decoding_takes_the_cores_that_do_not_compute(
    cores: int, device: str, ranks: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(Engine, "gather", lambda engine, value: [value] * engine.world)
    assert Engine(0, ranks, torch.device(device)).default_workers() == workers


def test_ranks_that_are_bound_to_cores_of_their_own_do_not_share_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)))
    others = [("elsewhere", [0, 1, 2, 3]), (socket.gethostname(), [4, 5, 6, 7])]
    monkeypatch.setattr(Engine, "gather", lambda engine, value: [value, *others])
    assert Engine(0, 3, torch.device("cuda")).default_workers() == 3


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast_decides_the_type_of_a_product(precision: str, dtype: torch.dtype) -> None:
    engine = Engine(0, 1, torch.device("cpu"))
    with engine.autocast(EngineSpec.model_validate({"precision": precision})):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


@given(st.integers(0, 2**31), st.sampled_from(["order", "augment", "weights/tree"]), st.integers(0, 1000))
def test_a_stream_is_a_function_of_its_name_and_place(seed: int, stream: str, place: int) -> None:
    draw = seeds.generator(seed, stream, place).random(4)
    assert (draw == seeds.generator(seed, stream, place).random(4)).all()
    for other in (
        seeds.generator(seed, stream, place + 1),
        seeds.generator(seed, stream + "x", place),
        seeds.generator(seed + 1, stream, place),
    ):
        assert (draw != other.random(4)).any()
    assert 0 <= seeds.integer(seed, stream, place) < 2**63
