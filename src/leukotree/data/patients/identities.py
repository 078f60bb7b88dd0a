"""Ids of patients: one spelling for each id, texts that mean "no patient", and ids that are joined."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

SIMILAR = ("join", "keep")
"""What ids that look alike can mean: "join" for one patient, "keep" for several."""
# Code points that are drawn as nothing (Unicode's Default_Ignorable_Code_Point), besides the category Cf.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_BRAILLE_BLANK = "\u2800"
_NOBODY = re.compile(
    "na|nan|nat|none|null?|nil|inf|infinity|unk|unknown|unbekannt|inconnu|desconocido|undef|undefined|missing"
    "|empty|blank|void|tb[ad]|keineangaben?|onbekend|sconosciut[oa]|desconocida|desconhecid[oa]|sindatos?"
    "|неизвестн[оы]й?|нетданных|未知|不明|不详|不詳|無|无"
    "|noid|nopatient|not(known|available|applicable|given)|unknownpatient|patientunknown"
    "|anonym|anonymous|anonymi[sz]ed|1(ind|qnan|inf)"
)
"""Texts, without separators, that mean "no patient"."""
_ERRORS = re.compile("ref|value|name|num|div0|field|spill|calc|connect|blocked|busy|gettingdata")
"""Errors of a spreadsheet, after the sign #: #REF! means "no patient", but Ref may be an id."""
_NOBODY_WITH_SEPARATORS = frozenset({"#n/a n/a", "\\n"})


def normal(text: str) -> str:
    """Return an id in one spelling: composed letters (NFC), no invisible characters, single plain spaces."""
    if not text.isascii():
        visible = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")
        visible = _INVISIBLE.sub("", visible)
        text = "".join(" " if _is_space(letter) else letter for letter in visible)
        text = unicodedata.normalize("NFC", text)
    return re.sub(" +", " ", text).strip(" ")


def _is_space(letter: str) -> bool:
    return letter == _BRAILLE_BLANK or unicodedata.category(letter) == "Zs"


def normal_column(texts: pd.Series) -> pd.Series:
    """Return `normal` of each text."""
    return texts.map({text: normal(text) for text in texts.unique()})


def names_nobody(text: str) -> bool:
    """Return whether an id means "no patient", as nan, NA, None, #REF!, - and ? do. False for ""."""
    categories = [unicodedata.category(letter) for letter in text]
    if not any(category[0] in "LNM" or category == "So" for category in categories):
        return bool(text)
    folded = unicodedata.normalize("NFKC", text).casefold()
    bare = re.sub(r"[\W_]", "", folded)
    error = folded.startswith("#") and _ERRORS.fullmatch(bare)
    return bool(_NOBODY.fullmatch(bare) or error or folded in _NOBODY_WITH_SEPARATORS)


def persons(frame: pd.DataFrame, across_sources: bool = False) -> pd.Series:
    """Return each row's patient as a unique text, "" where unknown.

    An id means one person within a source, or in all sources if `across_sources`. Sources are escaped, so
    that different pairs of source and id give different texts. No source is empty, so a pair never equals an
    id of all sources.
    """
    home = "" if across_sources else _escaped(frame["source"])
    return (home + "/" + frame["patient"]).where(frame["patient"] != "", "")


def group_ids(frame: pd.DataFrame, across_sources: bool = False) -> pd.Series:
    """Return what the folds keep together: the patient or slide, or the image if `group` is "image"."""
    images = _escaped(frame["source"]) + "/" + frame["name"]
    return persons(frame, across_sources).where(frame["group"] != "image", images)


def join(frame: pd.DataFrame, groups: list[list[tuple[str, str]]], across_sources: bool) -> pd.DataFrame:
    """Return the rows with one id for all ids of a group; ids are given as (source, id).

    It is the id with the most images, and the first in sorted order of several such ids.
    """
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
