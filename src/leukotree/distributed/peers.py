"""Ranks watch each other: a rank that died, or whose machine failed, ends the others.

A killed process is noticed by its launcher or through its connections. A machine that loses power closes no
connection, and NCCL waits ten minutes for it. So each rank counts up a number in the store of the process
group, and reads the numbers of the others.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import torch.distributed as dist

from leukotree.log import logger

BEAT = 5.0
"""Seconds between two beats: each rank counts its number up, and reads the others'."""
SILENCE = 30.0
"""Seconds without a beat after which a rank counts as dead. They are counted in this rank's own beats: a job
that was suspended and continued missed beats on all ranks at once."""
EXIT = 75
"""Exit code of a rank that ends because another one is dead (EX_TEMPFAIL: run it again)."""
LEFT = "left"


@contextlib.contextmanager
def watched(rank: int, world: int) -> Iterator[None]:
    """The context in which a thread beats for this rank, and watches the others.

    A dead one ends this process with the code `EXIT`.
    """
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    # A separate connection: the main thread may block in that of the process group.
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
        thread.join(SILENCE)  # it may be waiting for a host that no longer answers


@dataclass
class Rounds:
    """How often this rank has read the beats of all others."""

    done: int = 0


def _key(rank: int) -> str:
    return f"beat/{rank}"


def _watch(store: dist.Store, rank: int, world: int, left: threading.Event, rounds: Rounds) -> None:
    with contextlib.suppress(dist.DistError):  # the store's host may leave a little earlier
        _beat(store, rank, world, left, rounds)
        store.set(_key(rank), LEFT)


def _watch_the_store(left: threading.Event, rounds: Rounds) -> None:
    """End this process where the store does not answer.

    When the store's host loses power, each call to the store waits forever, whatever its time limit.
    """
    seen, since, beat = -1, 0, 0
    while not left.wait(BEAT):
        beat += 1
        if rounds.done != seen:
            seen, since = rounds.done, beat
        elif (beat - since) * BEAT > SILENCE:
            _end(f"the store of the ranks has not answered for {SILENCE:.0f} s")


def _beat(store: dist.Store, rank: int, world: int, left: threading.Event, rounds: Rounds) -> None:
    """Beat, and read the beats of the others, until `left` is set."""
    seen: dict[int, tuple[str, int]] = {}  # rank -> its last beat, and this rank's beat when it came
    beat = 0
    while not left.wait(BEAT):
        beat += 1
        try:
            store.set(_key(rank), str(beat))
            for other in range(world):
                # A rank that has not joined yet does not count: joining has another time limit.
                if other != rank and store.check([_key(other)]):
                    now = store.get(_key(other)).decode()
                    if now != seen.get(other, ("", 0))[0]:
                        seen[other] = now, beat
        except dist.DistError as error:
            if left.wait(BEAT):  # the store's host has left a little earlier
                return
            _end(f"the store of the ranks does not answer ({type(error).__name__})")
        for other, (now, since) in seen.items():
            if now != LEFT and (beat - since) * BEAT > SILENCE:
                _end(f"rank {other} has given no sign of life for {SILENCE:.0f} s")
        rounds.done += 1


def _end(reason: str) -> None:
    """End this process: its main thread waits in a collective, where no exception can reach it."""
    logger.warning(f"{reason}; run it again to continue")
    os._exit(EXIT)
