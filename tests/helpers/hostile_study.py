"""A study whose names are markup, formulas and mathematics: what others wrote is a text in a report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from leukotree.taxonomy import Taxonomy
from tests.helpers import study_results

SCRIPT = "<script>window.broken=1</script>"
LEAVES = (SCRIPT, "=1+1|`x`", r"$\frac{$", "a\"b'c&amp;<b>")
TREE = Taxonomy.from_nested({"root": {LEAVES[0]: None, "</td><img src=x>": list(LEAVES[1:])}})
NAME = "<b>study</b> {{ 7 * 7 }}"


def report(root: Path) -> Path:
    """Write the report of this study; returns its folder."""
    rows = [
        {**row, "run_name": f"{row['variant']}-<i onclick=x>{row['test_fold']}{row['seed']}"}
        for row in study_results.expected_runs()
    ]
    for row in rows:
        folder = study_results.write_run(root / "runs", row, study_results.images_of_fold(row["test_fold"]))
        _predict(folder, row["test_fold"], study_results.VARIANTS.index(row["variant"]))
        (folder / "env.json").write_text(json.dumps({"dataset": SCRIPT, "commit": SCRIPT, "gpus": [SCRIPT]}))
    out = root / "report"
    study_results.report(root / "runs", out, {**study_results.STUDY, "study": NAME}, rows)
    return out


def _predict(folder: Path, fold: int, variant: int) -> None:
    rng = np.random.default_rng([fold, variant])
    n = 60
    true = np.arange(n) % len(LEAVES)
    frame = pd.DataFrame(
        {
            "key": [f"{SCRIPT}{fold}-{number}" for number in range(n)],
            "patient": [f"{SCRIPT}{fold}-{number % 12}" for number in range(n)],
            "source": np.where(np.arange(n) % 2, SCRIPT, "=cmd|x"),
            "fold": fold,
            "leaf": np.asarray(TREE.leaves, dtype=object)[true],
        }
    )
    logits = rng.normal(size=(n, len(TREE.edges))) + 1.5 * TREE.path_matrix[true]
    for columns in TREE.columns.values():
        logits[:, columns] -= np.logaddexp.reduce(logits[:, columns], axis=1, keepdims=True)
    (folder / "taxonomy.json").write_text(json.dumps(TREE.nested()))
    columns_of = {
        f"logp:{edge}": logits[:, place].astype(np.float32) for place, edge in enumerate(TREE.edges)
    }
    frame.assign(**columns_of).to_parquet(folder / "predictions.parquet")
