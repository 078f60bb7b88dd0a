"""Fetch all shards of a data set to this machine before a job needs them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from leukotree import progress
from leukotree.data.dataset import Dataset
from leukotree.data.remote import scratch
from leukotree.data.remote.uses import Pass
from leukotree.errors import InputError


@dataclass(frozen=True)
class Staged:
    """What is on this machine now."""

    folder: Path
    shards: int
    fetched: int
    """Those that were not here before."""
    bytes: int

    def line(self) -> str:
        return f"{self.folder}: {self.shards} shards, {self.bytes / 1e6:.1f} MB, {self.fetched} fetched now"


def stage(dataset: Dataset) -> Staged:
    """Fetch what this machine lacks of a data set at an address.

    Raises InputError where it is larger than the room for shards, and what `Fetcher.open` raises.
    """
    own = dataset.fetcher
    if own is None:
        raise InputError(f"{dataset.folder}: is a folder, which is read where it is; give an address")
    store = own.store
    here = store.present()
    total = sum(store.size(name) for name in store.names)
    room = scratch.limit(sum(store.path(name).stat().st_size for name in here))
    if total > room:
        raise InputError(
            f"{store.address.text}: its shards have {total / 1e9:.3g} GB, and all shards may have "
            f"{room / 1e9:.3g} GB in {store.folder.parent}; give more with --cache-gb, or another folder "
            "with --cache"
        )
    lacking = [name for name in store.names if name not in here]
    bar = progress.Bar("stage", len(store.names), "shard", done=len(here), soon=True)
    # This thread waits for one shard after another, in the order in which others fetch ahead. So Ctrl-C ends
    # it at once.
    order = Pass(
        np.array([store.number[name] for name in lacking], dtype=np.int64), len(store.names), lambda: 0
    )
    own.follow(order, window=len(store.names))
    try:
        with bar:
            for order.position, name in enumerate(lacking):
                os.close(own.open(name))
                bar.advance()
    finally:
        own.forget(order)
    size = sum(store.path(name).stat().st_size for name in store.present())
    return Staged(store.folder, len(store.names), len(lacking), size)
