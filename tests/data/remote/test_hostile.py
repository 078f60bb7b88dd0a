"""Servers that are odd, broken or malicious: the data set is read as it is, or refused in one line."""

from __future__ import annotations

import http.server
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from leukotree.data.dataset import Dataset
from leukotree.data.remote import mirror, transfer
from leukotree.errors import InputError, RunFailed


class Handler(http.server.BaseHTTPRequestHandler):
    """Sends the files of a folder, whole, without a length and without ranges, unless `odd` answers."""

    server: Server

    def do_HEAD(self) -> None:
        self.send_error(405)

    def do_GET(self) -> None:
        if not self.server.odd(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.content())

    @property
    def name(self) -> str:
        return Path(self.path).name

    def content(self) -> bytes:
        return (self.server.folder / self.name).read_bytes()

    def send(self, status: int, content: bytes, **headers: str) -> bool:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)
        return True

    def log_message(self, format: str, *arguments: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    folder: Path
    odd: Callable[[Handler], bool]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has seen enough is no error."""


class Server6(Server):
    address_family = socket.AF_INET6


@pytest.fixture
def serve(many_shards: Path, place: Path) -> Iterator[Callable[..., str]]:
    """The address of a server of the phantom set, whose odd answers are given."""
    servers = []

    def start(odd: Callable[[Handler], bool] = lambda one: False, kind: type[Server] = Server) -> str:
        host = "::1" if kind is Server6 else "127.0.0.1"
        server = kind((host, 0), Handler)
        server.folder, server.odd = many_shards, odd
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://{f'[{host}]' if ':' in host else host}:{server.server_port}/set"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def refused(address: str, message: str, place: Path) -> None:
    with pytest.raises(InputError, match=message) as error:
        Dataset.open(address)
    assert str(error.value).startswith(address)
    assert "\n" not in str(error.value)
    assert str(place) not in str(error.value)


@pytest.mark.parametrize("kind", [Server, Server6])
def test_a_simple_server_suffices(serve: Callable[..., str], many_shards: Path, kind: type[Server]) -> None:
    """One that refuses HEAD, knows no ranges and tells no length; also at an address of version 6."""
    try:
        far = Dataset.open(serve(kind=kind))
    except OSError:
        pytest.skip("no IPv6 on this machine")
    assert far.read(0) == Dataset.open(many_shards).read(0)


def test_a_page_instead_of_a_description_is_refused_and_forgotten(
    serve: Callable[..., str], place: Path
) -> None:
    """Such as that of a proxy that wants a password. Once it is gone, nobody waits."""
    pages = [b"<html>Please log in</html>"]
    address = serve(lambda one: bool(pages) and one.send(200, pages[0]))
    refused(address, "dataset.json: not valid JSON", place)
    pages.clear()
    assert len(Dataset.open(address)) == 168


def test_what_is_compressed_is_refused(serve: Callable[..., str], place: Path) -> None:
    address = serve(lambda one: one.send(200, b"\x1f\x8b", Content_Encoding="gzip"))
    refused(address, r"the server sends it compressed \(gzip\), which was not asked for", place)


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("file:///etc/passwd", "the server leads to file:, which is no web server"),
        ("/set/again", "over 5 redirections"),
    ],
)
def test_a_server_that_leads_astray_is_refused_at_once(
    serve: Callable[..., str], place: Path, location: str, message: str
) -> None:
    address = serve(lambda one: one.send(302, b"", Location=location))
    refused(address, message, place)


def test_a_description_without_end_is_refused(
    serve: Callable[..., str], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "_MOST_DESCRIPTION", 10**6)
    sent = []

    def endless(one: Handler) -> bool:
        one.send(200, b"{")
        while True:
            one.wfile.write(b" " * 10**5)
            sent.append(10**5)

    refused(serve(endless), "dataset.json: is over 1000000 bytes", place)
    assert sum(sent) < 10**8


def test_a_part_that_was_not_asked_for_is_refused(
    serve: Callable[..., str], many_shards: Path, place: Path
) -> None:
    asked = []

    def other(one: Handler) -> bool:
        if not one.name.endswith("tar"):
            return False
        asked.append(one.headers.get("Range"))
        if len(asked) == 1:  # cut off after 100 bytes
            return one.send(200, one.content()[:100], Content_Length=str(len(one.content())))
        return one.send(206, one.content()[:100], Content_Range=f"bytes 0-99/{len(one.content())}")

    data = Dataset.open(serve(other))
    with pytest.raises(InputError, match=r"tar: the server sends another range than that from byte 100; "):
        data.read(0)
    assert asked == [None, "bytes=100-"]


def test_a_server_that_always_cuts_off_at_the_same_place_is_left(
    serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sends bytes all the time, but no new ones."""

    def cut(one: Handler) -> bool:
        length = str(len(one.content()))
        return one.name.endswith("tar") and one.send(200, one.content()[:20_000], Content_Length=length)

    monkeypatch.setenv("LEUKOTREE_PATIENCE", "0.5")
    data = Dataset.open(serve(cut))
    with pytest.raises(RunFailed, match=r"IncompleteRead.20000 bytes read.*; no new byte") as error:
        data.read(0)
    assert error.value.kind == "server"


def test_a_set_that_is_replaced_while_it_is_fetched_is_not_mixed(
    many_shards: Path, serve: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The description is that of before, and the index that of after."""
    other = Path(shutil.copytree(many_shards, tmp_path / "other"))
    (other / "dataset.json").write_text((other / "dataset.json").read_text() + " ")
    state = {"folder": many_shards}

    def replaced(one: Handler) -> bool:
        one.server.folder = state["folder"]
        if one.name == "index.parquet":
            state["folder"] = other
        return False

    versions: Callable[..., str] = lambda self, name: f"{state['folder']}/{name}"  # noqa: E731
    monkeypatch.setattr(transfer._Web, "version", versions)
    assert Dataset.open(serve(replaced)).fingerprint == Dataset.open(other).fingerprint


def test_a_server_that_is_away_for_a_moment_after_the_description_came_is_no_hindrance(
    many_shards: Path, serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked for the versions before and after."""
    asked: list[str] = []

    def version(source: object, name: str) -> str:
        asked.append(name)
        if len(asked) == 3:
            raise transfer.Lost("no answer")
        return "1"

    monkeypatch.setattr(transfer._Web, "version", version)
    data = Dataset.open(serve())
    assert data.fingerprint == Dataset.open(many_shards).fingerprint
    assert len(asked) == 3
