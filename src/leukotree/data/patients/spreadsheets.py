"""What spreadsheets and tables of numbers make of an id that reads like a number or a date."""

from __future__ import annotations

import re

_MONTHS = {
    name: number
    for number, names in enumerate(
        (
            "jan january januar",
            "feb february februar",
            "mar march mär mrz märz",
            "apr april",
            "may mai",
            "jun june juni",
            "jul july juli",
            "aug august",
            "sep sept september",
            "oct october okt oktober",
            "nov november",
            "dec december dez dezember",
        ),
        start=1,
    )
    for name in names.split()
}
_NAME = "(" + "|".join(sorted(_MONTHS, key=len, reverse=True)) + ")"
_MONTH = re.compile("jan|feb|m[aä]?r|apr|ma[iy]|ju[nl]|aug|sep|o[ck]t|nov|de[cz]")
_NUMBER = re.compile(r"([0-9]*)(?:[.,]([0-9]+))?(?:e([+-]?[0-9]{1,3}))?")
_GROUPED = re.compile(
    r"(?P<whole>[0-9]{1,3}(?P<by>[., _])(?:[0-9]{2,3}(?P=by))*[0-9]{3})(?:[.,](?P<part>[0-9]+))?"
)
_DAY_MONTH = re.compile(rf"(?:([0-9]{{1,2}})-?)?{_NAME}(?:-?([0-9]{{1,4}}))?(?:-([0-9]{{2,4}}))?")
_TWO = re.compile(r"([0-9]{1,2})-([0-9]{1,2})")
_THREE = re.compile(r"([0-9]{1,4})-([0-9]{1,2})-([0-9]{1,4})")
_MIDNIGHT = re.compile("^([0-9]{4}-[0-9]{1,2}-[0-9]{1,2})(?:t0|-0)-0(?:-0)?$")
_PRECISION = 15
"""Digits of a number that a spreadsheet keeps."""
_SHORT = 12
"""Numbers of this many digits and more are shown, and saved as CSV, in powers of ten ..."""
_SHOWN = (3, 6, 15)
"""... with so many digits: of the format 0.00E+00, of Excel and of LibreOffice."""
_MADE = re.compile(
    r"[0-9](\.[0-9]+)?E\+[0-9]{2,3}"
    r"|[0-9]{1,2}-(?P<first>[A-Z][a-zä]{2})(-[0-9]{2,4})?|(?P<last>[A-Z][a-zä]{2})-[0-9]{2}"
    r"|[0-9]{1,2}(?P<by>[./-])[0-9]{1,2}(?P=by)[0-9]{4}|[0-9]{4}-[0-9]{2}-[0-9]{2}([ T]00:00(:00(\.0+)?)?)?"
)


def looks_made(text: str) -> bool:
    """Whether an id is written as spreadsheets write a date or a long number: `2-Jan`, `Mar-01`,
    `1.23457E+15`."""
    match = _MADE.fullmatch(text)
    if match is None:
        return False
    month = match["first"] or match["last"]
    return month is None or month.casefold() in _MONTHS


def numbers(text: str) -> set[str]:
    """How the number that `text` (small letters) may stand for is written without grouping, exponent and
    zeros at its end.

    `1.0` -> 1; `1e3` -> 1000; `1,000` -> 1000; `1.000` -> 1 and 1000, as its point may be one of either kind.
    Empty for what is
    no number.
    """
    text = text.strip(" '\"=+-()#$€£%*")
    found = set()
    grouped = _GROUPED.fullmatch(text)
    if grouped:
        found.add(_plain(re.sub("[^0-9]", "", grouped["whole"]), grouped["part"] or "", 0))
    match = _NUMBER.fullmatch(text)
    if match and (match[1] or match[2]) and not (grouped and "," in text):
        found.add(_plain(match[1], match[2] or "", int(match[3] or 0)))
    return found - {""}


def powers(text: str) -> set[str]:
    """The long number that `text` (small letters) gives in powers of ten, as `shortened` names it."""
    match = _NUMBER.fullmatch(text.strip(" '\"=+"))
    if match is None or match[3] is None or not match[1]:
        return set()
    return {
        f"power {written}"
        for written in (_plain(match[1], match[2] or "", int(match[3])),)
        if len(written) >= _SHORT
    }


def shortened(spelling: str) -> set[str]:
    """What a spreadsheet leaves of a long number: its first 15 digits, or fewer of them and a power of ten
    (see `powers`)."""
    if not spelling.isdecimal() or len(spelling) < _SHORT:
        return set()
    found = {f"power {_rounded(spelling, digits)}" for digits in _SHOWN}
    return found | {spelling[:_PRECISION].ljust(len(spelling), "0")}


def without_time(spelling: str) -> str:
    """A date without the midnight that tables of dates add."""
    return _MIDNIGHT.sub(r"\1", spelling) if spelling.endswith("-0") else spelling


def names_month(spelling: str) -> bool:
    """Whether `dates` has a chance."""
    return _MONTH.search(spelling) is not None


def dates(spelling: str) -> set[str]:
    """Names of the date that `spelling` (see `lookalikes`) gives by the name of its month: `mar1`, `1mar` ->
    date 3 1."""
    match = _DAY_MONTH.fullmatch(spelling)
    if match is None:
        return set()
    before, month, after, year = match[1], _MONTHS[match[2]], match[3], match[4]
    if before and after:
        return set() if year else {_date(month, before, after)}
    if before or after:
        return {_date(month, before or after, year)}
    return set()


def redated(spelling: str) -> set[str]:
    """The dates that a spreadsheet may make of numbers, by name and in other spellings: `1-2` -> 2 January or
    1 February."""
    if match := _TWO.fullmatch(spelling):
        one, two = match[1], match[2]
        return {
            _date(int(month), day, None) for month, day in ((one, two), (two, one)) if 1 <= int(month) <= 12
        }
    if not (match := _THREE.fullmatch(spelling)):
        return set()
    one, two, three = match.groups()
    if len(one) == 4:
        return {f"{two}-{three}-{one}", f"{three}-{two}-{one}", *_named(two, three, one)}
    if len(one) > 2 or len(three) == 3:
        return set()
    year = three if len(three) == 4 else f"{20 if int(three) < 30 else 19}{three.zfill(2)}"
    return {
        f"{one}-{two}-{year}",
        f"{year}-{one}-{two}",
        f"{year}-{two}-{one}",
        *_named(one, two, year),
        *_named(two, one, year),
    }


def _named(month: str, day: str, year: str) -> set[str]:
    return {_date(int(month), day, year)} if 1 <= int(month) <= 12 and 1 <= int(day) <= 31 else set()


def _date(month: int, day: str, year: str | None) -> str:
    return f"date {month} {int(day)}" + (f" {int(year) % 100}" if year else "")


def _plain(whole: str, part: str, power: int) -> str:
    """Digits before and after the point, times ten to a power, written without zeros at either end. Empty for
    0 with a power, which hexadecimal ids such as 00e1 would read as."""
    digits = whole + part
    if power and not digits.strip("0"):
        return ""
    place = len(whole) + power
    digits, place = ("0" * -place + digits, 0) if place < 0 else (digits.ljust(place, "0"), place)
    whole, part = digits[:place].lstrip("0") or "0", digits[place:].rstrip("0")
    return f"{whole}.{part}" if part else whole


def _rounded(digits: str, kept: int) -> str:
    """A whole number with so many digits, half up, and zeros after them."""
    if len(digits) <= kept:
        return digits
    head = str(int(digits[:kept]) + (digits[kept] >= "5"))
    return head + "0" * (len(digits) - kept)
