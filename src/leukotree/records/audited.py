"""audit.json: what models reach that see no morphology, as `leukotree audit` measured it on packed images.

The file lies beside the shards and names their fingerprint. A report shows its numbers beside the models.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path

from leukotree import files

FILE = "audit.json"
FINGERPRINT, BASELINES = "fingerprint", "baselines"
"""Keys of the file."""
COMMONEST = "commonest leaf"
"""The baseline that every report computes itself."""
MAX_BYTES = 2**20
"""A larger file is none of ours."""


def keep(shards: Path, fingerprint: str, baselines: Mapping[str, float]) -> bool:
    """Write the macro F1 (0 to 1) of each baseline. False where the folder cannot be written: an audit of a
    read-only data set is still an audit."""
    known = {name: float(value) for name, value in baselines.items() if math.isfinite(value)}
    content = json.dumps({FINGERPRINT: fingerprint, BASELINES: known}, indent=1)
    with contextlib.suppress(OSError):
        files.write_atomic(shards / FILE, content)
        return True
    return False


def read(shards: Path, fingerprints: Collection[str]) -> dict[str, float]:
    """Name -> macro F1 of the baselines. Empty without a file, for a damaged one, and for one of other data
    than these fingerprints."""
    path = shards / FILE
    with contextlib.suppress(OSError, ValueError):
        if path.stat().st_size > MAX_BYTES:
            return {}
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or found.get(FINGERPRINT) not in fingerprints:
            return {}
        baselines = found.get(BASELINES)
        if isinstance(baselines, dict):
            return {
                str(name): float(value)
                for name, value in baselines.items()
                if isinstance(value, float) and 0 <= value <= 1
            }
    return {}
