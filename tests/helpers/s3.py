"""An S3 API on this machine: the server of moto, in an environment of its own, since its packages and those
of this project ask for different versions of the same ones."""

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
from collections import Counter
from pathlib import Path

import pytest

MOTO = "moto[server]==5.2.5"
BUCKET = "leukotree"


def require() -> Path:
    """The program of the server. Skips the test where it cannot be installed."""
    name = re.sub(r"[^a-z0-9]+", "-", MOTO)
    place = Path(tempfile.gettempdir()) / f"leukotree-{os.getuid()}-{name}"
    program, done = place / "bin" / "moto_server", place / "complete"
    place.mkdir(exist_ok=True)
    with open(place / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests of several processes install at the same time
        if not done.exists():
            own = str(place / "bin" / "python")
            for words in ([sys.executable, "-m", "venv", str(place)], [own, "-m", "pip", "install", MOTO]):
                answer = subprocess.run(words, capture_output=True, text=True, check=False)
                if answer.returncode:
                    pytest.skip(f"no S3 API to test with: {answer.stderr.strip().splitlines()[-1:]}")
            done.touch()
    return program


class S3:
    """A running server with one bucket, as a context."""

    def __init__(self, program: Path, place: Path) -> None:
        self._program, self._log = program, place / "s3.log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.variables = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        }

    def __enter__(self) -> S3:
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                [str(self._program), "-H", "127.0.0.1", "-p", str(self.port)],
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"]},  # none of this project's packages
            )
        end = time.monotonic() + 120
        while time.monotonic() < end and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return self
            time.sleep(0.1)
        raise AssertionError(self._log.read_text())

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.wait()

    def fetched(self) -> Counter[str]:
        """Name of a shard -> how often it was sent."""
        found = re.findall(r'GET \S*/(fold\d+-\d+\.tar)\S* HTTP[^"]*" 20[06]', self._log.read_text())
        return Counter(found)
