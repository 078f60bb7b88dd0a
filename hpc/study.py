"""A study file: one base spec, the variants, the folds and the search, and the RunSpecs that it stands for.

Where it runs, on how many processes and how many trials at once are options of the commands, not of the study:
they do not decide a result.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from hpc.grid import Grid
from leukotree import spec as specs
from leukotree import yamlfile
from leukotree.errors import InputError
from leukotree.spec import VARIANTS, InnerFold, RunSpec, Strict, Variant

RUNS = Path("results/runs")
"""Where the run folders of all studies lie, relative to the current folder."""

SPACE = "search.space."
GRID = "grid."
Scalar = bool | int | float | str | None
_DECIDED = {
    "variant": "the study's `variants` decides it",
    "seed": "the study's `seeds` decides it",
    "data.inner": "the study's `folds` decides it",
    "data.test_fold": "the study's `folds` decides it",
}
_OF_A_SEARCH = {"data.shards": "all trials see the same images", "optim.epochs": "all trials get the same epochs"}


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
            raise ValueError(f"the lowest value {self.bounds[0]:g} must be below the highest {self.bounds[1]:g}")
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
    algorithm: Literal["tpe", "random"] = "tpe"
    """Optuna's TPE sampler, or independent draws."""
    scheduler: Literal["asha", "none"] = "asha"
    """`asha` stops the trials that fall behind; `none` trains each to its end."""
    trials: int = Field(0, ge=0)
    """Configurations tried per variant, the same number for each."""
    metric: Literal["macro_f1"] = "macro_f1"
    """What is maximised: the mean over the inner folds."""
    grace: int | None = Field(None, ge=1)
    """Epochs before ASHA may stop a trial; None: the warm-up and 15 % of the epochs, rounded up."""
    reduction_factor: float = Field(3.0, gt=1)
    """ASHA keeps one of this many trials at each rung."""
    startup_trials: int = Field(10, ge=1)
    """Random trials before TPE takes over."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Seeds the sampler, the same for every variant."""
    space: dict[str, Axis] = {}  # noqa: RUF012 - pydantic copies it
    """Dotted key of the run spec -> its values."""


class FoldCounts(Strict):
    outer: int = Field(5, ge=2)
    """Outer folds; those of the packed data set."""
    inner: int = Field(3, ge=2)
    """Inner folds that a trial trains, inside the outer training folds."""


class Study(Strict):
    """A study. Every field but the name has a default; all values have been tried against RunSpec."""

    study: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the study and of its folder."""
    base: RunSpec = RunSpec()
    """What every run shares."""
    variants: Annotated[tuple[Variant, ...], Field(min_length=1)] = VARIANTS
    """Each gets its own search, of the same size."""
    folds: FoldCounts = FoldCounts()
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**31)], ...], Field(min_length=1)] = (0,)
    """One run per outer fold and seed; trials use the first."""
    search: Search = Search()
    grid: Grid | None = None
    """Cells of an ablation, each on every outer fold and seed, over the values of `base`."""

    @model_validator(mode="after")
    def _sound(self) -> Study:
        for name in ("variants", "seeds"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name}: a value stands twice in {list(values)}")
        for key in ("variant", "seed"):
            if key in self.base.model_fields_set:
                raise ValueError(f"base.{key}: {_DECIDED[key]}; leave it out")
        if self.base.data.inner is not None:
            raise ValueError("base.data.inner: the study's `folds` decides it; leave it out")
        if self.base.data.test_fold >= self.folds.outer:
            raise ValueError(f"base.data.test_fold: {self.base.data.test_fold} does not exist, folds.outer is {self.folds.outer}")
        for key, axis in self.search.space.items():
            self._try(f"search.space.{key}", key, axis.samples, _DECIDED | _OF_A_SEARCH)
        for key, values in self.grid.values().items() if self.grid else ():
            self._try(f"grid.{key}", key, values, _DECIDED)
        return self

    def _try(self, where: str, key: str, values: Iterable[Any], decided: Mapping[str, str]) -> None:
        if reason := decided.get(key):
            raise ValueError(f"{where}: cannot be varied, {reason}")
        known = list(_leaf_keys(RunSpec))
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            raise ValueError(f"{where}: no key of a run spec{f', did you mean {close[0]!r}?' if close else ''}")
        for value in values:
            try:
                self.base.override({key: value})
            except InputError as error:
                raise ValueError(f"{where}: {str(error).removeprefix(f'override: {key}: ')}") from None

    @property
    def root(self) -> Path:
        """The study's folder of runs, relative to the current folder."""
        return RUNS / self.study

    def search_folder(self, variant: str) -> Path:
        """Where the search of one variant keeps its trials and its `best.yaml`."""
        return self.root / "search" / variant

    def grace(self) -> int:
        """Epochs before ASHA may stop a trial."""
        optim = self.base.optim
        return self.search.grace or math.ceil(0.15 * optim.epochs) + math.ceil(optim.warmup * optim.epochs)

    def require_search(self) -> Search:
        """The search. Raises InputError if there is nothing to search."""
        if not self.search.trials:
            raise InputError(f"study {self.study!r}: no trials; set search.trials to 1 or more")
        if not self.search.space:
            raise InputError(f"study {self.study!r}: search.space is empty; name at least one key of the run spec")
        return self.search

    def require_grid(self) -> Grid:
        """The grid. Raises InputError if there is none."""
        if self.grid is None or not self.grid.values():
            raise InputError(f"study {self.study!r}: no grid; give `grid` at least one key with its values")
        return self.grid

    def spec(self, variant: str, chosen: Mapping[str, Any], test_fold: int, seed: int, inner: InnerFold | None = None) -> RunSpec:
        """One run with the chosen dotted values. Raises InputError for a value that RunSpec refuses."""
        place = {"variant": variant, "seed": seed, "data.test_fold": test_fold}
        return self.base.override({**chosen, **place, "data.inner": inner.model_dump() if inner else None})

    def trial_specs(self, variant: str, chosen: Mapping[str, Any]) -> list[RunSpec]:
        """The inner folds that one trial trains; the outer fold `base.data.test_fold` is not touched."""
        inner = [InnerFold(folds=self.folds.inner, fold=fold) for fold in range(self.folds.inner)]
        return [self.spec(variant, chosen, self.base.data.test_fold, self.seeds[0], fold) for fold in inner]

    def fold_specs(self, best: Mapping[str, Mapping[str, Any]]) -> list[RunSpec]:
        """Every variant that has chosen values x outer fold x seed."""
        return [
            self.spec(variant, best[variant], fold, seed)
            for variant in self.variants
            if variant in best
            for fold in range(self.folds.outer)
            for seed in self.seeds
        ]

    def expected(self, best: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
        """One row {variant, test_fold, seed, run_name} for each of `fold_specs`."""
        return [
            {"variant": spec.variant, "test_fold": spec.data.test_fold, "seed": spec.seed, "run_name": spec.run_name}
            for spec in self.fold_specs(best)
        ]


def _leaf_keys(model: type[Strict], prefix: str = "") -> Iterable[str]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Strict):
            yield from _leaf_keys(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name


def load(path: str | Path, overrides: Iterable[str] = ()) -> Study:
    """A Study from a YAML file and `key=value` overrides such as `search.trials=4` or `base.optim.epochs=2`.

    Raises InputError naming the file and the key.
    """
    tree = yamlfile.load(path)
    if not isinstance(tree, Mapping):
        raise InputError(f"{path}: expected a mapping of keys, got {type(tree).__name__}")
    changes = specs.parse_overrides(overrides)
    _plain({**tree, **changes}, str(path))
    dotted = {key: value for key, value in changes.items() if key.startswith((SPACE, GRID))}  # with dots of their own
    tree = specs.merge(tree, {key: value for key, value in changes.items() if key not in dotted})
    for prefix in (SPACE, GRID):
        ours = {key.removeprefix(prefix): value for key, value in dotted.items() if key.startswith(prefix)}
        if ours:
            place: Any = tree
            for step in prefix.split(".")[:-1]:
                place = place.get(step) if isinstance(place, Mapping) else None
            known = dict(place) if isinstance(place, Mapping) else {}
            tree = specs.merge(tree, {prefix[:-1]: known | ours})
    return specs.parse(Study, tree, str(path))


def _plain(tree: Mapping[Any, Any], where: str) -> None:
    """Refuse dates and other values that YAML knows and a spec does not."""
    pending: list[Any] = [tree]
    while pending:
        value = pending.pop()
        if isinstance(value, Mapping):
            pending += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            pending += value
        elif not isinstance(value, Scalar):
            raise InputError(f"{where}: {value}: only texts, numbers, lists and mappings may stand in a study")


def check(study: Study, ranks: int = 1, trial_ranks: int = 1) -> None:
    """Everything that can be known before a run starts, with the data set at hand: folds, backbones, batch sizes.

    Trials run on `trial_ranks` processes, outer folds on `ranks`. Raises InputError.
    """
    from leukotree import train
    from leukotree.data.dataset import Dataset

    shards = study.base.data.shards
    _check_folds(study, Dataset.open(shards).folds, shards)
    # One corner per value: what train.check looks at does not depend on two searched keys at once, nor on the variant.
    corners = [(study.variants[0], {key: value}) for key, axis in study.search.space.items() for value in axis.choice or ()]
    for variant, corner in [*((variant, {}) for variant in study.variants), *corners]:
        train.check(study.trial_specs(variant, corner)[0], trial_ranks)
        train.check(study.spec(variant, corner, study.base.data.test_fold, study.seeds[0]), ranks)


def check_grid(study: Study, specs_of_grid: Iterable[RunSpec], ranks: int = 1) -> None:
    """Everything that can be known of a grid's runs before one starts, with the data sets at hand. Raises InputError."""
    from leukotree import train

    # What train.check looks at, once for each combination of it.
    kinds = {(s.variant, s.data, s.backbone, s.optim.batch_size, s.engine): s for s in specs_of_grid}
    for spec in kinds.values():
        _check_folds(study, train.check(spec, ranks).folds, spec.data.shards)


def _check_folds(study: Study, folds: int, shards: str) -> None:
    if folds != study.folds.outer:
        raise InputError(f"{shards}: packed with {folds} folds, but folds.outer is {study.folds.outer}; make them equal")
