"""What ranks decide together, one step behind: no rank waits for another that it does not wait for anyhow."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist


class Wants(NamedTuple):
    """What a rank asks all ranks to do at their next step."""

    stop: bool = False
    """Save and leave."""
    save: bool = False
    """Save and go on."""
    broken: bool = False
    """Leave: this rank cannot go on."""


class Agreement:
    """A rank proposes at each step; at the next step every rank sees what any of them proposed.

    The exchange runs beside the training: when its result is asked for, all ranks have long passed the step
    before. All ranks must call `propose` and `decided` in turn, and equally often.
    """

    def __init__(self, world: int) -> None:
        self._world = world
        self._wants = torch.zeros(len(Wants._fields), dtype=torch.int32)
        self._work: dist.Work | None = None

    def propose(self, wants: Wants) -> None:
        """Tell the others, without waiting for them."""
        self._wants = torch.tensor(wants, dtype=torch.int32)
        if self._world > 1:
            self._work = dist.all_reduce(self._wants, op=dist.ReduceOp.MAX, async_op=True)

    def decided(self) -> Wants:
        """What any rank proposed last; nothing, if that was asked for already."""
        if self._work is not None:
            self._work.wait()
            self._work = None
        wants = Wants(*(bool(value) for value in self._wants.tolist()))
        self._wants.zero_()
        return wants
