"""Patients with images in several test folds, in a data set that was split image by image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from leukotree.report.summary import Arm, Run


def without_ids(arms: Sequence[Arm], dataset: Mapping[str, Any] | None) -> tuple[list[Arm], int]:
    """The arms without the ids of patients who are tested in several folds of a repeat, and the number of
    these patients. Another fold in another repeat is right.

    This is done only where dataset.json says that the data set was split image by image. In any other data
    set such a patient is an error, which `stats.pool` raises.
    """
    if (dataset or {}).get("group") != "image":
        return list(arms), 0
    tested = {
        (run.repeat, run.test_fold, patient)
        for arm in arms
        for run in arm.runs
        for patient in run.images["patient"].unique()
        if patient
    }
    folds = Counter((repeat, patient) for repeat, _, patient in tested)
    several = {patient for (_, patient), n in folds.items() if n > 1}
    if not several:
        return list(arms), 0
    return [replace(arm, runs=tuple(_without(run, several) for run in arm.runs)) for arm in arms], len(
        several
    )


def _without(run: Run, patients: Collection[str]) -> Run:
    images = run.images
    return replace(
        run, images=images.assign(patient=images["patient"].where(~images["patient"].isin(patients), ""))
    )
