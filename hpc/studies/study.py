"""A study file: one base spec, the variants, the folds and the search, and the RunSpecs that it stands for.

Where it runs, on how many processes and how many trials at once are options of the commands, not of the
study: they do not decide a result.
"""

from __future__ import annotations

import difflib
import math
import shlex
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field, PrivateAttr, model_validator

from hpc.studies.grid import Grid
from hpc.studies.search_settings import Axis, FoldCounts, Search
from leukotree import config, yamlfile
from leukotree import spec as specs
from leukotree.config import Strict
from leukotree.errors import InputError
from leukotree.evaluation.decide import RULES
from leukotree.keys import elsewhere, leaves
from leukotree.spec import VARIANTS, InnerFold, LossSpec, RunSpec, Variant

RUNS = Path("results/runs")
"""Where the run folders of all studies lie, relative to the current folder."""

SPACE = "search.space."
GRID = "grid."
PLACEHOLDER = "STUDY.yaml"
"""What stands for a study's file in a command where nobody knows it."""
_DECIDED = {
    "variant": "the study's `variants` decides it",
    "seed": "the study's `seeds` decides it",
    "data.inner": "the study's `folds` decides it",
    "data.test_fold": "the study's `folds` decides it",
}
_OF_A_SEARCH = {
    "data.shards": "all trials see the same images",
    "optim.epochs": "all trials get the same epochs",
}
_OF_A_GRID = {"data.shards": "a study is on one data set, and another is a study of its own"}
_WHEN = {
    "loss.gamma": ("loss.kind", ("focal",)),
    "loss.tau": ("loss.kind", ("focal",)),
    "loss.beta": ("loss.kind", ("soft",)),
    "loss.hxe_alpha": ("loss.weighting", ("hxe",)),
    "loss.leader": ("loss.isolation", ("detached", "branched")),
    "loss.branch_blocks": ("loss.isolation", ("branched",)),
    "loss.surgery": ("loss.isolation", ("projected",)),
}
"""Keys that say something only beside some values of another key; elsewhere a run has their defaults."""


class Unit(NamedTuple):
    """One search: of a variant, on what an outer fold leaves."""

    variant: str
    test_fold: int
    """The outer fold that it does not see."""

    def __str__(self) -> str:
        return f"{self.variant} fold {self.test_fold}"


class Study(Strict):
    """A study. Every field but the name has a default; all values have been tried against RunSpec."""

    study: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the study and of its folder."""
    base: RunSpec = RunSpec()
    """What every run shares. Keys that say nothing to a variant keep their defaults there."""
    variants: Annotated[tuple[Variant, ...], Field(min_length=1)] = VARIANTS
    """Each gets its own search, of the same size."""
    folds: FoldCounts = FoldCounts()
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**31)], ...], Field(min_length=1)] = (0,)
    """One run per outer fold and seed; trials use the first."""
    search: Search = Search()
    grid: Grid | None = None
    """Cells of an ablation, each on every outer fold and seed, over the values of `base`."""
    decision: str | dict[Variant, str] = "greedy"
    """How leaves are decided for the report: greedy, joint, marginal or expected_cost. A report refuses
    variants that have different ones."""
    rope: float = Field(0.01, ge=0, lt=1)
    """Half the width of the region of practical equivalence, in macro-F1."""
    primary: tuple[tuple[str, str], ...] | None = None
    """The declared comparisons: [challenger, reference], variants or names of the report's arms. None: each
    against flat."""

    _typed: str = PrivateAttr(default="")

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
            raise ValueError(
                f"base.data.test_fold: {self.base.data.test_fold} does not exist, folds.outer is {self.folds.outer}"
            )
        self._check_report()
        self._try(
            "search.space.",
            {key: axis.samples for key, axis in self.search.space.items()},
            _DECIDED | _OF_A_SEARCH,
            all,
        )
        if self.grid:
            self._try(
                "grid.", self.grid.values(), _DECIDED | _OF_A_GRID, any
            )  # `exclude` may leave a value out of a variant
        return self

    def _check_report(self) -> None:
        for rule in self.decision.values() if isinstance(self.decision, Mapping) else [self.decision]:
            if rule not in RULES:
                raise ValueError(f"decision: no rule {rule!r}; there are {', '.join(RULES)}")
        for pair in self.primary or ():
            if pair[0] == pair[1]:
                raise ValueError(f"primary: {pair[0]!r} is compared with itself")
            for name in pair:
                if self.grid is None and name not in self.variants:
                    raise ValueError(f"primary: {name!r} is none of the variants {', '.join(self.variants)}")

    def _try(
        self,
        where: str,
        keys: Mapping[str, Iterable[Any]],
        decided: Mapping[str, str],
        enough: Callable[..., bool],
    ) -> None:
        """Try the values of each key in the variants that know it, of which `all` or `any` must take one."""
        known = list(leaves(RunSpec))
        for key, values in keys.items():
            if reason := decided.get(key):
                raise ValueError(f"{where}{key}: cannot be varied, {reason}")
            if key not in known:
                meant = difflib.get_close_matches(key, known, n=1) or elsewhere(key, known)
                raise ValueError(
                    f"{where}{key}: no key of a run spec{f', did you mean {meant[0]!r}?' if meant else ''}"
                )
            by, when = _WHEN.get(key, ("", ()))
            if by and by not in keys and _loss(self.base, by) not in when:
                raise ValueError(
                    f"{where}{key}: says nothing with {by} {_loss(self.base, by)}; set it to {' or '.join(when)}"
                )
            variants = [variant for variant in self.variants if key not in specs.silent(variant)]
            if not variants:
                raise ValueError(f"{where}{key}: says nothing to {', '.join(self.variants)}")
            for value in values:
                problems = [self._problem(variant, key, value) for variant in variants]
                if not enough(problem is None for problem in problems):
                    raise ValueError(f"{where}{key}: {next(filter(None, problems))}")

    def _problem(self, variant: str, key: str, value: Any) -> str | None:
        try:
            self.base.override({**specs.silent(variant), "variant": variant, key: value})
        except InputError as error:
            return str(error).removeprefix("override: ").removeprefix(f"{key}: ")
        return None

    def __eq__(self, other: object) -> bool:
        """What it says counts, not how it was typed."""
        return isinstance(other, Study) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]

    @property
    def typed(self) -> str:
        """Its file and the changes to it, as a person types them behind a verb; empty where it came from no
        file."""
        return self._typed

    def command(self, verb: str) -> str:
        """A command on it, as a person types it."""
        return f"leukotree {verb} {self._typed}".rstrip()

    @property
    def root(self) -> Path:
        """The study's folder of runs, relative to the current folder."""
        return RUNS / self.study

    @property
    def units(self) -> list[Unit]:
        """The searches: of every variant on every outer fold, or one for all folds."""
        folds = range(self.folds.outer) if self.search.nested else [self.base.data.test_fold]
        return [Unit(variant, fold) for fold in folds for variant in self.variants]

    def unit(self, variant: str, test_fold: int) -> Unit:
        """The search that chooses the values of a variant on an outer fold."""
        return Unit(variant, test_fold if self.search.nested else self.base.data.test_fold)

    def search_folder(self, unit: Unit) -> Path:
        """Where a search keeps its trials and its `best.yaml`."""
        folder = self.root / "search" / unit.variant
        return folder / f"fold{unit.test_fold}" if self.search.nested else folder

    def space(self, variant: str) -> dict[str, Axis]:
        """What is searched in a variant: the keys that say something to it."""
        return {key: axis for key, axis in self.search.space.items() if key not in specs.silent(variant)}

    @property
    def reports(self) -> int:
        """How often a trial reports that is trained to its end: its epochs or its inner folds."""
        return self.base.optim.epochs if self.search.rungs == "epochs" else self.folds.inner

    @property
    def fresh_seeds(self) -> list[int]:
        """The seeds of the re-runs of a trial."""
        return self.search.fresh_seeds(self.seeds[0])

    def grace(self) -> int:
        """Reports before ASHA may stop a trial."""
        optim = self.base.optim
        if self.search.rungs == "folds":
            return self.search.grace or 1
        return self.search.grace or math.ceil(0.15 * optim.epochs) + math.ceil(optim.warmup * optim.epochs)

    def require_search(self) -> Search:
        """The search. Raises InputError if there is nothing to search."""
        if not self.search.trials:
            raise InputError(f"study {self.study!r}: no trials; set search.trials to 1 or more")
        if not self.search.space:
            raise InputError(
                f"study {self.study!r}: search.space is empty; name at least one key of the run spec"
            )
        for variant in self.variants:
            if not self.space(variant):
                raise InputError(
                    f"study {self.study!r}: search.space says nothing to {variant}; leave it out of `variants`"
                )
        return self.search

    def require_grid(self) -> Grid:
        """The grid. Raises InputError if there is none."""
        if self.grid is None or not self.grid.values():
            raise InputError(f"study {self.study!r}: no grid; give `grid` at least one key with its values")
        return self.grid

    def spec(
        self,
        variant: str,
        chosen: Mapping[str, Any],
        test_fold: int,
        seed: int,
        inner: InnerFold | None = None,
    ) -> RunSpec:
        """One run with the chosen dotted values, but for those that say nothing there. Raises InputError for
        a value that RunSpec refuses."""
        place = {"variant": variant, "seed": seed, "data.test_fold": test_fold}
        silent = _defaults(self._silent(variant, chosen))
        try:
            return self.base.override(
                {**chosen, **silent, **place, "data.inner": inner.model_dump() if inner else None}
            )
        except InputError as error:
            raise InputError(str(error).removeprefix("override: ")) from None

    def telling(self, variant: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Dotted key -> value, without the keys that say nothing to the variant, or beside the other
        values."""
        silent = self._silent(variant, values)
        return {key: value for key, value in values.items() if key not in silent}

    def _silent(self, variant: str, values: Mapping[str, Any]) -> set[str]:
        """The keys that decide nothing in a variant with these values over `base`."""
        beside = {
            key for key, (by, when) in _WHEN.items() if values.get(by, _loss(self.base, by)) not in when
        }
        return beside | specs.silent(variant).keys()

    def trial_specs(
        self, variant: str, chosen: Mapping[str, Any], test_fold: int, seed: int | None = None
    ) -> list[RunSpec]:
        """The inner folds that one trial trains; its outer fold is not touched. `seed`: None for that of the
        trials."""
        inner = [InnerFold(folds=self.folds.inner, fold=fold) for fold in range(self.folds.inner)]
        return [
            self.spec(variant, chosen, test_fold, self.seeds[0] if seed is None else seed, fold)
            for fold in inner
        ]

    def fold_specs(self, best: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> list[RunSpec]:
        """Every variant x outer fold that has chosen values x seed; `best`: variant -> outer fold ->
        values."""
        return [
            self.spec(variant, best[variant][fold], fold, seed)
            for variant in self.variants
            for fold in range(self.folds.outer)
            if fold in best.get(variant, {})
            for seed in self.seeds
        ]

    def expected(self, best: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> list[dict[str, Any]]:
        """One row {variant, test_fold, seed, run_name} for each of `fold_specs`."""
        return [
            {
                "variant": spec.variant,
                "test_fold": spec.data.test_fold,
                "seed": spec.seed,
                "run_name": spec.run_name,
            }
            for spec in self.fold_specs(best)
        ]


def _loss(base: RunSpec, key: str) -> Any:
    """The value of `loss.*`."""
    return getattr(base.loss, key.removeprefix("loss."))


def _defaults(keys: Iterable[str]) -> dict[str, Any]:
    """Keys of `loss` with their defaults."""
    return {key: LossSpec.model_fields[key.removeprefix("loss.")].default for key in keys}


def load(path: str | Path, overrides: Iterable[str] = ()) -> Study:
    """A Study from a YAML file and `key=value` overrides such as `search.trials=4` or `base.optim.epochs=2`.

    Raises InputError naming the file and the key.
    """
    tree = yamlfile.load(path)
    if not isinstance(tree, Mapping):
        raise InputError(f"{path}: expected a mapping of keys, got {type(tree).__name__}")
    if "study" not in tree and tree.keys() & RunSpec.model_fields.keys():
        raise InputError(f"{path}: is the spec of one run, and no study; `leukotree train {path}` takes it")
    given = list(overrides)
    changes = config.parse_overrides(given)
    yamlfile.require_plain({**tree, **changes}, str(path))
    dotted = {
        key: value for key, value in changes.items() if key.startswith((SPACE, GRID))
    }  # with dots of their own
    tree = config.merge(tree, {key: value for key, value in changes.items() if key not in dotted})
    for prefix in (SPACE, GRID):
        ours = {key.removeprefix(prefix): value for key, value in dotted.items() if key.startswith(prefix)}
        if ours:
            place: Any = tree
            for step in prefix.split(".")[:-1]:
                place = place.get(step) if isinstance(place, Mapping) else None
            known = dict(place) if isinstance(place, Mapping) else {}
            tree = config.merge(tree, {prefix[:-1]: known | ours})
    found = config.parse(Study, tree, str(path))
    found._typed = shlex.join([str(path), *given])
    return found
