"""The heads of `logistic` and `neighbours`: fitted at once to the features of a frozen backbone.

They compute in float64, which autocast leaves alone: features of unlike scales lose digits in bf16.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from leukotree.spec import PlainSpec, RunSpec

FLOOR = 1e-6
"""`neighbours`: what is added to the share of votes of each leaf, so that no probability is 0."""
_PART = 2**14
"""Training images that are compared at once."""


class Logistic(nn.Linear):
    """A logistic regression on (B, F) features as they are: the standardisation is in its coefficients."""

    def __init__(self, features: int, leaves: int) -> None:
        super().__init__(features, leaves, dtype=torch.float64)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, F) features -> (B, L) float32 logits."""
        return super().forward(features.double()).float()


class Neighbours(nn.Module):
    """The vote of the nearest training images, as DINO's protocol (Caron et al. 2021).

    The similarity is the cosine of two feature vectors. Each of the `k` most similar images votes for its
    leaf with the weight exp(similarity / temperature), times the class weight of the leaf.
    """

    bank: torch.Tensor
    """(N, F) float32 features of the training images, of length 1."""
    leaf: torch.Tensor
    """(N,) int64 leaf of each of them."""
    alpha: torch.Tensor
    """(L,) float64 class weight of each leaf."""

    def __init__(self, features: int, leaves: int, plain: PlainSpec) -> None:
        super().__init__()
        self.k, self.temperature = plain.k, plain.temperature
        self.register_buffer("bank", torch.zeros(0, features))
        self.register_buffer("leaf", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("alpha", torch.ones(leaves, dtype=torch.float64))

    def remember(self, features: torch.Tensor, leaf: torch.Tensor, alpha: torch.Tensor) -> None:
        """Take (N, F) features of the training images, their (N,) leaves and the (L,) class weights."""
        device = self.bank.device
        self.bank = functional.normalize(features.double(), dim=1).float().to(device)
        self.leaf, self.alpha = leaf.to(device), alpha.double().to(device)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, F) features -> (B, L) float32 log(share of the votes + FLOOR)."""
        asked = functional.normalize(features.double(), dim=1)
        similar = torch.cat([asked @ part.double().T for part in self.bank.split(_PART)], dim=1)
        nearest, place = similar.topk(self.k, dim=1)
        # Less the largest: exp of 1 / 0.001 would be infinite. Shares are the same.
        weights = ((nearest - nearest[:, :1]) / self.temperature).exp()
        voted = functional.one_hot(self.leaf[place], len(self.alpha)).double()
        votes = (weights[:, :, None] * voted).sum(dim=1) * self.alpha
        return (votes / votes.sum(dim=1, keepdim=True) + FLOOR).log().float()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """A new head has no images yet: the stored ones say how many there are."""
        for name in ("bank", "leaf"):
            if (stored := state_dict.get(prefix + name)) is not None:
                setattr(self, name, torch.empty_like(stored, device=self.bank.device))
        super()._load_from_state_dict(state_dict, prefix, *rest)


def head(spec: RunSpec, features: int, leaves: int) -> nn.Module:
    """The head of a variant of PLAIN, which is not fitted yet."""
    if spec.variant == "logistic":
        return Logistic(features, leaves)
    return Neighbours(features, leaves, spec.plain)
