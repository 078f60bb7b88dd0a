"""A terminal that shows the facts about studies, and the key that ends it."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hpc.search.search_states import SearchState
from hpc.watch import lines
from hpc.watch.facts import Facts

BAR = 12
"""Characters of a bar."""
WIDE = 70
"""Columns from which bars are shown."""
AROUND = 12
"""Lines of a study beside those of its searches."""
ORDER = {"running": 0, "interrupted": 1, "waiting": 2, "": 3, "ended": 4}
"""States of a search, in the order in which they are shown where there is no room for all."""


class Screen:
    """Shows facts at one place of the terminal, and leaves the last ones there."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, vertical_overflow="ellipsis")

    def __enter__(self) -> Screen:
        self._live.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._live.__exit__(*exception)

    def show(self, facts: Sequence[Facts], every: float) -> None:
        """Replace what is shown."""
        width, height = self._console.size
        foot = Text(f"every {every:g} s; q ends", style="dim")
        room = max(1, (height - 3) // max(1, len(facts)) - AROUND)
        bar = "#." if self._console.options.ascii_only else "━╌"
        self._live.update(Group(*(study(one, width, room, bar) for one in facts), foot), refresh=True)


def study(facts: Facts, width: int, room: int, bar: str) -> Group:
    """What is shown of one study. `room`: lines for its searches. `bar`: the characters of a bar, for done
    and open."""
    head = Text(f"{facts.study}  {lines.clock(facts)}", style="bold", overflow="fold")
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value, style in _rows(facts):
        table.add_row(Text(name, style="cyan"), Text(value, style=style))
    parts: list[Any] = [head, table]
    if facts.searches:
        parts.append(_searches(facts, width, room, bar))
    return Group(*parts, Text(""))


def _rows(facts: Facts) -> Iterator[tuple[str, str, str]]:
    """(name, value, style) of each line."""
    known = ", ".join(lines.left(facts)).removesuffix(" left").replace(" left,", ",")
    rate = f"{facts.images_per_s:,.0f}" if facts.images_per_s else ""
    rows = [
        ("searches", f"{facts.searches_ended} of {facts.searches_of}" if facts.searches_of else "", ""),
        ("trials", lines.trials(facts) if facts.trials_of else "", ""),
        ("re-runs", f"{facts.reruns_ended} of {facts.reruns_of}" if facts.reruns_of else "", ""),
        ("runs", lines.runs(facts) if facts.runs_of else "", ""),
        ("epoch", facts.epoch, ""),
        ("images/s", rate, ""),
        ("time left", known, "green"),
        ("last failure", lines.failed(facts), "red"),
        ("note", facts.note, "yellow"),
        ("", lines.ending(facts), "green" if facts.over else "yellow"),
    ]
    yield from (row for row in rows if row[1])


def _searches(facts: Facts, width: int, room: int, bar: str) -> Table:
    """A line for each search, those at work first where there is no room for all."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    heads = ["search", "state", "trials", "epoch", f"best {facts.metric}"]
    for head in heads[: 5 if width >= WIDE else 3]:
        table.add_column(head, overflow="fold", header_style="cyan")
    found = sorted(facts.searches, key=lambda one: ORDER.get(one.state, 3))
    shown = found if len(found) <= room else found[: max(1, room - 1)]
    for one in shown:
        table.add_row(*_search(one, width, bar))
    if len(found) > len(shown):
        table.add_row(f"... and {len(found) - len(shown)} more")
    return table


def _search(one: SearchState, width: int, bar: str) -> list[str]:
    state = "stale" if one.stale else one.state or "?"
    cells = [one.search, state, f"{one.ended} of {'?' if one.trials is None else one.trials}"]
    if width < WIDE:
        return cells
    done = round(BAR * one.ended / one.trials) if one.trials else 0
    cells[2] = f"{bar[0] * done}{bar[1] * (BAR - done)} {cells[2]}"
    epoch = "-" if one.epoch is None else f"{one.epoch} of {one.epochs}"
    return [*cells, epoch, "-" if one.best is None else f"{one.best:.4f}"]


@contextlib.contextmanager
def keys() -> Iterator[None]:
    """The context in which the terminal gives each key at once, and does not show it. Nothing changes where
    stdin is no terminal."""
    if not sys.stdin.isatty():
        yield
        return
    number = sys.stdin.fileno()
    if _in_background(number):
        yield
        return
    before = termios.tcgetattr(number)
    tty.setcbreak(number)
    try:
        yield
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)


def _in_background(number: int) -> bool:
    """Whether a change of the terminal would stop this process."""
    try:
        return os.tcgetpgrp(number) != os.getpgrp()
    except OSError:  # it is not the terminal that controls this process
        return False


def wait(seconds: float) -> bool:
    """Wait; True as soon as somebody presses q."""
    end = time.monotonic() + seconds
    number = sys.stdin.fileno() if sys.stdin.isatty() else None
    while (rest := end - time.monotonic()) > 0:
        if number is None:
            time.sleep(rest)
            continue
        if select.select([number], [], [], rest)[0]:
            pressed = os.read(number, 64)
            if not pressed:  # the terminal is gone
                number = None
            elif pressed.lower().startswith(b"q"):
                return True
    return False
