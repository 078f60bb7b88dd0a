"""The bytes of one file of a data set that lies elsewhere. What is lost on the way is asked for again."""

from __future__ import annotations

import contextlib
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Protocol

from leukotree import signals
from leukotree.data.remote import filesystems, redirects
from leukotree.data.remote.address import PIPE, WEB, Address, hidden_in
from leukotree.errors import InputError, Preempted, RunFailed, one_line

PART = 2**20
CONNECT, SILENCE = 10.0, 30.0
"""Seconds without an answer after which a connection counts as lost."""
SLOWEST = 1000
"""Bytes per second. A server that is slower over SILENCE seconds counts as stalled."""
PATIENCE = 300.0
"""Seconds without any new byte after which a run gives up and ends as "server"."""
LONGEST_PAUSE = 30.0
PROGRESS = 2**14
"""Bytes that a file must have grown by before it counts as coming."""
REFUSED = "ACCESS_DENIED", "HTTP status 403", "401 Client", "403 Client", "404 Client", "No such file"
"""Parts of messages of object stores that will not be others in a moment."""
AGAIN = {408, 425, 429, 500, 502, 503, 504}
"""Answers of a web server that may be others in a moment."""


Tell = Callable[[int, str], None]
"""Called with the bytes so far, and what was lost last ("" for nothing)."""


class Lost(Exception):
    """The server did not answer, or stopped. Trying again may help."""


class NotThere(Exception):
    """The server answers, and has no such file for us."""


class Source(Protocol):
    """Where files come from."""

    def version(self, name: str) -> str | None:
        """What changes when a file changes; None where it is not known. Raises Lost and NotThere."""

    def parts(self, name: str, start: int) -> Iterator[tuple[int, bytes]]:
        """(position, bytes) of a file from byte `start`, or from its begin. Raises Lost and NotThere."""


def patience() -> float:
    """Seconds that a server is waited for; $LEUKOTREE_PATIENCE changes it."""
    with contextlib.suppress(ValueError):
        return float(os.environ.get("LEUKOTREE_PATIENCE", PATIENCE))
    return PATIENCE


def source(address: Address) -> Source:
    """Where the files of an address come from. A forked process gets its own."""
    return _source(address, os.getpid())


@lru_cache(maxsize=16)
def _source(address: Address, pid: int) -> Source:
    if address.scheme in WEB:
        return _Web(address)
    return _Command(address) if address.scheme == PIPE else Bucket(address)


def download(
    address: Address,
    name: str,
    file: IO[bytes],
    most: int,
    seconds: float | None = None,
    tell: Tell = lambda done, problem: None,
    too_long: str = "is longer than the index says",
) -> int:
    """Write a file of an address into `file`; its size. A connection that is lost is made again, with longer
    and longer pauses, and goes on where it was.

    Args:
        most: largest size in bytes.
        seconds: without any new byte, after which it gives up; None for `patience()`.
        tell: is called with the bytes so far, and the last problem.
        too_long: what is wrong with a larger file.

    Raises NotThere, InputError for a larger file, RunFailed of kind "server" when it gives up, and Preempted
    when this process is asked to end meanwhile.
    """
    origin, wait = source(address), patience() if seconds is None else seconds
    done, tries, moved, mark = 0, 0, time.monotonic(), 0
    while True:
        try:
            for position, data in origin.parts(name, done):
                if position != done:  # the server begins again
                    done = position
                file.seek(done)
                done += file.write(data)
                if done >= mark:  # what came before and is lost again is no progress
                    tries, moved, mark = 0, time.monotonic(), done + PROGRESS
                tell(done, "")
                if done > most:
                    raise InputError(f"{address.file(name)}: {too_long}; upload the packed folder again")
            file.truncate(done)
            return done
        except Lost as error:
            problem, tries = one_line(error), tries + 1
        quiet = time.monotonic() - moved
        if quiet > wait:
            raise RunFailed(f"{address.file(name)}: {problem}; no new byte in {quiet:.0f} s", "server")
        tell(done, problem)
        pause = min(LONGEST_PAUSE, 0.25 * 2**tries, wait / 4) * random.uniform(0.5, 1.0)
        signals.sleep(pause, "asked to stop while the server of the shards did not answer")


def _watched(parts: Iterator[bytes], start: int) -> Iterator[tuple[int, bytes]]:
    """The parts with their positions. Raises Lost where they come more slowly than SLOWEST."""
    begun, count = time.monotonic(), 0
    for data in parts:
        yield start, data
        start, count, now = start + len(data), count + len(data), time.monotonic()
        if now - begun > SILENCE:
            if count < SLOWEST * (now - begun):
                raise Lost(f"{count} bytes in {now - begun:.0f} s")
            begun, count = now, 0


class _Web:
    """A web server, by `requests`: it takes a name and a password from ~/.netrc, and a proxy from the
    environment. WebDataset would start a `curl` for each file, which begins again after a loss."""

    def __init__(self, address: Address) -> None:
        self._address, self._sessions = address, threading.local()

    def _ask(self, method: str, name: str, headers: dict[str, str]) -> Any:
        import requests

        if not hasattr(self._sessions, "own"):
            self._sessions.own = requests.Session()
        url = self._address.file(name)
        plain = {"Accept-Encoding": "identity", **headers}
        try:
            answer = redirects.get(
                self._sessions.own, url, method, headers=plain, stream=True, timeout=(CONNECT, SILENCE)
            )
        except redirects.Refused as error:
            raise NotThere(f"the server {error}") from error
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidProxyURL) as error:
            raise NotThere(hidden_in(one_line(error))[:200]) from error
        except requests.RequestException as error:
            raise Lost(redirects.reason(error)) from error
        if answer.status_code in AGAIN:
            answer.close()
            raise Lost(f"the server answers {answer.status_code} {answer.reason}")
        if answer.status_code not in (200, 206, 416):
            answer.close()
            raise NotThere(f"the server answers {answer.status_code} {answer.reason}")
        if (coding := answer.headers.get("Content-Encoding", "identity")) != "identity":
            answer.close()
            raise NotThere(f"the server sends it compressed ({coding[:20]}), which was not asked for")
        return answer

    def version(self, name: str) -> str | None:
        try:
            with self._ask("HEAD", name, {}) as answer:
                known = [answer.headers.get(field) for field in ("ETag", "Last-Modified")]
                return f"{known} {answer.headers.get('Content-Length')}" if any(known) else None
        except NotThere:  # a server may refuse HEAD only; the file itself is asked for next
            return None

    def parts(self, name: str, start: int) -> Iterator[tuple[int, bytes]]:
        import urllib3

        with self._ask("GET", name, {"Range": f"bytes={start}-"} if start else {}) as answer:
            if answer.status_code == 416:  # the file has no byte there: it is another one than before
                if not start:
                    raise NotThere("the server answers 416 where no range was asked for")
                yield from self.parts(name, 0)
                return
            sent = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", f"bytes {start}-"))
            if answer.status_code == 206 and (sent is None or int(sent[1]) != start):
                raise NotThere(f"the server sends another range than that from byte {start}")
            begin = start if answer.status_code == 206 else 0
            try:
                # What has come, not PART bytes: a part that is lost in the middle would come again.
                parts = iter(lambda: answer.raw.read1(PART, decode_content=False), b"")
                end = begin
                for end, data in _watched(parts, begin):
                    yield end, data
                    end += len(data)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                raise Lost(hidden_in(one_line(error))[:200]) from error
            length = answer.headers.get("Content-Length", "")
            if length.isdecimal() and end - begin < int(length):
                raise Lost(f"the connection ended after {end - begin} of {length} bytes")


class Bucket:
    """An object store, by pyarrow (S3, GCS) or by the Hugging Face hub's own file system, both as fsspec."""

    def __init__(self, address: Address) -> None:
        self._address = address
        with _translated():
            self.files = filesystems.of(address.scheme, CONNECT, SILENCE)

    def path(self, name: str) -> str:
        """The path of a file as the file system has it."""
        return self._address.file(name).partition("://")[2]

    def version(self, name: str) -> str | None:
        with _translated():
            self.files.invalidate_cache()  # that of the hub has the answer of before
            facts = self.files.info(self.path(name))
            known = {key: str(facts[key]) for key in ("ETag", "mtime", "blob_id", "size") if facts.get(key)}
            return str(sorted(known.items())) if len(known) > 1 else None

    def sizes(self) -> dict[str, int]:
        """Name -> bytes of the files that are there."""
        with _translated():
            try:
                listed = self.files.ls(self.path("x").rpartition("/")[0], detail=True)
            except OSError as error:  # that of Google's store is no FileNotFoundError
                if isinstance(error, FileNotFoundError) or "No such file" in str(error):
                    return {}
                raise
        return {facts["name"].rpartition("/")[2]: int(facts.get("size") or 0) for facts in listed}

    def read(self, name: str) -> bytes:
        with _translated():
            return bytes(self.files.cat_file(self.path(name)))

    def write(self, name: str, path: Path) -> None:
        with _translated():
            self.files.put_file(str(path), self.path(name))

    def parts(self, name: str, start: int) -> Iterator[tuple[int, bytes]]:
        # Google's store sends a file twice that is opened to seek in it. The hub has no such option.
        options = {"seekable": bool(start)} if self._address.scheme in ("s3", "gs") else {}
        with _translated(), self.files.open(self.path(name), "rb", **options) as file:
            if start:
                file.seek(start)
            yield from _watched(iter(lambda: file.read(PART), b""), start)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """The context in which errors of a file system become Lost or NotThere."""
    try:
        yield
    except (Lost, NotThere, InputError, RunFailed, Preempted):
        raise
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise NotThere(hidden_in(one_line(error))[:300]) from error
    except Exception as error:  # each file system has its own
        text = hidden_in(one_line(error))[:300]
        if "OAuth2 access token" in text:  # a long text, of which the end would be missing
            text = filesystems.NOT_LOGGED_IN
        refused = any(word in text for word in REFUSED)
        raise (NotThere if refused else Lost)(text) from error


class _Command:
    """A command that prints a file, by WebDataset's `gopen`."""

    def __init__(self, address: Address) -> None:
        self._address = address

    def version(self, name: str) -> str | None:
        return None

    def parts(self, name: str, start: int) -> Iterator[tuple[int, bytes]]:
        from webdataset.gopen import gopen

        try:
            with gopen(self._address.file(name), "rb", PART) as stream:
                yield from _watched(iter(lambda: stream.read(PART), b""), 0)
        except OSError as error:
            raise Lost("the command failed") from error
