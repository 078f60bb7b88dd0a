"""The sum of gradients over the ranks, beside the speed of the link between them."""

from __future__ import annotations

from functools import partial

import torch
import torch.distributed as dist

from leukotree.bench.clock import in_turn
from leukotree.bench.setting import Row, Setting
from leukotree.distributed.engine import start
from leukotree.errors import RunFailed
from leukotree.runtime import Runtime

BUCKET = 25 * 2**20
"""Bytes that DDP exchanges at once."""
LINK = 64 * 2**20
"""Bytes of the tensor that measures the link. It is so large that starting the exchange hardly counts."""


def measure(setting: Setting) -> list[Row]:
    """The speed of the model's gradients in buckets, as DDP sends them. The limit is one large tensor.

    Speeds are bus bandwidths: an all-reduce moves 2 (n - 1) / n of its bytes over the link of each of n
    ranks.
    """
    engine = setting.engine
    if engine.world == 1:
        return [Row("all-reduce", "GB/s", None, None, "one rank: nothing to reduce", None)]
    size = 4 * setting.parameters
    gradients = [
        torch.zeros(min(BUCKET, size - start) // 4, device=engine.device) for start in range(0, size, BUCKET)
    ]
    link = [torch.zeros(LINK // 4, device=engine.device)]
    exchange, large = in_turn(
        engine, [partial(_all_reduce, gradients), partial(_all_reduce, link)], setting.seconds
    )
    moved = 2 * (engine.world - 1) / engine.world / 1e9
    limit_is = f"one tensor of {LINK >> 20} MiB, {'nccl' if engine.device.type == 'cuda' else 'gloo'}"
    return [Row("all-reduce", "GB/s", moved * size / exchange, moved * LINK / large, limit_is, exchange)]


def _all_reduce(tensors: list[torch.Tensor], count: int) -> None:
    for _ in range(count):
        for handle in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
            handle.wait()


def probe(seconds: float, runtime: Runtime) -> tuple[float, str]:
    """Bus bandwidth in GB/s of one tensor of LINK bytes over the ranks, and the backend's name.

    Every rank calls it. Raises RunFailed where the sum is wrong.
    """
    with start(runtime) as engine:
        link = torch.full((LINK // 4,), float(engine.rank + 1), device=engine.device)
        dist.all_reduce(link)
        if not torch.all(link == engine.world * (engine.world + 1) / 2):
            raise RunFailed(f"the sum over {engine.world} ranks is wrong")
        [took] = in_turn(engine, [partial(_all_reduce, [link.zero_()])], seconds)
        speed = 2 * (engine.world - 1) / engine.world * LINK / took / 1e9
        return speed, "nccl" if engine.device.type == "cuda" else "gloo"
