"""Ids that differ as text and may mean the same: by case, width, accents, punctuation, zeros, alphabet, or a
spreadsheet."""

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
    """Groups of ids that look alike, as ascending positions, in the order of their first; each id is (its
    scope, its text).

    Ids are compared within their scope. They look alike if they share a reading (see `readings`), if one is
    what a spreadsheet makes of the other, or if a third links them. Texts are normal (see
    `identities.normal`).
    """
    ids = list(ids)
    owners: dict[tuple[Hashable, str], int] = {}
    links: list[tuple[int, int]] = []
    changeable: list[tuple[int, Hashable, set[str]]] = []
    for position, (scope, text) in enumerate(ids):
        keys, rewrites = readings(text)
        for key in keys:
            if (owner := owners.setdefault((scope, key), position)) != position:
                links.append((owner, position))
        if rewrites:
            changeable.append((position, scope, rewrites))
    for position, scope, rewrites in changeable:
        for key in rewrites:
            if (other := owners.get((scope, key), position)) != position:
                links.append((other, position))
    return _components(links, len(ids)) if links else []


def readings(text: str) -> tuple[set[str], set[str]]:
    """(keys, rewrites) of an id. Two that share a key look alike. A rewrite is the key of what a spreadsheet
    may make of the id; two ids do not look alike by sharing one, as each may become many things."""
    bare = _bare(text)
    latin = bare if bare.isascii() else bare.translate(homoglyphs.LETTERS)
    keys: set[str] = set()
    rewrites: set[str] = set()
    small = text.casefold()  # some accents are small letters
    for letters in (
        {bare, latin} if text.isascii() else {bare, latin, _bare(small), _bare(small.translate(_WRITTEN_OUT))}
    ):
        folded = _folded(letters)
        plain = spelling(folded)
        keys |= {plain, spreadsheets.without_time(plain)}
        if not _WORD.search(folded):
            keys |= {spelling(number) for number in spreadsheets.numbers(folded)} | spreadsheets.powers(
                folded
            )
            rewrites |= spreadsheets.shortened(plain) | spreadsheets.redated(plain)
        elif spreadsheets.names_month(plain):
            keys |= spreadsheets.dates(plain)
    keys.add(
        _separated(_folded(latin.translate(homoglyphs.READINGS)))
    )  # zeros in front stay: HO12 is not H12
    # Without a letter or digit only the signs are left to compare by.
    return keys - {""} or {"".join(unicodedata.normalize("NFKD", text).split())}, rewrites


def spelling(folded: str) -> str:
    """Letters and runs of digits without leading zeros; a hyphen for what separates two runs of the same
    kind."""
    return _ZEROS.sub("", _separated(folded))


def _separated(folded: str) -> str:
    text = folded if folded.isascii() else "".join(map(_or_hyphen, folded))
    text = (_BETWEEN if folded.isascii() else _HYPHENS).sub("-", text)
    return _EDGE.sub("", text.strip("-"))


def _bare(text: str) -> str:
    """The letters that compatible and accented ones are made of."""
    return _unmarked(text if text.isascii() else unicodedata.normalize("NFKD", text.translate(_POINTS)))


def _unmarked(text: str) -> str:
    """Decomposed text without accents, optional vowel points, and quotation marks; 1'000 is 1000 and O'Neill
    is ONeill."""
    if text.isascii():
        return _QUOTED.sub("", text)
    return "".join(letter for letter in text.translate(_QUOTES) if not _is_accent(letter))


def _folded(text: str) -> str:
    """Small letters and ASCII digits."""
    if text.isascii():
        return text.lower()
    folded = _unmarked(unicodedata.normalize("NFKD", text.casefold())).replace("ı", "i").replace("ς", "σ")
    return "".join(map(_digit, folded))


@cache
def _is_accent(letter: str) -> bool:
    """Marks on letters, not those that are letters: vowel signs of India, voicing of kana."""
    place = unicodedata.combining(letter)
    return place == 1 or place >= 200 or 10 <= place <= 36


@cache
def _digit(letter: str) -> str:
    value = unicodedata.digit(letter, None)
    return letter if value is None else str(value)


@cache
def _or_hyphen(letter: str) -> str:
    category = unicodedata.category(letter)
    return "-" if category[0] in "PZ" or category in ("Sm", "Sk", "Sc", "Cc", "Cf") else letter


def _components(links: list[tuple[int, int]], count: int) -> list[list[int]]:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    one, other = np.array(links).T
    labels = connected_components(
        coo_array((np.ones(len(links)), (one, other)), (count, count)), directed=False
    )[1]
    members: dict[int, list[int]] = {}
    for position in np.unique(one.tolist() + other.tolist()):
        members.setdefault(int(labels[position]), []).append(int(position))
    return sorted(members.values())
