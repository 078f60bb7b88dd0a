"""The settings of a study's searches: the space, the sampler, early stopping and re-runs."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from leukotree import seeds
from leukotree.config import Strict

Scalar = bool | int | float | str | None


LR, BATCH = "optim.lr", "optim.batch_size"
"""The keys that `step_size` models as one."""


class Axis(Strict):
    """The values of one searched key, in exactly one of the three forms, and the likely one if there is
    any."""

    uniform: tuple[float, float] | None = None
    """[lowest, highest], sampled uniformly."""
    loguniform: tuple[float, float] | None = None
    """[lowest, highest], sampled uniformly in the logarithm."""
    choice: list[Scalar] | None = Field(None, min_length=1)
    """The values themselves."""
    around: Scalar = None
    """A likely value, which the first trial has. In a range the other draws are then concentrated around it:
    their prior is a normal distribution, cut off at the ends, on the scale of the axis (the logarithm for
    loguniform), whose standard deviation is a quarter of the range. Other values of a choice stay equally
    likely."""

    @model_validator(mode="after")
    def _check(self) -> Axis:
        if sum(form is not None for form in (self.uniform, self.loguniform, self.choice)) != 1:
            raise ValueError("give exactly one of uniform: [lo, hi], loguniform: [lo, hi] or choice: [...]")
        if self.choice is None and self.bounds[0] >= self.bounds[1]:
            raise ValueError(
                f"the lowest value {self.bounds[0]:g} must be below the highest {self.bounds[1]:g}"
            )
        if self.loguniform and self.loguniform[0] <= 0:
            raise ValueError(f"loguniform needs a lowest value above 0, not {self.loguniform[0]:g}")
        if self.choice and len({repr(value) for value in self.choice}) < len(self.choice):
            raise ValueError(f"a value occurs twice in {self.choice}")
        if self.around is not None:
            self._check_around()
        return self

    def _check_around(self) -> None:
        value = self.around
        if self.choice is not None:
            if repr(value) not in map(repr, self.choice):
                raise ValueError(f"around: {value!r} is none of {self.choice}")
            return
        low, high = self.bounds
        if isinstance(value, bool | str) or not low <= value <= high:  # type: ignore[operator]
            raise ValueError(f"around: {value!r} is no number in [{low:g}, {high:g}]")

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest value of a range."""
        bounds = self.uniform or self.loguniform
        assert bounds is not None, "a choice has no bounds"
        return bounds

    @property
    def samples(self) -> list[Scalar]:
        """The values to check: every choice, or both ends of a range and a point between them, no integer."""
        if self.choice is not None:
            return list(self.choice)
        low, high = self.bounds
        return [low, low + (high - low) / math.e, high]


class SearchSettings(Strict):
    nested: bool = True
    """True: each outer fold has its own search, which sees only the inner folds of its training part. False:
    one search for all outer folds, which does not see `base.data.test_fold`. The scores of the other folds
    are then optimistic, and the report says so."""
    algorithm: Literal["tpe", "gp", "qmc", "random"] = "tpe"
    """`tpe` and `gp` learn from the trials before: Optuna's tree of Parzen estimators, and its Gaussian
    process with expected improvement. `qmc` is a scrambled Halton sequence, which covers the space more
    evenly than the independent draws of `random`."""
    scheduler: Literal["asha", "halving", "hyperband", "none"] = "asha"
    """`asha` stops trials with low scores early. `halving` pauses every trial at a rung, and lets it go on
    once it is among the best there: fewer epochs for the same trials. `hyperband` does so in brackets of
    trials that begin at different rungs, each when its rung is full. `none` trains every trial to its end."""
    rungs: Literal["epochs", "folds"] = "epochs"
    """What a trial trains between two reports. `epochs`: one epoch of all inner folds, in lockstep. `folds`:
    one inner fold to its end, and the next one only if the trial is not stopped or paused. The order of the
    inner folds is the same for all trials."""
    trials: int = Field(0, ge=0)
    """Trials of each search, at most. All searches of an outer fold have the same number. It may be raised
    later, until the first outer fold is trained with a choice."""
    budget_hours: float | None = Field(None, gt=0)
    """Hours of devices (GPUs; processes without GPUs) for the trials of an outer fold, of all variants
    together. Once they are spent, no variant of the fold draws more trials than the one with most has; trials
    that run are finished. Re-runs are not counted. None: no such limit."""
    metric: Literal["macro_f1"] = "macro_f1"
    """The score to maximise: its mean over the inner folds, by the greedy rule."""
    grace: int | None = Field(None, ge=1)
    """Reports before a trial may be stopped or paused, the first rung. Each other rung is the one before
    times the reduction factor. None: with rungs on epochs, the warm-up and 15 % of the epochs, both rounded
    up; with rungs on folds, 1."""
    reduction_factor: float = Field(3.0, gt=1)
    """At each rung one of this many trials goes on."""
    startup_trials: int = Field(10, ge=1)
    """Trials that have ended before TPE or the Gaussian process begins. Until then TPE draws at random, and
    `gp` draws the points of `qmc`."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Seed of the draws, together with the outer fold: all variants of a fold draw the same first values, and
    each fold draws its own."""
    rerun_top: int = Field(0, ge=0)
    """This many of the best completed trials are trained again on fresh seeds, to the end. The best mean is
    chosen. 0: the best trial is chosen without re-runs."""
    rerun_share: float | None = Field(None, gt=0, le=1)
    """Instead of `rerun_top`: re-runs as a share of the trials. 0.25: after 40 trials there are about 10
    re-runs, so that the best 3 run again on 3 fresh seeds each. At least one trial runs again. All variants
    have equally many."""
    rerun_seeds: int = Field(3, ge=1, le=1000)
    """Fresh seeds for each of them."""
    rerun_splits: Literal["same", "fresh"] = "same"
    """The inner folds of the re-runs. `same`: those of the trials, whose luck the re-runs then share.
    `fresh`: patients are dealt to inner folds anew for each fresh seed."""
    choice: Literal["best", "posterior"] = "best"
    """What chooses. `best`: the best mean over the fresh seeds; without re-runs the best score. `posterior`:
    the completed trial with the highest posterior mean of a Gaussian process on all trials and re-runs, which
    is not misled by one lucky score."""
    until: Literal["trials", "enough"] = "trials"
    """When a search draws no more trials. `trials`: after `trials` of them. `enough`: also before, once the
    expected gain of further trials is below the noise of a score in all variants of the outer fold. They stop
    together, with equally many trials."""
    space: dict[str, Axis] = {}  # noqa: RUF012 - pydantic copies it
    """Dotted key of the run spec -> its values."""
    step_size: bool = False
    """Whether the learning rate and the batch size are modelled as one step size. The range of `optim.lr` is
    then that of runs with the batch size of `base`. A trial gets its draw times sqrt(its batch size / that of
    `base`), the rule for AdamW, which may lie outside of the range."""

    @model_validator(mode="after")
    def _check(self) -> SearchSettings:
        lr = self.space.get(LR)
        if self.step_size and (lr or BATCH in self.space):
            if not lr or BATCH not in self.space:
                raise ValueError(f"step_size: needs both {LR} and {BATCH} in search.space")
            if lr.choice is not None:
                raise ValueError(f"step_size: {LR} needs a range in search.space, not a choice")
        return self

    @model_validator(mode="after")
    def _one_number_of_reruns(self) -> SearchSettings:
        if self.rerun_top and self.rerun_share:
            raise ValueError("rerun_top and rerun_share: give one of them")
        return self

    def rerun_count(self, trials: int) -> int:
        """The number of trials that run again, of this many."""
        top = self.rerun_top
        if self.rerun_share:
            top = max(1, round(self.rerun_share * trials / self.rerun_seeds))
        return min(top, trials)

    def fresh_seeds(self, used: int, test_fold: int | None) -> list[int]:
        """The `rerun_seeds` different seeds of the re-runs of an outer fold, the same for all its variants.

        Args:
            used: the seed of the trials, which is left out.
            test_fold: its number over all repeats, see `Study.outer_folds`. None for the seeds of version
                0.1.0, which were the same for all folds.
        """
        stream, place = ("rerun", []) if test_fold is None else ("fresh", [test_fold])
        drawn = (
            seeds.integer(self.seed, stream, *place, number) % 2**31
            for number in range(2 * self.rerun_seeds + 2)
        )
        return [seed for seed in dict.fromkeys(drawn) if seed != used][: self.rerun_seeds]


class FoldCounts(Strict):
    outer: int = Field(5, ge=2)
    """Outer folds, as in the packed data set."""
    inner: int = Field(3, ge=2)
    """Inner folds of a trial, inside the outer training folds."""
    repeats: int = Field(1, ge=1, le=1000)
    """Outer cross-validations, each on a deal of its own of the patients to folds (`leukotree pack
    --repeats`). Each repeat tests every image once."""
