"""What trains of a backbone (`backbone.train`).

The other weights are frozen: they have no gradient, AdamW does not know them, and no activation is kept for
them. Parts without a weight that trains are in evaluation mode in training too, so that the statistics of
BatchNorm stay as they are and nothing is dropped.

A checkpoint of a run in training lacks what is frozen: it is built again from the spec, and a digest shows
whether it is the same. The weights that a finished run keeps are whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
import xxhash
from timm.models._manipulate import group_with_matcher
from torch import nn

from leukotree.errors import InputError
from leukotree.models import backbones, lora
from leukotree.spec import BackboneSpec, RunSpec


def freeze(backbone: nn.Module, spec: BackboneSpec, seed: int) -> None:
    """Freeze the weights of a timm model that a spec does not train; for `lora` also give it adapters.

    Args: seed: of the adapters' weights.

    Raises InputError where the model has no such part.
    """
    if spec.train == "head":
        backbone.requires_grad_(False)
    elif spec.train == "last":
        _keep_last(backbone, spec)
    elif spec.train == "lora":
        lora.inject(backbone, spec, seed)


def _keep_last(backbone: nn.Module, spec: BackboneSpec) -> None:
    """Freeze all but the last blocks and what is above them."""
    above = layers_above(backbone)
    blocks = n_blocks(backbone)
    if not blocks:
        raise InputError(f"backbone.train: timm does not know the blocks of {spec.name}; use all or head")
    if spec.last > blocks:
        raise InputError(f"backbone.last: {spec.name} has {blocks} blocks, not {spec.last}")
    layers = max(above.values()) - blocks  # those above the blocks
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(above[name] < spec.last + layers)


def check(spec: RunSpec) -> None:
    """Raises InputError where the model of a spec has no such layers as the spec trains. No memory is
    allocated, and no weights are loaded."""
    backbone = backbones.empty(spec.backbone.name)
    check_layers(backbone, spec)
    if spec.backbone.train == "last":
        _keep_last(backbone, spec.backbone)
    if spec.backbone.train == "lora":
        lora.targets(backbone, spec.backbone)


def check_layers(backbone: nn.Module, spec: RunSpec) -> None:
    """Raises InputError where layers shall have rates of their own, and timm does not know the layers."""
    if spec.optim.layer_decay != 1 and not layers_above(backbone):
        raise InputError(f"optim.layer_decay: timm does not know the layers of {spec.backbone.name}; use 1")


def resting(backbone: nn.Module) -> Iterator[nn.Module]:
    """The largest parts of a backbone that have weights, and none that trains."""
    trains = [parameter.requires_grad for parameter in backbone.parameters()]
    if trains and not any(trains):
        yield backbone
    elif not all(trains):
        for part in backbone.children():
            yield from resting(part)


def is_random(spec: BackboneSpec) -> bool:
    """Whether weights stay as they were drawn: frozen, and not loaded."""
    return spec.weights is None and spec.train != "all"


def layers_above(backbone: nn.Module) -> dict[str, int]:
    """Name of a parameter -> the number of layers above its layer, 0 for the top one. timm says what a layer
    is: a block, the stem, or what follows the blocks. {} for a model whose layers timm does not know."""
    layers, _ = _layers(backbone)
    return {name: max(layers.values()) - layer for name, layer in layers.items()}


def n_blocks(backbone: nn.Module) -> int:
    """The number of blocks: the layers between the stem and what follows the blocks; 0 where timm does not
    know the layers. A norm that timm counts to the last block is no block of its own."""
    layers, behind = _layers(backbone)
    return len(set(layers.values()) - {0, behind})


def _layers(backbone: nn.Module) -> tuple[dict[str, int], int]:
    """(name of a parameter -> number of its layer from the stem on, number of what follows the blocks)."""
    if not hasattr(backbone, "group_matcher"):
        return {}, 0
    # timm puts a name that it does not know behind the blocks.
    named = [*backbone.named_parameters(), ("?", None)]
    matcher = backbone.group_matcher(coarse=False)  # type: ignore[operator]
    layers: dict[str, int] = group_with_matcher(iter(named), matcher, reverse=True)
    return layers, layers.pop("?")


def frozen(model: nn.Module) -> set[str]:
    """The names of the weights that do not train, and of the buffers beside them."""
    names = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    for name, part in model.named_modules():
        own = list(part.parameters(recurse=False))
        if own and not any(parameter.requires_grad for parameter in own):
            names |= {
                f"{name}.{buffer}" if name else buffer for buffer, _ in part.named_buffers(recurse=False)
            }
    return names


def digest(weights: Mapping[str, torch.Tensor]) -> str:
    """Hexadecimal digits of the bits of named tensors."""
    found = xxhash.xxh3_128()
    for name, tensor in sorted(weights.items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
