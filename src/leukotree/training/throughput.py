"""How fast an epoch went, and what it cost. The row of an epoch in metrics.jsonl has, besides its score:

`seconds` of training, `images_per_s`, `step_s` (mean), `stall_s` (waiting for data), `memory_gb` (peak),
`mfu` (model FLOPs
over what the devices could do at best; null where that is not known, as on a CPU), and the hours since the
run began, scoring included: `gpu_hours`, and on the CPU `core_hours`, one for each thread of torch. An
epoch's own are the difference of two rows.
"""

from __future__ import annotations

import re
import resource
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.func import functional_call

PEAKS: dict[str, tuple[float, float]] = {
    "V100": (125, 15.7),  # fp16: it has no bf16
    "A100": (312, 19.5),
    "A40": (150, 37.4),
    "A30": (165, 10.3),
    "L4": (121, 30.3),
    "L40S": (362, 91.6),
    "H100 PCIe": (756, 51),
    "H100 NVL": (835, 60),
    "H100": (989, 67),
    "H200": (989, 67),
    "GH200": (989, 67),
    "B200": (2250, 80),
    "RTX 4090": (165, 82.6),
    "MI250X": (191.5, 23.9),  # torch's device is one of the two dies
    "MI300X": (1307, 163.4),
}
"""Word in a GPU's name -> TFLOP/s of its matrix units in dense bf16, and in fp32 without them, from the
makers' data sheets. The first that fits counts."""
STEP = 3
"""Forward passes that a training step costs: the backward pass costs about two."""

_counted: dict[tuple[str, int], int | None] = {}


@dataclass(frozen=True)
class Share:
    """What one rank used in an epoch."""

    stall_s: float
    """Seconds in which its loop waited for data."""
    memory_gb: float
    """`peak_memory_gb`."""


def epoch_fields(steps: int, images: int, seconds: float, ranks: Sequence[Share]) -> dict[str, float | None]:
    """Speed of an epoch of all ranks together; of what the ranks used, the most that one did: the others wait
    for it.

    Args:
        steps, images: optimiser steps of all stages, and samples in them.
        seconds: how long they took, scoring left out.
    """
    return {
        "seconds": seconds,
        "images_per_s": images / seconds if steps else None,  # an epoch that was resumed after its last step
        "step_s": seconds / steps if steps else None,
        "stall_s": max(rank.stall_s for rank in ranks),
        "memory_gb": max(rank.memory_gb for rank in ranks),
    }


def hours(seconds: float, ranks: int, device: torch.device) -> dict[str, float]:
    """What some seconds of all ranks cost: hours of GPUs, or on the CPU of cores."""
    spent = seconds * ranks / 3600
    cuda = device.type == "cuda"
    return {
        "gpu_hours": spent if cuda else 0.0,
        "core_hours": 0.0 if cuda else spent * torch.get_num_threads(),
    }


def reset_peak_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_gb(device: torch.device) -> float:
    """Most memory at one time, in 10^9 bytes: of torch's tensors on a GPU since the last reset, on the CPU of
    the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def peak_flops(device: torch.device, precision: str) -> float | None:
    """FLOP/s that the device could do in `bf16` or `fp32`; None where that is not known, as for a CPU."""
    return named_peak_flops(torch.cuda.get_device_name(device), precision) if device.type == "cuda" else None


def named_peak_flops(name: str, precision: str) -> float | None:
    """`peak_flops` of a GPU by its name; None for one that is not in PEAKS, and for a slice (MIG) of one."""
    if "MIG" in name.split():
        return None
    for word, (bf16, fp32) in PEAKS.items():
        if re.search(rf"\b{word}\b", name):
            return 1e12 * (bf16 if precision == "bf16" else fp32)
    return None


def forward_flops(model: nn.Module, backbone: str, size: int) -> int | None:
    """FLOPs of one image's forward pass, two per multiply-add; counted once in a process per backbone and
    image size (the heads differ by next to nothing). None for a model that cannot be counted.

    The pass runs on the meta device, with the shapes of the model's tensors but not their values: it takes
    well below a second, draws no random numbers and leaves the model as it was.
    """
    if (backbone, size) not in _counted:
        try:
            _counted[backbone, size] = _count(model, size)
        except (
            Exception
        ):  # some models refuse the meta device or the counter in ways of their own; it is only a statistic
            _counted[backbone, size] = None
    return _counted[backbone, size]


def _count(model: nn.Module, size: int) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    tensors = (*model.named_parameters(), *model.named_buffers())
    # Detached: the counter follows gradients, of which there are none here.
    shapes = {name: tensor.detach().to("meta") for name, tensor in tensors}
    image = torch.empty(1, 3, size, size, device="meta")
    was_training = model.training
    model.eval()  # in training BatchNorm asks for more than one value, SyncBatchNorm for a GPU
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            functional_call(model, shapes, (image,))
    finally:
        model.train(was_training)
    return int(counter.get_total_flops())
