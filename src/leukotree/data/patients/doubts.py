"""What about the ids of patients may be wrong, though each is allowed: look-alikes, one id in several places,
spreadsheets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from leukotree.data.patients import identities, lookalikes, spreadsheets

_LISTED = 5


@dataclass(frozen=True)
class Case:
    """Ids of one doubt, with the sources or leaves that they stand under where these matter."""

    ids: tuple[str, ...]
    sources: tuple[str, ...] = ()
    leaves: tuple[str, ...] = ()

    def __str__(self) -> str:
        places = [*(f"source {name!r}" for name in self.sources), *self.leaves]
        ids = map(_shown if len(self.ids) > 1 else repr, self.ids)
        return " and ".join(ids) + (f" ({', '.join(places)})" if places else "")


@dataclass(frozen=True)
class Doubt:
    """One thing that a person has to judge, with every case of it."""

    kind: str
    """similar-ids, several-sources, several-leaves, spreadsheet, similar-sources, nobody, joined or
    kept-apart."""
    what: str
    cases: tuple[Case, ...]
    advice: str
    warns: bool = True
    """False for what is right as often as wrong, or was chosen."""

    def text(self) -> str:
        """What, how many, the first few, and what to do."""
        listed = "; ".join(str(case) for case in self.cases[:_LISTED])
        more = f"; and {len(self.cases) - _LISTED} more" if len(self.cases) > _LISTED else ""
        return f"{len(self.cases)} {self.what}: {listed}{more}. {self.advice}"

    def line(self) -> str:
        """For people."""
        return f"{'warning' if self.warns else 'note'}: {self.text()}"

    def as_dict(self) -> dict[str, Any]:
        """For scripts, every case."""
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
    """The rows of a manifest with the ids and groups that were chosen, and what remains to judge.

    `similar_ids`: of `identities.SIMILAR`; None warns. `across_sources`: an id is the same person in every
    source.
    """
    groups = similar(frame, across_sources)
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
        return frame, (joined, *find(frame, similar_ids, across_sources, []))
    return frame, find(frame, similar_ids, across_sources, groups)


def find(
    frame: pd.DataFrame,
    similar_ids: str | None = None,
    across_sources: bool = False,
    groups: list[list[tuple[str, str]]] | None = None,
) -> tuple[Doubt, ...]:
    """All doubts about rows with `leaf`, `patient` ("" where unknown) and `source`; `groups` as of `similar`,
    if known."""
    named = frame.loc[frame["patient"] != "", ["source", "patient", "leaf"]].drop_duplicates()
    sources = sorted(frame["source"].unique())
    groups = similar(frame, across_sources) if groups is None else groups
    across = () if across_sources else _across(named)
    unlike = " --similar-ids join" if any(len(case.ids) > 1 for case in across) else ""
    candidates = [
        _similar(groups, similar_ids == "keep", len(sources) > 1),
        Doubt(
            "several-sources",
            "patient id(s) stand under several sources",
            across,
            "If the sources are of one hospital, each is one person, who may stand in several folds: pack with "
            f"`--patients-across-sources{unlike}`. In data sets that have nothing to do with each other they are different "
            "people",
        ),
        Doubt(
            "similar-sources",
            "group(s) of sources look alike",
            tuple(map(Case, _alike_texts(sources))),
            "If they are one source, write its name in one way in the manifest",
        ),
        Doubt(
            "spreadsheet",
            "patient id(s) look like a date or a shortened number that a spreadsheet made of an id",
            tuple(
                Case((text,)) for text in sorted(named["patient"].unique()) if spreadsheets.looks_made(text)
            ),
            "Compare them with the original list, and keep ids as text there",
        ),
        Doubt(
            "nobody",
            "patient id(s) name nobody, and all their images count as one patient",
            tuple(
                Case((text,)) for text in sorted(named["patient"].unique()) if identities.names_nobody(text)
            ),
            "Leave the patient empty in the manifest and pack again",
        ),
        Doubt(
            "several-leaves",
            "patient id(s) stand under several leaves",
            _leaves(named, across_sources, len(sources) > 1),
            "Right for one patient with images of several leaves. People who were numbered anew for each leaf count as one "
            "patient so: give them ids of their own, such as AML-001",
            warns=False,
        ),
    ]
    return tuple(doubt for doubt in candidates if doubt.cases)


def similar(frame: pd.DataFrame, across_sources: bool = False) -> list[list[tuple[str, str]]]:
    """Groups of two or more patients (source, id) whose ids differ and look alike, within a source or in all
    of them."""
    pairs = _pairs(frame)
    scoped = [("" if across_sources else source, identities.normal(text)) for source, text in pairs]
    groups = [[pairs[position] for position in group] for group in lookalikes.alike(scoped)]
    return [group for group in groups if len({text for _, text in group}) > 1]


def _shown(text: str) -> str:
    """An id in quotation marks, with the codes of characters that may look like others."""
    codes = " ".join(f"U+{ord(letter):04X}" for letter in dict.fromkeys(text) if not letter.isascii())
    return repr(text) + (f" [{codes}]" if codes else "")


def _pairs(frame: pd.DataFrame) -> list[tuple[str, str]]:
    named = frame.loc[frame["patient"] != "", ["source", "patient"]].drop_duplicates()
    return sorted(zip(named["source"].tolist(), named["patient"].tolist(), strict=True))


def _cases(groups: Iterable[list[tuple[str, str]]], with_sources: bool = False) -> tuple[Case, ...]:
    return tuple(
        Case(
            _unique(text for _, text in group), _unique(source for source, _ in group) if with_sources else ()
        )
        for group in groups
    )


def _similar(groups: list[list[tuple[str, str]]], kept: bool, with_sources: bool) -> Doubt:
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
        "Each id counts as a patient, so one person may stand in several folds: pack with `--similar-ids join` if the ids of a "
        "group are one patient, with `--similar-ids keep` if they are not",
    )


def _across(named: pd.DataFrame) -> tuple[Case, ...]:
    if named["source"].nunique() < 2:
        return ()
    pairs = _pairs(named)
    groups = [
        [pairs[i] for i in group]
        for group in lookalikes.alike([("", identities.normal(text)) for _, text in pairs])
    ]
    return _cases([group for group in groups if len({source for source, _ in group}) > 1], with_sources=True)


def _leaves(named: pd.DataFrame, across_sources: bool, with_sources: bool) -> tuple[Case, ...]:
    found = []
    by = ["patient"] if across_sources else ["source", "patient"]
    several = named[named.groupby(by)["leaf"].transform("nunique") > 1]
    for _, rows in several.groupby(by):
        found.append(
            Case(
                (rows["patient"].iloc[0],),
                _unique(rows["source"]) if with_sources else (),
                _unique(rows["leaf"]),
            )
        )
    return tuple(found)


def _alike_texts(texts: list[str]) -> list[tuple[str, ...]]:
    groups = lookalikes.alike([("", identities.normal(text)) for text in texts])
    return [tuple(texts[position] for position in group) for group in groups]


def _unique(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(texts)))
