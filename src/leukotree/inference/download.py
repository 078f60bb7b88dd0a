"""Images and manifests at an https address, which a person names. Size and time are limited."""

from __future__ import annotations

import time
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urljoin, urlsplit

from leukotree import progress
from leukotree.data import manifest_table
from leukotree.errors import InputError, one_line

if TYPE_CHECKING:
    from requests import Session

MOST_BYTES = 200 * 10**6
"""Largest file that is downloaded."""
MOST_TOGETHER = 20 * 10**9
"""Most bytes of all images of a manifest."""
SECONDS = 300
"""Longest time of one file."""
SILENCE = 30
"""Seconds without an answer after which a server counts as not there."""
REDIRECTS = 5
"""Most redirections of an address."""
_SCHEMES = ("https://", "http://")
_HERE = ("localhost", "127.0.0.1", "::1")
_PART = 2**16


def is_address(word: str) -> bool:
    """Whether a word of a command is an address, and no file."""
    return word.lower().startswith(_SCHEMES)


def name(address: str) -> str:
    """The name of the file at an address, without its folders; "" if it has none."""
    return PurePosixPath(unquote(urlsplit(address).path)).name


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
    path = folder / f"manifest{suffix}"
    with _session() as session:
        _fetch(session, address, path)
        texts = list(dict.fromkeys(manifest_table.read(path, ("image",))["image"]))
        total = 0
        for text in progress.over(texts, "download", len(texts), "image"):
            place = _below(address, text)
            total += _fetch(session, urljoin(address, quote(str(place))), folder / place)
            if total > MOST_TOGETHER:
                raise InputError(f"{address}: its images are over {MOST_TOGETHER} bytes; download them first")
    return path


def _below(address: str, text: str) -> PurePosixPath:
    place = PurePosixPath(text)
    odd = manifest_table.CONTROL.search(text) or is_address(text)
    if not place.parts or place.is_absolute() or ".." in place.parts or odd:
        raise InputError(f"{address}: image {text!r} does not lie below the manifest's folder")
    return place


def _session() -> Session:
    import requests  # only needed for addresses

    session = requests.Session()
    session.max_redirects = REDIRECTS
    return session


def _fetch(session: Session, address: str, path: Path) -> int:
    """Download a file; its size in bytes."""
    import requests

    _require_https(address)
    end = time.monotonic() + SECONDS
    try:
        with session.get(address, stream=True, timeout=SILENCE) as answer:
            for url in [*(earlier.url for earlier in answer.history), answer.url]:
                _require_https(url)
            answer.raise_for_status()
            path.parent.mkdir(parents=True, exist_ok=True)
            size = 0
            with open(path, "wb") as file:
                for part in answer.iter_content(_PART):
                    size += file.write(part)
                    if size > MOST_BYTES:
                        raise InputError(f"{address}: over {MOST_BYTES} bytes; no image is that large")
                    if time.monotonic() > end:
                        raise InputError(f"{address}: took over {SECONDS} s; download it first")
            return size
    except requests.RequestException as error:
        raise InputError(f"{address}: cannot be downloaded: {one_line(error)[:200]}") from error


def _require_https(address: str) -> None:
    """Raises InputError for an address whose bytes somebody on the way could change. On this machine nobody
    is on the way."""
    parts = urlsplit(address)
    if parts.scheme != "https" and parts.hostname not in _HERE:
        raise InputError(f"{address}: is not https; give an https address, or download it first")
