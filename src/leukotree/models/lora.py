"""Low-rank adapters (LoRA, Hu et al. 2022, arXiv:2106.09685) by peft: a frozen layer W x gets the sum
W x + (alpha / rank) B A x, where A and B train. B begins at zero, so the model begins as it was.

peft is imported only for a spec with `backbone.train: lora`, since it takes seconds.
"""

from __future__ import annotations

import re

import torch
from timm.models.convnext import ConvNeXt
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from leukotree.errors import InputError
from leukotree.spec import BackboneSpec

PARTS = {"attention": ("attn",), "mlp": ("mlp",), "both": ("attn", "mlp")}
"""`backbone.lora.targets` -> the parts of a block whose linear layers get adapters, by timm's names."""
KINDS = (VisionTransformer, ConvNeXt)
"""The classes of timm, with their subclasses, whose layers are known here. Others may use a layer's weight
without calling the layer, and would pass an adapter by."""


def targets(backbone: nn.Module, spec: BackboneSpec) -> list[str]:
    """The names of the layers that get adapters: linear layers, and convolutions of one pixel.

    Raises InputError for a model without such a layer.
    """
    if not isinstance(backbone, KINDS):
        known = " and ".join(kind.__name__ for kind in KINDS)
        raise InputError(
            f"backbone.train: lora knows the layers of timm's {known}, not those of {spec.name}; use all, "
            "head or last"
        )
    parts = "|".join(PARTS[spec.lora.targets])
    below = re.compile(rf"(?:^|.*\.)(?:{parts})\.[^.]+")
    names = [name for name, layer in backbone.named_modules() if below.fullmatch(name) and _is_linear(layer)]
    if not names:
        fix = "use mlp or both" if spec.lora.targets == "attention" else "use all, head or last"
        raise InputError(f"backbone.lora.targets: {spec.name} has no layers of {spec.lora.targets}; {fix}")
    return names


def _is_linear(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1))


def inject(backbone: nn.Module, spec: BackboneSpec, seed: int) -> None:
    """Freeze a backbone and give its layers adapters, which are drawn from a seed. No other random number of
    the process changes. Raises InputError as `targets`."""
    from peft import LoraConfig, inject_adapter_in_model

    names = targets(backbone, spec)
    config = LoraConfig(r=spec.lora.rank, lora_alpha=spec.lora.alpha, target_modules=names)  # type: ignore[arg-type]
    backbone.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, backbone)


def merge(model: nn.Module) -> None:
    """Add the adapters of a model to the weights of their layers, and remove them. A model without adapters
    stays as it is."""
    for name, layer in list(model.named_modules()):
        if hasattr(layer, "get_base_layer"):
            layer.merge(safe_merge=True)
            owner, _, last = name.rpartition(".")
            setattr(model.get_submodule(owner), last, layer.get_base_layer())
    for part in model.modules():
        part.__dict__.pop("peft_config", None)
