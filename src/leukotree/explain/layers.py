"""The layer of a backbone that maps are made from, and how its output becomes a (B, C, h, w) feature map."""

from __future__ import annotations

from collections.abc import Callable
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


def find(backbone: nn.Module, branch: nn.Module | None = None) -> Layer:
    """The layer of a timm model.

    | backbone | layer |
    | --- | --- |
    | vision transformers | `blocks[-1].norm1`: behind it, the class token reads the patches one last time |
    | ConvNeXt | `stages[-1].blocks[-1]` |
    | others | the last entry of timm's `feature_info` |

    Args:
        branch: with isolation `branched`, the branch of a level. It has the last blocks.

    Raises InputError for a model that says nothing about its feature maps.
    """
    own: Any = backbone if branch is None else branch
    if _has_patches(backbone, own):
        patches: Any = backbone.patch_embed  # a branch has none
        tokens = Tokens(tuple(patches.grid_size), int(own.num_prefix_tokens), str(own.global_pool))
        trunk: Any = () if branch is None else backbone.blocks
        attentions = tuple(block.attn for block in (*trunk, *own.blocks) if hasattr(block, "attn"))
        return Layer(own.blocks[-1].norm1, tokens, attentions, tokens)
    reshape = _channels_first if getattr(own, "output_fmt", "NCHW") == "NHWC" else None
    if isinstance(own, ConvNeXt):
        stages: Any = own.stages
        return Layer(stages[-1].blocks[-1], reshape)
    return Layer(own.get_submodule(_last_feature(own)), reshape)


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


def _last_feature(backbone: nn.Module) -> str:
    """The name of the module with the last feature map, by timm's `feature_info`."""
    known: Any = getattr(backbone, "feature_info", None) or ()
    names = {name for name, _ in backbone.named_modules()}
    for entry in reversed(list(known)):
        if entry.get("module") in names:
            return str(entry["module"])
    raise InputError(
        f"backbone {type(backbone).__name__}: timm names no feature map of it, so there is no layer to make "
        "a map from; explain a run of a vision transformer or a convolutional network"
    )
