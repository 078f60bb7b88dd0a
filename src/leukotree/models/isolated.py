"""Whether the levels of a stage can be isolated as a spec says. Needs no torch; see `isolation`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from leukotree.errors import InputError
from leukotree.spec import RunSpec

CUT = ("VisionTransformer", "ConvNeXt", "ResNet")
"""The classes of timm whose models can be cut in two: the keys of `isolation.FAMILIES`."""


def check(spec: RunSpec, levels: Mapping[str, int], blocks_of: Callable[[str], int | None]) -> None:
    """Raises InputError if a stage whose decisions have these levels cannot be isolated as the spec says.

    Then there is no level `leader`, or the backbone cannot be cut. Values that have no effect are checked
    too.

    Args: blocks_of: as `isolation.blocks`. It is called only where the answer counts.
    """
    loss, name = spec.loss, spec.backbone.name
    most = max(levels.values())
    if loss.leader > most:
        raise InputError(
            f"loss.leader: there is no level {loss.leader}, the decisions of this tree have 1 to {most}"
        )
    if loss.isolation != "branched" and loss.branch_blocks == 1:
        return
    count = blocks_of(name)
    if count is None and loss.isolation == "branched":
        raise InputError(
            f"loss.isolation: branched cannot cut {name}; it takes timm's {', '.join(CUT)}, or use another "
            "isolation"
        )
    if count is not None and loss.branch_blocks > count:
        raise InputError(
            f"loss.branch_blocks: {name} has {count} blocks to branch off, not {loss.branch_blocks}"
        )
