"""The predictions of a study as one table: a row for each run and image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from leukotree.evaluation import decide
from leukotree.report.summary import Run, StudySummary

COLUMNS = (
    "run",
    "arm",
    "variant",
    "repeat",
    "fold",
    "seed",
    "key",
    "patient",
    "source",
    "leaf",
    "decided",
)
"""The columns before the probabilities."""
PROBABILITY = "p:{leaf}"
"""Name of the column with the probability of a leaf."""


def predictions(summary: StudySummary) -> pd.DataFrame:
    """The stored predictions of all finished runs of a study, those that its report uses.

    COLUMNS, then a column "p:<leaf>" for each leaf, which sum to 1 in a row:

    * `run`: the name of the run's folder. `arm`: its name in the report; the variant, unless there is a grid.
    * `fold`: the outer fold that the run did not train on, in its `repeat`.
    * `patient`: unique over all sources, "" where unknown.
    * `leaf`: the true leaf. `decided`: the leaf that the study's rule decides.
    """
    leaves = summary.taxonomy.leaves if summary.taxonomy else ()
    frames = [_of_run(run, summary) for run in summary.runs]
    if not frames:
        return pd.DataFrame(columns=[*COLUMNS, *(PROBABILITY.format(leaf=leaf) for leaf in leaves)])
    return pd.concat(frames, ignore_index=True)


def _of_run(run: Run, summary: StudySummary) -> pd.DataFrame:
    leaves = np.array(run.taxonomy.leaves, dtype=object)
    place: dict[str, Any] = {
        "run": run.name,
        "arm": run.arm,
        "variant": run.variant,
        "repeat": run.repeat,
        "fold": run.test_fold - run.repeat * summary.outer,
        "seed": run.seed,
    }
    of_images = {name: run.images[name].to_numpy() for name in ("key", "patient", "source")}
    frame = pd.DataFrame({**of_images, "leaf": leaves[run.true], "decided": leaves[run.predicted]})
    for at, (name, value) in enumerate(place.items()):
        frame.insert(at, name, value)
    probability = np.exp(decide.leaf_logp(run.logp, run.taxonomy))
    names = [PROBABILITY.format(leaf=leaf) for leaf in leaves]
    return pd.concat([frame, pd.DataFrame(probability, columns=names)], axis=1)
