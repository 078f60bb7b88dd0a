"""Images and manifests at an https address, which a person names. Size and time are limited."""

from __future__ import annotations

import time
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from leukotree import progress, signals
from leukotree.data import manifest_table
from leukotree.data.remote import redirects
from leukotree.data.remote.address import hidden, hidden_in
from leukotree.errors import InputError, one_line

if TYPE_CHECKING:
    from requests import Response, Session

MOST_BYTES = 200 * 10**6
"""Largest file that is downloaded."""
MOST_TOGETHER = 20 * 10**9
"""Most bytes of all images of a manifest."""
SECONDS = 300
"""Longest time of one file."""
SILENCE = 30
"""Seconds without an answer after which a server counts as not there."""
_SCHEMES = ("https://", "http://")
_HERE = ("localhost", "127.0.0.1", "::1")
_PART = 2**16


def is_address(word: str) -> bool:
    """Whether a word of a command is an address, and no file."""
    return word.lower().startswith(_SCHEMES)


def name(address: str) -> str:
    """The name of the file at an address, without its folders; "" if it has none."""
    return PurePosixPath(unquote(_parts(address).path)).name


def image(address: str, folder: Path) -> Path:
    """The path of a downloaded image in `folder`. Raises InputError for an address that cannot be read, is
    not https, or is larger or slower than the limits."""
    path = folder / "image"  # never a name that a server gave
    with _session() as session:
        _fetch(session, address, path)
    return path


def manifest(address: str, folder: Path) -> Path:
    """The path of a downloaded manifest in `folder`, with its images beside it. Its images lie below the
    address of its folder. Raises InputError as `image`, and for an image that lies elsewhere."""
    suffix = PurePosixPath(name(address)).suffix.lower()
    path = folder / f".manifest{suffix}"
    with _session() as session:
        _fetch(session, address, path)
        texts = list(dict.fromkeys(manifest_table.read(path, ("image",))["image"]))
        total = 0
        for text in progress.over(texts, "download", len(texts), "image"):
            place = _below(address, text)
            if folder / place == path:  # it would replace the manifest
                raise InputError(
                    f"{hidden(address)}: image {text!r} has the name of a hidden file; rename it"
                )
            total += _fetch(session, urljoin(address, quote(str(place))), folder / place)
            if total > MOST_TOGETHER:
                raise InputError(
                    f"{hidden(address)}: its images are over {MOST_TOGETHER} bytes; download them first"
                )
    return path


def _below(address: str, text: str) -> PurePosixPath:
    place = PurePosixPath(text)
    odd = manifest_table.CONTROL.search(text) or is_address(text)
    if not place.parts or place.is_absolute() or ".." in place.parts or odd:
        raise InputError(f"{hidden(address)}: image {text!r} does not lie below the manifest's folder")
    return place


def _session() -> Session:
    import requests  # only needed for addresses

    return requests.Session()


def _fetch(session: Session, address: str, path: Path) -> int:
    """Download a file; its size in bytes."""
    import requests
    import urllib3

    end = time.monotonic() + SECONDS
    try:
        with _answer(session, address) as answer:
            answer.raise_for_status()
            path.parent.mkdir(parents=True, exist_ok=True)
            size = 0
            with open(path, "wb") as file:
                # `iter_content` waits for a full part, and a server that drips could hold it for weeks.
                while part := answer.raw.read1(_PART, decode_content=True):
                    signals.stop_if_requested(f"{hidden(address)} is not downloaded")
                    size += file.write(part)
                    if size > MOST_BYTES:
                        raise InputError(
                            f"{hidden(address)}: over {MOST_BYTES} bytes; no image is that large"
                        )
                    if time.monotonic() > end:
                        raise InputError(f"{hidden(address)}: took over {SECONDS} s; download it first")
            return size
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise InputError(
            f"{hidden(address)}: cannot be downloaded: {hidden_in(one_line(error))[:200]}"
        ) from error


def _answer(session: Session, address: str) -> Response:
    """The answer after its redirections. Raises InputError for a place that may not be asked."""
    parts = _parts(address)
    if parts.scheme != "https" and parts.hostname not in _HERE:
        raise InputError(f"{hidden(address)}: is not https; give an https address, or download it first")
    try:
        return redirects.get(session, address, https=True, stream=True, timeout=SILENCE)
    except redirects.Refused as error:
        raise InputError(f"{hidden(address)}: {error}; download it first") from error


def _parts(address: str) -> SplitResult:
    """Raises InputError for what is no address."""
    try:
        return urlsplit(address)
    except ValueError as error:
        raise InputError(f"{hidden(address)}: is no address: {error}") from error
