"""Progress on stderr: steps, and counts without an estimate where there is no rate."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from leukotree import progress


class Screen(io.StringIO):
    """A terminal, or a log."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    def fileno(self) -> int:
        return 2


def seen(terminal: bool) -> contextlib.redirect_stderr[Screen]:
    """A stderr whose content is kept."""
    return contextlib.redirect_stderr(Screen(terminal))


def test_updates_without_progress_give_no_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """tqdm takes an update by nothing for the begin of the next one: a run of minutes would seem to have
    taken half a second."""
    updates: list[float] = []
    with seen(terminal=True), progress.Bar("folds", 4, "run") as bar:
        assert bar._bar is not None
        monkeypatch.setattr(bar._bar, "update", updates.append)
        for done in (0, 0, 0, 1, 1, 3):
            bar.at(done)
    assert updates == [1, 2]


def test_counts_have_no_estimate() -> None:
    with seen(terminal=True) as terminal, progress.Bar("folds", 4, "run", rate=False) as bar:
        bar.at(1, "2 running, 1 waiting")
    last = terminal.getvalue().rpartition("\r")[2].strip()
    assert re.fullmatch(r"folds: 1 of 4 runs \[00:00, 2 running, 1 waiting\]", last), last


def test_a_log_has_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with seen(terminal=False) as log, progress.Bar("flat-0", 600, "step") as bar:
        for second in range(1, 151):
            clock[0] = 100.0 + second
            bar.at(second, "epoch 1 of 4")
    first, second = log.getvalue().splitlines()
    assert first == "leukotree: flat-0: 60 of 600 steps (epoch 1 of 4), after 60 s"
    assert second == "leukotree: flat-0: 120 of 600 steps (epoch 1 of 4), after 2 min"
    assert all(progress.LINE.search(line) for line in (first, second))


@pytest.mark.parametrize("terminal", [True, False])
def test_quiet_is_quiet(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)
    with seen(terminal) as screen, progress.Bar("x", 3, "run", quiet=True) as bar:
        bar.advance()
    assert screen.getvalue() == ""


def test_a_terminal_sees_each_step() -> None:
    with seen(terminal=True) as terminal:
        with progress.command("leukotree sweep"):
            progress.step("reading the study")
            progress.step("starting Ray")
        progress.step("outside of a command")
    assert (
        terminal.getvalue() == "leukotree sweep: reading the study ...\nleukotree sweep: starting Ray ...\n"
    )


def test_a_line_of_progress_is_not_why_a_run_ended() -> None:
    for line in (
        "torch.OutOfMemoryError: CUDA out of memory",
        "flat-0: node: n1: no GPU",
        "leukotree: SLURM takes no more jobs now",
    ):
        assert not progress.LINE.search(line)


def test_a_terminal_without_a_size_still_has_bars(tmp_path: Path) -> None:
    """As under `script`, or in some containers."""
    code = "from leukotree.progress import Bar\nwith Bar('pack', 2, 'image') as bar: bar.advance(2)"
    main, side = pty.openpty()
    done = subprocess.run([sys.executable, "-c", code], stderr=side, stdout=subprocess.PIPE, check=True)
    os.close(side)
    assert done.stdout == b""
    assert b"2/2" in os.read(main, 65536)
    os.close(main)


def test_durations_are_short() -> None:
    texts = [progress.duration(seconds) for seconds in (0, 89, 100, 5399, 5400, 40 * 3600, 50 * 3600)]
    assert texts == ["0 s", "89 s", "2 min", "90 min", "1.5 h", "40 h", "2 d"]


def test_a_log_has_the_steps_of_accepted_work() -> None:
    with seen(terminal=False) as log, progress.command("leukotree sweep"):
        progress.step("reading the study")
        progress.step("starting Ray", accepted=True)
    assert log.getvalue() == "leukotree sweep: starting Ray ...\n"
    assert progress.LINE.search(log.getvalue().strip())


def test_a_command_that_speaks_writes_its_step_once_it_has_worked_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "SPEAK", 0.1)
    with seen(terminal=False) as log, progress.command("leukotree sweep", speaks=True):
        progress.step("reading the study")
        progress.step("importing torch")
        assert log.getvalue() == ""
        end = time.monotonic() + 10
        while not log.getvalue() and time.monotonic() < end:
            time.sleep(0.01)
        assert log.getvalue() == "leukotree sweep: importing torch ...\n"
        progress.step("starting Ray", accepted=True)
        progress.step("starting the first trials")
    lines = log.getvalue().splitlines()
    assert lines[1:] == [
        "leukotree sweep: starting Ray ...",
        "leukotree sweep: starting the first trials ...",
    ]
    assert all(progress.LINE.search(line) for line in lines)


def test_bad_input_that_is_seen_at_once_stays_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SPEAK", 0.1)
    with seen(terminal=False) as log:
        with progress.command("leukotree sweep", speaks=True):
            progress.step("reading the study")
        time.sleep(0.3)
    assert log.getvalue() == ""


def test_a_bar_that_counts_soon_has_lines_in_the_first_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with seen(terminal=False) as log, progress.Bar("phantom", 18, "trial", soon=True) as bar:
        for second in range(1, 200):
            clock[0] = 100.0 + second
            bar.at(0, "2 running, epoch 1 of 3")
    after = [line.rpartition("after ")[2] for line in log.getvalue().splitlines()]
    assert after == ["2 s", "6 s", "14 s", "30 s", "62 s", "2 min", "3 min"]
