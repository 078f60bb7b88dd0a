"""Speed and cost in an epoch's row; FLOPs against published figures."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.layers import convert_sync_batchnorm

from leukotree.training import throughput
from leukotree.training.throughput import Share


@pytest.mark.parametrize(
    ("backbone", "size", "gmacs"),
    # The figures of timm's model cards; those leave out what attention itself multiplies: 0.18 and 3.07 for
    # the ViT.
    [
        ("resnet50", 224, 4.11),
        ("convnext_tiny", 224, 4.47),
        ("vit_tiny_patch16_224", 224, 1.08 + 0.18),
        ("vit_small_patch16_384", 384, 12.43 + 3.07),
    ],
)
def test_flops_are_those_that_are_published(backbone: str, size: int, gmacs: float) -> None:
    model = timm.create_model(backbone, num_classes=1000)
    assert throughput.forward_flops(model, backbone, size) == pytest.approx(2e9 * gmacs, rel=0.02)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
def test_counting_changes_neither_the_model_nor_the_random_numbers(
    backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throughput, "_counted", {})
    model = timm.create_model(backbone, num_classes=3, drop_path_rate=0.2).train()
    before, random = (
        {name: value.clone() for name, value in model.state_dict().items()},
        torch.get_rng_state(),
    )
    assert throughput.forward_flops(model, backbone, 64) > 0
    assert torch.equal(torch.get_rng_state(), random)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(value.device.type == "cpu" for value in model.state_dict().values())


@pytest.mark.parametrize("backbone", ["test_resnet", "cait_xxs24_224"])
def test_models_that_several_gpus_train_are_counted_too(
    backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SyncBatchNorm in training needs a GPU; CaiT fails in a counter that follows gradients."""
    monkeypatch.setattr(throughput, "_counted", {})
    plain = throughput.forward_flops(timm.create_model(backbone), backbone, 224)
    monkeypatch.setattr(throughput, "_counted", {})
    model = convert_sync_batchnorm(timm.create_model(backbone).train())
    assert throughput.forward_flops(model, backbone, 224) == plain is not None


def test_a_model_that_cannot_be_counted_ends_no_run() -> None:
    class Stubborn(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> float:
            return float(images.sum())  # a value that no shape knows

    assert throughput.forward_flops(Stubborn(), "stubborn", 8) is None


def test_flops_are_counted_once_for_a_backbone_and_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "_counted", {})
    model = timm.create_model("test_resnet")
    counted = throughput.forward_flops(model, "test_resnet", 64)
    assert throughput.forward_flops(torch.nn.Identity(), "test_resnet", 64) == counted
    assert throughput.forward_flops(model, "test_resnet", 128) > 3 * counted


@pytest.mark.parametrize(
    ("name", "bf16", "fp32"),
    [
        ("NVIDIA H200", 989, 67),
        ("NVIDIA H100 80GB HBM3", 989, 67),
        ("NVIDIA H100 PCIe", 756, 51),
        ("NVIDIA A100-SXM4-40GB", 312, 19.5),
        ("NVIDIA L4", 121, 30.3),
        ("NVIDIA L40S", 362, 91.6),
        ("NVIDIA A40", 150, 37.4),
        ("Tesla V100-SXM2-32GB", 125, 15.7),
        ("NVIDIA GeForce RTX 4090", 165, 82.6),
        ("AMD Instinct MI300X", 1307, 163.4),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None, None),
        ("NVIDIA A4000", None, None),
    ],
)
def test_the_peak_follows_from_the_name_of_a_gpu(name: str, bf16: float | None, fp32: float | None) -> None:
    for precision, teraflops in (("bf16", bf16), ("fp32", fp32)):
        expected = None if teraflops is None else pytest.approx(1e12 * teraflops)
        assert throughput.named_peak_flops(name, precision) == expected


def test_a_cpu_has_no_known_peak_and_costs_core_hours() -> None:
    cpu = torch.device("cpu")
    assert throughput.peak_flops(cpu, "bf16") is None
    assert throughput.hours(1800, 4, cpu) == {"gpu_hours": 0, "core_hours": 2 * torch.get_num_threads()}
    assert throughput.hours(1800, 4, torch.device("cuda")) == {"gpu_hours": 2, "core_hours": 0}


def test_the_slowest_rank_counts() -> None:
    fields = throughput.epoch_fields(10, 320, 4.0, [Share(0.5, 2.0), Share(1.5, 1.0)])
    assert fields == {"seconds": 4.0, "images_per_s": 80, "step_s": 0.4, "stall_s": 1.5, "memory_gb": 2.0}
    assert throughput.epoch_fields(0, 0, 0.1, [Share(0, 1)])["step_s"] is None


def test_memory_is_what_the_process_held() -> None:
    before = throughput.peak_memory_gb(torch.device("cpu"))
    held = torch.ones(100_000_000)
    assert throughput.peak_memory_gb(torch.device("cpu")) >= max(before, held.nbytes / 1e9)
