"""The templates of the pages, and how they show texts, cells, links and figures."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from markupsafe import Markup
from markupsafe import escape as escaped

from leukotree import files
from leukotree.report import contents, svg, tables
from leukotree.report.blocks import Figure, Section, Table

if TYPE_CHECKING:
    from leukotree.report.sections.card import Card

MOST_SVG = 300_000
"""Letters. A larger figure is a PNG image in the page, so that the page stays small."""


def environment(names: Mapping[int, str], out: Path) -> Any:
    """The environment of the templates.

    Args:
        names: id of a table -> the name of its files.
        out: the folder of the page, from which its links begin.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    made = Environment(
        loader=PackageLoader("leukotree", "report"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {
        "code": _code,
        "cell": cell,
        "line": contents.line,
        "csv": lambda table: f"{tables.FOLDER}/{names[id(table)]}.csv" if id(table) in names else "",
        "rows": lambda table: _rows(table, out),
        "drawn": _drawn,
        "base64": lambda image: base64.b64encode(image).decode(),
    }
    made.globals |= assets()
    return made


MARKDOWN, HTML = "report.md", "report.html"


class Rendered(NamedTuple):
    """A report that is not written yet."""

    files: Mapping[str, str | bytes]
    """Path below the report's folder -> content."""
    lines: Sequence[str]
    """The report in five lines, for a terminal."""
    table: Sequence[str] = ()
    """What stands below them where the arms are asked for, too."""

    def write(self, out: Path) -> tuple[Path, Path]:
        """Write the files; returns the paths of the two pages. Each file is replaced atomically."""
        for name, content in self.files.items():
            files.write_atomic(Path(out) / name, content)
        return Path(out) / MARKDOWN, Path(out) / HTML


def pages(
    title: str, about: str, card: Card | None, sections: Sequence[Section], out: Path
) -> dict[str, str | bytes]:
    """The two pages, their figures and their tables: path below the folder `out` -> content.

    Args:
        sections: in their order within a place (see `contents`). The blocks of those with `lead` are at the
            top. With a card, the first of these blocks is the verdict in a sentence.
    """
    everything = [*sections, Section("Verdict", card.blocks)] if card else [*sections]
    named = [one for section in everything for one in tables.named(section)]
    made = environment({id(one.table): one.name for one in named}, out)
    lead = [block for section in sections if section.lead for block in section.blocks]
    of_place = {
        place: [section for section in sections if not section.lead and contents.place(section) == place]
        for place in contents.PLACES
    }
    folded = [(name, of_place[place]) for place, name in contents.FOLDED.items() if of_place[place]]
    values = {
        "title": title,
        "about": about,
        "card": card,
        "reason": lead[:1] if card else [],
        "lead": lead[1:] if card else lead,
        "key": of_place["key"],
        "folded": folded,
        "groups": [("Answers", of_place["key"])] * bool(of_place["key"]) + folded,
    }
    figures = [block for section in everything for block in section.flat if isinstance(block, Figure)]
    written: dict[str, str | bytes] = {f"figures/{figure.name}.png": figure.png for figure in figures}
    written |= {f"figures/{figure.name}.svg": svg.alone(figure.svg) for figure in figures if figure.svg}
    return (
        written
        | tables.files(named)
        | {
            name: made.get_template(template).render(values)
            for name, template in ((MARKDOWN, "page.md"), (HTML, "page.html"))
        }
    )


@cache
def assets() -> dict[str, Any]:
    """The style and the script of a page, and the digest that its security policy allows."""
    folder = resources.files("leukotree.report")
    script = (folder / "page.js").read_text(encoding="utf-8")
    style = (folder / "page.css").read_text(encoding="utf-8")
    for name, values in (("light", svg.LIGHT), ("dark", svg.DARK)):
        written = " ".join(f"{key}: {value};" for key, value in values.items())
        style = style.replace(f"{{{{ {name} }}}}", written)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # Both are files of this package, with nothing of a study in them.
    return {"style": Markup(style), "script": Markup(script), "script_digest": digest}  # noqa: S704


def cell(value: str) -> str:
    """The Markdown of a text: it cannot end a table's cell, become HTML, or load an image."""
    return " ".join(value.replace("|", "\\|").replace("<", "&lt;").replace("](", "]\\(").split())


def _code(value: str) -> Markup:
    """The HTML of a text: escaped, with `backticks` as <code>."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escaped(value))))  # noqa: S704 - escaped


def _rows(table: Table, out: Path) -> list[list[Markup]]:
    """The cells of a table as HTML, each with the number that it is sorted by, and its link."""
    values = tables.values(table)
    return [
        [
            _cell(text, column >= table.labels, value, _link(table, text, out))
            for column, (text, value) in enumerate(zip(row, of_row, strict=True))
        ]
        for row, of_row in zip(table.rows, values, strict=True)
    ]


def _cell(text: str, number: bool, value: float | None, link: str) -> Markup:
    attributes = ' class="number"' if number else ""
    if value is not None:
        attributes += f' data-value="{value:.12g}"'
    shown = escape(text)
    if link:
        shown = f'<a href="{escape(link)}">{shown}</a>'
    return Markup(f"<td{attributes}>{shown}</td>")  # noqa: S704 - escaped just before


def _link(table: Table, text: str, out: Path) -> str:
    """The way from the page to the folder of a cell; "" for a cell without one, or whose folder is not
    there."""
    folder = table.links.get(text)
    if folder is None or not folder.is_dir():
        return ""
    return quote(os.path.relpath(folder.resolve(), out.resolve()).replace(os.sep, "/") + "/")


def _drawn(figure: Figure) -> Markup:
    """The element of a figure."""
    if figure.svg and len(figure.svg) <= MOST_SVG:
        return Markup(svg.inline(figure.svg, figure.name, figure.caption))  # noqa: S704 - by matplotlib
    image = base64.b64encode(figure.png).decode()
    return Markup(  # noqa: S704 - escaped
        f'<img src="data:image/png;base64,{image}" alt="{escape(figure.caption)}">'
    )
