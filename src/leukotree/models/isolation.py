"""Isolation of the levels (`loss.isolation`): which parameters each level's loss trains in `multilabel`, and
how the heads are connected to the backbone."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from timm.models.convnext import ConvNeXt
from timm.models.resnet import ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from leukotree.models import backbones
from leukotree.spec import LossSpec

LED = ("detached", "branched")
"""Isolations in which one level, the leader, trains the trunk."""


def reach(loss: LossSpec, levels: Mapping[str, int]) -> dict[tuple[int, str], bool]:
    """(level, group of parameters) -> whether the level's loss trains the group.

    If not, its gradient there is exactly zero.

    | isolation | trunk | branch:<level> | head:<decision> |
    | --- | --- | --- | --- |
    | shared, chained, projected | every level | | the decision's level |
    | detached | the leader | | the decision's level |
    | branched | the leader | that level | the decision's level |

    `trunk` is what the levels share: the backbone, with `branched` without its last blocks. A branch has
    those blocks, the final norm and the pooling. With `chained` a head sees the probabilities of the head
    above without a gradient to it. With `projected` every level's gradient enters the trunk, changed by
    `surgery`.

    Three other things move a weight, whatever the losses. AdamW decays every weight in every step and moves
    it along the gradients of earlier steps. The running statistics of BatchNorm follow the images.
    `optim.clip` uses the norm of all gradients together, so a large gradient of one level shortens the
    others.

    The kinds of loss without a loss per decision (`soft`, `marginal`) exist with `shared` only; this table
    does not cover them.

    Args: levels: decision -> level, as `Taxonomy.decision_levels`.
    """
    table = {}
    for level in sorted(set(levels.values())):
        table[level, "trunk"] = loss.isolation not in LED or level == loss.leader
        if loss.isolation == "branched":
            table |= {(level, f"branch:{other}"): level == other for other in levels.values()}
        table |= {(level, f"head:{decision}"): level == own for decision, own in levels.items()}
    return table


@dataclass(frozen=True)
class Wiring:
    """The inputs of each head, as plain values, which torch.compile can follow."""

    levels: tuple[int, ...]
    """Level of each head."""
    above: tuple[int | None, ...]
    """Number of the head whose probabilities are inputs of a head too; None for features only."""
    leader: int | None
    """The one level whose loss trains the trunk; None where each level does."""
    stops: bool = True
    """Whether the probabilities of a head above enter without their gradient, as in training. An explanation
    follows them."""

    @property
    def open(self) -> Wiring:
        """The same logits with a gradient along every connection: what an output depends on, not what its
        loss trains."""
        return replace(self, leader=None, stops=False)

    @classmethod
    def of(cls, loss: LossSpec, levels: Mapping[str, int], above: Mapping[str, str | None]) -> Wiring:
        """The wiring of heads: their levels, and the nearest head above each."""
        heads = list(levels)
        parents = [above[head] if loss.isolation == "chained" else None for head in heads]
        numbers = tuple(None if parent is None else heads.index(parent) for parent in parents)
        return cls(tuple(levels.values()), numbers, loss.leader if loss.isolation in LED else None)

    def logits(self, shared: torch.Tensor, branches: nn.ModuleList, heads: nn.ModuleList) -> torch.Tensor:
        """(B, K) logits of the heads side by side.

        Args:
            shared: the output of the backbone: (B, F) features, or the input of the branches.
            branches: one per level, from level 1 on, or none.
            heads: (B, inputs) -> (B, classes) each.
        """
        features: dict[int, torch.Tensor] = {}
        for number, level in enumerate(sorted(set(self.levels))):
            seen = shared if self.leader in (None, level) else shared.detach()
            features[level] = branches[number](seen) if len(branches) else seen
        logits: list[torch.Tensor] = []
        for head, level, above in zip(heads, self.levels, self.above, strict=True):
            seen = features[level]
            if above is not None:
                given = logits[above].detach() if self.stops else logits[above]
                seen = torch.cat([seen, given.float().softmax(dim=1)], dim=1)
            logits.append(head(seen))
        return torch.cat(logits, dim=1)


@dataclass(frozen=True)
class _Family:
    """Where models of a timm class are cut in two, by dotted names of attributes."""

    blocks: str
    """The sequence of blocks. A branch has the last ones."""
    before: Mapping[str, Any]
    """A part before the blocks -> its replacement in a branch, so that timm's `forward` begins with the
    blocks."""
    behind: Mapping[str, Any]
    """A part after the blocks -> its replacement in the trunk."""


FAMILIES: dict[type[nn.Module], _Family] = {
    VisionTransformer: _Family(
        "blocks",
        {
            "patch_embed": nn.Identity,
            "norm_pre": nn.Identity,
            "pos_embed": None,
            "cls_token": None,
            "reg_token": None,
        },
        {"norm": nn.Identity, "attn_pool": None, "global_pool": "", "fc_norm": nn.Identity},
    ),
    ConvNeXt: _Family(
        "stages.3.blocks",
        dict.fromkeys(("stem", "stages.0", "stages.1", "stages.2", "stages.3.downsample"), nn.Identity),
        dict.fromkeys(("norm_pre", "head"), nn.Identity),
    ),
    ResNet: _Family(
        "layer4",
        dict.fromkeys(("conv1", "bn1", "act1", "maxpool", "layer1", "layer2", "layer3"), nn.Identity),
        {"global_pool": nn.Identity},
    ),
}
"""timm class -> where it is cut. Subclasses are not cut: they override what `_Family` relies on."""


def branch_off(backbone: nn.Module, count: int, levels: int) -> list[nn.Module]:
    """One branch for each level: a copy of the backbone's last `count` blocks and of all parts after them.

    The backbone loses those parts. A branch maps its output to the (B, F) features of the whole backbone.
    """
    family = FAMILIES[type(backbone)]
    branches = [copy.deepcopy(backbone) for _ in range(levels)]
    blocks: Any = backbone.get_submodule(family.blocks)
    for branch in branches:
        own: Any = branch.get_submodule(family.blocks)
        _replace(branch, {**family.before, family.blocks: own[-count:]})
    _replace(backbone, {**family.behind, family.blocks: blocks[:-count]})
    return branches


def _replace(model: nn.Module, parts: Mapping[str, Any]) -> None:
    for name, part in parts.items():
        owner, _, last = name.rpartition(".")
        setattr(model.get_submodule(owner), last, part() if part is nn.Identity else part)


@functools.lru_cache(maxsize=64)
def blocks(name: str) -> int | None:
    """Most blocks that a branch can have; None for a model that cannot be cut. Nothing is allocated."""
    model = backbones.empty(name)
    family = FAMILIES.get(type(model))
    return len(model.get_submodule(family.blocks)) if family else None  # type: ignore[arg-type]
