"""The description and the index of a packed data set that lies elsewhere, in a folder of this machine.

Beside the folder of each data set lies a note, `<address>.json`: which folder is the newest, and when it was
compared with the address. A data set that is packed again gets another folder, so runs that read the old one
are not disturbed.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from leukotree import files, progress
from leukotree.data.fingerprint import DEAL, DESCRIPTION, INDEX, MAX_BYTES, fingerprint_of
from leukotree.data.remote import scratch, transfer
from leukotree.data.remote.address import Address, is_remote, parse, require_trust
from leukotree.data.remote.place import digest, note_path, read_note
from leukotree.errors import InputError, RunFailed
from leukotree.log import logger

FRESH = 60.0
"""Seconds in which the description is not compared with the address again."""
SECONDS = 30.0
"""Seconds that a server is waited for which has not answered yet."""
ORIGIN = "origin.txt"
"""File of the folder: its address."""
_LOCK_SECONDS = 600.0
_MOST_DESCRIPTION = 2**26
"""Bytes of a description that is still read: it comes into memory."""


def fetched(address: Address, repeat: int = 0) -> Path:
    """The folder of this machine that holds the description and the index of an address, as they are now, and
    the deal of a repeat. A server that does not answer is no hindrance where they were fetched before.

    Raises InputError where there is no packed data set, and RunFailed of kind "server" where the server does
    not answer.
    """
    require_trust(address)
    root = scratch.made()
    path = note_path(address)
    with files.locked(path.with_suffix(".lock"), f"{address.text}: is being opened", _LOCK_SECONDS):
        note = read_note(address)
        if note is None or abs(time.time() - note["checked"]) > FRESH:
            note = _compared(address, root, path, note)
        folder = root / note["folder"]
        deal = DEAL.format(repeat)
        if repeat and not (folder / deal).exists():
            fix = (
                f"run `leukotree pack SHARDS --repeats {repeat + 1}` where the shards are, and upload {deal}"
            )
            _write(folder / deal, _content(address, deal, f"repeat {repeat} is not dealt; {fix}"))
    return folder


def refresh(shards: str | Path, beside: Iterable[str] = ()) -> None:
    """Compare the copy of a data set's description with its address, and fetch small files beside it. What
    cannot be had is left out, with a line: a report is made without it."""
    if not is_remote(shards):
        return
    address = parse(str(shards))
    try:
        folder = fetched(address)
        for name in beside:
            if not (folder / name).exists():
                try:
                    _write(folder / name, _content(address, name, "is not there"))
                except InputError:
                    continue
    except (InputError, RunFailed) as error:
        logger.warning(f"{error}; the data are not compared")


def _compared(address: Address, root: Path, path: Path, note: dict[str, Any] | None) -> dict[str, Any]:
    """The note of an address after a look there: the old one where nothing has changed."""
    origin, before = transfer.source(address), (note or {}).get("versions")
    try:
        versions = _versions(origin)
        if note is None or None in versions or versions != before or not (root / note["folder"]).is_dir():
            note = _unmixed(address, root, origin, versions)
        note = {**note, "checked": time.time()}
    except (transfer.Lost, RunFailed) as error:
        if note is None:
            if isinstance(error, RunFailed):
                raise
            note = {"folder": _copied(address, root), "checked": time.time(), "versions": None}
        else:
            when = time.strftime("%Y-%m-%d %H:%M", time.localtime(note["checked"]))
            logger.warning(f"{address.text}: {error}; continues with the description of {when}")
            return note
    except transfer.NotThere as error:
        raise _no_data_set(address, DESCRIPTION, error) from error
    files.write_atomic(path, json.dumps(note))
    return note


def forget(address: Address) -> None:
    """Ask the server again the next time: what it sent was no packed data set."""
    note_path(address).unlink(missing_ok=True)


def _unmixed(
    address: Address, root: Path, origin: transfer.Source, versions: list[str | None]
) -> dict[str, Any]:
    """A note of a copy that is not one of two data sets: of one whose files were replaced meanwhile, the new
    ones are fetched."""
    folder = _copied(address, root)
    try:
        after = _versions(origin)
    except transfer.Lost:  # what was fetched is whole; the next look compares it
        return {"folder": folder, "versions": None}
    if after != versions:
        folder = _copied(address, root)
    return {"folder": folder, "versions": after}


def _versions(origin: transfer.Source) -> list[str | None]:
    return [origin.version(name) for name in (DESCRIPTION, INDEX)]


def _copied(address: Address, root: Path) -> str:
    """Fetch the description and the index; the name of their folder."""
    progress.step(f"reading {address.text}")
    description = _content(address, DESCRIPTION, "")
    index = _content(address, INDEX, "")
    name = f"{digest(address)}-{fingerprint_of(description, index)[:16]}"
    folder = root / name
    folder.mkdir(mode=0o700, exist_ok=True)
    for file, content in ((ORIGIN, address.text.encode()), (INDEX, index), (DESCRIPTION, description)):
        _write(folder / file, content)
    return name


def _content(address: Address, name: str, problem: str) -> bytes:
    buffer = io.BytesIO()
    begun = time.monotonic()

    def tell(done: int, lost: str) -> None:
        if lost and time.monotonic() - begun > 2:
            progress.step(f"asking again for {name} ({lost})")

    try:
        seconds = min(SECONDS, transfer.patience())
        most = MAX_BYTES if name != DESCRIPTION else _MOST_DESCRIPTION
        transfer.download(address, name, buffer, most, seconds, tell, f"is over {most} bytes")
    except transfer.NotThere as error:
        if problem:
            raise InputError(f"{address.file(name)}: {problem}") from error
        raise _no_data_set(address, name, error) from error
    return buffer.getvalue()


def _no_data_set(address: Address, name: str, error: Exception) -> InputError:
    return InputError(f"{address.text}: no packed data set there, {name}: {error}; upload a packed folder")


def _write(path: Path, content: bytes) -> None:
    try:
        files.write_atomic(path, content)
    except OSError as error:
        if files.is_full(error):
            raise
        raise InputError(f"{path}: cannot be written: {error.strerror}; fix that and run again") from error
