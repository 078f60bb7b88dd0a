"""Keys of the results that slots give to Ray Tune, and names taken from the configuration of a trial."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpc.studies.study import SearchId

FAILED = "failed"
"""Key of a result: why the trial cannot be trained, in one line."""
UNTIL = "until"
"""Key of a trial's configuration: the report after which it pauses; None for its end."""
INTERRUPTED, KIND = "interrupted", "kind"
"""Keys of a result: why the trial was interrupted before its end, and the kind of that failure. The trial is
not the cause."""


def search_id_of(tune_trial: Any) -> SearchId:
    """The search that a trial of Ray Tune belongs to."""
    return search_id_in(tune_trial.config)


def search_id_in(config: Mapping[str, Any]) -> SearchId:
    """The search that the configuration of a trial names."""
    return SearchId(config["variant"], config["test_fold"], config.get("repeat", 0))


def folder_name(tune_trial: Any) -> str:
    """Name of a trial's folder in Ray's experiment. Ray's own name contains every value, and gets too long
    for a path."""
    config = tune_trial.config
    repeat = f"r{config['repeat']}-" if config.get("repeat") else ""
    return f"{config['variant']}-{repeat}{config['test_fold']}-{config['trial']:05d}-{tune_trial.trial_id}"
