"""Who an image is of: ids in one spelling, texts that name nobody, and patients joined over spellings and
sources."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

SIMILAR = ("join", "keep")
"""What to do with ids that look alike: one patient, or several. By default several, with a warning."""
# Drawn as nothing by Unicode's rules (Default_Ignorable_Code_Point), beside the format characters; the
# Braille blank is a space.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_NOBODY = re.compile(
    "na|nan|nat|none|null?|nil|inf|infinity|unk|unknown|unbekannt|inconnu|desconocido|undef|undefined|missing|empty|blank|void|tb[ad]"
    "|keineangaben?|onbekend|sconosciut[oa]|desconocida|desconhecid[oa]|sindatos?|неизвестн[оы]й?|нетданных|未知|不明|不详|不詳|無|无"
    "|noid|nopatient|not(known|available|applicable|given)|unknownpatient|patientunknown|anonym|anonymous|anonymi[sz]ed|1(ind|qnan|inf)"
)
_ERRORS = re.compile("ref|value|name|num|div0|field|spill|calc|connect|blocked|busy|gettingdata")
"""Of a spreadsheet, behind its sign: #REF! names nobody, Ref may."""
_WHOLE = frozenset({"#n/a n/a", "\\n"})


def normal(text: str) -> str:
    """An id in the one spelling that all its spellings share: composed letters (NFC), nothing invisible,
    single plain spaces within and none around."""
    if not text.isascii():
        shown = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")
        shown = _INVISIBLE.sub("", shown)
        text = "".join(
            " " if letter == "\u2800" or unicodedata.category(letter) == "Zs" else letter for letter in shown
        )
        text = unicodedata.normalize("NFC", text)
    return re.sub(" +", " ", text).strip(" ")


def normal_column(texts: pd.Series) -> pd.Series:
    """`normal` of each."""
    return texts.map({text: normal(text) for text in texts.unique()})


def names_nobody(text: str) -> bool:
    """Whether an id is what programs and people write where there is none: nan, NA, None, #REF!, -, ?"""
    if not any(
        unicodedata.category(letter)[0] in "LNM" or unicodedata.category(letter) == "So" for letter in text
    ):
        return bool(text)
    folded = unicodedata.normalize("NFKC", text).casefold()
    bare = re.sub(r"[\W_]", "", folded)
    wrong = folded.startswith("#") and _ERRORS.fullmatch(bare)
    return bool(_NOBODY.fullmatch(bare) or wrong or folded in _WHOLE)


def persons(frame: pd.DataFrame, across_sources: bool = False) -> pd.Series:
    """Who each row's patient is, "" where unknown: an id is one person's within a source, or in all of them.

    Escaped, so that no two pairs of source and id read the same; no source is empty, so none reads like an id
    of all sources.
    """
    home = "" if across_sources else _escaped(frame["source"])
    return (home + "/" + frame["patient"]).where(frame["patient"] != "", "")


def group_ids(frame: pd.DataFrame, across_sources: bool = False) -> pd.Series:
    """What the folds keep together: the patient or slide, or by the column `group` the image alone."""
    return persons(frame, across_sources).where(
        frame["group"] != "image", _escaped(frame["source"]) + "/" + frame["name"]
    )


def join(frame: pd.DataFrame, groups: list[list[tuple[str, str]]], across_sources: bool) -> pd.DataFrame:
    """The rows with one id for the ids of each group, given as (source, id): that of most images, the first
    of several such."""
    images = frame.groupby(["source", "patient"]).size()
    renamed: dict[tuple[str, str], str] = {}
    for members in groups:
        counts: dict[str, int] = {}
        for member in members:
            counts[member[1]] = counts.get(member[1], 0) + int(images[member])
        chosen = min(counts, key=lambda text: (-counts[text], text))
        renamed |= dict.fromkeys(members, chosen)
    pairs = zip(frame["source"], frame["patient"], strict=True)
    joined = frame.assign(patient=[renamed.get(pair, pair[1]) for pair in pairs])
    return joined.assign(group_id=group_ids(joined, across_sources))


def _escaped(source: pd.Series) -> pd.Series:
    return source.str.replace("%", "%25").str.replace("/", "%2F")
