"""Speed and cost of an epoch. Its row in metrics.jsonl has, beside the score:

`seconds` of training, `images_per_s`, `step_s` (mean), `stall_s` (waiting for data), `memory_gb` (peak), and
`mfu` (model FLOPs over the peak of the devices; null where the peak is not known, as on a CPU). The hours
since the run began, scoring included, are `gpu_hours`, or on the CPU `core_hours`, with one for each thread
of torch. The hours of one epoch are the difference of two rows.
"""

from __future__ import annotations

import re
import resource
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.func import functional_call

from leukotree.models.classifier import Classifier
from leukotree.records.compute import CORE_HOURS, GPU_HOURS
from leukotree.spec import RunSpec

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
"""Word in a GPU's name -> TFLOP/s in dense bf16 with matrix units, and in fp32 without them.

They are from the makers' data sheets. The first word that a name has counts.
"""

_counted: dict[tuple[str, int], int | None] = {}


@dataclass(frozen=True)
class Share:
    """Waiting time and memory of one rank in an epoch."""

    stall_s: float
    """Seconds in which its training loop waited for data."""
    memory_gb: float
    """`peak_memory_gb`."""


def epoch_fields(steps: int, images: int, seconds: float, ranks: Sequence[Share]) -> dict[str, float | None]:
    """The speed of an epoch of all ranks. Of `ranks` the largest value counts: the others wait for it.

    Args:
        steps, images: optimiser steps of all stages, and samples in them.
        seconds: their duration without scoring.
    """
    return {
        "seconds": seconds,
        # No steps: the epoch was resumed after its last step.
        "images_per_s": images / seconds if steps else None,
        "step_s": seconds / steps if steps else None,
        "stall_s": max(rank.stall_s for rank in ranks),
        "memory_gb": max(rank.memory_gb for rank in ranks),
    }


def hours(seconds: float, ranks: int, device: torch.device) -> dict[str, float]:
    """The cost of some seconds of all ranks: hours of GPUs, or on the CPU hours of cores."""
    spent = seconds * ranks / 3600
    cuda = device.type == "cuda"
    return {
        GPU_HOURS: spent if cuda else 0.0,
        CORE_HOURS: 0.0 if cuda else spent * torch.get_num_threads(),
    }


def reset_peak_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_gb(device: torch.device) -> float:
    """Peak memory in 10^9 bytes: on a GPU of torch's tensors since the last reset, on the CPU of the
    process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def peak_flops(device: torch.device, precision: str) -> float | None:
    """Peak FLOP/s of the device in `bf16` or `fp32`; None where it is not known, as for a CPU."""
    return named_peak_flops(torch.cuda.get_device_name(device), precision) if device.type == "cuda" else None


def named_peak_flops(name: str, precision: str) -> float | None:
    """`peak_flops` of a GPU by its name; None for a GPU that is not in PEAKS, and for a MIG slice."""
    if "MIG" in name.split():
        return None
    for word, (bf16, fp32) in PEAKS.items():
        if re.search(rf"\b{word}\b", name):
            return 1e12 * (bf16 if precision == "bf16" else fp32)
    return None


def of_model(model: Classifier, spec: RunSpec, size: int) -> int | None:
    """`forward_flops` of a stage's model for images of size x size pixels."""
    name, branches = spec.backbone.name, len(model.branches)
    if spec.variant == "neighbours":  # its head has no images yet
        return forward_flops(model.backbone, f"{name} alone", size)
    counted = f"{name}, {branches} x {spec.loss.branch_blocks} blocks" if branches else name
    if spec.backbone.train == "lora":
        counted += f", {spec.backbone.lora}"
    return forward_flops(model, counted, size)


def forward_flops(model: nn.Module, backbone: str, size: int) -> int | None:
    """FLOPs of one image's forward pass, two per multiply-add; None for a model that cannot be counted.

    They are counted once per process, backbone and image size: heads differ by very little. The pass runs on
    the meta device, with the shapes of the model's tensors but without their values. It takes well below a
    second, draws no random numbers and does not change the model.
    """
    if (backbone, size) not in _counted:
        try:
            _counted[backbone, size] = _count(model, size)
        except Exception:  # some models do not run on the meta device or with the counter
            _counted[backbone, size] = None
    return _counted[backbone, size]


def _count(model: nn.Module, size: int) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    tensors = (*model.named_parameters(), *model.named_buffers())
    # Detached: the counter follows gradients, and there are none here.
    shapes = {name: tensor.detach().to("meta") for name, tensor in tensors}
    image = torch.empty(1, 3, size, size, device="meta")
    was_training = model.training
    model.eval()  # in training BatchNorm needs more than one value, SyncBatchNorm a GPU
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            functional_call(model, shapes, (image,))
    finally:
        model.train(was_training)
    return int(counter.get_total_flops())
