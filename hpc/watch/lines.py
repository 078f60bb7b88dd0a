"""The facts about a study as one plain line, and as a line of JSON."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

from hpc.watch.facts import Facts
from leukotree.progress import duration

SHOWN = 3
"""Searches whose best score is in a line."""
MESSAGE = 100
"""Most characters of a failure's message in a line."""


def text(facts: Facts) -> str:
    """One line of words, such as "12:03:31 phantom: trials 3 of 8 (2 running), epoch 2 of 3, ..."."""
    parts = [*_counts(facts), *_speed(facts), *left(facts)]
    if failure := failed(facts):
        parts.append(f"last failure: {failure}")
    if facts.note:
        parts.append(facts.note)
    if ending(facts) and (facts.runs_of or facts.trials_of):
        parts.append(ending(facts))
    return f"{clock(facts)} {facts.study}: {', '.join(parts)}"


def ending(facts: Facts) -> str:
    """Why nothing is at work; "" where something is."""
    if facts.over:
        return "everything has ended"
    if facts.at_work:
        return ""
    return "nothing is at work" if facts.runs or facts.searches else "nothing has begun yet"


def as_json(facts: Iterable[Facts]) -> str:
    """One line: a list with an object for each study. Numbers that are not finite are null."""
    return json.dumps([_plain(one.as_dict()) for one in facts])


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def clock(facts: Facts) -> str:
    """The time of the look."""
    return time.strftime("%H:%M:%S", time.localtime(facts.time))


def _counts(facts: Facts) -> list[str]:
    parts = []
    if facts.trials_of:
        parts.append(f"trials {trials(facts)}")
    if facts.reruns_of:
        parts.append(f"re-runs {facts.reruns_ended} of {facts.reruns_of}")
    if facts.runs_of:
        parts.append(f"runs {runs(facts)}")
    return parts or [ending(facts)]


def trials(facts: Facts) -> str:
    """Such as "3 of 8 (2 running, 1 failed)"."""
    ended = sum(facts.trials.get(name, 0) for name in ("completed", "stopped", "failed"))
    return f"{ended} of {facts.trials_of}{_states(facts.trials, 'completed')}"


def runs(facts: Facts) -> str:
    """Such as "3 of 8 (2 running, 1 failed)"."""
    return f"{facts.runs.get('done', 0)} of {facts.runs_of}{_states(facts.runs, 'done')}"


def _states(counts: Mapping[str, int], usual: str) -> str:
    shown = [f"{count} {name}" for name, count in counts.items() if count and name != usual]
    return f" ({', '.join(shown)})" if shown else ""


def _speed(facts: Facts) -> list[str]:
    parts = [f"epoch {facts.epoch}"] if facts.epoch else []
    if facts.images_per_s:
        parts.append(f"{facts.images_per_s:,.0f} images/s")
    if facts.best:
        best = sorted(facts.best.items(), key=lambda item: -item[1])[:SHOWN]
        parts.append(f"best {facts.metric} {', '.join(f'{name} {score:.4f}' for name, score in best)}")
    return parts


def left(facts: Facts) -> list[str]:
    """The time left of the searches and of the runs."""
    parts = []
    if facts.search_left:
        parts.append(f"search: {facts.search_left} left")
    if facts.runs_left:
        parts.append(f"runs: {facts.runs_left} left")
    return parts


def failed(facts: Facts) -> str:
    """The last failure in some words; "" if there was none."""
    if (failure := facts.failure) is None:
        return ""
    kind = f" ({failure.kind})" if failure.kind else ""
    ago = "" if failure.seconds_ago is None else f", {duration(failure.seconds_ago)} ago"
    message = failure.message if len(failure.message) <= MESSAGE else f"{failure.message[: MESSAGE - 3]}..."
    return f"{failure.what}{kind}: {message}{ago}"
