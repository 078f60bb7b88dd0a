"""Where a web server may lead."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import requests

from leukotree.data.remote import redirects

NAMES = {
    "localhost": "127.0.0.1",
    "a.org": "93.184.215.14",
    "b.org": "93.184.215.15",
    "intern.org": "10.1.2.3",
    "other.intern.org": "10.1.2.4",
    "here.org": "127.0.0.53",
    "keys.org": "169.254.169.254",
    "both.org": "93.184.215.14 10.0.0.1",
}


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name is asked for in the network."""
    ask = socket.getaddrinfo

    def known(host: str, port: Any, *more: Any, **options: Any) -> list[Any]:
        if host in NAMES:
            return [(None, None, None, "", (text, 0)) for text in NAMES[host].split()]
        return ask(host, port, *more, **options | {"flags": socket.AI_NUMERICHOST})

    monkeypatch.setattr(socket, "getaddrinfo", known)


@pytest.mark.parametrize(
    ("first", "url"),
    [
        ("https://a.org/x", "https://b.org/x?sig=1"),
        ("http://a.org/x", "https://a.org/x"),
        ("https://intern.org/x", "https://other.intern.org/x"),
        ("https://intern.org/x", "https://a.org/x"),
        ("http://127.0.0.1:1/x", "http://localhost:2/x"),
        ("http://127.0.0.1:1/x", "http://[::1]:2/x"),
        ("https://a.org/x", "https://known-to-the-proxy.invalid/x"),
    ],
)
def test_a_place_that_is_no_further_inside_is_asked(first: str, url: str) -> None:
    redirects.check(first, url)


@pytest.mark.parametrize(
    ("first", "url", "message"),
    [
        ("https://a.org/x", "http://b.org/x?sig=secret", "leads to http://b.org, which is not https"),
        ("https://a.org/x", "file:///etc/passwd", "leads to file:, which is no web server"),
        ("https://a.org/x", "ftp://b.org/x", "leads to ftp:"),
        ("https://a.org/x", "https:///x", "leads to https:, which is no web server"),
        ("https://a.org/x", "https://[/x", "leads to what is no address"),
        ("https://a.org/x", "https://localhost/x", "leads to this machine"),
        ("https://a.org/x", "https://127.0.0.2/x", "leads to this machine"),
        ("https://a.org/x", "https://2130706433/x", "leads to this machine"),
        ("https://a.org/x", "https://0.0.0.0/x", "leads to this machine"),
        ("https://a.org/x", "https://[::1]/x", "leads to this machine"),
        ("https://a.org/x", "https://[::ffff:127.0.0.1]/x", "leads to this machine"),
        ("https://a.org/x", "https://me:secret@here.org/x", r"leads to this machine \(https://here.org\)"),
        ("https://a.org/x", "https://keys.org/latest", "leads to this machine"),
        ("https://intern.org/x", "https://keys.org/latest", "leads to this machine"),
        ("https://a.org/x", "https://intern.org/x", "leads to a private network"),
        ("https://a.org/x", "https://both.org/x", "leads to a private network"),
        ("https://a.org/x", "https://192.168.1.1/x", "leads to a private network"),
        ("https://a.org/x", "https://100.64.0.1/x", "leads to a private network"),
    ],
)
def test_a_place_further_inside_is_refused(first: str, url: str, message: str) -> None:
    with pytest.raises(redirects.Refused, match=message) as refused:
        redirects.check(first, url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:9/x?sig=secret", "Connection refused"),
        ("http://nowhere.invalid/x?sig=secret", "the name of the server is not known"),
    ],
)
def test_why_a_request_failed_is_said_in_a_few_words(url: str, words: str) -> None:
    with pytest.raises(requests.RequestException) as raised:
        redirects.get(requests.Session(), url, timeout=5)
    assert redirects.reason(raised.value) == words


def test_the_proxy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also that a host is reached without it, which NO_PROXY says."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "a.invalid")
    for host, words in (
        ("b.invalid", "the proxy: Connection refused"),
        ("a.invalid", "the name of the server"),
    ):
        with pytest.raises(requests.RequestException) as raised:
            redirects.get(requests.Session(), f"http://{host}/x", timeout=5)
        assert redirects.reason(raised.value).startswith(words)
