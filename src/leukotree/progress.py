"""Progress of a command on stderr: its current step, and how much is done.

A terminal shows each step at once, and bars. Elsewhere, as in the log of a job, there are few lines: the
steps once the input is accepted, and a count every EVERY seconds. So bad input gives one line there. A
command that `speaks` also writes there what it does once it has worked for SPEAK seconds.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from tqdm import tqdm

T = TypeVar("T")
EVERY = 60.0
"""Seconds between two counts in a log."""
SPEAK = 1.0
"""Seconds after which a command that `speaks` writes its step into a log. Most bad input is found before."""
SOON = (2.0, 4.0, 8.0, 16.0, 32.0)
"""Seconds before the first counts in a log of a bar that counts `soon`: then each EVERY seconds."""
LINE = re.compile(r"^leukotree( \w+)?: .*(, after | \.\.\.$)")
"""Lines that this module writes into a log. None of them says why a run ended."""
COUNTS = "{desc}: {n_fmt} of {total_fmt}{unit} [{elapsed}{postfix}]"
"""Format of a bar without an estimate of the rest: work in parallel, or in a queue, has no rate."""

_title = ""
"""Title of the command whose steps are shown; "" outside of a command."""
_late: _Late | None = None
"""What writes the steps of a command that `speaks` into a log."""


class _Late:
    """Holds back the steps of a command until it has worked for SPEAK seconds."""

    def __init__(self) -> None:
        self._lock, self._step, self._due, self._ended = threading.Lock(), "", False, False
        self._timer = threading.Timer(SPEAK, self._speak)
        self._timer.daemon = True
        self._timer.start()

    def step(self, line: str, accepted: bool) -> None:
        """Write a step now, or hold it back."""
        with self._lock:
            self._step = line
            self._due = self._due or accepted
            if self._due:
                self._write()

    def _speak(self) -> None:
        with self._lock:
            if not self._ended:
                self._due = True
                self._write()

    def _write(self) -> None:
        if self._step:
            say(self._step)
        self._step = ""

    def close(self) -> None:
        """Write nothing more."""
        self._timer.cancel()
        with self._lock:
            self._ended = True


@contextlib.contextmanager
def command(title: str, speaks: bool = False) -> Iterator[None]:
    """Show the steps within, under a title such as "leukotree sweep". Nothing is shown where stderr is not a
    file, as in a test. `speaks`: it works for minutes, so its steps are also written into a log."""
    global _title, _late  # a process runs one command
    try:
        sys.stderr.fileno()
    except (OSError, ValueError, AttributeError):
        yield
        return
    before, _title = _title, title
    _late = _Late() if speaks and not sys.stderr.isatty() else None
    try:
        yield
    finally:
        _title = before
        if _late is not None:
            _late.close()
            _late = None


def step(what: str, accepted: bool = False) -> None:
    """Show the current step, such as "starting Ray". Nothing is shown outside of `command`. `accepted`: the
    input is checked and the work begins, so the step is also written into a log."""
    if not _title:
        return
    line = f"{_title}: {what} ..."
    if _late is not None:
        _late.step(line, accepted)
    elif accepted or sys.stderr.isatty():
        say(line)


def say(line: str) -> None:
    """Write a line to stderr, above the bars if there are any."""
    with contextlib.suppress(OSError, ValueError):  # stderr is closed
        if "tqdm" in sys.modules:
            from tqdm import tqdm

            tqdm.write(line, file=sys.stderr)
        else:  # there is no bar; the first line of a command does not wait for an import
            print(line, file=sys.stderr)
        sys.stderr.flush()


class Bar:
    """A count of work done, as a context: a bar on a terminal, elsewhere a line every EVERY seconds.

    Args:
        total: how many there are. `done` of them are done at the beginning.
        unit: what is counted, in the singular.
        rate: whether the time of the rest can be estimated from the time so far.
        soon: a log gets the first counts within a minute, see SOON.
    """

    def __init__(
        self,
        title: str,
        total: int,
        unit: str,
        *,
        done: int = 0,
        quiet: bool = False,
        rate: bool = True,
        soon: bool = False,
    ) -> None:
        self.done, self.total = done, total
        self._title, self._unit, self._note = title, unit, ""
        self._begun = self._shown = time.monotonic()
        self._quiet, self._pauses = quiet, list(SOON if soon else ())
        self._bar: tqdm[Any] | None = None
        if not self._quiet and sys.stderr.isatty():
            from tqdm import tqdm

            # Where a terminal has no size, as under `script`, tqdm would show nothing.
            size = shutil.get_terminal_size()
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
        """Count `count` more as done."""
        self.at(self.done + count, self._note)

    def at(self, done: int, note: str = "", total: int | None = None) -> None:
        """Set how many are done, of how many (None: as before). `note`: more about the current work."""
        self._note, total = note, self.total if total is None else total
        if self._bar is None:
            self.done, self.total = done, total
            self._write_line()
            return
        self._bar.total, self.total = total, total
        self._bar.set_postfix_str(note, refresh=False)
        if done != self.done:  # tqdm would measure its rate from an update by 0
            self._bar.update(done - self.done)
            self.done = done
        elif time.monotonic() - self._shown > 1:
            self._shown = time.monotonic()
            self._bar.refresh()

    def _write_line(self) -> None:
        now = time.monotonic()
        if self._quiet or now - self._shown < (self._pauses[0] if self._pauses else EVERY):
            return
        self._shown, self._pauses = now, self._pauses[1:]
        note = f" ({self._note})" if self._note else ""
        count = f"{self.done} of {self.total} {self._unit}s{note}"
        say(f"leukotree: {self._title}: {count}, after {duration(now - self._begun)}")

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def over(items: Iterable[T], title: str, total: int, unit: str, *, quiet: bool = False) -> Iterator[T]:
    """The items. Each is counted when the next one is asked for."""
    with Bar(title, total, unit, quiet=quiet) as bar:
        for item in items:
            yield item
            bar.advance()


def duration(seconds: float) -> str:
    """Seconds as people read them: 40 s, 12 min, 3.5 h, 2 d."""
    for unit, length, most in (("s", 1, 90), ("min", 60, 90), ("h", 3600, 48)):
        if seconds < most * length:
            count = seconds / length
            return f"{count:.1f} {unit}" if unit == "h" and count < 10 else f"{count:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"
