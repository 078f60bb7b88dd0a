"""One file over a bad connection: it arrives whole, or the run ends in one line."""

from __future__ import annotations

import http.server
import io
import re
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from leukotree import signals
from leukotree.data.remote import transfer
from leukotree.data.remote.address import Address, parse
from leukotree.errors import InputError, Preempted, RunFailed

CONTENT = bytes(range(256)) * 1000


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers with CONTENT, in the way that the test says for the first, second, ... request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        wanted = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        server = self.server
        server.starts.append(start)
        way = server.ways[min(len(server.starts), len(server.ways)) - 1]
        way(self, start)

    def send(self, start: int, status: int, count: int = len(CONTENT)) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start:][:count])
        self.wfile.flush()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def whole(handler: Handler, start: int) -> None:
    handler.send(start, 206 if start else 200)


def cut(handler: Handler, start: int) -> None:
    handler.send(start, 206 if start else 200, 100_000)
    handler.close_connection = True


def stall(handler: Handler, start: int) -> None:
    cut(handler, start)
    time.sleep(3)


def busy(handler: Handler, start: int) -> None:
    handler.send_error(503)


def from_the_begin(handler: Handler, start: int) -> None:
    handler.send(0, 200)


def shorter(handler: Handler, start: int) -> None:
    handler.send_error(416)


def absent(handler: Handler, start: int) -> None:
    handler.send_error(403)


@pytest.fixture
def serve() -> Iterator[Callable[..., Address]]:
    servers = []

    def start(*ways: Callable[[Handler, int], None]) -> Address:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        server.ways, server.starts = ways, []
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return parse(f"http://127.0.0.1:{server.server_port}/set")

    start.servers = servers
    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("ways", "starts"),
    [
        ([whole], [0]),
        ([cut, cut, whole], [0, 100_000, 200_000]),
        ([stall, whole], [0, 100_000]),
        ([busy, busy, whole], [0, 0, 0]),
        ([cut, from_the_begin], [0, 100_000]),
        ([cut, shorter, whole], [0, 100_000, 0]),
    ],
)
def test_a_file_arrives_whole(serve, monkeypatch: pytest.MonkeyPatch, ways, starts) -> None:
    if stall in ways:
        monkeypatch.setattr(transfer, "SILENCE", 1.0)
    file = io.BytesIO()
    assert transfer.download(serve(*ways), "a.tar", file, 10**6, 60) == len(CONTENT)
    assert file.getvalue() == CONTENT
    assert serve.servers[0].starts == starts


def test_what_arrives_too_slowly_is_asked_for_again(serve, monkeypatch: pytest.MonkeyPatch) -> None:
    def drip(handler: Handler, start: int) -> None:
        handler.send(start, 200, 0)
        for place in range(20):
            handler.wfile.write(CONTENT[place : place + 1])
            handler.wfile.flush()
            time.sleep(0.1)

    monkeypatch.setattr(transfer, "SILENCE", 0.5)
    monkeypatch.setattr(transfer, "PART", 1)
    file = io.BytesIO()
    transfer.download(serve(drip, whole), "a.tar", file, 10**6, 60)
    assert file.getvalue() == CONTENT


def test_a_server_that_never_comes_back_ends_it(serve) -> None:
    address = serve(busy)
    with pytest.raises(
        RunFailed, match=r"/set/a.tar: the server answers 503 .*; no new byte in \d s$"
    ) as failed:
        transfer.download(address, "a.tar", io.BytesIO(), 10**6, 0.3)
    assert failed.value.kind == "server"


def test_an_answer_that_will_not_change_ends_it_at_once(serve) -> None:
    address = serve(absent)
    with pytest.raises(transfer.NotThere, match="403 Forbidden"):
        transfer.download(address, "a.tar", io.BytesIO(), 10**6)
    assert serve.servers[0].starts == [0]


def test_a_file_that_is_too_long_is_refused(serve) -> None:
    with pytest.raises(InputError, match="is longer than the index says; upload the packed folder again"):
        transfer.download(serve(whole), "a.tar", io.BytesIO(), 1000)


def test_a_process_that_is_asked_to_end_does_not_wait(serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "_received", 15)
    with pytest.raises(Preempted, match="asked to stop while the server of the shards did not answer"):
        transfer.download(serve(busy), "a.tar", io.BytesIO(), 10**6, 100)
