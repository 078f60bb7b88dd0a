"""A study file: one base spec, the variants, the folds and the search, and the run specs that follow from it.

Where the runs happen, on how many processes, and how many trials run at once are options of the commands.
They do not decide a result, so they are not in the study.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, Field, PrivateAttr, model_validator

from hpc.studies import varied_keys
from hpc.studies.grid import Grid
from hpc.studies.search_settings import BATCH, LR, Axis, FoldCounts, SearchSettings
from leukotree import config, yamlfile
from leukotree.config import Strict
from leukotree.data.remote import address
from leukotree.errors import InputError, one_line
from leukotree.evaluation.costs import check_values
from leukotree.evaluation.operating import Operating
from leukotree.records import declared, searchfolder
from leukotree.spec import COMPARED, PLAIN, InnerFold, RunSpec, Variant, without_effect, without_effect_in
from leukotree.trackers.choice import Tracker, check_uri

RUNS = Path("results/runs")
"""The folder of all studies' runs, relative to the current folder."""

SPACE = "search.space."
GRID = "grid."
NO_FIELDS: Mapping[str, Any] = MappingProxyType({})
PLACEHOLDER = "STUDY.yaml"
"""Stands for a study's file in a printed command where the file is not known."""


class SearchId(NamedTuple):
    """One search of a study: its variant and its outer fold."""

    variant: str
    test_fold: int
    """The outer fold that the search does not see."""
    repeat: int = 0
    """The repeat of this outer fold."""

    def __str__(self) -> str:
        of_repeat = f" of repeat {self.repeat}" if self.repeat else ""
        return f"{self.variant} fold {self.test_fold}{of_repeat}"


class OuterFold(NamedTuple):
    """An outer test fold in one of the repeats."""

    repeat: int
    fold: int


class Study(Strict):
    """A study. Every field but the name has a default. All values are checked against RunSpec."""

    study: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the study and of its folder."""
    base: RunSpec = RunSpec()
    """What all runs share. A key that has no effect in a variant keeps its default there."""
    variants: Annotated[tuple[Variant, ...], Field(min_length=1)] = COMPARED
    """Each has its own search. All searches have the same size."""
    folds: FoldCounts = FoldCounts()
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**31)], ...], Field(min_length=1)] = (0,)
    """One run per outer fold and seed. Trials use the first seed."""
    search: SearchSettings = SearchSettings()
    grid: Grid | None = None
    """Cells of an ablation, each on every outer fold and seed. Other keys have the values of `base`."""
    decision: str | dict[Variant, str] = "greedy"
    """The rule that decides leaves for the report: greedy, joint, marginal or expected_cost. A mapping gives
    the rule of each variant; a variant without one has greedy. All variants need the same rule."""
    rope: float = Field(0.01, ge=0, lt=1)
    """Half the width of the region of practical equivalence, in macro-F1."""
    primary: tuple[tuple[str, str], ...] | None = None
    """The declared comparisons: [challenger, reference], as variants or names of the report's arms. None:
    each variant against flat, and base against ensemble."""
    costs: dict[str, dict[str, float]] | None = None
    """Costs of mistakes: true leaf -> predicted leaf -> cost, as in {APML: {AML: 20}}. The unit is one level
    of the tree: a pair that is not given costs the height of the lowest common ancestor. They feed the rule
    expected_cost, and the column of costs in the report."""
    trackers: tuple[Tracker, ...] | None = None
    """What follows each run beside its own files: `tensorboard` (a folder in that of the run), `mlflow`.
    None: those of the site."""
    mlflow_uri: Annotated[str, AfterValidator(check_uri)] | None = None
    """Where MLflow is: `http://HOST:PORT`, or `sqlite:///FILE`. None: the site's."""
    operating: Operating = Operating()
    """The specificity at which the report gives sensitivities, and the coverage of its prediction sets."""

    _typed: str = PrivateAttr(default="")

    @model_validator(mode="after")
    def _check(self) -> Study:
        for name in ("variants", "seeds"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name}: a value occurs twice in {list(values)}")
        for key in ("variant", "seed"):
            if key in self.base.model_fields_set:
                raise ValueError(f"base.{key}: {varied_keys.FIXED[key]}; leave it out")
        if self.base.data.inner is not None:
            raise ValueError(f"base.data.inner: {varied_keys.FIXED['data.inner']}; leave it out")
        if self.base.data.all_folds:
            raise ValueError(f"base.data.all_folds: {varied_keys.FIXED['data.all_folds']}; leave it out")
        if self.base.data.repeat:
            raise ValueError(f"base.data.repeat: {varied_keys.FIXED['data.repeat']}; leave it out")
        if self.base.data.test_fold >= self.folds.outer:
            raise ValueError(
                f"base.data.test_fold: {self.base.data.test_fold} does not exist, "
                f"folds.outer is {self.folds.outer}"
            )
        self._check_report()
        searched = {key: axis.samples for key, axis in self.search.space.items()}
        varied_keys.check_search(self.base, self.variants, searched)
        if self.grid:
            varied_keys.check_grid(self.base, self.variants, self.grid.values())
        self._check_plain()
        return self

    def _check_plain(self) -> None:
        """Raises ValueError where a variant of PLAIN cannot be a run with the values of the base."""
        if self.grid and {"backbone.train", "augment.views"} & self.grid.values().keys():
            return
        for variant in self.variants:
            if variant in PLAIN:
                self.spec(variant, {}, self.base.data.test_fold, self.seeds[0])

    def _check_report(self) -> None:
        check_values(self.costs or {})
        declared.rule(self.decision, self.variants, "decision")
        for pair in self.primary or ():
            if pair[0] == pair[1]:
                raise ValueError(f"primary: {pair[0]!r} is compared with itself")
            for name in pair:
                if not self.has_grid and name not in self.variants:
                    raise ValueError(f"primary: {name!r} is none of the variants {', '.join(self.variants)}")

    def __eq__(self, other: object) -> bool:
        """Whether the fields are equal. The file name and the overrides do not count."""
        return isinstance(other, Study) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]

    @property
    def typed(self) -> str:
        """The file and its overrides as a person types them after a verb. Empty if there is no file."""
        return self._typed

    def command(self, verb: str) -> str:
        """The command line that calls a verb on this study."""
        return f"leukotree {verb} {self._typed}".rstrip()

    @property
    def root(self) -> Path:
        """The folder of the study's runs, relative to the current folder."""
        return RUNS / self.study

    @property
    def outer_folds(self) -> dict[int, OuterFold]:
        """The outer folds of all repeats, numbered through: fold k of repeat r has the number
        r * folds.outer + k, so that the folds of repeat 0 keep their own numbers."""
        outer = self.folds.outer
        return {number: OuterFold(*divmod(number, outer)) for number in range(self.folds.repeats * outer)}

    def outer_number(self, search_id: SearchId) -> int:
        """The number of a search's outer fold, see `outer_folds`."""
        return search_id.repeat * self.folds.outer + search_id.test_fold

    @property
    def search_ids(self) -> list[SearchId]:
        """The searches: one per variant, outer fold and repeat, or one per variant for all folds."""
        places = self.outer_folds.values() if self.search.nested else [OuterFold(0, self.base.data.test_fold)]
        return [SearchId(variant, fold, repeat) for repeat, fold in places for variant in self.variants]

    def search_id(self, variant: str, test_fold: int, repeat: int = 0) -> SearchId:
        """The search that chooses the values of a variant on an outer fold."""
        if not self.search.nested:
            return SearchId(variant, self.base.data.test_fold)
        return SearchId(variant, test_fold, repeat)

    def search_folder(self, search_id: SearchId) -> Path:
        """The folder of a search: its trials and its `best.yaml`."""
        fold = search_id.test_fold if self.search.nested else None
        return searchfolder.search_folder(self.root, search_id.variant, fold, search_id.repeat)

    def space(self, variant: str) -> dict[str, Axis]:
        """The searched keys that have an effect in a variant."""
        idle = without_effect_in(variant)
        return {key: axis for key, axis in self.search.space.items() if key not in idle}

    def trials(self, variant: str) -> int:
        """The number of trials of a search. One is enough for a variant of PLAIN without a searched key."""
        alone = variant in PLAIN and not self.space(variant)
        return min(1, self.search.trials) if alone else self.search.trials

    def epochs(self, variant: str) -> int:
        """As `RunSpec.epochs` of the runs of a variant."""
        return 1 if variant in PLAIN else self.base.optim.epochs

    @property
    def reports(self) -> int:
        """The number of reports of a trial that is trained to its end: its epochs or its inner folds."""
        return self.base.optim.epochs if self.search.rungs == "epochs" else self.folds.inner

    def fresh_seeds(self, outer: int | None) -> list[int]:
        """The seeds of the re-runs of a trial of an outer fold, by its number (see `outer_folds`); None: see
        `SearchSettings.fresh_seeds`."""
        return self.search.fresh_seeds(self.seeds[0], outer)

    def grace(self) -> int:
        """The number of reports before a trial may be stopped or paused."""
        optim = self.base.optim
        if self.search.rungs == "folds":
            return self.search.grace or 1
        return self.search.grace or math.ceil(0.15 * optim.epochs) + math.ceil(optim.warmup * optim.epochs)

    def require_search(self) -> SearchSettings:
        """The search. Raises InputError if there is nothing to search."""
        if not self.search.trials:
            raise InputError(f"study {self.study!r}: no trials; set search.trials to 1 or more")
        if not self.search.space:
            raise InputError(
                f"study {self.study!r}: search.space is empty; name at least one key of the run spec"
            )
        if self.search.step_size and LR not in self.search.space:
            raise InputError(
                f"study {self.study!r}: search.step_size: needs {LR} and {BATCH} in search.space"
            )
        for variant in self.variants:
            if not self.space(variant) and variant not in PLAIN:
                raise InputError(
                    f"study {self.study!r}: search.space: no key has an effect in {variant}; "
                    f"leave {variant} out of `variants`"
                )
        return self.search

    @property
    def has_grid(self) -> bool:
        """Whether there is a grid with a key. A grid without keys has no cells."""
        return self.grid is not None and bool(self.grid.values())

    def require_grid(self) -> Grid:
        """The grid. Raises InputError if there is none."""
        if self.grid is None or not self.has_grid:
            raise InputError(f"study {self.study!r}: no grid; give `grid` at least one key with its values")
        return self.grid

    def spec(
        self,
        variant: str,
        chosen: Mapping[str, Any],
        test_fold: int,
        seed: int,
        inner: InnerFold | None = None,
        repeat: int = 0,
    ) -> RunSpec:
        """One run with the chosen dotted values. Keys without effect keep their defaults. Raises InputError
        for a value that RunSpec refuses."""
        position = {"variant": variant, "seed": seed, "data.test_fold": test_fold, "data.repeat": repeat}
        inner_fold = {"data.inner": inner.model_dump() if inner else None}
        idle = without_effect(variant, self.base, chosen)
        try:
            return self.base.override({**chosen, **idle, **position, **inner_fold})
        except InputError as error:
            raise InputError(str(error).removeprefix("override: ")) from None

    def with_effect(self, variant: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Dotted key -> value, without the keys that have no effect in the variant beside the other
        values."""
        idle = without_effect(variant, self.base, values)
        return {key: value for key, value in values.items() if key not in idle}

    def trial_specs(
        self,
        variant: str,
        chosen: Mapping[str, Any],
        test_fold: int,
        seed: int | None = None,
        repeat: int = 0,
    ) -> list[RunSpec]:
        """The runs of one trial: one per inner fold. None of them sees the outer fold. `seed`: that of a
        re-run; None for the seed of the trials."""
        deal = seed if seed is not None and self.search.rerun_splits == "fresh" else 0
        inner = [InnerFold(folds=self.folds.inner, fold=fold, seed=deal) for fold in range(self.folds.inner)]
        seed = self.seeds[0] if seed is None else seed
        return [self.spec(variant, chosen, test_fold, seed, fold, repeat) for fold in inner]

    def fold_specs(self, best: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> list[RunSpec]:
        """The runs of every variant x outer fold with chosen values x seed. `best`: variant -> number of the
        outer fold (see `outer_folds`) -> values."""
        return [
            self.spec(variant, best[variant][number], fold, seed, repeat=repeat)
            for variant in self.variants
            for number, (repeat, fold) in self.outer_folds.items()
            if number in best.get(variant, {})
            for seed in self.seeds
        ]

    def inner_specs(self, best: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> list[RunSpec]:
        """The runs of every variant x outer fold with chosen values x inner fold, on the first seed. `best`:
        as for `fold_specs`."""
        return [
            spec
            for variant in self.variants
            for number, (repeat, fold) in self.outer_folds.items()
            if number in best.get(variant, {})
            for spec in self.trial_specs(variant, best[variant][number], fold, repeat=repeat)
        ]

    def expected(self, best: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> list[dict[str, Any]]:
        """One row {variant, repeat, test_fold, seed, run_name} for each of `fold_specs`."""
        return [
            {
                "variant": spec.variant,
                "repeat": spec.data.repeat,
                "test_fold": spec.data.test_fold,
                "seed": spec.seed,
                "run_name": spec.run_name,
            }
            for spec in self.fold_specs(best)
        ]


def load(path: str | Path, overrides: Sequence[str] = (), fields: Mapping[str, Any] = NO_FIELDS) -> Study:
    """A Study from a YAML file and `key=value` overrides such as `search.trials=4` or `base.optim.epochs=2`.

    Args: fields: further changes, by dotted keys, as values.

    Raises InputError naming the file and the key.
    """
    tree = yamlfile.load(path)
    if not isinstance(tree, Mapping):
        raise InputError(f"{path}: expected a mapping of keys, got {type(tree).__name__}")
    if "study" not in tree and tree.keys() & RunSpec.model_fields.keys():
        raise InputError(f"{path}: is the spec of one run, and no study; `leukotree train {path}` takes it")
    plain = _plain(fields, str(path))
    given = [*overrides, *(f"{key}={json.dumps(value)}" for key, value in plain.items())]
    changes = {**config.parse_overrides(overrides), **plain}
    yamlfile.require_plain({**tree, **changes}, str(path))
    study = config.parse(Study, _changed(tree, changes), str(path))
    study._typed = shlex.join([str(path), *given])
    address.trust(study.base.data.shards)
    return study


def build(fields: Mapping[str, Any], where: str) -> Study:
    """A Study from its fields, by plain or dotted keys. Raises InputError naming `where` and the key."""
    plain = _plain(fields, where)
    yamlfile.require_plain(plain, where)
    study = config.parse(Study, _changed({}, plain), where)
    address.trust(study.base.data.shards)
    return study


def _plain(fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Fields as a file has them: lists for tuples, and mappings for specs. Raises InputError for others."""
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(fields), default=_as_mapping))
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: {one_line(error)}; give texts, numbers, lists and mappings") from None
    return plain


def _as_mapping(value: Any) -> Any:
    if isinstance(value, Strict):
        return value.model_dump(mode="json", exclude_unset=True)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is no value of a study")


def _changed(tree: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The tree of a study file with dotted keys set. The keys of `search.space` and `grid` have dots
    themselves."""
    varied = {key: value for key, value in changes.items() if key.startswith((SPACE, GRID))}
    merged = config.merge(tree, {key: value for key, value in changes.items() if key not in varied})
    for prefix in (SPACE, GRID):
        values = {key.removeprefix(prefix): value for key, value in varied.items() if key.startswith(prefix)}
        if values:
            group: Any = merged
            for step in prefix.split(".")[:-1]:
                group = group.get(step) if isinstance(group, Mapping) else None
            before = dict(group) if isinstance(group, Mapping) else {}
            merged = config.merge(merged, {prefix[:-1]: before | values})
    return merged
