"""The images that a run was tested on, beside those that it should have been tested on."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from leukotree.data.dataset import Dataset
from leukotree.errors import InputError, RunFailed
from leukotree.records import predictions, runfolder

COLUMNS = ["key", "patient", "source", "leaf"]
SAME = "its test images are the same; packed from other training images, with other options or by another version"


def whole(dataset: Dataset, fold: int) -> pd.DataFrame:
    """COLUMNS of the images of an outer fold, by key, and who each patient is where sources share them, as in
    predictions."""
    found = dataset.index[COLUMNS]
    if dataset.patients_across_sources:
        found = found.assign(**{predictions.PERSON: dataset.persons})
    return found[dataset.index["fold"] == fold].sort_values("key", kind="stable").reset_index(drop=True)


def difference(mine: pd.DataFrame, other: pd.DataFrame) -> str:
    """How the images in `mine` (COLUMNS, a row for each) differ from those in `other`, for people; "" where
    they do not."""
    both = mine.merge(other, on="key", suffixes=("", " there"))
    relabelled = both["leaf"] != both["leaf there"]
    renamed = (both["patient"] != both["patient there"]) | (both["source"] != both["source there"])
    counts = {
        "missing": int((~other["key"].isin(mine["key"])).sum()),
        "not among them": int((~mine["key"].isin(other["key"])).sum()),
        "with another label": int(relabelled.sum()),
        "with another patient or source": int(renamed.sum()),
    }
    told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    return f"of {len(other)} images {told}" if told else ""


def since(folder: Path, shards: str) -> str:
    """How the test images of a run differ from those that its outer fold has today, for people; "" where it
    cannot be known."""
    try:
        spec = runfolder.read_spec(folder)
        if spec.data.inner is not None:
            return ""
        frame, _, _ = predictions.read(folder)
        mine = frame.assign(**{name: frame[name].fillna("").astype(str) for name in COLUMNS})
        return difference(mine[COLUMNS], whole(Dataset.open(shards, ends=False), spec.data.test_fold)) or SAME
    except (InputError, RunFailed):
        return ""
