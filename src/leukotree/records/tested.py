"""The test images of a run, compared with the images of its fold in the data set."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from leukotree.data.dataset import Dataset
from leukotree.errors import InputError, RunFailed
from leukotree.records import predictions, runfolder

COLUMNS = ["key", "patient", "source", "leaf"]
SAME = (
    "its test images are the same; "
    "packed from other training images, with other options or by another version"
)


def whole(dataset: Dataset, fold: int) -> pd.DataFrame:
    """COLUMNS of the images of an outer fold, and PERSON if sources share patients, sorted by key."""
    images = dataset.index[COLUMNS]
    if dataset.patients_across_sources:
        images = images.assign(**{predictions.PERSON: dataset.persons})
    return images[dataset.index["fold"] == fold].sort_values("key", kind="stable").reset_index(drop=True)


def difference(tested: pd.DataFrame, expected: pd.DataFrame) -> str:
    """How tested images differ from the expected ones, as a text; "" if they do not. Both have COLUMNS, and
    one row per image."""
    # A report compares ten thousand runs, whose images are nearly always the expected ones in the same order.
    if tested[COLUMNS].equals(expected[COLUMNS]):
        return ""
    both = tested.merge(expected, on="key", suffixes=("", " there"))
    relabelled = both["leaf"] != both["leaf there"]
    renamed = (both["patient"] != both["patient there"]) | (both["source"] != both["source there"])
    counts = {
        "missing": int((~expected["key"].isin(tested["key"])).sum()),
        "not among them": int((~tested["key"].isin(expected["key"])).sum()),
        "with another label": int(relabelled.sum()),
        "with another patient or source": int(renamed.sum()),
    }
    listed = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    return f"of {len(expected)} images {listed}" if listed else ""


def since(folder: Path, shards: str) -> str:
    """How the test images of a run differ from those of its outer fold today, as a text; "" if it cannot be
    known."""
    try:
        spec = runfolder.read_spec(folder)
        if spec.data.inner is not None:
            return ""
        frame, _, _ = predictions.read(folder)
        dataset = Dataset.open(shards, ends=False, repeat=spec.data.repeat)
        tested = frame.assign(**{name: frame[name].fillna("").astype(str) for name in COLUMNS})
        return difference(tested[COLUMNS], whole(dataset, spec.data.test_fold)) or SAME
    except (InputError, RunFailed):
        return ""
