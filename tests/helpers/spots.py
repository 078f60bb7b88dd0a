"""A model made by hand: it decides red or blue by the share of red and of blue pixels."""

from __future__ import annotations

import torch
from torch import nn

from leukotree.explain.targets import Target, View, targets, views
from leukotree.models.classifier import Classifier
from leukotree.models.stages import stages
from leukotree.spec import LossSpec
from leukotree.taxonomy import Taxonomy

TREE = Taxonomy.from_nested({"root": ["red", "blue"]})
SIZE = 32


class Spots(nn.Module):
    """(B, 3, H, W) -> (B, 2): the mean of the red channel and of the blue one, by places of 4 x 4 pixels."""

    num_features = 2

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 2, 4, stride=4, bias=False)
        self.feature_info = [{"module": "features", "num_chs": 2, "reduction": 4}]
        with torch.no_grad():
            self.features.weight.zero_()
            self.features.weight[0, 0], self.features.weight[1, 2] = 1 / 16, 1 / 16

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.features(images).mean(dim=(2, 3))


def model() -> Classifier:
    """A flat model: the logit of a colour is ten times its mean."""
    (stage,) = stages("flat", TREE)
    built = Classifier(Spots(), stage, LossSpec())
    with torch.no_grad():
        (head,) = built.heads
        assert isinstance(head, nn.Linear)
        head.weight.copy_(10 * torch.eye(2))
        head.bias.zero_()
    return built.eval().requires_grad_(False)


def seen() -> list[View]:
    return views("flat", TREE, stages("flat", TREE), [model()])


def wanted(leaf: str, view: list[View]) -> Target:
    """The target of the one decision, for an image that is decided as `leaf`."""
    return targets(TREE, leaf, view)[0]


def image() -> torch.Tensor:
    """(1, 3, 32, 32): red in the 8 x 8 pixels at the top left, blue at the bottom right, else black."""
    pixels = torch.zeros(1, 3, SIZE, SIZE)
    pixels[0, 0, :8, :8], pixels[0, 2, -8:, -8:] = 1, 1
    return pixels
