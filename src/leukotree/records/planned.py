"""plan.json: the power of a study, computed before its first run.

The file holds what was assumed, the table of designs, and the design that was planned. A report names it. A
plan that was made before the first run is not replaced after it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leukotree import files
from leukotree.errors import InputError, one_line
from leukotree.records import runfolder

FILE = "plan.json"
"""In the study's folder."""
DESIGN = ("folds", "repeats", "seeds", "patients")
"""Keys of a design."""
FINISHED = "finished_runs"
"""Key: runs of the study that had finished when the plan was made."""
KEYS = ("challenger", "reference", "effect", "wanted", "rope", "pairs", "planned", "study", FINISHED)
"""Keys that every plan has. `planned` and `study` are a design with its `power` (value, low, high). `planned`
is null where no design of the table has the wanted power."""


def finished_runs(root: Path) -> int:
    """The number of finished outer runs in a study's folder."""
    if not root.is_dir():
        return 0
    return sum(runfolder.read_status(folder).get("state") == "done" for folder in root.glob("*-*/"))


def keep(root: Path, plan: Mapping[str, Any]) -> Path | None:
    """Write a plan into the study's folder, with the number of finished runs. Returns its path; None if it
    was not written, because runs have finished since an earlier plan. Raises OSError."""
    finished = finished_runs(root)
    if finished and (root / FILE).exists():
        return None
    files.write_atomic(root / FILE, json.dumps({**plan, FINISHED: finished}, indent=1))
    return root / FILE


def read(root: Path) -> dict[str, Any] | None:
    """The plan of a study; None without one. Raises InputError for a damaged file."""
    path = root / FILE
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {one_line(error)[:200]}; remove it") from error
    if not isinstance(plan, dict) or (missing := [key for key in KEYS if key not in plan]):
        raise InputError(f"{path}: has no {missing[0] if isinstance(plan, dict) else 'plan'}; remove it")
    return plan
