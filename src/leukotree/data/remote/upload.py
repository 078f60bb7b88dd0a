"""Write a packed folder to an address: `s3`, `gs` or `hf`. Its index is written first: it says to which data
set the shards belong that are there when an upload is continued. The description is written last, so that
nobody reads a part of it."""

from __future__ import annotations

from pathlib import Path

from leukotree import files, progress
from leukotree.data import deals
from leukotree.data.fingerprint import DEAL, DESCRIPTION, INDEX
from leukotree.data.remote import scratch, transfer
from leukotree.data.remote.address import STORES, Address, parse
from leukotree.data.remote.place import digest
from leukotree.errors import InputError, RunFailed


def check(text: str) -> Address:
    """The address. Raises InputError for one that cannot be written to."""
    address = parse(text)
    if address.scheme not in STORES:
        raise InputError(
            f"{address.text}: {address.scheme} cannot be written; pack into a folder and upload it, or give "
            "an address of s3, gs or hf"
        )
    return address


def require_there(address: Address) -> None:
    """Raises InputError where the store cannot be listed now: hours of packing would be for nothing."""
    try:
        _bucket(address).sizes()
    except (transfer.Lost, transfer.NotThere) as error:
        raise InputError(f"{address.text}: cannot be written: {error}; nothing was packed") from error


def _bucket(address: Address) -> transfer.Bucket:
    origin = transfer.source(address)
    if not isinstance(origin, transfer.Bucket):
        raise InputError(f"{address.text}: cannot be written")
    return origin


def working_folder(address: Address) -> Path:
    """The folder of this machine in which a data set is packed before it is uploaded. It does not lie among
    the copies, which are removed to make room."""
    folder = scratch.made().parent / "packed"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / digest(address)


def upload(folder: Path, address: Address, beside: tuple[str, ...] = ()) -> int:
    """Write the files of a packed folder that the address lacks; how many. `beside`: names of further files
    that are written where they are in the folder.

    Raises InputError where another data set is there, and RunFailed where the store does not answer.
    """
    origin = _bucket(address)
    description = (folder / DESCRIPTION).read_bytes()
    try:
        there = origin.sizes()
        if DESCRIPTION in there and origin.read(DESCRIPTION) != description:
            raise InputError(f"{address.text}: holds another data set; remove it or choose another address")
        shards = sorted(path.name for path in folder.glob("fold*.tar"))
        dealt = [DEAL.format(number) for number in deals.numbers(folder)]
        more = [name for name in beside if (folder / name).exists()]
        names = [INDEX, *shards, *dealt, *more, DESCRIPTION]
        same = INDEX in there and origin.read(INDEX) == (folder / INDEX).read_bytes()
        known = there if same else {}  # shards of another data set may have the same sizes
        todo = [name for name in names if known.get(name) != (folder / name).stat().st_size]
        with progress.Bar("upload", len(names), "file", done=len(names) - len(todo), soon=True) as bar:
            for name in todo:
                origin.write(name, folder / name)
                bar.advance()
    except (transfer.Lost, transfer.NotThere) as error:
        raise RunFailed(f"{address.text}: {error}; run it again to continue", "server") from error
    except OSError as error:
        if files.is_full(error):
            raise
        raise RunFailed(f"{address.text}: {error}; run it again to continue", "server") from error
    return len(todo)
