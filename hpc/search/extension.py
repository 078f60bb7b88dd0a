"""Searches that are extended: a study whose `search.trials` was raised after they began.

Their trials go on as if they had been asked for from the start, and the re-runs are done anew. What a search
did only because no more trials followed (see `Record.promote`) is undone: the scores count again once a trial
gets there.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from hpc.studies.study import OuterFold, SearchId, Study
from leukotree import yamlfile
from leukotree.errors import InputError
from leukotree.files import append_lines
from leukotree.records import searchfolder
from leukotree.records.searchfolder import BEST, DRAWS, RERUNS, SETTINGS

KEY = "extended"
"""Key of the line in trials.jsonl that says to how many trials a search was extended."""


def is_growth(stored: Any, current: Any) -> bool:
    """Whether the number of trials of a search has become larger."""
    return isinstance(stored, int) and isinstance(current, int) and 0 < stored < current


def without_end(lines: Iterable[Any], pauses: bool) -> list[Any]:
    """The lines of trials.jsonl that are still valid: those before an extension without what was done because
    no more trials followed. `pauses`: whether trials of the search pause; else nothing was."""
    kept: list[Any] = []
    for line in lines:
        if not isinstance(line, Mapping) or KEY not in line:
            kept.append(line)
        elif pauses:
            final = {one["trial"] for one in kept if isinstance(one, Mapping) and one.get("final")}
            kept = [one for one in kept if not (isinstance(one, Mapping) and _is_of_end(one, final))]
    return kept


def _is_of_end(line: Mapping[str, Any], final: set[Any]) -> bool:
    """Whether a line would not have been written had more trials followed. `final`: the trials that went on
    for this reason alone. Those that were stopped wait again, and are stopped again if they must be."""
    ended = "state" in line and line.get("trial") in final
    return bool(line.get("final")) or line.get("state") == "stopped" or ended


def extended(study: Study) -> dict[SearchId, int]:
    """The searches of a study that have begun with fewer trials than it asks for now -> those. Writes
    nothing.

    Raises InputError if they cannot be extended: brackets of Hyperband would have had other trials, and once
    an outer fold was trained with a choice, a new choice would have seen more than its own search.
    """
    found = {search_id: before for search_id in study.search_ids if (before := _before(study, search_id))}
    for search_id, before in found.items():
        where = f"study {study.study!r}: search.trials: was {before} and is {study.search.trials}"
        if study.search.scheduler == "hyperband":
            raise InputError(
                f"{where}: a search in brackets (hyperband) cannot be extended; use a new study name"
            )
        if run := _trained(study, search_id):
            raise InputError(
                f"{where}: {search_id} has its choice, with which {run} was trained; use a new study name"
            )
    return found


def _before(study: Study, search_id: SearchId) -> int | None:
    """The smaller number of trials with which a search began. None if it did not."""
    path = study.search_folder(search_id) / SETTINGS
    tree = yamlfile.load(path) if path.exists() else None
    search = tree.get("search") if isinstance(tree, Mapping) else None
    before = search.get("trials") if isinstance(search, Mapping) else None
    return before if is_growth(before, study.search.trials) else None


def _trained(study: Study, search_id: SearchId) -> str | None:
    """The name of a run of an outer fold with the values that a search chose. None if there is none."""
    folder = study.search_folder(search_id)
    if not (folder / BEST).exists():
        return None
    chosen = searchfolder.read_best(folder, "remove it")["chosen"]
    own = [OuterFold(search_id.repeat, search_id.test_fold)]
    places = own if study.search.nested else study.outer_folds.values()
    names = (
        study.spec(search_id.variant, chosen, fold, seed, repeat=repeat).run_name
        for repeat, fold in places
        for seed in study.seeds
    )
    return next((name for name in names if (study.root / name).exists()), None)


def begin(study: Study, search_id: SearchId, before: int) -> None:
    """Reopen a search that began with fewer trials. Its choice and its re-runs are set aside. After a kill
    this is done again: search.yaml, which is written next, still has the smaller number."""
    folder, trials = study.search_folder(search_id), study.search.trials
    if (folder / DRAWS).exists():
        append_lines(folder / DRAWS, [json.dumps({KEY: trials})])
    for name in (BEST, RERUNS):
        stem, suffix = os.path.splitext(name)
        with contextlib.suppress(FileNotFoundError):
            os.replace(folder / name, folder / f"{stem}-of-{before}{suffix}")
