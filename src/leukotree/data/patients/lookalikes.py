"""Ids that look alike: different texts that may mean one patient.

They differ by case, width, accents, punctuation, zeros or alphabet, or a spreadsheet changed one of them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Hashable, Iterable
from functools import cache

import numpy as np

from leukotree.data.patients import homoglyphs, spreadsheets

_QUOTES = dict.fromkeys(map(ord, "'\"`´‘’‚‛“”„‟′″‵‹›«»ʹʺʻʼʽˈˊˋ˴＇＂꞉Ꞌꞌ"))
_WRITTEN_OUT = str.maketrans({"ä": "ae", "ö": "oe", "ø": "oe", "ü": "ue", "å": "aa"})
"""How letters are written where the keyboard lacks them."""
_POINTS = str.maketrans({"٫": ".", "٬": ","})
_QUOTED = re.compile("['\"`]")
_BETWEEN = re.compile("[^0-9a-z]+")
_HYPHENS = re.compile("-+")
_EDGE = re.compile("(?<=[0-9])-(?=[^0-9])|(?<=[^0-9])-(?=[0-9])")
_WORD = re.compile("[^\\W0-9e_]")
_ZEROS = re.compile("(?<![0-9])0+(?=[0-9])")


def alike(ids: Iterable[tuple[Hashable, str]]) -> list[list[int]]:
    """Return the groups of ids that look alike, as ascending positions, in the order of their first ids.

    Two ids of one scope look alike if they share a key (see `readings`), if a spreadsheet may turn one into
    the other, or if both look like a third.

    Args:
        ids: (scope, text), where the text is as `identities.normal` gives it.
    """
    ids = list(ids)
    owners: dict[tuple[Hashable, str], int] = {}
    links: list[tuple[int, int]] = []
    rewritten: list[tuple[int, Hashable, set[str]]] = []
    for position, (scope, text) in enumerate(ids):
        keys, rewrites = readings(text)
        for key in keys:
            if (owner := owners.setdefault((scope, key), position)) != position:
                links.append((owner, position))
        if rewrites:
            rewritten.append((position, scope, rewrites))
    for position, scope, rewrites in rewritten:
        for key in rewrites:
            if (other := owners.get((scope, key), position)) != position:
                links.append((other, position))
    return _components(links, len(ids)) if links else []


def readings(text: str) -> tuple[set[str], set[str]]:
    """Return (keys, rewrites) of an id.

    Two ids that share a key look alike. A rewrite is the key of a text that a spreadsheet may write instead
    of the id. Two ids that only share a rewrite do not look alike, since each has many of them.
    """
    bare = _bare(text)
    latin = bare if bare.isascii() else bare.translate(homoglyphs.LETTERS)
    variants = {bare, latin}
    if not text.isascii():
        small = text.casefold()  # some accents are small letters
        variants |= {_bare(small), _bare(small.translate(_WRITTEN_OUT))}
    keys: set[str] = set()
    rewrites: set[str] = set()
    for letters in variants:
        folded = _folded(letters)
        plain = spelling(folded)
        keys |= {plain, spreadsheets.without_time(plain)}
        if not _WORD.search(folded):
            keys |= {spelling(number) for number in spreadsheets.numbers(folded)}
            keys |= spreadsheets.powers(folded)
            rewrites |= spreadsheets.shortened(plain) | spreadsheets.redated(plain)
        elif spreadsheets.names_month(plain):
            keys |= spreadsheets.dates(plain)
    # This key keeps leading zeros: HO12 is not H12.
    keys.add(_separated(_folded(latin.translate(homoglyphs.READINGS))))
    # An id without letters and digits is compared by its signs.
    return keys - {""} or {"".join(unicodedata.normalize("NFKD", text).split())}, rewrites


def spelling(folded: str) -> str:
    """Return letters and runs of digits without leading zeros; a hyphen separates two runs of one kind."""
    return _ZEROS.sub("", _separated(folded))


def _separated(folded: str) -> str:
    """Return the text with single hyphens as separators, and none between a digit and a letter."""
    text = folded if folded.isascii() else "".join(map(_separator_to_hyphen, folded))
    text = (_BETWEEN if folded.isascii() else _HYPHENS).sub("-", text)
    return _EDGE.sub("", text.strip("-"))


def _bare(text: str) -> str:
    """Return the text in plain letters: compatibility forms are replaced, accents removed."""
    return _unmarked(text if text.isascii() else unicodedata.normalize("NFKD", text.translate(_POINTS)))


def _unmarked(text: str) -> str:
    """Return decomposed text without accents, optional vowel points and quotation marks.

    1'000 becomes 1000, and O'Neill becomes ONeill.
    """
    if text.isascii():
        return _QUOTED.sub("", text)
    return "".join(letter for letter in text.translate(_QUOTES) if not _is_accent(letter))


def _folded(text: str) -> str:
    """Return the text in small letters and ASCII digits."""
    if text.isascii():
        return text.lower()
    folded = _unmarked(unicodedata.normalize("NFKD", text.casefold())).replace("ı", "i").replace("ς", "σ")
    return "".join(map(_digit, folded))


@cache
def _is_accent(letter: str) -> bool:
    """Return whether this is a mark on a letter. Indian vowel signs and the voicing of kana are none."""
    combining_class = unicodedata.combining(letter)
    return combining_class == 1 or combining_class >= 200 or 10 <= combining_class <= 36


@cache
def _digit(letter: str) -> str:
    value = unicodedata.digit(letter, None)
    return letter if value is None else str(value)


@cache
def _separator_to_hyphen(letter: str) -> str:
    category = unicodedata.category(letter)
    return "-" if category[0] in "PZ" or category in ("Sm", "Sk", "Sc", "Cc", "Cf") else letter


def _components(links: list[tuple[int, int]], count: int) -> list[list[int]]:
    """Return the connected components of a graph of `count` positions, without single ones."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    starts, ends = np.array(links).T
    graph = coo_array((np.ones(len(links)), (starts, ends)), (count, count))
    labels = connected_components(graph, directed=False)[1]
    members: dict[int, list[int]] = {}
    for position in np.unique(starts.tolist() + ends.tolist()):
        members.setdefault(int(labels[position]), []).append(int(position))
    return sorted(members.values())
