"""Labels from readers: the leaf of an image is the consensus of its readings.

It is chosen when the images are packed, before any model is trained. Only readings that name a leaf count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from leukotree.data import described
from leukotree.errors import InputError
from leukotree.taxonomy import Taxonomy

Method = Literal["majority", "dawid-skene"]
METHODS: tuple[Method, ...] = get_args(Method)
FEWEST = {"majority": 2, "dawid-skene": 3}
"""Method -> the smallest number of readers. Two readers do not tell the error rates of Dawid and Skene."""
MANIFEST_LEAF, ORIGIN = "manifest_leaf", "label_origin"
"""Columns of a table with such labels: the leaf that the manifest gave, and one of the texts below."""
READERS, UNREAD, UNDECIDED = "by_consensus", "unread", "undecided"
"""Where a label is from: the consensus; or from the manifest, because no reading names a leaf, or because the
readings have no majority."""
_UNREAD = -1
_STEPS, _CLOSE, _TINY = 1000, 1e-8, 1e-10


def relabel(frame: pd.DataFrame, method: str, taxonomy: Taxonomy) -> pd.DataFrame:
    """Return a manifest's rows with the consensus of their readers as leaf, and the columns MANIFEST_LEAF and
    ORIGIN. Where there is no consensus the leaf of the manifest is kept.

    Args:
        frame: columns leaf and reader:<name>.
        method: `majority` is the leaf with more readings than any other. `dawid-skene` is the most probable
            leaf by the model of Dawid and Skene (1979): each reader has an error rate for each leaf.

    Raises InputError if the manifest has too few readers for the method.
    """
    readers = described.readers(frame)
    if len(readers) < FEWEST[method]:
        raise InputError(
            f"--label-from {method}: needs {FEWEST[method]} readers, and the manifest has {len(readers)} "
            "columns 'reader:<name>' with values"
        )
    leaves = pd.Index(taxonomy.leaves)
    codes = np.stack([leaves.get_indexer(pd.Index(frame[name])) for name in readers], axis=1)
    read = (codes != _UNREAD).any(axis=1)
    weights = votes(codes, len(leaves)) if method == "majority" else dawid_skene(codes, len(leaves))
    first, second = np.sort(weights, axis=1)[:, [-1, -2]].T
    origin = np.where(read, np.where(first - second > _CLOSE, READERS, UNDECIDED), UNREAD)
    consensus = np.asarray(taxonomy.leaves, dtype=object)[weights.argmax(axis=1)]
    labelled = frame.copy()
    labelled[MANIFEST_LEAF], labelled[ORIGIN] = frame["leaf"], origin
    labelled["leaf"] = frame["leaf"].where(origin != READERS, consensus)
    return labelled


def summary(table: pd.DataFrame, method: str) -> dict[str, Any]:
    """Return what dataset.json says of the labels of a table that `relabel` made."""
    return {
        "from": method,
        "readers": [name.removeprefix(described.READER) for name in described.readers(table)],
        **{origin: int((table[ORIGIN] == origin).sum()) for origin in (READERS, UNREAD, UNDECIDED)},
        "changed": int((table["leaf"] != table[MANIFEST_LEAF]).sum()),
    }


def line(labels: Mapping[str, Any]) -> str:
    """Return a `summary` as a line for people."""
    kept = [f"{labels[UNDECIDED]} without a majority"] if labels[UNDECIDED] else []
    kept += [f"{labels[UNREAD]} without a reading"] if labels[UNREAD] else []
    rest = f"; {' and '.join(kept)} keep the leaf of the manifest" if kept else ""
    return (
        f"labels by {labels['from']} of {len(labels['readers'])} readers: {labels[READERS]} images, "
        f"{labels['changed']} of them with another leaf than in the manifest{rest}"
    )


def votes(codes: np.ndarray, n_leaves: int) -> np.ndarray:
    """Return (N, L) numbers of readings of each leaf, from (N, R) codes; -1 where a reader named none."""
    return (codes[..., None] == np.arange(n_leaves)).sum(axis=1)


def dawid_skene(codes: np.ndarray, n_leaves: int) -> np.ndarray:
    """Return (N, L) posterior probabilities of the leaves by EM (Dawid and Skene 1979), from (N, R) codes.

    It begins with the shares of the votes. A reader who did not read an image has no part in its label. An
    image without readings has the prior.
    """
    given = np.eye(n_leaves + 1)[codes][..., :n_leaves]  # (N, R, L); -1 picks the last row, which is cut off
    counts = given.sum(axis=1)
    posterior = np.where(
        counts.sum(axis=1, keepdims=True) > 0,
        counts / np.maximum(counts.sum(axis=1, keepdims=True), 1),
        counts.sum(axis=0) / max(counts.sum(), 1),
    )
    for _ in range(_STEPS):
        prior = posterior.mean(axis=0)
        errors = np.einsum("nt,nrl->rtl", posterior, given) + _TINY
        errors /= errors.sum(axis=2, keepdims=True)
        logs = np.log(prior + _TINY) + np.einsum("nrl,rtl->nt", given, np.log(errors))
        after = np.exp(logs - logs.max(axis=1, keepdims=True))
        after /= after.sum(axis=1, keepdims=True)
        change = np.abs(after - posterior).max()
        posterior = after
        if change < _CLOSE:
            break
    return posterior
