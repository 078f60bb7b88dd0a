"""audit.json: what answers reach that need no morphology, as `leukotree audit` measured it on packed images.

The file lies beside the shards and names their fingerprint. A report shows its numbers beside the models.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from leukotree import files

FILE = "audit.json"
FINGERPRINT, BASELINES, LEAVES, OF_SOURCE = "fingerprint", "baselines", "leaves", "of_source"
"""Keys of the file."""
COMMONEST = "commonest leaf"
"""The baseline that every report computes itself."""
MAX_BYTES = 2**20
"""A larger file is none of ours."""


@dataclass(frozen=True)
class Audited:
    """The scores of shortcuts, each from 0 to 1. A score that is not known is not there."""

    baselines: Mapping[str, float] = field(default_factory=dict)
    """Name -> macro F1 over the leaves."""
    leaves: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Name -> leaf -> F1. Empty in files of older versions."""
    of_source: Mapping[str, float] = field(default_factory=dict)
    """Name -> macro F1 over the sources, of guessing the source itself."""


def keep(shards: Path, fingerprint: str, audited: Audited) -> bool:
    """Write the scores. False where the folder cannot be written: an audit of a read-only data set is still
    an audit."""
    content = {
        FINGERPRINT: fingerprint,
        BASELINES: _finite(audited.baselines),
        LEAVES: {name: _finite(leaves) for name, leaves in audited.leaves.items()},
        OF_SOURCE: _finite(audited.of_source),
    }
    with contextlib.suppress(OSError):
        files.write_atomic(shards / FILE, json.dumps(content, indent=1))
        return True
    return False


def read(shards: Path, fingerprints: Collection[str]) -> Audited:
    """The scores that were kept. None of them without a file, for a damaged one, and for one of other data
    than these fingerprints."""
    path = shards / FILE
    with contextlib.suppress(OSError, ValueError, RecursionError):
        if path.stat().st_size > MAX_BYTES:
            return Audited()
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or content.get(FINGERPRINT) not in fingerprints:
            return Audited()
        leaves = content.get(LEAVES)
        of_leaves = leaves.items() if isinstance(leaves, dict) else ()
        return Audited(
            _scores(content.get(BASELINES)),
            {str(name): scores for name, one in of_leaves if (scores := _scores(one))},
            _scores(content.get(OF_SOURCE)),
        )
    return Audited()


def _finite(scores: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in scores.items() if math.isfinite(value)}


def _scores(content: Any) -> dict[str, float]:
    """The texts of a mapping with a number from 0 to 1."""
    return {
        str(name): value
        for name, value in (content.items() if isinstance(content, dict) else ())
        if isinstance(value, float) and 0 <= value <= 1
    }
