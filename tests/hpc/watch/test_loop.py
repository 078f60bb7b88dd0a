"""`leukotree status --watch` on a terminal, in a log and as JSON, and how it ends."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path

import pytest

from leukotree.files import locked
from leukotree.records import searchfolder
from tests.helpers.at_work import FILE, run, study_at_work
from tests.helpers.commandline import assert_refused, leukotree

WATCH = [sys.executable, "-m", "hpc.cli", "status", "s", "--watch"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a study at work."""
    monkeypatch.chdir(tmp_path)
    study, _ = study_at_work()
    with locked(study.root / "search" / searchfolder.LOCK, "busy"):
        yield tmp_path


class Terminal:
    """A process on a terminal of its own."""

    def __init__(self, home: Path, columns: int = 80) -> None:
        self._main, side = pty.openpty()
        ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "", "LINES": ""}
        environment = {name: value for name, value in environment.items() if value}
        self.process = subprocess.Popen(
            WATCH, cwd=home, stdin=side, stdout=side, stderr=side, env=environment, start_new_session=True
        )
        os.close(side)
        self.seen = ""

    def wait_for(self, text: str) -> None:
        end = time.monotonic() + 60
        while text not in self.seen:
            assert time.monotonic() < end, self.seen
            assert self.process.poll() is None or select.select([self._main], [], [], 0)[0], self.seen
            if select.select([self._main], [], [], 0.2)[0]:
                self.seen += os.read(self._main, 65536).decode()

    def press(self, key: str) -> None:
        os.write(self._main, key.encode())

    def close(self) -> int:
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()
            os.close(self._main)


@pytest.mark.slow("waits for a process")
@pytest.mark.parametrize("end", ["q", "interrupt"])
def test_a_terminal_shows_the_facts_until_a_key_ends_it(home: Path, end: str) -> None:
    terminal = Terminal(home)
    terminal.wait_for("q ends")
    for part in ("trials", "3 of 8", "images/s", "241", "CUDA out of memory", "time left"):
        assert part in terminal.seen
    if end == "q":
        terminal.press("q")
    else:
        terminal.process.send_signal(signal.SIGINT)
    assert terminal.close() == 0


@pytest.mark.slow("waits for a process")
def test_a_narrow_terminal_has_no_line_that_is_too_long(home: Path) -> None:
    from rich.console import Console

    from hpc.watch import facts, screen
    from hpc.watch.memory import Memory

    [now] = facts.read(home / "results/runs/s", [], Memory())
    for width in (80, 60, 40, 24):
        console = Console(width=width, force_terminal=True)
        with console.capture() as shown:
            console.print(screen.study(now, width, 5, "#."))
        plain = Console(width=width, no_color=True)
        assert all(plain.measure(line).minimum <= width for line in shown.get().splitlines())
    terminal = Terminal(home, columns=36)
    terminal.wait_for("q ends")
    terminal.press("Q")
    assert terminal.close() == 0


@pytest.mark.slow("waits for a process")
def test_without_a_terminal_each_look_is_a_line(home: Path) -> None:
    with subprocess.Popen([*WATCH, "--every", "0.3"], cwd=home, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        lines = [process.stdout.readline() for _ in range(2)]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert all("s: trials 3 of 8 (1 stopped, 1 running, 4 waiting), runs 2 of 4" in line for line in lines)


def _end_everything(home: Path) -> None:
    for search in (home / "results/runs/s/search").glob("*/search.yaml"):
        (search.parent / "best.yaml").write_text("{}")
    for folder in (home / "results/runs/s").glob("flat-*"):
        status = {"state": "done", "epoch": 3, "epochs": 3, "heartbeat": time.time()}
        (folder / "status.json").write_text(json.dumps(status))


def test_it_ends_when_everything_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study_at_work()
    _end_everything(tmp_path)
    done = leukotree("status", "s", "--watch", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.rstrip().endswith("everything has ended")
    told = leukotree("status", "s", "--watch", "--json", cwd=tmp_path)
    [line] = told.stdout.splitlines()
    assert json.loads(line)[0]["over"] is True


def test_it_ends_some_time_after_the_last_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search was interrupted, and nobody continues it."""
    from hpc.watch import loop

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loop, "IDLE", 0.2)
    study, _ = study_at_work()
    (study.root / "flat-000000000002" / "status.json").unlink()
    done = leukotree("status", "s", "--watch", "--every", 0.1, cwd=tmp_path)
    assert done.returncode == 0
    assert "nothing is at work any more" in done.stdout.splitlines()[-1]


def test_all_studies_can_be_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study_at_work()
    run(tmp_path / "results/runs/other study/flat-00000000000a", "done", 3)
    _end_everything(tmp_path)
    done = leukotree("status", "--watch", cwd=tmp_path)
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["other", "s:"]


def test_what_cannot_be_watched_is_refused(tmp_path: Path) -> None:
    assert_refused(leukotree("status", "none", "--watch", cwd=tmp_path), "none", "no runs yet")
    assert_refused(leukotree("status", "none", "--every", 3, cwd=tmp_path), "--every", "--watch")
    assert_refused(leukotree("status", "none.yaml", "--watch", cwd=tmp_path), "none.yaml")


def test_a_study_file_gives_the_numbers_before_anything_has_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import yaml

    from hpc.watch import loop

    (tmp_path / "study.yaml").write_text(yaml.safe_dump(FILE))
    monkeypatch.setattr(loop._End, "reached", lambda *_: True)
    done = leukotree("status", "study.yaml", "--watch", cwd=tmp_path)
    assert "trials 0 of 8, runs 0 of 8, nothing has begun yet" in done.stdout
