"""Addresses of packed data sets: `https`, `http`, `s3`, `gs`, `hf`, and commands as WebDataset has them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from leukotree.errors import InputError

WEB, STORES, PIPE = ("http", "https"), ("s3", "gs", "hf"), "pipe"
HOLE = "{}"
"""In a command: the name of the file that it prints."""
_REMOTE = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://|(pipe):", re.IGNORECASE)
_FILE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_trusted: set[str] = set()
"""Commands that a person named to this process."""


class Address(NamedTuple):
    """The place of a packed data set that is no folder of this machine."""

    text: str
    """As it was given, without a slash at the end."""
    scheme: str

    def file(self, name: str) -> str:
        """The address of a file of the data set; of a command, the command that prints it."""
        if not _FILE.fullmatch(name):  # it would be another file, or another command
            raise InputError(f"{self.text}: {name!r} is no name of a file in a packed folder")
        if self.scheme == PIPE:
            return self.text.replace(HOLE, name)
        return f"{self.text}/{quote(name) if self.scheme in WEB else name}"


def is_remote(shards: str | Path) -> bool:
    """Whether a text is an address, and no folder of this machine."""
    return bool(_REMOTE.match(str(shards)))


def parse(text: str) -> Address:
    """The address that a text names. Raises InputError for a scheme that is not known, and for an address
    that would carry a secret into the files of every run."""
    found = _REMOTE.match(text)
    if not found:
        raise InputError(f"{text}: is no address; give one such as https://HOST/FOLDER")
    if found[2]:
        if HOLE not in text:
            raise InputError(f"{text}: put {HOLE} where the file's name stands, as in pipe:cat set/{HOLE}")
        return Address("pipe:" + text[len("pipe:") :], PIPE)
    scheme = found[1].lower()
    if hidden(text) != text:
        fix = "use ~/.netrc" if scheme in WEB else "use the variables of the store"
        raise InputError(
            f"{hidden(text)}: an address of shards has no password, no ? and no #, since every run notes it; "
            f"{fix}"
        )
    if scheme not in (*WEB, *STORES):
        known = ", ".join(f"{name}://" for name in (*WEB, *STORES))
        raise InputError(f"{text}: shards cannot be read from {scheme}://; use a folder, {known} or pipe:")
    if not urlsplit(text).netloc or re.search(r"[\s\x00-\x1f]", text):
        raise InputError(f"{text}: is no whole address; give one such as {scheme}://HOST/FOLDER")
    return Address(f"{scheme}{text[len(scheme) :].rstrip('/')}", scheme)


def hidden(text: str) -> str:
    """An address without what may be secret in it, for messages and records: a name and a password, what
    follows ? and #. Other texts stay as they are."""
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        return text
    head, _, rest = re.split(r"[?#]", text, maxsplit=1)[0].partition("://")
    host, slash, path = rest.partition("/")
    return f"{head}://{host.rpartition('@')[2]}{slash}{path}"


def hidden_in(text: str) -> str:
    """A message of another library, whose addresses may have secrets, without these."""
    whole = re.sub(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\")>]+", lambda match: hidden(match[0]), text)
    return re.sub(r"\?[^\s'\")>]*", "", whole)


def trust(shards: str | Path) -> None:
    """Allow a command that a study or the command line names. Others stay refused, such as one in a file that
    somebody else has made."""
    if is_remote(shards) and str(shards).lower().startswith("pipe:"):
        _trusted.add(parse(str(shards)).text)


def require_trust(address: Address) -> None:
    """Raises InputError for a command that nobody named to this process."""
    if address.scheme == PIPE and address.text not in _trusted:
        raise InputError(
            f"{address.text}: a command is only run where a study or the command line names it; give it there"
        )
