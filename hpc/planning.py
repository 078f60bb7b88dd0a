"""The plan of a study: the power of its primary comparison over a table of designs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hpc.studies import cells
from hpc.studies.study import Study
from hpc.tables import align
from leukotree import progress
from leukotree.errors import InputError
from leukotree.records.planned import DESIGN

if TYPE_CHECKING:
    from leukotree.report.summary import StudySummary
    from leukotree.stats.power import Design, Power, Spread

MOST = 400
"""Most designs of a table: about 20 seconds."""
IMAGES = 40
"""Assumed images of a patient, where the shards are not here. The paper has 3,710 of 84 patients."""
KEYS = ("folds", "repeats", "seeds", "patients", "runs")
"""Columns of a design in the table."""


@dataclass(frozen=True)
class Assumed:
    """What is assumed where no pilot study measured the spread."""

    score: float = 0.85
    """Probability that an image is right, in every leaf and both arms."""
    icc: float = 0.3
    """Correlation between images of a patient."""
    agreement: float = 0.5
    """Correlation of the results of two arms for a patient."""
    training: float = 0.01
    """Standard deviation between seeds, of the difference of two runs."""
    method: float = 0.01
    """Standard deviation between folds that neither seeds nor test patients remove."""

    def __str__(self) -> str:
        return (
            f"assumptions (images right {self.score:g}, correlation within a patient {self.icc:g}, of two "
            f"arms {self.agreement:g}, training SD {self.training:g}, method SD {self.method:g})"
        )


@dataclass(frozen=True)
class Wanted:
    """What a plan is to answer. None: the numbers of the study, and some around them."""

    effect: float
    """The true difference in macro F1."""
    power: float
    folds: Sequence[int] | None = None
    repeats: Sequence[int] | None = None
    seeds: Sequence[int] | None = None
    patients: Sequence[int] | None = None


class Patients(NamedTuple):
    """The patients of a data set."""

    of_leaf: list[int]
    images: list[int]
    """Images of each leaf."""
    total: int
    """Patients of all leaves. One with images of several leaves counts once."""
    where: str
    """Where they are known from."""


class Known(NamedTuple):
    """The spread of the folds, as far as it is known before a study."""

    spread: Spread
    source: str
    """Where it is from."""
    df: int | None = None
    """Degrees of freedom of a measured spread."""


def pairs(study: Study) -> tuple[tuple[str, str], ...]:
    """The declared comparisons. Raises InputError for a study without one."""
    from leukotree.report import arms

    rows = cells.rows(cells.expand(study)) if study.has_grid else []
    of_variants = study.search.trials or not study.has_grid
    expected = [{"variant": variant} for variant in study.variants if of_variants]
    named = [arm for arm, _ in arms.from_rows(expected, rows)]
    declared = arms.primary(study.model_dump(mode="json"), study.variants, named)
    if not declared:
        raise InputError(
            f"study {study.study!r}: declares no comparison, and no flat arm to compare with; give `primary`"
        )
    return declared


def patients(study: Study, given: Sequence[int] | None) -> Patients:
    """The patients of each leaf, from the shards, else equal numbers of the first number in `given`. Raises
    InputError without both."""
    from leukotree.data import fingerprint
    from leukotree.data.dataset import Dataset
    from leukotree.taxonomy import Taxonomy

    shards = study.base.data.shards
    if fingerprint.packed(shards):
        dataset = Dataset.open(shards, ends=False)
        groups = dataset.index.groupby("leaf")["group"]
        total = int(dataset.index["group"].nunique())
        return Patients(
            groups.nunique().tolist(), groups.size().tolist(), total, f"{dataset.groups} of {shards}"
        )
    if not given:
        raise InputError(f"{shards}: no packed data set, so its patients are not known; give --patients N")
    leaves = len(Taxonomy.paper().leaves)
    each = max(1, round(given[0] / leaves))
    where = f"assumed: {leaves} leaves with equally many patients of {IMAGES} images ({shards} is not here)"
    return Patients([each] * leaves, [each * IMAGES] * leaves, given[0], where)


def assumed(study: Study, there: Patients, what: Assumed) -> Known:
    """The spread by assumptions, for the patients of the data set."""
    from leukotree.stats import power

    of_patients = power.spread_of_patients(
        there.of_leaf, there.images, study.folds.outer, what.score, what.icc, what.agreement
    )
    return Known(power.Spread(of_patients, what.training, what.method), str(what))


def measured(summary: StudySummary, pair: tuple[str, str]) -> Known:
    """The spread in the finished runs of a study. Raises InputError where it has too few."""
    from leukotree.report import pilot

    found = pilot.measure(summary, pair)
    source = (
        f"the pilot {summary.name} ({found.challenger} − {found.reference} on {found.folds} folds x "
        f"{found.seeds} seed(s), {found.patients:.0f} test patients in each)"
    )
    return Known(found.spread, source, found.df)


def designs(study: Study, there: Patients, wanted: Wanted) -> tuple[list[Design], Design]:
    """(the designs of the table, the study's own among them): sorted by patients, then by runs. Raises
    InputError for too many."""
    from leukotree.stats.power import Design

    own = Design(study.folds.outer, study.folds.repeats, len(study.seeds), there.total)
    folds = wanted.folds or sorted({own.folds, 10})
    if min(folds) < 2:
        raise InputError(f"--folds {min(folds)}: cross-validation needs at least 2")
    share = min(there.of_leaf) / sum(there.of_leaf)
    listed = [
        Design(k, r, s, n)
        for n in wanted.patients or [there.total, 2 * there.total, 4 * there.total]
        for k in folds
        if k <= share * n + 1e-9 or k == own.folds  # each fold needs a patient of each leaf
        for r in wanted.repeats or sorted({own.repeats, 1, 3})
        for s in wanted.seeds or sorted({own.seeds, 1, 3})
    ]
    every = list(dict.fromkeys([own, *listed]))
    if len(every) > MOST:
        raise InputError(f"{len(every)} designs; a table has at most {MOST}: give fewer numbers")
    return sorted(every, key=lambda one: (one.patients, one.runs, one)), own


def plan(
    study: Study, declared: Sequence[tuple[str, str]], there: Patients, known: Known, wanted: Wanted
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(the content of plan.json, the rows of the table). Planned is the study's own design if it has the
    wanted power, else the first row that has it: fewest patients, who are hard to get, then fewest runs."""
    listed, own = designs(study, there, wanted)
    given = (wanted.effect, study.rope, len(declared))
    bar = progress.over(listed, "plan", len(listed), "design")
    rows = [_row(design, known, *given) for design in bar]
    of_study = next(row for row in rows if all(row[key] == getattr(own, key) for key in DESIGN))
    powered = [row for row in rows if enough(row, wanted.power)]
    content = {
        "challenger": declared[0][0],
        "reference": declared[0][1],
        "effect": wanted.effect,
        "wanted": wanted.power,
        "rope": study.rope,
        "pairs": len(declared),
        "source": known.source,
        "spread": known.spread._asdict(),
        "df": known.df,
        "study": of_study,
        "smallest": next(iter(powered), None),
        "planned": of_study if of_study in powered else next(iter(powered), None),
    }
    return content, rows


def enough(row: dict[str, Any], wanted: float) -> bool:
    """Whether a design has the wanted power, however its folds depend on each other."""
    return min(row["power"][0], row["power_independent"][0]) >= wanted


def _row(design: Design, known: Known, effect: float, rope: float, family: int) -> dict[str, Any]:
    """A design with its power: with correlated folds, with independent ones, and with a cautious spread."""
    from leukotree.stats import power

    given = (effect, rope, family)
    cautious = known.spread.scaled(power.upper_limit(known.df)) if known.df else None
    return {
        **design._asdict(),
        "runs": design.runs,
        "sd": known.spread.of_fold(design),
        "power": _rounded(power.power(design, known.spread, *given, "correlated")),
        "power_independent": _rounded(power.power(design, known.spread, *given, "independent")),
        "power_cautious": cautious and _rounded(power.power(design, cautious, *given, "correlated")),
    }


def _rounded(value: Power) -> list[float]:
    return [round(number, 4) for number in value]


def lines(
    study: Study, content: dict[str, Any], rows: Sequence[dict[str, Any]], there: Patients, kept: Path | None
) -> list[str]:
    """The answer for people. `kept`: the file that was written; None if an earlier plan stays."""
    from leukotree.stats import power

    spread, of_study = power.Spread(**content["spread"]), content["study"]
    others = f"; the others of {content['pairs']} declared comparisons have none"
    written = f"written to {kept}" if kept else "not written: runs have finished since the study was planned"
    return [
        f"{study.study}: {content['challenger']} against {content['reference']}, a true difference of "
        f"{100 * content['effect']:+g} points of macro F1{others if content['pairs'] > 1 else ''}",
        f"patients: {there.where}",
        f"spread: {content['source']}",
        f"standard deviations in points: {100 * spread.patients:.1f} of a patient, "
        f"{100 * spread.training:.1f} of training, {100 * spread.method:.1f} of the method; "
        f"{100 * of_study['sd']:.1f} of a fold of this study",
        "power: folds are correlated as the test assumes. runs: of each arm, without its search",
        "",
        *align(_table(rows, cautious=content["df"] is not None)),
        "",
        _smallest(content),
        *(_of_pilot(content["df"]) if content["df"] else []),
        written,
    ]


def _table(rows: Sequence[dict[str, Any]], cautious: bool) -> list[list[str]]:
    header = [*KEYS, "power", "95 %", "if folds are independent", *(["cautious"] if cautious else [])]
    table = [header]
    for row in rows:
        value, low, high = row["power"]
        others = [row["power_independent"], *([row["power_cautious"]] if cautious else [])]
        table.append(
            [
                *(str(row[key]) for key in KEYS),
                f"{100 * value:.0f} %",
                f"{100 * low:.0f} to {100 * high:.0f}",
                *(f"{100 * other[0]:.0f} %" for other in others),
            ]
        )
    return table


def _smallest(content: dict[str, Any]) -> str:
    from leukotree.stats.power import Design

    wanted, smallest = f"{100 * content['wanted']:g} %", content["smallest"]
    of_study = f"this study has {100 * content['study']['power'][0]:.0f} %"
    if smallest is None:
        return f"no design of the table has {wanted}; {of_study}; try more patients or repeats"
    design = Design(*(smallest[key] for key in DESIGN))
    return f"smallest with {wanted} (fewest patients, then fewest runs): {design}; {of_study}"


def _of_pilot(df: int) -> list[str]:
    from leukotree.stats import power

    return [
        f"cautious: with {power.upper_limit(df):.2f} times the measured spread, its upper 80 % limit "
        f"({df} degrees of freedom)",
        "note: the results of a study must not decide when it stops or how far it is extended; plan the next "
        "study with them",
    ]
