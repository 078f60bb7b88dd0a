"""Look, show, wait, and again, until everything has ended."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hpc.watch import facts, lines
from hpc.watch.facts import Expected, Facts
from hpc.watch.memory import Memory

IDLE = 120.0
"""Seconds after which a study at which nothing works any more is not watched further. A job may follow."""
GONE = "nothing is at work any more; `leukotree status` says what has not ended"


def watch(root: Path, names: Sequence[str], every: float, expected: Expected | None, *, as_json: bool) -> int:
    """Show the facts every `every` seconds until everything has ended, somebody presses q or Ctrl-C, or
    nothing has worked for IDLE seconds. Returns the exit code, 0.

    On a terminal they are shown at one place. Elsewhere, and with `as_json`, each look is a line.
    """
    memory = Memory()

    def look() -> list[Facts]:
        return facts.read(root, names, memory, expected)

    with contextlib.suppress(KeyboardInterrupt):
        if as_json or not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
            _in_lines(look, every, as_json)
        else:
            _on_screen(look, every)
    return 0


class _End:
    """Whether there is nothing more to wait for."""

    def __init__(self) -> None:
        self._worked, self._seen = time.monotonic(), False

    def reached(self, found: Sequence[Facts]) -> bool:
        self._seen = self._seen or any(one.runs or one.searches for one in found)
        if any(one.at_work for one in found) or not self._seen:
            self._worked = time.monotonic()
            return False
        return all(one.over for one in found) or self.idle

    @property
    def idle(self) -> bool:
        """Whether nothing has worked for IDLE seconds."""
        return time.monotonic() - self._worked > IDLE


def _in_lines(look: Callable[[], list[Facts]], every: float, as_json: bool) -> None:
    end = _End()
    while True:
        found = look()
        for line in [lines.as_json(found)] if as_json else [lines.text(one) for one in found]:
            print(line, flush=True)
        if end.reached(found):
            break
        time.sleep(every)
    if not as_json and not all(one.over for one in found):
        print(GONE, flush=True)


def _on_screen(look: Callable[[], list[Facts]], every: float) -> None:
    from hpc.watch import screen

    end = _End()
    with screen.keys(), screen.Screen() as shown:
        while True:
            found = look()
            shown.show(found, every)
            if end.reached(found) or screen.wait(every):
                break
    if not all(one.over for one in found) and end.idle:
        print(GONE, flush=True)
