"""What the work that is left of a study will cost: device-hours, hours, epochs and disk, with an interval.

Known from finished trainings of the same kind (see `rates`). Nothing here writes.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpc.doctor import rates, upfront
from hpc.doctor.rates import Kind, Sample
from hpc.launching import devices as launching
from hpc.launching.place import Place
from hpc.search import expected, limits, rungs
from hpc.search.record import Record
from hpc.studies.study import Study
from leukotree.errors import InputError
from leukotree.progress import duration
from leukotree.runtime import Runtime
from leukotree.spec import RunSpec

DRIVER = Path("/proc/driver/nvidia/version")
"""Exists where there is a driver for GPUs."""
SURE = 1.645
"""Standard deviations of half of a 90 % interval."""


@dataclass(frozen=True)
class Amount:
    """An expected number, and its 90 % interval."""

    mean: float
    low: float
    high: float

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.mean + other.mean, self.low + other.low, self.high + other.high)

    def times(self, factor: float) -> Amount:
        return Amount(self.mean * factor, self.low * factor, self.high * factor)

    def at_most(self, most: float) -> Amount:
        return Amount(min(self.mean, most), min(self.low, most), min(self.high, most))

    def __str__(self) -> str:
        low, high = duration(self.low), duration(self.high)
        return duration(self.mean) if low == high else f"{duration(self.mean)} ({low} to {high})"


NOTHING = Amount(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Part:
    """Trainings of one kind that are left."""

    variant: str
    kind: Kind
    work: float
    """Of all of them."""
    trainings: float
    doubt: float = 0.0
    """Relative standard deviation of the work, where early stopping decides it."""


@dataclass
class Forecast:
    """The cost of what is left."""

    seconds: Amount | None
    """Device-seconds. None where no training of these kinds is known."""
    at_once: float | None
    """Devices that work at the same time. None where that is not known."""
    epochs: Amount | None = None
    """Where early stopping decides their number."""
    disk: int = 0
    """Bytes of the folders when all is done, and of checkpoints on the way, at most."""
    basis: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    """Variants without a known rate. They are not in `seconds`."""
    measure: str = ""
    """The command that measures it."""

    def lines(self) -> list[str]:
        """For people."""
        lines = []
        if self.epochs is not None:
            mean, low, high = (
                f"{value:.0f}" for value in (self.epochs.mean, self.epochs.low, self.epochs.high)
            )
            lines.append(f"with early stopping about {mean} epochs are left ({low} to {high})")
        if self.disk:
            lines.append(f"disk: at most {self.disk / 1e9:.3g} GB")
        unknown = f" of {', '.join(self.unknown)}" if self.unknown and self.seconds else ""
        if self.seconds:
            wall = ""
            if self.at_once:
                wall = f", {self.seconds.times(1 / self.at_once)} on {self.at_once:g} at once"
            lines.append(f"cost: {self.seconds} of one device{wall}; from {', '.join(self.basis)}")
        if self.unknown:
            lines.append(f"cost{unknown}: not known; measure with `{self.measure}`")
        return lines

    def as_dict(self) -> dict[str, Any]:
        """For JSON: hours, epochs and bytes, each with its interval."""

        def interval(amount: Amount | None, factor: float = 1.0) -> list[float] | None:
            return (
                None if amount is None else [amount.mean * factor, amount.low * factor, amount.high * factor]
            )

        wall = 1 / self.at_once if self.at_once else None
        return {
            "device_hours": interval(self.seconds, 1 / 3600),
            "hours": interval(self.seconds, wall / 3600) if wall else None,
            "at_once": self.at_once,
            "epochs": interval(self.epochs),
            "disk_bytes": self.disk,
            "basis": self.basis,
            "unknown": self.unknown,
            "measure": self.measure if self.unknown else None,
        }


def of_runs(study: Study, todo: Sequence[RunSpec], at_once: float | None) -> Forecast:
    """The forecast of runs that are missing."""
    parts = [
        Part(spec.variant, rates.kind(spec), rates.work(spec, cost) * number, number)
        for spec, number, cost in upfront.kinds(todo)
    ]
    samples = _samples(study, ((part.variant, part.kind) for part in parts))
    forecast = Forecast(NOTHING, at_once, measure=_measure(study))
    for part in parts:
        _add(forecast, part, samples)
    return _finished(forecast, todo, len(todo))


def of_search(study: Study, records: Iterable[Record], at_once: float | None) -> Forecast:
    """The forecast of the trials and re-runs that are left. `records`: of the searches that have not
    ended."""
    open_records = [record for record in records if record.open()]
    works, kind = rates.works(study, study.variants), rates.kind(study.base)
    samples = _samples(study, ((variant, kind) for variant in study.variants))
    forecast, epochs, inner = Forecast(NOTHING, at_once, measure=_measure(study)), NOTHING, study.folds.inner
    folds: dict[tuple[int, int], list[Record]] = {}
    for record in open_records:
        folds.setdefault((record.search_id.test_fold, record.search_id.repeat), []).append(record)
    for group in folds.values():
        of_trials = Forecast(NOTHING, at_once)
        for record in group:
            variant, size = record.search_id.variant, rungs.most(study, record.search_id.variant)
            reports, doubt = expected.left(record)
            share = inner * study.epochs(variant) / size  # epochs of a report
            epochs += _around(reports, doubt / reports if reports else 0.0).times(share)
            epochs += _around(float(record.open_reruns() * size), 0.0).times(share)
            whole = works[variant] * (inner - 1) / size
            again = record.open_reruns()
            relative = doubt / reports if reports else 0.0
            _add(of_trials, Part(variant, kind, whole * reports, record.open_trials(), relative), samples)
            _add(forecast, Part(variant, kind, whole * size * again, again), samples)
        if study.search.budget_hours is not None and of_trials.seconds:
            # The trials that run when the budget is spent are finished.
            drawn = max(1, sum(record.open_trials() for record in group) // len(group))
            left = max(0.0, 3600 * study.search.budget_hours - limits.spent(group))
            of_trials.seconds = of_trials.seconds.at_most(left + of_trials.seconds.mean / drawn)
        _join(forecast, of_trials)
    trainings = sum(record.open() for record in open_records) * inner
    forecast.epochs = epochs if any(rungs.judged(study, one) for one in study.variants) else None
    if not open_records:
        return forecast
    fold, seed = study.base.data.test_fold, study.seeds[0]
    specs = [spec for variant in study.variants for spec in study.trial_specs(variant, {}, fold, seed)[:1]]
    return _finished(forecast, specs, trainings, together=inner)


def _samples(study: Study, parts: Iterable[tuple[str, Kind]]) -> list[Sample]:
    """What is known of these variants and kinds: in the study itself, else in others."""
    own, wanted = rates.of_study(study), set(parts)
    if wanted <= {(one.variant, one.kind) for one in own}:
        return own
    return own + rates.of_others(study.root, {kind for _, kind in wanted})


def _add(forecast: Forecast, part: Part, samples: Sequence[Sample]) -> None:
    """Add trainings to a forecast."""
    if part.work <= 0:
        return
    rate = rates.rate(samples, part.variant, part.kind)
    if rate is None:
        forecast.unknown += [] if part.variant in forecast.unknown else [part.variant]
        return
    doubt = math.sqrt(rate.error**2 + rate.spread**2 / max(1.0, part.trainings) + part.doubt**2)
    forecast.seconds = (forecast.seconds or NOTHING) + _around(part.work * rate.seconds, doubt)
    forecast.basis += [] if rate.basis in forecast.basis else [rate.basis]


def _join(forecast: Forecast, more: Forecast) -> None:
    forecast.seconds = (forecast.seconds or NOTHING) + (more.seconds or NOTHING)
    forecast.basis += [one for one in more.basis if one not in forecast.basis]
    forecast.unknown += [one for one in more.unknown if one not in forecast.unknown]


def _around(mean: float, doubt: float) -> Amount:
    """The 90 % interval of a number that is known up to a factor. `doubt`: relative standard deviation."""
    factor = math.exp(SURE * doubt)
    return Amount(mean, mean / factor, mean * factor)


def _finished(forecast: Forecast, specs: Sequence[RunSpec], runs: int, together: int = 1) -> Forecast:
    """The forecast with its disk: `runs` runs like these. `together`: how many work at once on a device."""
    from leukotree.data import trees
    from leukotree.training import questions
    from leukotree.training.footprint import footprint

    if forecast.unknown and forecast.seconds == NOTHING:
        forecast.seconds = None
    sizes = []
    for spec, number, _ in upfront.kinds(specs):
        with contextlib.suppress(InputError):
            size = footprint(spec, trees.open_data(spec), questions.kept())
            sizes.append((size.final, size.working, number))
    if sizes:
        total = sum(number for *_, number in sizes)
        final = sum(each * number for each, _, number in sizes) / total
        working = max(most for _, most, _ in sizes)
        forecast.disk = int(final * runs + working * together * min(runs, math.ceil(forecast.at_once or 1)))
    return forecast


def _measure(study: Study) -> str:
    """A command that measures each variant in a few short trainings, under another study's name."""
    short = {"study": f"{study.study}-cost", "base.optim.epochs": 2, "seeds": "[0]"}
    again = "search.rerun_share" if study.search.rerun_share else "search.rerun_top"
    none = {"search.rerun_share": "null", "search.rerun_top": 0}[again]
    trial = {"search.trials": 1, "search.nested": "false", again: none}
    searched = bool(study.search.trials and study.search.space)
    words = " ".join(f"{key}={value}" for key, value in {**short, **(trial if searched else {})}.items())
    return f"{study.command('sweep' if searched else 'folds')} {words}"


def devices(place: Place, parallel: int | None, runtime: Runtime) -> float | None:
    """Devices that the runs of a command use at the same time. None where the cluster decides it."""
    if place.on == "inline":
        return float(place.ranks)
    jobs = parallel or (place.site.array_parallelism if place.on == "slurm" else _here(place.ranks, runtime))
    return float(jobs * place.ranks) if jobs else None


def _here(ranks: int, runtime: Runtime) -> int:
    """Local jobs at the same time. torch, which knows the GPUs, is loaded only where there is a driver."""
    gpus = launching.gpu_count(runtime) if runtime.device != "cpu" and DRIVER.exists() else 0
    return max(1, (gpus or len(os.sched_getaffinity(0))) // ranks)
