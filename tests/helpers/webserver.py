"""A real web server on this machine: nginx, which Debian has. It can be slow, be killed, and come back."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.helpers.cluster import debian
from tests.helpers.cluster.processes import ClusterError

CONFIGURATION = """
daemon off;
worker_processes 1;
{user}
pid {place}/nginx.pid;
error_log {place}/error.log;
events {{ worker_connections 256; }}
http {{
  log_format short '$request_method $uri $status $body_bytes_sent';
  access_log {place}/access.log short;
  client_body_temp_path {place}/body; proxy_temp_path {place}/proxy; fastcgi_temp_path {place}/fastcgi;
  uwsgi_temp_path {place}/uwsgi; scgi_temp_path {place}/scgi;
  sendfile on;
  server {{
    listen 127.0.0.1:{port};
    root {folder};
    {more}
  }}
}}
"""


class WebServer:
    """nginx on a folder, as a context. `more`: lines of its configuration, such as `limit_rate 1m;`."""

    def __init__(self, folder: Path, place: Path, more: str = "") -> None:
        self.place = place
        self._process: subprocess.Popen[bytes] | None = None
        place.mkdir(parents=True, exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.configure(folder, more)

    def configure(self, folder: Path, more: str = "") -> None:
        user = "user root;" if os.geteuid() == 0 else ""
        text = CONFIGURATION.format(place=self.place, port=self.port, folder=folder, more=more, user=user)
        (self.place / "nginx.conf").write_text(text)

    def start(self) -> None:
        program = shutil.which("nginx", path=debian.SYSTEM_PATH)
        assert program is not None
        self._process = subprocess.Popen(
            [
                program,
                "-c",
                str(self.place / "nginx.conf"),
                "-p",
                str(self.place),
                "-e",
                str(self.place / "e"),
            ],
            start_new_session=True,
        )
        end = time.monotonic() + 10
        while time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.02)
        raise AssertionError((self.place / "error.log").read_text())

    def kill(self) -> None:
        """End it at once, in the middle of what it sends."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def __enter__(self) -> WebServer:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()

    def requests(self) -> list[tuple[str, str, int, int]]:
        """(method, path, status, bytes) of each answer, in their order."""
        log = self.place / "access.log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [(row[0], row[1], int(row[2]), int(row[3])) for row in map(str.split, lines)]

    def fetched(self) -> Counter[str]:
        """Name of a shard -> how often it was sent."""
        names = [Path(path).name for method, path, _, _ in self.requests() if method == "GET"]
        return Counter(name for name in names if re.fullmatch(r"fold\d+-\d+\.tar", name))


def require() -> None:
    """Install nginx where it is missing; skip the test where that is not possible."""
    try:
        debian.install({"nginx": "nginx-light"})
    except (ClusterError, PermissionError) as error:
        pytest.skip(f"no web server to test with: {error}")
