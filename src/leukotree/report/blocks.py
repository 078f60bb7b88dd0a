"""What a report is made of: sections of texts, notes, tables, figures and code, which both page templates
render.

Texts are plain; `backticks` around a word set it as code. Numbers are formatted here, once, for both pages.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Tone = Literal["plain", "note", "warning"]


@dataclass(frozen=True)
class Text:
    text: str
    tone: Tone = "plain"
    kind: str = field(default="text", init=False)


@dataclass(frozen=True)
class Table:
    """The first `labels` columns are texts, the others numbers (set to the right)."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    labels: int = 1
    kind: str = field(default="table", init=False)


@dataclass(frozen=True)
class Figure:
    """A PNG; `name` is its file name without the suffix."""

    name: str
    caption: str
    png: bytes
    kind: str = field(default="figure", init=False)


@dataclass(frozen=True)
class Code:
    text: str
    kind: str = field(default="code", init=False)


Block = Text | Table | Figure | Code


@dataclass(frozen=True)
class Section:
    title: str
    blocks: Sequence[Block]
    lead: bool = False
    """Stands under the page's title, without one of its own."""

    @property
    def anchor(self) -> str:
        return "-".join("".join(c if c.isalnum() else " " for c in self.title.lower()).split())


def text(template: str, tone: Tone = "plain", **values: object) -> Text:
    """A text from a template of `prose`, its lines joined."""
    return Text(" ".join((template.format(**values) if values else template).split()), tone)


def plural(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def percent(value: float) -> str:
    """0.8431 -> 84.3; an en dash for NaN."""
    return "–" if math.isnan(value) else f"{100 * value:.1f}"


def points(value: float) -> str:
    """A difference of scores in percentage points, with its sign: 0.0123 -> +1.2; an en dash for NaN."""
    return "–" if math.isnan(value) else f"{100 * value:+.1f}"


def probability(value: float) -> str:
    """Of a claim, in 0..1; an en dash for NaN."""
    return "–" if math.isnan(value) else f"{value:.2f}"


def p_value(value: float) -> str:
    """Of a test; an en dash for NaN."""
    return "–" if math.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def mean_sd(values: Sequence[float]) -> str:
    """Mean ± sample standard deviation in per cent; without the latter for one value; an en dash for none."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return "–"
    mean = sum(known) / len(known)
    if len(known) == 1:
        return percent(mean)
    spread = math.sqrt(sum((value - mean) ** 2 for value in known) / (len(known) - 1))
    return f"{percent(mean)} ± {percent(spread)}"


def interval(bounds: tuple[float, float] | None) -> str:
    return "not estimable" if bounds is None else f"{percent(bounds[0])} to {percent(bounds[1])}"


def number(value: object) -> str:
    """Short: 3e-05, 0.05, 128, ViT names as they are; an en dash for None and NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value)


def count(value: float) -> str:
    """A count, which is fractional only as a mean over seeds."""
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.1f}"


def duration(seconds: float) -> str:
    """45 s, 12.3 min, 4.56 h."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.2f} h"
