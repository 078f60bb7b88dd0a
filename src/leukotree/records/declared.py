"""What a study declares before any result: its rule of decision, its region of equivalence, and what is
compared, kept beside its runs.

A study file can be edited after the runs. The copy made before the first of them lets a report say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leukotree import files, yamlfile
from leukotree.errors import InputError

FILE = "declared.yaml"
KEYS = ("decision", "rope", "primary", "variants", "seeds", "grid")
"""Without `primary`, the comparisons are those that the variants and the grid give; another seed moves every
score."""
MOST = 80
"""Characters of a value that are shown."""


def keep(root: Path, study: Mapping[str, Any]) -> None:
    """Write what `study` declares into its folder, unless an earlier call did."""
    if not (root / FILE).exists():
        files.write_atomic(root / FILE, yamlfile.dump(_of(study)))


def changes(root: Path, study: Mapping[str, Any]) -> list[str]:
    """What `study` declares otherwise than when `keep` was called, a text per key; none where it never was.
    Raises InputError for a damaged file."""
    if not (root / FILE).exists():
        return []
    before, now = yamlfile.load(root / FILE), _of(study)
    if not isinstance(before, dict) or before.keys() != now.keys():
        raise InputError(
            f"{root / FILE}: does not hold {', '.join(KEYS)}; restore it, or remove it to declare anew"
        )
    return [
        f"`{key}` was {_shown(before[key])} and is {_shown(now[key])}"
        for key in KEYS
        if before[key] != now[key]
    ]


def _of(study: Mapping[str, Any]) -> dict[str, Any]:
    return {key: study.get(key) for key in KEYS}


def _shown(value: Any) -> str:
    text = "not given" if value is None else str(value)
    return text if len(text) <= MOST else f"{text[: MOST - 3]}..."
