"""Decisions that all ranks take together between two steps, without an extra wait for the slowest rank."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist


class Request(NamedTuple):
    """What a rank asks all ranks to do at their next step."""

    stop: bool = False
    """Save and end this attempt."""
    save: bool = False
    """Save and continue."""
    broken: bool = False
    """End this attempt: this rank cannot continue."""


class Agreement:
    """Each rank proposes a request at each step. At the next step every rank sees what any rank proposed.

    The exchange runs beside the training. When a rank asks for its result, all ranks have already passed the
    step before, so it does not wait. All ranks must call `propose` and `decided` in turn, and equally often.
    """

    def __init__(self, world: int) -> None:
        self._world = world
        self._proposed = torch.zeros(len(Request._fields), dtype=torch.int32)
        self._work: dist.Work | None = None

    def propose(self, request: Request) -> None:
        """Send this rank's request to the others. Returns at once."""
        self._proposed = torch.tensor(request, dtype=torch.int32)
        if self._world > 1:
            self._work = dist.all_reduce(self._proposed, op=dist.ReduceOp.MAX, async_op=True)

    def decided(self) -> Request:
        """The union of all ranks' last proposals; an empty request where it was read before."""
        if self._work is not None:
            self._work.wait()
            self._work = None
        request = Request(*(bool(value) for value in self._proposed.tolist()))
        self._proposed.zero_()
        return request
