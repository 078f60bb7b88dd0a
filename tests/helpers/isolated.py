"""A program of a Python package in an environment of its own, for tests: its packages and those of this
project ask for different versions of the same ones."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest


def require(package: str, program: str) -> Path:
    """The program of a package. Skips the test where it cannot be installed."""
    name = re.sub(r"[^a-z0-9]+", "-", package)
    place = Path(tempfile.gettempdir()) / f"leukotree-{os.getuid()}-{name}"
    done = place / "complete"
    place.mkdir(exist_ok=True)
    with open(place / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests of several processes install at the same time
        if not done.exists():
            own = str(place / "bin" / "python")
            for words in ([sys.executable, "-m", "venv", str(place)], [own, "-m", "pip", "install", package]):
                answer = subprocess.run(words, capture_output=True, text=True, check=False)
                if answer.returncode:
                    pytest.skip(f"no {package} to test with: {answer.stderr.strip().splitlines()[-1:]}")
            done.touch()
    return place / "bin" / program


class Service:
    """A program that listens on a free port of this machine, as a context. `{port}` in its words is the
    port."""

    def __init__(self, words: list[str], log: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._words, self.log = [word.replace("{port}", str(self.port)) for word in words], log

    def start(self) -> None:
        with open(self.log, "wb") as log:
            self._process = subprocess.Popen(
                self._words,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"]},  # none of this project's packages
            )
        end = time.monotonic() + 120
        while time.monotonic() < end and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.1)
        raise AssertionError(self.log.read_text())

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
