"""What trains of a backbone (`backbone.train`).

The other weights are frozen: they have no gradient, AdamW does not know them, and no activation is kept for
them. Parts without a weight that trains are in evaluation mode in training too, so that the statistics of
BatchNorm stay as they are and nothing is dropped.
"""

from __future__ import annotations

from collections.abc import Iterator

from timm.models import group_parameters
from torch import nn

from leukotree.spec import BackboneSpec


def freeze(backbone: nn.Module, spec: BackboneSpec) -> None:
    """Freeze the weights of a timm model that a spec does not train."""
    if spec.train == "head":
        backbone.requires_grad_(False)


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
    if not hasattr(backbone, "group_matcher"):
        return {}
    matcher = backbone.group_matcher(coarse=False)  # type: ignore[operator]
    layers: dict[str, int] = group_parameters(backbone, matcher, reverse=True)
    return {name: max(layers.values()) - layer for name, layer in layers.items()}
