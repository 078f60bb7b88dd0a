"""declared.yaml: what a study declares before its first run. The rule of decision, the region of equivalence,
the comparisons, the costs of mistakes and the operating points.

A study file can be edited after the runs. A report compares it with this file, and names the changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leukotree import files, yamlfile
from leukotree.errors import InputError
from leukotree.evaluation.operating import Operating

FILE = "declared.yaml"
LATER: dict[str, Any] = {"costs": None, "operating": Operating().model_dump()}
"""Keys that older files lack, with the value that held then."""
KEYS = ("decision", "rope", "primary", "variants", "seeds", "grid", *LATER)
"""Keys of a study that are declared. `variants` and `grid` give the comparisons if there is no `primary`.
`seeds` change every score, `costs` and `operating` the clinical ones."""
MOST = 80
"""Most characters of a value that are shown."""


def keep(root: Path, study: Mapping[str, Any]) -> None:
    """Write what `study` declares into its folder, unless the file is there."""
    if not (root / FILE).exists():
        files.write_atomic(root / FILE, yamlfile.dump(_declared(study)))


def changes(root: Path, study: Mapping[str, Any]) -> list[str]:
    """What `study` declares differently than the file: a text for each changed key; [] without a file. Raises
    InputError for a damaged file."""
    if not (root / FILE).exists():
        return []
    before, now = yamlfile.load(root / FILE), _declared(study)
    before = {**LATER, **before} if isinstance(before, dict) else before
    if not isinstance(before, dict) or before.keys() != now.keys():
        fix = "restore it, or remove it to declare again"
        raise InputError(f"{root / FILE}: does not have the keys {', '.join(KEYS)}; {fix}")
    return [
        f"`{key}` was {_shown(before[key])} and is {_shown(now[key])}"
        for key in KEYS
        if before[key] != now[key]
    ]


def _declared(study: Mapping[str, Any]) -> dict[str, Any]:
    return {key: study.get(key, LATER.get(key)) for key in KEYS}


def _shown(value: Any) -> str:
    text = "not given" if value is None else str(value)
    return text if len(text) <= MOST else f"{text[: MOST - 3]}..."
