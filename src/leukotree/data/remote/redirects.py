"""Where a web server may lead: never from the network to this machine or into a private network, whose
services may answer to it what they answer to nobody else."""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from leukotree.data.remote.address import WEB, hidden_in
from leukotree.errors import one_line

if TYPE_CHECKING:
    from requests import Response, Session

MOST = 5
"""Redirections of one request."""
_PUBLIC, _PRIVATE, _HERE = range(3)


class Refused(Exception):
    """A server leads to where it must not. The message names the place without what may be secret in it."""


def get(
    session: Session, url: str, method: str = "GET", *, https: bool = False, **options: object
) -> Response:
    """The answer of a server, after its redirections, each of which is checked before it is asked.

    Args: https: whether it may lead to nothing but https, and to this machine itself if it is here.

    Raises Refused, and what requests raises.
    """
    first = url
    for _ in range(MOST + 1):
        answer = session.request(method, url, allow_redirects=False, **options)  # type: ignore[arg-type]
        if not answer.is_redirect:
            return answer
        answer.close()
        url = urljoin(url, answer.headers["location"])
        check(first, url, https)
    raise Refused(f"over {MOST} redirections")


def check(first: str, url: str, https: bool = False) -> None:
    """Raises Refused unless the server of the address `first` may lead to `url`."""
    try:
        old, new = urlsplit(first), urlsplit(url)
        place = f"{new.scheme}://{new.hostname}"
    except ValueError as error:
        raise Refused(f"leads to what is no address: {error}") from error
    if new.scheme not in WEB or not new.hostname:
        raise Refused(f"leads to {new.scheme}:, which is no web server")
    distance = _distance(new.hostname)
    if new.hostname != old.hostname and distance > _distance(old.hostname or ""):
        where = "this machine" if distance == _HERE else "a private network"
        raise Refused(f"leads to {where} ({place})")
    if ((https and distance != _HERE) or old.scheme == "https") and new.scheme != "https":
        raise Refused(f"leads to {place}, which is not https: there others can read and change what is sent")


def reason(error: Exception) -> str:
    """Why a request failed, in a few words: the innermost cause, without what may be secret."""
    chain: list[BaseException] = [error]
    while (inner := _inner(chain[-1])) is not None and inner not in chain:
        chain.append(inner)
    through = "the proxy: " if any(type(one).__name__ == "ProxyError" for one in chain) else ""
    for one in reversed(chain):
        if isinstance(one, socket.gaierror):
            return f"{through}the name of the server is not known"
        if isinstance(one, TimeoutError) or type(one).__name__ == "ConnectTimeoutError":
            return f"{through}no answer in time"
        if isinstance(one, OSError) and one.strerror:
            return f"{through}{one.strerror}"
    return through + hidden_in(one_line(error))[:200]


def _inner(error: BaseException) -> BaseException | None:
    known = (getattr(error, "reason", None), *error.args[:1], error.__cause__, error.__context__)
    return next((one for one in known if isinstance(one, BaseException)), None)


def _distance(host: str) -> int:
    """How far inside a host is: in the network, in a private network, on this machine or beside it (also the
    service that tells a virtual machine its keys). A host without an address here counts as in the network:
    a proxy may know it."""
    try:
        known = {ipaddress.ip_address(str(entry[4][0])) for entry in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError, ValueError):
        return _PUBLIC
    return max((_of(address) for address in known), default=_PUBLIC)


def _of(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> int:
    mapped = getattr(address, "ipv4_mapped", None)
    if mapped is not None:
        return _of(mapped)
    if address.is_loopback or address.is_link_local or address.is_unspecified:
        return _HERE
    return _PUBLIC if address.is_global else _PRIVATE
