"""What a command says while it works: the step it is at, and how much is done. All of it goes to stderr.

A terminal sees each step at once, and bars. Elsewhere, as in the log of a job, there are a few plain lines:
the steps of work that has begun, and a count every EVERY seconds. What a command refuses stays one line
there.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from tqdm import tqdm

T = TypeVar("T")
EVERY = 60.0
"""Seconds between two counts in a log."""
LINE = re.compile(r"^leukotree( \w+)?: .*(, after | \.\.\.$)")
"""What a log has of all this: nothing that ended a run."""
COUNTS = "{desc}: {n_fmt} of {total_fmt}{unit} [{elapsed}{postfix}]"
"""A bar without an estimate: what is done in parallel, or waits in a queue, has no rate."""


_title = ""
"""Of the command whose steps are said; empty outside of one."""


@contextlib.contextmanager
def told(title: str) -> Iterator[None]:
    """Say the steps within, under a title such as "leukotree sweep". Not where stderr is no file, as inside a
    test."""
    global _title  # one command in a process
    try:
        sys.stderr.fileno()
    except (OSError, ValueError, AttributeError):
        yield
        return
    before, _title = _title, title
    try:
        yield
    finally:
        _title = before


def step(what: str, accepted: bool = False) -> None:
    """Say what is done now, such as "starting Ray". Nothing outside of `told`. `accepted`: the command's
    input is checked and its work begins, so a log is told at once."""
    if _title and (accepted or sys.stderr.isatty()):
        say(f"{_title}: {what} ...")


def say(line: str) -> None:
    """A line on stderr, above the bars if there are any."""
    from tqdm import tqdm

    with contextlib.suppress(OSError, ValueError):  # nobody listens
        tqdm.write(line, file=sys.stderr)
        sys.stderr.flush()


class Bar:
    """How much of something is done: a bar on a terminal, elsewhere a line now and then. A context.

    Args:
        total: how many there are, `done` of them at the beginning.
        unit: what is counted, in the singular.
        rate: whether the pace so far tells how long the rest takes.
    """

    def __init__(
        self, title: str, total: int, unit: str, *, done: int = 0, quiet: bool = False, rate: bool = True
    ) -> None:
        self.done, self.total = done, total
        self._title, self._unit, self._note = title, unit, ""
        self._begun = self._told = time.monotonic()
        self._silent = quiet
        self._bar: tqdm[Any] | None = None
        if not self._silent and sys.stderr.isatty():
            from tqdm import tqdm

            size = (
                shutil.get_terminal_size()
            )  # where a terminal has none, as under `script`, tqdm would show nothing
            self._bar = tqdm(
                total=total,
                initial=done,
                desc=title,
                unit=f" {unit}s",
                file=sys.stderr,
                ncols=size.columns,
                nrows=size.lines,
                bar_format=None if rate else COUNTS,
            )

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def advance(self, count: int = 1) -> None:
        """So many more are done."""
        self.at(self.done + count, self._note)

    def at(self, done: int, note: str = "", total: int | None = None) -> None:
        """So many are done by now, of so many (None: as before); `note` says more of what is at work."""
        self._note, total = note, self.total if total is None else total
        if self._bar is None:
            self.done, self.total = done, total
            self._tell()
            return
        self._bar.total, self.total = total, total
        self._bar.set_postfix_str(note, refresh=False)
        if (
            done != self.done
        ):  # tqdm would take an update by nothing for the begin of the next one, and its pace from that
            self._bar.update(done - self.done)
            self.done = done
        elif time.monotonic() - self._told > 1:
            self._told = time.monotonic()
            self._bar.refresh()

    def _tell(self) -> None:
        now = time.monotonic()
        if self._silent or now - self._told < EVERY:
            return
        self._told = now
        note = f" ({self._note})" if self._note else ""
        say(
            f"leukotree: {self._title}: {self.done} of {self.total} {self._unit}s{note}, after {duration(now - self._begun)}"
        )

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def over(items: Iterable[T], title: str, total: int, unit: str, *, quiet: bool = False) -> Iterator[T]:
    """The items, each counted once it has been dealt with."""
    with Bar(title, total, unit, quiet=quiet) as bar:
        for item in items:
            yield item
            bar.advance()


def duration(seconds: float) -> str:
    """For people: 40 s, 12 min, 3.5 h, 2 d."""
    for unit, length, most in (("s", 1, 90), ("min", 60, 90), ("h", 3600, 48)):
        if seconds < most * length:
            count = seconds / length
            return f"{count:.1f} {unit}" if unit == "h" and count < 10 else f"{count:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"
