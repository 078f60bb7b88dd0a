"""The time that the searches of a study still take, at their pace so far."""

from __future__ import annotations

import contextlib
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from hpc.search import rungs
from hpc.search.record import Record, Trial
from hpc.studies.study import Study
from leukotree import files
from leukotree.data import fingerprint
from leukotree.data.remote.place import place
from leukotree.errors import InputError, RunFailed
from leukotree.models.stages import stages
from leukotree.progress import duration
from leukotree.taxonomy import Taxonomy

ENOUGH = 1
"""Trials that must have ended before the pace of a search is known."""
FEW = 3
"""Below this many ended trials, the length of a trial is partly the one that the scheduler makes likely."""
SHARE = 0.75
"""Share of its time in which a slot trains, at least."""
SURE = 1.5
"""A range whose ends differ by a smaller factor is shown as one value."""


@dataclass(frozen=True)
class Left:
    """The time until some work is done, in seconds: the likely one, and a range around it."""

    seconds: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.high <= SURE * self.low or self.high < 60:
            return f"about {duration(self.seconds)}"
        return f"{duration(self.low)} to {duration(self.high)}"

    @classmethod
    def around(cls, seconds: float, doubt: float, spent: float = 0.0) -> Left:
        """The range of `seconds` divided and multiplied by 1 + doubt. `spent`: seconds that have passed since
        the last measurement."""
        ends = (seconds, seconds / (1 + doubt), seconds * (1 + doubt))
        return cls(*(max(0.0, end - spent) for end in ends))


def seconds_left(records: Iterable[Record]) -> float | None:
    """The likely time of `left`, at the last report."""
    known = left(records)
    return None if known is None else known.seconds


def left(
    records: Iterable[Record], costs: Mapping[str, float] | None = None, idle: float = 0.0
) -> Left | None:
    """The time until all trials and re-runs of these searches have ended. None until a trial has ended.

    Open trials are taken to be stopped as often as the trials before them, see `_Lengths`. A report costs
    what it has cost in its search. The number of trials at once follows from the work that was done since the
    first score.

    Args:
        costs: variant -> relative cost of a report, for searches that have none yet. See `costs_of`.
        idle: seconds since the last report.
    """
    records = list(records)
    scored = [record for record in records if record.reported]
    ended = [trial for record in scored for trial in record.trials if not trial.active and trial.scores]
    if len(ended) < ENOUGH:
        return None
    prices, guessed = _prices(records, costs or {})
    first = min(scored, key=lambda record: record.first_seconds)
    # The first report took time, too. Without it the pace of trials that run side by side seems too high.
    age = max(record.seconds for record in scored) - first.first_seconds + prices[id(first)]
    work = sum(prices[id(record)] * len(record.reported) for record in scored)
    if age <= 0 or work <= 0:
        return None
    drawn = sum(trial.active for record in records for trial in record.trials)
    # Trials that have no score yet work, too. Between two trials a slot works less.
    at_once, lengths = max(work / age, SHARE * drawn), _Lengths(scored, records[0].study)
    todo = {id(record): _todo(record, lengths) * prices[id(record)] for record in records}
    total = sum(todo.values())
    longest = max(_longest(record, lengths, at_once) * prices[id(record)] for record in records)
    doubt = _doubt(scored, ended) + (0.5 * sum(todo[one] for one in guessed) / total if total else 0.0)
    current = next((record for record in records if record.open()), records[-1])
    spent = min(idle, prices[id(current)] * (1 if current.open_trials() else lengths.most(current)))
    return Left.around(max(total / at_once, longest), doubt, spent)


class _Lengths:
    """How many reports trials make. The share of trials that end at each report is that of the trials that
    reached it (Kaplan and Meier 1958), so that those which still run count, too."""

    def __init__(self, records: Iterable[Record], study: Study) -> None:
        self._study, self._most = study, study.reports
        trials = [trial for record in records for trial in record.trials if trial.scores]
        ends = [trial.last for trial in trials if trial.state is not None]
        waits = [trial.last for trial in trials if trial.paused]
        stops = study.search.scheduler != "none" and study.grace() < self._most
        keep = 1 / study.search.reduction_factor
        likely = 1 - keep if study.search.scheduler in rungs.PAUSING else keep
        prior = max(0, FEW - len(ends) - len(waits))
        self._goes_on = [1.0]
        """Report (from 0) -> the share of trials that go on after it."""
        for report in range(1, self._most + 1):
            reached = sum(trial.last >= report for trial in trials) + prior
            guessed = prior if stops and report >= study.grace() else 0
            stopped = ends.count(report) + likely * (waits.count(report) + guessed)
            share = 1 - stopped / reached if reached else 1.0
            self._goes_on.append(share if report < self._most else 0.0)

    def most(self, record: Record) -> int:
        """The reports of a trial of a search that is trained to its end."""
        return rungs.most(self._study, record.search_id.variant)

    def of(self, record: Record, trial: Trial | None = None) -> list[float]:
        """`reaches` of a trial of a search; None for one that is not drawn yet."""
        if self.most(record) == 1:
            return [1.0]
        if trial is None:
            return self.reaches(0)
        return self.reaches(trial.last, self._goes_on[trial.last] if trial.paused else 1.0)

    def reaches(self, begun: int, now: float = 1.0) -> list[float]:
        """The probability that a trial with `begun` reports makes 1, 2, ... more. `now`: the probability that
        it goes on after its last one."""
        shares = []
        for report in range(begun, self._most):
            now *= self._goes_on[report] if report > begun else 1.0
            shares.append(now)
        return shares


def _todo(record: Record, lengths: _Lengths) -> float:
    """Reports that a search still has to make."""
    begun = [trial for trial in record.trials if trial.state is None]
    new = [None] * (record.open_trials() - len(begun))
    trials = sum(sum(lengths.of(record, one)) for one in (*begun, *new))
    return trials + lengths.most(record) * record.open_reruns()


def _longest(record: Record, lengths: _Lengths, at_once: float) -> float:
    """Reports that follow each other in a search, however many trials run at once: those of the longest of
    the last trials, and then those of its re-runs."""
    begun = [trial for trial in record.trials if trial.state is None]
    new = [None] * min(record.open_trials() - len(begun), round(at_once))
    shares = [lengths.of(record, one) for one in (*begun, *new)]
    longest = max(map(len, shares), default=0)
    none = [
        math.prod(1 - of_trial[more] for of_trial in shares if more < len(of_trial))
        for more in range(longest)
    ]
    waves = math.ceil(record.open_reruns() / max(1.0, at_once + 0.3))
    return sum(1 - nobody for nobody in none) + lengths.most(record) * waves


def _prices(records: Sequence[Record], costs: Mapping[str, float]) -> tuple[dict[int, float], set[int]]:
    """(id of a record -> seconds of one report of a trial, ids of those that are not measured)."""
    known = {id(record): price for record in records if (price := _price(record))}
    relative = {id(record): costs.get(record.search_id.variant, 1.0) for record in records}
    same: dict[str, list[float]] = {}
    for record in records:
        if id(record) in known:
            same.setdefault(record.search_id.variant, []).append(known[id(record)])
    unit = statistics.fmean(price / relative[one] for one, price in known.items()) if known else 1.0
    prices = {}
    for record in records:
        of_variant = same.get(record.search_id.variant)
        guess = statistics.fmean(of_variant) if of_variant else unit * relative[id(record)]
        prices[id(record)] = known.get(id(record), guess)
    measured = {record.search_id.variant for record in records if id(record) in known}
    return prices, {id(record) for record in records if record.search_id.variant not in measured}


def _price(record: Record) -> float | None:
    """Seconds between two reports of a trial of a search; without such two, the seconds that its trials took
    for a report. None if neither is known."""
    if gaps := [gap for of_trial in _gaps(record).values() for gap in of_trial]:
        return statistics.median(gaps)
    timed = [trial for trial in record.trials if trial.state and trial.scores and trial.seconds > 0]
    reports = sum(len(trial.scores) for trial in timed)
    return sum(trial.seconds for trial in timed) / reports if reports else None


def _gaps(record: Record) -> dict[int, list[float]]:
    """Trial -> seconds between its reports that follow each other, without a pause between them."""
    pauses = rungs.levels(record.study, record.search_id.variant)
    last: dict[int, tuple[int, float]] = {}
    gaps: dict[int, list[float]] = {}
    for (number, epoch, _), at in zip(record.reported, record.reported_at, strict=True):
        before, since = last.get(number, (0, 0.0))
        if before == epoch - 1 and before and before not in pauses and at > since:
            gaps.setdefault(number, []).append(at - since)
        last[number] = epoch, at
    return gaps


def _doubt(scored: Sequence[Record], ended: Sequence[Trial]) -> float:
    """Relative half width of the range: two standard errors of the mean length and of the mean gap."""
    gaps = [statistics.fmean(gap) for record in scored for gap in _gaps(record).values()]
    lengths = [float(len(trial.scores)) for trial in ended]
    return min(2.0, 0.1 + 2 * math.hypot(_error(gaps), _error(lengths)))


def _error(values: Sequence[float]) -> float:
    """The standard error of a mean, relative to it. A guess for fewer than two values."""
    if len(values) < 2:
        return 0.25
    return statistics.stdev(values) / statistics.fmean(values) / math.sqrt(len(values))


def costs_of(study: Study, variants: Iterable[str]) -> dict[str, float]:
    """Variant -> images that its models train on in an epoch, in units of the images of the data set. {} if
    the data cannot be read here."""
    path = place(study.base.data.shards) / fingerprint.DESCRIPTION
    by_steps = study.base.optim.steps is not None
    with contextlib.suppress(InputError, RunFailed, OSError, ValueError, KeyError, TypeError, AttributeError):
        tree, images = _leaves(path, files.state(path.stat()))
        return {variant: _cost(variant, tree, images, by_steps) for variant in variants}
    return {}


@lru_cache(maxsize=8)
def _leaves(path: Path, state: tuple[int, ...]) -> tuple[Taxonomy, tuple[int, ...]]:
    """The label tree of a data set, and the number of images of each leaf."""
    description = json.loads(fingerprint.read_plain(path))
    tree = Taxonomy.from_nested(description["taxonomy"])
    return tree, tuple(int(description["counts"].get(leaf, 0)) for leaf in tree.leaves)


def _cost(variant: str, tree: Taxonomy, images: Sequence[int], by_steps: bool) -> float:
    """As `costs_of`. An ensemble has as many steps as `base`. `by_steps`: all models have equally many."""
    parts = stages("base" if variant == "ensemble" else variant, tree)  # type: ignore[arg-type]
    if by_steps:
        return float(len(parts))
    trained = [sum(count for count, on in zip(images, part.trains_on, strict=True) if on) for part in parts]
    return sum(trained) / max(1, sum(images))
