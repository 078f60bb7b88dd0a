"""How spreadsheets and tables of numbers change an id that looks like a number or a date."""

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
"""Name of a month (English, German), in small letters -> its number."""
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
"""Numbers of this many digits and more are displayed, and saved as CSV, in powers of ten."""
_SHOWN = (3, 6, 15)
"""Digits of such numbers: in the format 0.00E+00, in Excel, and in LibreOffice."""
_MADE = re.compile(
    r"[0-9](\.[0-9]+)?E\+[0-9]{2,3}"
    r"|[0-9]{1,2}-(?P<first>[A-Z][a-zä]{2})(-[0-9]{2,4})?|(?P<last>[A-Z][a-zä]{2})-[0-9]{2}"
    r"|[0-9]{1,2}(?P<by>[./-])[0-9]{1,2}(?P=by)[0-9]{4}|[0-9]{4}-[0-9]{2}-[0-9]{2}([ T]00:00(:00(\.0+)?)?)?"
)


def looks_made(text: str) -> bool:
    """Return whether an id looks like a date or long number that a spreadsheet wrote.

    Examples: `2-Jan`, `Mar-01`, `1.23457E+15`.
    """
    match = _MADE.fullmatch(text)
    if match is None:
        return False
    month = match["first"] or match["last"]
    return month is None or month.casefold() in _MONTHS


def numbers(text: str) -> set[str]:
    """Return the numbers that `text` (in small letters) may mean, as plain digits.

    Grouping, exponents and final zeros are removed: `1.0` -> 1; `1e3` -> 1000; `1,000` -> 1000. `1.000` gives
    1 and 1000, since its point may separate decimals or groups. Empty if `text` is no number.
    """
    text = text.strip(" '\"=+-()#$€£%*")
    plain = set()
    grouped = _GROUPED.fullmatch(text)
    if grouped:
        plain.add(_plain(re.sub("[^0-9]", "", grouped["whole"]), grouped["part"] or "", 0))
    match = _NUMBER.fullmatch(text)
    if match and (match[1] or match[2]) and not (grouped and "," in text):
        plain.add(_plain(match[1], match[2] or "", int(match[3] or 0)))
    return plain - {""}


def powers(text: str) -> set[str]:
    """Return the long number that `text` (in small letters) gives in powers of ten, as `shortened` does."""
    match = _NUMBER.fullmatch(text.strip(" '\"=+"))
    if match is None or match[3] is None or not match[1]:
        return set()
    written = _plain(match[1], match[2] or "", int(match[3]))
    return {f"power {written}"} if len(written) >= _SHORT else set()


def shortened(spelling: str) -> set[str]:
    """Return what a spreadsheet keeps of a long number: its first 15 digits, or fewer and a power of ten.

    A number in powers of ten is written as in `powers`.
    """
    if not spelling.isdecimal() or len(spelling) < _SHORT:
        return set()
    rounded = {f"power {_rounded(spelling, digits)}" for digits in _SHOWN}
    return rounded | {spelling[:_PRECISION].ljust(len(spelling), "0")}


def without_time(spelling: str) -> str:
    """Return a date without the time 00:00 that tables of dates add; other texts unchanged."""
    return _MIDNIGHT.sub(r"\1", spelling) if spelling.endswith("-0") else spelling


def names_month(spelling: str) -> bool:
    """Return whether the text may hold the name of a month. A quick test before `dates`."""
    return _MONTH.search(spelling) is not None


def dates(spelling: str) -> set[str]:
    """Return the date that `spelling` (see `lookalikes`) gives with the name of a month.

    Example: `mar1` and `1mar` -> "date 3 1".
    """
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
    """Return the dates that a spreadsheet may write for numbers, as `dates` does and in other spellings.

    Example: `1-2` -> 2 January and 1 February.
    """
    if match := _TWO.fullmatch(spelling):
        first, second = match[1], match[2]
        orders = ((first, second), (second, first))
        return {_date(int(month), day, None) for month, day in orders if 1 <= int(month) <= 12}
    if not (match := _THREE.fullmatch(spelling)):
        return set()
    first, second, third = match.groups()
    if len(first) == 4:
        reordered = {f"{second}-{third}-{first}", f"{third}-{second}-{first}"}
        return reordered | _valid_date(second, third, first)
    if len(first) > 2 or len(third) == 3:
        return set()
    year = third if len(third) == 4 else f"{20 if int(third) < 30 else 19}{third.zfill(2)}"
    reordered = {f"{first}-{second}-{year}", f"{year}-{first}-{second}", f"{year}-{second}-{first}"}
    return reordered | _valid_date(first, second, year) | _valid_date(second, first, year)


def _valid_date(month: str, day: str, year: str) -> set[str]:
    return {_date(int(month), day, year)} if 1 <= int(month) <= 12 and 1 <= int(day) <= 31 else set()


def _date(month: int, day: str, year: str | None) -> str:
    return f"date {month} {int(day)}" + (f" {int(year) % 100}" if year else "")


def _plain(whole: str, part: str, power: int) -> str:
    """Return the number whole.part * 10^power without exponent and without zeros at either end.

    Empty for zero with a power, which is more likely a hexadecimal id such as 00e1.
    """
    digits = whole + part
    if power and not digits.strip("0"):
        return ""
    point = len(whole) + power
    digits, point = ("0" * -point + digits, 0) if point < 0 else (digits.ljust(point, "0"), point)
    whole, part = digits[:point].lstrip("0") or "0", digits[point:].rstrip("0")
    return f"{whole}.{part}" if part else whole


def _rounded(digits: str, kept: int) -> str:
    """Return a whole number rounded (half up) to `kept` digits, with zeros after them."""
    if len(digits) <= kept:
        return digits
    head = str(int(digits[:kept]) + (digits[kept] >= "5"))
    return head + "0" * (len(digits) - kept)
