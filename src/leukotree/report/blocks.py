"""The parts of a report: sections of texts, tables, figures and code. Both page templates render them.

Texts are plain text. Only `backticks` around a word have a meaning: they set it as code. Numbers are
formatted here, so that both pages show the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from leukotree.report.drawing import Drawing

Tone = Literal["plain", "note", "warning"]


@dataclass(frozen=True)
class Text:
    text: str
    tone: Tone = "plain"
    kind: str = field(default="text", init=False)


@dataclass(frozen=True)
class Table:
    """A table whose first `labels` columns are texts. The others are numbers, set to the right."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    labels: int = 1
    file: str = ""
    """The name of its CSV file without the suffix. A table with a name is a main one: it also has a LaTeX
    file. Others are named after their section."""
    links: Mapping[str, Path] = field(default_factory=dict)
    """Text of a cell -> the folder that it links to, where this folder is there."""
    kind: str = field(default="table", init=False)


@dataclass(frozen=True)
class Figure:
    """A drawing, or a PNG image. `name` is its file name without the suffix."""

    name: str
    caption: str
    drawing: Drawing | bytes
    kind: str = field(default="figure", init=False)

    @property
    def png(self) -> bytes:
        return self.drawing if isinstance(self.drawing, bytes) else self.drawing.png

    @property
    def svg(self) -> str:
        """The SVG file; "" for a PNG image."""
        return "" if isinstance(self.drawing, bytes) else self.drawing.svg


@dataclass(frozen=True)
class Code:
    text: str
    kind: str = field(default="code", init=False)


@dataclass(frozen=True)
class Folded:
    """Blocks behind one line, which opens them. The Markdown page shows them under this line."""

    line: str
    blocks: Sequence[Block]
    kind: str = field(default="folded", init=False)


@dataclass(frozen=True)
class Picture:
    """A small JPEG image with its text."""

    jpeg: bytes
    caption: str
    wide: bool = False
    """Several images beside each other."""


@dataclass(frozen=True)
class Gallery:
    """Small images side by side. They are in the HTML page only."""

    caption: str
    pictures: Sequence[Picture]
    kind: str = field(default="gallery", init=False)


Block = Text | Table | Figure | Code | Folded | Gallery


@dataclass(frozen=True)
class Section:
    title: str
    blocks: Sequence[Block]
    lead: bool = False
    """True for the section under the page's title. It shows no title of its own."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Name -> content of files that are written beside the report."""
    line: str = ""
    """What the section found, in one line. "" for the line of `contents`."""

    @property
    def anchor(self) -> str:
        """The id of the section's heading in the HTML page."""
        return "-".join("".join(c if c.isalnum() else " " for c in self.title.lower()).split())

    @property
    def flat(self) -> list[Block]:
        """All blocks, those of folded ones in their place."""
        return list(_flat(self.blocks))


def _flat(blocks: Sequence[Block]) -> Iterator[Block]:
    for block in blocks:
        if isinstance(block, Folded):
            yield from _flat(block.blocks)
        else:
            yield block


def text(template: str, tone: Tone = "plain", **values: object) -> Text:
    """A text from a template of `prose`, with its values filled in and its lines joined."""
    return Text(" ".join((template.format(**values) if values else template).split()), tone)


def plural(n: int, noun: str) -> str:
    """1 fold, 2 folds."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def percent(value: float) -> str:
    """A share in per cent: 0.8431 -> 84.3. An en dash for NaN."""
    return "–" if math.isnan(value) else f"{100 * value:.1f}"


def points(value: float) -> str:
    """A difference of scores in percentage points, with its sign: 0.0123 -> +1.2. An en dash for NaN."""
    return "–" if math.isnan(value) else f"{100 * value:+.1f}"


def probability(value: float) -> str:
    """A probability (0 to 1) with two digits. An en dash for NaN."""
    return "–" if math.isnan(value) else f"{value:.2f}"


def p_value(value: float) -> str:
    """A p value with three digits, or "< 0.001". An en dash for NaN."""
    return "–" if math.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def mean_sd(values: Sequence[float]) -> str:
    """Mean ± sample standard deviation in per cent. NaN values are left out. One value has no deviation. None
    is an en dash."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return "–"
    mean = sum(known) / len(known)
    if len(known) == 1:
        return percent(mean)
    spread = math.sqrt(sum((value - mean) ** 2 for value in known) / (len(known) - 1))
    return f"{percent(mean)} ± {percent(spread)}"


def interval(bounds: tuple[float, float] | None) -> str:
    """Lower and upper bound of shares, in per cent. None is "not estimable"."""
    return "not estimable" if bounds is None else f"{percent(bounds[0])} to {percent(bounds[1])}"


def decimal_interval(bounds: tuple[float, float] | None) -> str:
    """Lower and upper bound with two digits. None is "not estimable"."""
    return "not estimable" if bounds is None else f"{bounds[0]:.2f} to {bounds[1]:.2f}"


def share(value: float, bounds: tuple[float, float] | None) -> str:
    """A share with its bounds, in per cent: 84.3 (80.1 to 88.0). An en dash for NaN."""
    return "–" if math.isnan(value) else f"{percent(value)} ({interval(bounds)})"


def decimal(value: float, bounds: tuple[float, float] | None) -> str:
    """A number with its bounds, with two digits: 0.84 (0.80 to 0.88). An en dash for NaN."""
    return "–" if math.isnan(value) else f"{value:.2f} ({decimal_interval(bounds)})"


def number(value: object) -> str:
    """A setting in short form: 3e-05, 0.05, 128. Texts stay as they are. An en dash for None and NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value)


def count(value: float) -> str:
    """A count. A mean over seeds can be fractional: it gets one digit."""
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.1f}"


def duration(seconds: float) -> str:
    """A time in a suitable unit: 45 s, 12.3 min, 4.56 h."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.2f} h"
