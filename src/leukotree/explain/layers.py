"""The layer of a backbone that maps are made from, and how its output becomes a (B, C, h, w) feature map."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from timm.models.convnext import ConvNeXt
from torch import nn

from leukotree.errors import InputError

Reshape = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, eq=False)
class Layer:
    """Where maps are made from."""

    module: nn.Module
    """Its output, after `reshape`, is the feature map."""
    reshape: Reshape | None = None
    """None where the output is (B, C, h, w) already."""
    attentions: tuple[nn.Module, ...] = ()
    """The attention of each block in their order, for attention rollout; () for other models."""
    tokens: Tokens | None = None


@dataclass(frozen=True)
class Tokens:
    """From the (B, prefix + h w, C) tokens of a vision transformer to their (B, C, h, w) map."""

    grid: tuple[int, int]
    """Rows and columns of patches."""
    prefix: int
    """Class and register tokens. They stand before the patches."""
    pooled: str = field(default="token")
    """timm's `global_pool`: "token" where the class token gives the features, else the patches do."""

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens[:, self.prefix :].transpose(1, 2).unflatten(2, self.grid)


LEAST = 5
"""Rows and columns that a feature map needs. One of 3 x 3 places, as for a stride of 32 and images of 96
pixels, cannot say where a cell is: each place sees nearly all of the image."""


def find(backbone: nn.Module, branch: nn.Module | None = None, size: int | None = None) -> Layer:
    """The layer of a timm model.

    | backbone | layer |
    | --- | --- |
    | vision transformers | `blocks[-1].norm1`: behind it, the class token reads the patches one last time |
    | ConvNeXt | `stages[-1].blocks[-1]` |
    | others | the last entry of timm's `feature_info` |

    For small images the last feature map of a convolutional network is too coarse. Then it is the last one of
    `feature_info` with LEAST rows and columns. A branch has no other layer.

    Args:
        branch: with isolation `branched`, the branch of a level. It has the last blocks.
        size: width and height of the images in pixels; None takes the last layer.

    Raises InputError for a model whose feature maps are not known.
    """
    own: Any = backbone if branch is None else branch
    if _has_patches(backbone, own):
        patches: Any = backbone.patch_embed  # a branch has none
        tokens = Tokens(tuple(patches.grid_size), int(own.num_prefix_tokens), str(own.global_pool))
        trunk: Any = () if branch is None else backbone.blocks
        attentions = tuple(block.attn for block in (*trunk, *own.blocks) if hasattr(block, "attn"))
        return Layer(own.blocks[-1].norm1, tokens, attentions, tokens)
    reshape = _channels_first if getattr(own, "output_fmt", "NCHW") == "NHWC" else None
    names = _features(own)
    if isinstance(own, ConvNeXt):
        stages: Any = own.stages
        *_, last = stages[-1].blocks._modules  # a branch keeps the numbers of its blocks
        names[0] = f"stages.{len(stages) - 1}.blocks.{last}"
    if branch is not None or size is None:
        return Layer(own.get_submodule(names[0]), reshape)
    layers = [Layer(own.get_submodule(name), reshape) for name in names]
    extents = extent(own, layers, size)
    fine = [
        layer for layer, (rows, columns) in zip(layers, extents, strict=True) if min(rows, columns) >= LEAST
    ]
    return fine[0] if fine else layers[0]


@torch.no_grad()
def extent(model: nn.Module, layers: Sequence[Layer], size: int) -> list[tuple[int, int]]:
    """Rows and columns of the feature map of each layer, for images of size x size pixels."""
    shapes: dict[int, torch.Size] = {}

    def note(number: int, reshape: Reshape | None, _: nn.Module, __: Any, output: torch.Tensor) -> None:
        shapes[number] = (reshape(output) if reshape else output).shape

    handles = [
        layer.module.register_forward_hook(functools.partial(note, number, layer.reshape))
        for number, layer in enumerate(layers)
    ]
    weight = next(model.parameters())
    try:
        model(torch.zeros(1, 3, size, size, device=weight.device, dtype=weight.dtype))
    finally:
        for handle in handles:
            handle.remove()
    return [(int(shapes[number][-2]), int(shapes[number][-1])) for number in range(len(layers))]


def _has_patches(trunk: nn.Module, own: nn.Module) -> bool:
    blocks = getattr(own, "blocks", None)
    return (
        hasattr(own, "num_prefix_tokens")
        and hasattr(getattr(trunk, "patch_embed", None), "grid_size")
        and blocks is not None
        and hasattr(blocks[-1], "norm1")
    )


def _channels_first(features: torch.Tensor) -> torch.Tensor:
    return features.permute(0, 3, 1, 2)


def _features(backbone: nn.Module) -> list[str]:
    """The names of the modules with a feature map, the last one first, by timm's `feature_info`."""
    known: Any = getattr(backbone, "feature_info", None) or ()
    names = {name for name, _ in backbone.named_modules()}
    if found := [str(entry["module"]) for entry in reversed(list(known)) if entry.get("module") in names]:
        return found
    raise InputError(
        f"backbone {type(backbone).__name__}: timm names no feature map of it, so there is no layer to make "
        "a map from; explain a run of a vision transformer or a convolutional network"
    )
