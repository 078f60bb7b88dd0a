"""What the loss of each level may reach in `multilabel` (`loss.isolation`): how the heads are wired to the
backbone."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.models.convnext import ConvNeXt
from timm.models.resnet import ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from leukotree.errors import InputError
from leukotree.spec import LossSpec, RunSpec

LED = ("detached", "branched")
"""Isolations in which one level, the leader, trains what the levels share."""


def reach(loss: LossSpec, levels: Mapping[str, int]) -> dict[tuple[int, str], bool]:
    """(level, group of parameters) -> whether the loss of the level trains the group; where not, its gradient
    is exactly zero.

    | isolation | trunk | branch:<level> | head:<decision> |
    | --- | --- | --- | --- |
    | shared, chained, projected | every level | | the decision's level |
    | detached | the leader | | the decision's level |
    | branched | the leader | that level | the decision's level |

    `trunk` is what the levels have in common: the backbone, in `branched` without its last blocks. A branch
    has those blocks,
    the final norm and the pooling. In `chained` the probabilities that a head sees carry no gradient to the
    head above. In
    `projected` every level has its say in the trunk, but `surgery` alters what it says.

    Three things are not a loss that reaches a weight: AdamW decays every weight in every step and moves it
    along the gradients of steps before; the running statistics of BatchNorm follow the images, whatever the
    losses; and `optim.clip` goes by the norm of all gradients together, so that with it a level's large
    gradient shortens the others' too.

    Args: levels: decision -> level, as `Taxonomy.decision_levels`. The kinds of loss that are none per
        decision (`soft`,
            `marginal`) exist with `shared` only, and this table does not speak of them.
    """
    table = {}
    for level in sorted(set(levels.values())):
        table[level, "trunk"] = loss.isolation not in LED or level == loss.leader
        if loss.isolation == "branched":
            table |= {(level, f"branch:{other}"): level == other for other in levels.values()}
        table |= {(level, f"head:{decision}"): level == of for decision, of in levels.items()}
    return table


@dataclass(frozen=True)
class Wiring:
    """What each head sees: plain values, which torch.compile can follow."""

    levels: tuple[int, ...]
    """Level of each head."""
    above: tuple[int | None, ...]
    """Number of the head whose probabilities a head sees as well; None for features only."""
    leader: int | None
    """The one level whose loss trains what the levels share; None where each does."""

    @classmethod
    def of(cls, loss: LossSpec, levels: Mapping[str, int], above: Mapping[str, str | None]) -> Wiring:
        """For heads with their levels, and the nearest head above each."""
        heads = list(levels)
        parents = [above[head] if loss.isolation == "chained" else None for head in heads]
        numbers = tuple(None if parent is None else heads.index(parent) for parent in parents)
        return cls(tuple(levels.values()), numbers, loss.leader if loss.isolation in LED else None)

    def logits(self, shared: torch.Tensor, branches: nn.ModuleList, heads: nn.ModuleList) -> torch.Tensor:
        """(B, K) logits of the heads side by side.

        Args:
            shared: what the backbone gives: (B, F) features, or with branches what those take.
            branches: one per level, from the lowest, or none.
            heads: (B, inputs) -> (B, classes) each.
        """
        features: dict[int, torch.Tensor] = {}
        for number, level in enumerate(sorted(set(self.levels))):
            seen = shared if self.leader in (None, level) else shared.detach()
            features[level] = branches[number](seen) if len(branches) else seen
        found: list[torch.Tensor] = []
        for head, level, above in zip(heads, self.levels, self.above, strict=True):
            seen = features[level]
            if above is not None:
                seen = torch.cat([seen, found[above].detach().float().softmax(dim=1)], dim=1)
            found.append(head(seen))
        return torch.cat(found, dim=1)


@dataclass(frozen=True)
class _Family:
    """How models of a timm class are cut in two; attributes by their dotted names."""

    blocks: str
    """The sequence of blocks, the last of which a branch has."""
    before: Mapping[str, Any]
    """What stands before them -> what takes its place in a branch, so that timm's own `forward` begins with
    the blocks."""
    behind: Mapping[str, Any]
    """What stands behind them -> what takes its place in the trunk."""


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
"""Their subclasses are not among them: they override what `_Family` relies on."""


def branch_off(backbone: nn.Module, count: int, levels: int) -> list[nn.Module]:
    """For each level a copy of the backbone's last `count` blocks and all behind them, all alike; the
    backbone keeps the rest.

    A branch of the backbone's output gives the (B, F) features that the whole backbone gave.
    """
    family = FAMILIES[type(backbone)]
    branches = [copy.deepcopy(backbone) for _ in range(levels)]
    for branch in branches:
        _replace(branch, {**family.before, family.blocks: branch.get_submodule(family.blocks)[-count:]})  # type: ignore[index]
    _replace(backbone, {**family.behind, family.blocks: backbone.get_submodule(family.blocks)[:-count]})  # type: ignore[index]
    return branches


def _replace(model: nn.Module, parts: Mapping[str, Any]) -> None:
    for name, part in parts.items():
        owner, _, last = name.rpartition(".")
        setattr(model.get_submodule(owner), last, part() if part is nn.Identity else part)


def check(spec: RunSpec, levels: Mapping[str, int]) -> None:
    """Raises InputError if a stage whose decisions have these levels cannot be isolated as the spec says: no
    such level to lead, or a backbone that cannot be cut there. Values are looked at also where nothing uses
    them."""
    loss, name = spec.loss, spec.backbone.name
    most = max(levels.values())
    if loss.leader > most:
        raise InputError(
            f"loss.leader: there is no level {loss.leader}, the decisions of this tree have 1 to {most}"
        )
    if loss.isolation != "branched" and loss.branch_blocks == 1:
        return
    count = _blocks(name)
    if count is None and loss.isolation == "branched":
        known = ", ".join(family.__name__ for family in FAMILIES)
        raise InputError(
            f"loss.isolation: branched cannot cut {name}; it takes timm's {known}, or use another isolation"
        )
    if count is not None and loss.branch_blocks > count:
        raise InputError(
            f"loss.branch_blocks: {name} has {count} blocks to branch off, not {loss.branch_blocks}"
        )


@functools.lru_cache(maxsize=64)
def _blocks(name: str) -> int | None:
    """Blocks that a branch may have at most; None for a model that cannot be cut. Nothing is allocated."""
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=0)
    family = FAMILIES.get(type(model))
    return len(model.get_submodule(family.blocks)) if family else None  # type: ignore[arg-type]
