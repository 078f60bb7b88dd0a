"""Ranks watch each other: one that died, or whose node vanished, ends the others instead of letting them wait
for it.

A killed process is noticed by its launcher or by its connections. A node that loses power closes no
connection, and NCCL waits ten minutes for it. So each rank counts up a number in the store of the process
group, and looks at those of the others.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import torch.distributed as dist

BEAT = 5.0
"""Seconds between two signs of life."""
SILENCE = 30.0
"""Seconds without one after which a rank counts as dead: so many of our own signs of life, for a job that was
suspended and continued has been silent altogether."""
EXIT = 75
"""Exit code of a rank that leaves because another is gone (EX_TEMPFAIL: run it again)."""
LEFT = "left"


@contextlib.contextmanager
def watched(rank: int, world: int) -> Iterator[None]:
    """Watch the other ranks, and be watched, in a thread. A dead one ends this process with the code
    `EXIT`."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    # A connection of its own: the main thread may block in that of the process group.
    server = dist.TCPStore(
        address, port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=SILENCE)
    )
    store = dist.PrefixStore(f"leukotree/peers/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '')}", server)
    store.set(f"host/{rank}", socket.gethostname())
    left, rounds = threading.Event(), Rounds()
    thread = threading.Thread(
        target=_watch, args=(store, rank, world, left, rounds), name="peers", daemon=True
    )
    store.set(_key(rank), "0")
    thread.start()
    threading.Thread(target=_watch_the_store, args=(left, rounds), name="store", daemon=True).start()
    try:
        yield
    finally:
        left.set()
        thread.join(SILENCE)  # it may be waiting for a host that has gone


@dataclass
class Rounds:
    """How often all ranks have been looked at."""

    done: int = 0


def _key(rank: int) -> str:
    return f"beat/{rank}"


def _watch(store: dist.Store, rank: int, world: int, left: threading.Event, rounds: Rounds) -> None:
    with contextlib.suppress(dist.DistError):  # the store may go with its host, which leaves a little sooner
        _look(store, rank, world, left, rounds)
        store.set(_key(rank), LEFT)


def _watch_the_store(left: threading.Event, rounds: Rounds) -> None:
    """A host that loses its power, and held the store, lets every call to it wait for ever, whatever time
    limit it was given."""
    seen, since, beat = -1, 0, 0
    while not left.wait(BEAT):
        beat += 1
        if rounds.done != seen:
            seen, since = rounds.done, beat
        elif (beat - since) * BEAT > SILENCE:
            _leave(f"the store of the ranks has not answered for {SILENCE:.0f} s")


def _look(store: dist.Store, rank: int, world: int, left: threading.Event, rounds: Rounds) -> None:
    """Give signs of life, and look for those of the others, until it is time to leave."""
    seen: dict[int, tuple[str, int]] = {}  # rank -> its last sign, and which of ours it was
    beat = 0
    while not left.wait(BEAT):
        beat += 1
        try:
            store.set(_key(rank), str(beat))
            for other in range(world):
                # A rank that has not come so far does not count: joining has a time limit of its own.
                if other != rank and store.check([_key(other)]):
                    now = store.get(_key(other)).decode()
                    if now != seen.get(other, ("", 0))[0]:
                        seen[other] = now, beat
        except dist.DistError as error:
            if left.wait(BEAT):  # the store's host has left a little sooner
                return
            _leave(f"the store of the ranks does not answer ({type(error).__name__})")
        for other, (now, since) in seen.items():
            if now != LEFT and (beat - since) * BEAT > SILENCE:
                _leave(f"rank {other} has given no sign of life for {SILENCE:.0f} s")
        rounds.done += 1


def _leave(why: str) -> None:
    """The main thread waits in a collective, where no exception reaches it."""
    print(f"leukotree: {why}; run it again to continue", file=sys.stderr, flush=True)
    os._exit(EXIT)
