"""Doubts about the ids of patients: allowed ids that may be wrong, for a person to judge.

Examples are ids that look alike, one id in several sources, and ids that a spreadsheet changed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from leukotree.data.patients import identities, lookalikes, spreadsheets

_LISTED = 5
"""Largest number of cases in a text."""


@dataclass(frozen=True)
class Case:
    """The ids of one case of a doubt, with their sources or leaves if these matter."""

    ids: tuple[str, ...]
    sources: tuple[str, ...] = ()
    leaves: tuple[str, ...] = ()

    def __str__(self) -> str:
        places = [*(f"source {name!r}" for name in self.sources), *self.leaves]
        ids = map(_shown if len(self.ids) > 1 else repr, self.ids)
        return " and ".join(ids) + (f" ({', '.join(places)})" if places else "")


@dataclass(frozen=True)
class Doubt:
    """One question for a person to judge, with all its cases."""

    kind: str
    """similar-ids, several-sources, several-leaves, spreadsheet, similar-sources, nobody, joined or
    kept-apart."""
    what: str
    cases: tuple[Case, ...]
    advice: str
    warns: bool = True
    """False if the cases are right as often as wrong, or were chosen by an option."""

    def text(self) -> str:
        """Return the number of cases, the first few of them, and what to do."""
        listed = "; ".join(str(case) for case in self.cases[:_LISTED])
        more = f"; and {len(self.cases) - _LISTED} more" if len(self.cases) > _LISTED else ""
        return f"{len(self.cases)} {self.what}: {listed}{more}. {self.advice}"

    def line(self) -> str:
        """Return the text for people, with "warning" or "note"."""
        return f"{'warning' if self.warns else 'note'}: {self.text()}"

    def as_dict(self) -> dict[str, Any]:
        """Return all cases for scripts."""
        cases = [{name: list(values) for name, values in vars(case).items() if values} for case in self.cases]
        return {
            "kind": self.kind,
            "what": self.what,
            "cases": cases,
            "advice": self.advice,
            "warns": self.warns,
        }


def settle(
    frame: pd.DataFrame, similar_ids: str | None = None, across_sources: bool = False
) -> tuple[pd.DataFrame, tuple[Doubt, ...]]:
    """Return a manifest's rows with the ids and groups that the options choose, and the remaining doubts.

    Args:
        similar_ids: what ids that look alike mean, one of `identities.SIMILAR`; None gives a warning.
        across_sources: whether an id means the same patient in every source.
    """
    groups = similar(frame, across_sources)
    slides = set(frame.loc[frame["group"] == "slide", "source"])
    if across_sources:
        frame = frame.assign(group_id=identities.group_ids(frame, across_sources))
    if similar_ids == "join" and groups:
        frame = identities.join(frame, groups, across_sources)
        joined = Doubt(
            "joined",
            "group(s) of ids that look alike are one patient each",
            _cases(groups),
            "Chosen: --similar-ids join",
            False,
        )
        return frame, (joined, *find(frame, similar_ids, across_sources, [], slides))
    return frame, find(frame, similar_ids, across_sources, groups, slides)


def find(
    frame: pd.DataFrame,
    similar_ids: str | None = None,
    across_sources: bool = False,
    groups: list[list[tuple[str, str]]] | None = None,
    slides: Collection[str] = (),
) -> tuple[Doubt, ...]:
    """Return all doubts about the rows; see `settle` for the options.

    Args:
        frame: columns leaf, source and patient, which is "" where unknown.
        groups: the result of `similar`, if known.
        slides: sources with ids of slides. These are not compared with the ids of patients in other sources.
    """
    named = frame.loc[frame["patient"] != "", ["source", "patient", "leaf"]].drop_duplicates()
    sources = sorted(frame["source"].unique())
    with_sources = len(sources) > 1
    groups = similar(frame, across_sources) if groups is None else groups
    candidates = [
        _similar_ids(groups, similar_ids == "keep", with_sources),
        _several_sources(() if across_sources else _across(named, slides)),
        _similar_sources(sources),
        *_wrong_ids(sorted(named["patient"].unique())),
        _several_leaves(named, across_sources, with_sources),
    ]
    return tuple(doubt for doubt in candidates if doubt.cases)


def similar(frame: pd.DataFrame, across_sources: bool = False) -> list[list[tuple[str, str]]]:
    """Return the groups of two or more patients, given as (source, id), whose ids differ and look alike.

    Ids of different sources are only compared if `across_sources`.
    """
    pairs = _pairs(frame)
    scoped = [("" if across_sources else source, identities.normal(text)) for source, text in pairs]
    groups = [[pairs[position] for position in group] for group in lookalikes.alike(scoped)]
    return [group for group in groups if len({text for _, text in group}) > 1]


def _shown(text: str) -> str:
    """Return an id in quotation marks, with the codes of characters that may look like others."""
    codes = " ".join(f"U+{ord(letter):04X}" for letter in dict.fromkeys(text) if not letter.isascii())
    return repr(text) + (f" [{codes}]" if codes else "")


def _pairs(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """Return all (source, patient), sorted."""
    named = frame.loc[frame["patient"] != "", ["source", "patient"]].drop_duplicates()
    return sorted(zip(named["source"].tolist(), named["patient"].tolist(), strict=True))


def _cases(groups: Iterable[list[tuple[str, str]]], with_sources: bool = False) -> tuple[Case, ...]:
    """Return the cases for groups of (source, id)."""

    def case(group: list[tuple[str, str]]) -> Case:
        sources = _unique(source for source, _ in group) if with_sources else ()
        return Case(_unique(text for _, text in group), sources)

    return tuple(map(case, groups))


def _similar_ids(groups: list[list[tuple[str, str]]], kept: bool, with_sources: bool) -> Doubt:
    cases = _cases(groups, with_sources)
    if kept:
        return Doubt(
            "kept-apart",
            "group(s) of ids look alike and are different patients",
            cases,
            "Chosen: --similar-ids keep",
            False,
        )
    return Doubt(
        "similar-ids",
        "group(s) of patient ids look alike",
        cases,
        "Each id counts as a patient, so one person may be in several folds: pack with `--similar-ids join` "
        "if the ids of a group are one patient, with `--similar-ids keep` if they are not",
    )


def _several_sources(cases: tuple[Case, ...]) -> Doubt:
    different = " --similar-ids join" if any(len(case.ids) > 1 for case in cases) else ""
    return Doubt(
        "several-sources",
        "patient id(s) are in several sources",
        cases,
        "If the sources are of one hospital, each is one person, who may be in several folds: pack with "
        f"`--patients-across-sources{different}`. In data sets that have nothing to do with each other they "
        "are different people",
    )


def _similar_sources(sources: list[str]) -> Doubt:
    alike = lookalikes.alike([("", identities.normal(text)) for text in sources])
    return Doubt(
        "similar-sources",
        "group(s) of sources look alike",
        tuple(Case(tuple(sources[position] for position in group)) for group in alike),
        "If they are one source, write its name in one way in the manifest",
    )


def _wrong_ids(ids: list[str]) -> tuple[Doubt, Doubt]:
    """Return the doubts about single ids that may be no ids."""
    return (
        Doubt(
            "spreadsheet",
            "patient id(s) look like a date or a shortened number that a spreadsheet made of an id",
            tuple(Case((text,)) for text in ids if spreadsheets.looks_made(text)),
            "Compare them with the original list, and keep ids as text there",
        ),
        Doubt(
            "nobody",
            "patient id(s) name nobody, and all their images count as one patient",
            tuple(Case((text,)) for text in ids if identities.names_nobody(text)),
            "Make the patient empty in the manifest and pack again",
        ),
    )


def _several_leaves(named: pd.DataFrame, across_sources: bool, with_sources: bool) -> Doubt:
    by = ["patient"] if across_sources else ["source", "patient"]
    several = named[named.groupby(by)["leaf"].transform("nunique") > 1]
    cases = []
    for _, rows in several.groupby(by):
        sources = _unique(rows["source"]) if with_sources else ()
        cases.append(Case((rows["patient"].iloc[0],), sources, _unique(rows["leaf"])))
    return Doubt(
        "several-leaves",
        "patient id(s) have several leaves",
        tuple(cases),
        "Right for one patient with images of several leaves. But people whose numbers start again for each "
        "leaf count as one patient so: give them different ids, such as AML-001",
        warns=False,
    )


def _across(named: pd.DataFrame, slides: Collection[str]) -> tuple[Case, ...]:
    """Return the ids, or groups of ids that look alike, that are in several sources."""
    if named["source"].nunique() < 2:
        return ()
    pairs = _pairs(named)
    alike = lookalikes.alike([(source in slides, identities.normal(text)) for source, text in pairs])
    groups = [[pairs[position] for position in group] for group in alike]
    return _cases([group for group in groups if len({source for source, _ in group}) > 1], with_sources=True)


def _unique(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(texts)))
