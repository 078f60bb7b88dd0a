"""The search of a study: what is searched, how, and how the choice is made."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from leukotree import seeds
from leukotree.config import Strict

Scalar = bool | int | float | str | None


class Axis(Strict):
    """The values of one searched key; exactly one of the three forms."""

    uniform: tuple[float, float] | None = None
    """[lowest, highest], sampled evenly."""
    loguniform: tuple[float, float] | None = None
    """[lowest, highest], sampled evenly in the logarithm."""
    choice: list[Scalar] | None = Field(None, min_length=1)
    """The values themselves."""

    @model_validator(mode="after")
    def _sound(self) -> Axis:
        if sum(form is not None for form in (self.uniform, self.loguniform, self.choice)) != 1:
            raise ValueError("give exactly one of uniform: [lo, hi], loguniform: [lo, hi] or choice: [...]")
        if self.choice is None and self.bounds[0] >= self.bounds[1]:
            raise ValueError(
                f"the lowest value {self.bounds[0]:g} must be below the highest {self.bounds[1]:g}"
            )
        if self.loguniform and self.loguniform[0] <= 0:
            raise ValueError(f"loguniform needs a lowest value above 0, not {self.loguniform[0]:g}")
        if self.choice and len({repr(value) for value in self.choice}) < len(self.choice):
            raise ValueError(f"a value stands twice in {self.choice}")
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest value of a range."""
        bounds = self.uniform or self.loguniform
        assert bounds is not None, "a choice has no bounds"
        return bounds

    @property
    def samples(self) -> list[Scalar]:
        """Every choice; of a range both ends and a point between, which an integer field refuses."""
        if self.choice is not None:
            return list(self.choice)
        low, high = self.bounds
        return [low, low + (high - low) / math.e, high]


class Search(Strict):
    nested: bool = True
    """Each outer fold has a search of its own, which sees the inner folds of its training part only. False:
    one search for all, beside `base.data.test_fold`; the scores of the other folds are then optimistic, and
    the report says so."""
    algorithm: Literal["tpe", "random"] = "tpe"
    """Optuna's TPE sampler, or independent draws."""
    scheduler: Literal["asha", "none"] = "asha"
    """`asha` stops the trials that fall behind; `none` trains each to its end."""
    rungs: Literal["epochs", "folds"] = "epochs"
    """What a trial trains between two reports. `epochs`: one of all its inner folds, in lockstep. `folds`:
    one inner fold to its end, the next only if the trial is not stopped; all trials take them in the same
    order."""
    trials: int = Field(0, ge=0)
    """Configurations tried in each search, the same number for each."""
    metric: Literal["macro_f1"] = "macro_f1"
    """What is maximised: the mean over the inner folds, by the greedy rule."""
    grace: int | None = Field(None, ge=1)
    """Reports before ASHA may stop a trial. None: with rungs on epochs the warm-up and 15 % of the epochs,
    rounded up; on folds one."""
    reduction_factor: float = Field(3.0, gt=1)
    """ASHA keeps one of this many trials at each rung."""
    startup_trials: int = Field(10, ge=1)
    """Random trials before TPE takes over."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Seeds the sampler, the same for every search."""
    rerun_top: int = Field(0, ge=0)
    """How many of the best completed trials are run again on fresh seeds, to the end; the best mean is
    chosen. 0: the best trial itself."""
    rerun_seeds: int = Field(3, ge=1, le=1000)
    """Seeds that each of them is run again on."""
    space: dict[str, Axis] = {}  # noqa: RUF012 - pydantic copies it
    """Dotted key of the run spec -> its values."""

    def fresh_seeds(self, used: int) -> list[int]:
        """The `rerun_seeds` seeds of the re-runs: different ones, and none that the trials `used`."""
        drawn = (
            seeds.integer(self.seed, "rerun", number) % 2**31 for number in range(2 * self.rerun_seeds + 2)
        )
        return [seed for seed in dict.fromkeys(drawn) if seed != used][: self.rerun_seeds]


class FoldCounts(Strict):
    outer: int = Field(5, ge=2)
    """Outer folds; those of the packed data set."""
    inner: int = Field(3, ge=2)
    """Inner folds that a trial trains, inside the outer training folds."""
