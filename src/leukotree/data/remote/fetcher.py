"""The threads of a process that bring shards to this machine: those that a reader waits for first, then those
that training needs next.

Each process has its own threads. Together the processes of a machine have at most STREAMS connections, and no
shard is fetched twice, since each is claimed first (`store`).
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from leukotree import progress, signals
from leukotree.data.remote import store as stores
from leukotree.data.remote.address import Address
from leukotree.data.remote.store import Store
from leukotree.data.remote.transfer import Tell
from leukotree.data.remote.uses import Published, Uses
from leukotree.errors import InputError, Preempted, RunFailed, one_line

STREAMS = 4
"""Files that a machine fetches at a time. The first stream is kept for readers that wait."""
AHEAD = 2
"""Shards that may take the place of others before they are needed, beside those of two windows."""
IDLE = 5.0
"""Seconds without work after which a thread ends."""
_PAUSE, _LATER = 0.05, 30.0
"""Seconds between two looks at the folder; and until a shard is fetched ahead again that could not be had."""
_STOP = 10.0
"""Seconds that a reader still waits after this process was asked to stop."""
_SILENT, _TELL_EVERY = 2.0, 30.0
"""Seconds that a reader waits without a line on stderr, and between two such lines."""
_SLOTS = ".slots"


class Fetcher:
    """Brings the shards of a store here, ahead of their use."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._condition = threading.Condition()
        self._waited_for: Counter[str] = Counter()
        self._failures: dict[str, Exception] = {}
        self._busy: set[str] = set()
        self._not_before: dict[str, float] = {}
        self._followed: dict[Uses, int] = {}
        self._threads = 0
        self._complete = False
        self._looking = threading.Lock()
        self._next_uses = np.full(len(store.names), np.inf)
        self._published: Published | None = None
        self._told = 0.0
        self._state = ""

    def open(self, name: str) -> int:
        """The descriptor of a shard, open for reading. Waits until it is here.

        Raises InputError where the server has no such shard or other bytes, RunFailed of kind "server" where
        it does not answer, Preempted when asked to stop, and OSError.
        """
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        path = self.store.path(name)
        try:
            return os.open(path, flags)
        except FileNotFoundError:
            pass
        begun = time.monotonic()
        with self._condition:
            self._waited_for[name] += 1
            self._start()
            try:
                while True:
                    with contextlib.suppress(FileNotFoundError):
                        return os.open(path, flags)
                    if name in self._failures:
                        raise _again(self._failures[name])
                    self._condition.wait(_PAUSE)
                    self._tell(name, begun)
                    if signals.requested() and time.monotonic() - begun > _STOP:
                        raise Preempted(f"asked to stop while it waited for {name}", signals.reason())
            finally:
                self._waited_for[name] -= 1
                if not self._waited_for[name]:
                    del self._waited_for[name]
                    self._failures.pop(name, None)
                    self._condition.notify_all()

    def follow(self, uses: Uses, window: int = 1) -> None:
        """Fetch ahead what these uses need, until `forget`. `window`: shards that are needed at a time."""
        with self._condition:
            self._followed[uses] = window
            self._start()

    def forget(self, uses: Uses) -> None:
        with self._condition:
            self._followed.pop(uses, None)

    def discard(self, name: str) -> bool:
        """Remove a shard that is damaged here, so that it is fetched again. False where another process has
        it for long."""
        end = time.monotonic() + IDLE
        while time.monotonic() < end:
            with self.store.claimed(name) as mine:
                if mine:
                    self.store.path(name).unlink(missing_ok=True)
                    return True
            time.sleep(_PAUSE)
        return False

    def _start(self) -> None:
        """Start the threads that are missing. The condition is held."""
        while self._threads < STREAMS:
            self._threads += 1
            threading.Thread(target=self._work, args=(self._threads,), name="fetch", daemon=True).start()

    def _work(self, number: int) -> None:
        busy = time.monotonic()
        while True:
            try:
                task = self._next()
            except Exception as error:  # such as a folder that somebody has removed
                task = None
                with self._condition:
                    self._failures.update(dict.fromkeys(self._waited_for, error))
                    self._condition.notify_all()
            if task is not None and self._fetch(*task):
                busy = time.monotonic()
                continue
            with self._condition:
                # One thread stays while something is followed: it publishes how far the training is.
                needed = self._waited_for or (self._followed and self._threads == 1)
                if not needed and time.monotonic() - busy > IDLE:
                    self._threads -= 1
                    if not self._threads and self._published:
                        self._published.close()
                        self._published = None
                    return
                self._condition.wait(
                    _PAUSE * number if self._waited_for or not self._complete else 10 * _PAUSE
                )

    def _next(self) -> tuple[str, float, bool] | None:
        """The shard to fetch now, samples until it is needed, and whether others may go for it; None where
        nothing is to be done."""
        self._look_ahead()
        here, now, names = self.store.present(), time.monotonic(), self.store.names
        with self._condition:
            uses = self._next_uses
            taken = here | self._busy
            if waited := [name for name in self._waited_for if name not in taken | self._failures.keys()]:
                name = min(waited, key=lambda name: uses[self.store.number[name]])
                self._busy.add(name)
                return name, -1.0, True
            self._complete = False
            ahead = 2 * max(self._followed.values(), default=1) + AHEAD
            for rank, number in enumerate(np.argsort(uses, kind="stable").tolist()):
                if not np.isfinite(uses[number]):
                    break
                name = names[number]
                if name not in taken and self._not_before.get(name, 0.0) <= now:
                    self._busy.add(name)
                    return name, float(uses[number]), rank < ahead
            self._complete = True
        return None

    def _look_ahead(self) -> None:
        """Compute when each shard is needed next, and publish it. One thread does it at a time."""
        if not self._looking.acquire(blocking=False):
            return
        try:
            with self._condition:
                followed = list(self._followed)
            uses = np.full(len(self.store.names), np.inf)
            for one in followed:
                uses = np.minimum(uses, one.next_uses())
            if followed and self._published is None:
                self._published = Published(self.store.folder, self.store.names)
            if self._published is not None:
                self._published.write(uses)
            self._next_uses = uses
        finally:
            self._looking.release()

    def _fetch(self, name: str, needed_in: float, may_remove: bool) -> bool:
        """Fetch one shard. False where another process does it, and where there is no room."""
        waited = needed_in < 0
        try:
            with self._stream(waited) as free, self.store.claimed(name) as mine:
                if not (free and mine):
                    if free and not waited:  # another process has it: the next one
                        self._not_before[name] = time.monotonic() + 4 * _PAUSE
                    return False
                here = self.store.path(name).exists()
                if not (here or self.store.fetch(name, needed_in, self._note(name), may_remove)):
                    self._not_before[name] = time.monotonic() + 4 * _PAUSE
                    return False
                with self._condition:  # nobody removes it before those have it open who wait for it
                    self._busy.discard(name)
                    self._condition.notify_all()
                    self._condition.wait_for(lambda: name not in self._waited_for, timeout=IDLE)
                return True
        except Exception as error:
            with self._condition:
                if waited:
                    self._failures[name] = error
                self._not_before[name] = time.monotonic() + _LATER
                self._condition.notify_all()
            return False
        finally:
            with self._condition:
                self._busy.discard(name)

    @contextlib.contextmanager
    def _stream(self, waited: bool) -> Iterator[bool]:
        """The context in which this thread has one of the machine's connections. Yields whether it has."""
        folder = self.store.folder.parent / _SLOTS
        folder.mkdir(mode=0o700, exist_ok=True)
        with contextlib.ExitStack() as stack:
            slots = range(0 if waited else 1, STREAMS)
            yield any(stack.enter_context(stores.lock(folder / str(slot))) for slot in slots)

    def _note(self, name: str) -> Tell:
        def note(done: int, problem: str) -> None:
            self._state = f"{name}: {done / 1e6:.1f} MB" + (f", {problem}" if problem else "")

        return note

    def _tell(self, name: str, begun: float) -> None:
        """Say that a reader waits, now and then."""
        now = time.monotonic()
        if now - begun > _SILENT and now - self._told > _TELL_EVERY:
            self._told = now
            state = f" ({self._state})" if self._state else ""
            waited = progress.duration(now - begun)
            progress.say(
                f"leukotree: shards: waits for {self.store.address.file(name)}{state}, after {waited}"
            )


def _again(error: Exception) -> Exception:
    """A copy of an error of another thread, for each reader that it concerns."""
    if isinstance(error, RunFailed | Preempted):
        return type(error)(str(error), error.kind)
    if isinstance(error, InputError):
        return InputError(str(error))
    if isinstance(error, OSError):
        return OSError(error.errno, error.strerror, error.filename)
    return RunFailed(f"a shard could not be fetched: {one_line(error)}")


_fetchers: dict[tuple[int, Path], Fetcher] = {}
_making = threading.Lock()


def of(folder: Path, address: Address, index: pd.DataFrame, shard_of: np.ndarray) -> Fetcher:
    """The fetcher of this process for the folder of a data set. A forked process has its own. The arguments
    are those of `Store`."""
    key = (os.getpid(), folder)
    if (known := _fetchers.get(key)) is not None:
        return known
    with _making:
        if key not in _fetchers:
            _fetchers[key] = Fetcher(Store(folder, address, index, shard_of))
        return _fetchers[key]
