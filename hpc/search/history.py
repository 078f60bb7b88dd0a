"""history.csv of a search: the score of every trial after every report. Read without Ray.

Its column `epoch` counts the reports of a trial: its epochs or, with `search.rungs: folds`, the inner folds
    that it has trained.
"""

from __future__ import annotations

import contextlib
import csv
from pathlib import Path
from typing import Any

COLUMNS = ("trial", "epoch", "macro_f1", "seconds")


def read(path: Path) -> list[dict[str, Any]]:
    """Rows {trial, epoch, macro_f1, seconds} of a history.csv; none if it is missing, and no line that a kill
    cut short."""
    if not path.exists():
        return []
    rows = []
    with open(path, newline="") as file:
        for row in csv.reader(file):
            with contextlib.suppress(ValueError):  # the header is no row either
                trial, epoch, score, seconds = row
                numbers = [int(trial), int(epoch), float(score), float(seconds)]
                rows.append(dict(zip(COLUMNS, numbers, strict=True)))
    return rows
