"""SVG of figures: inside the page, in the page's colours, and as files of their own."""

from __future__ import annotations

import re
from html import escape

from leukotree.report.drawing import COLOURS, FRAME, GREY, INK

VARIABLES = {
    INK: "--ink",
    FRAME: "--frame",
    GREY: "--grey",
    **{colour.lower(): f"--c{number}" for number, colour in enumerate(COLOURS)},
}
"""Colour of a figure -> the variable of the page's style that replaces it. A dark page has lighter ones."""
LIGHT, DARK = (
    {"--ink": INK, "--frame": FRAME, "--grey": GREY, **{f"--c{n}": c for n, c in enumerate(COLOURS)}},
    {
        "--ink": "#dfe3e8",
        "--frame": "#7d8794",
        "--grey": "#5a636e",
        "--c0": "#56a8e0",
        "--c1": "#f0803c",
        "--c2": "#2fc79a",
        "--c3": "#dd9cc0",
        "--c4": "#f0b84a",
        "--c5": "#8fd0f5",
    },
)
"""The values of the variables on a light and on a dark page."""
_PIXELS = 96 / 72
"""Pixels of a page in a point."""


def inline(svg: str, name: str, caption: str) -> str:
    """The element of a figure for the page: without a head, with the page's colours, with names of its parts
    that no other figure has, and as wide as it was drawn.

    Args:
        svg: the file that matplotlib wrote. It has escaped the texts.
        name: of the figure; letters, digits, - and _.
        caption: what a screen reader says.
    """
    head, _, body = svg[svg.index("<svg") :].partition(">")
    box = re.search(r'viewBox="([^"]+)"', head)
    if box is None:
        raise ValueError("no viewBox")
    corners = " ".join(f"{float(number):.2f}" for number in box[1].split())
    width = float(corners.split()[2]) * _PIXELS
    body = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", body, flags=re.DOTALL)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" role="img" '
        f'viewBox="{corners}" style="--w:{width:.0f}px" aria-label="{escape(caption)}">'
        + _small(_own_names(_coloured(body), name))
    )


def alone(svg: str) -> bytes:
    """The file of a figure by itself, on white: a viewer may have a dark background."""
    start = svg.index(">", svg.index("<svg")) + 1
    return f'{svg[:start]}<rect width="100%" height="100%" fill="#ffffff"/>{svg[start:]}'.encode()


def _coloured(svg: str) -> str:
    """The SVG with variables in the place of the colours of `drawing`."""

    def variable(match: re.Match[str]) -> str:
        return f"var({VARIABLES[match[0].lower()]})"

    known = "|".join(map(re.escape, VARIABLES))
    in_style = re.compile(rf"({known})(?=[;\"\s])", re.IGNORECASE)
    # Only in attributes: a name in a text may look like a colour.
    return re.sub(r'style="[^"]*"', lambda attribute: in_style.sub(variable, attribute[0]), svg)


def _own_names(svg: str, name: str) -> str:
    """The SVG with ids only where something refers to them, and with the figure's name in these."""
    used = set(re.findall(r'(?:url\(#|href="#)([\w.-]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda match: f' id="{name}-{match[1]}"' if match[1] in used else "", svg)
    return re.sub(r'(url\(#|href="#)([\w.-]+)', rf"\g<1>{name}-\g<2>", svg)


def _small(svg: str) -> str:
    """The SVG with two decimals in paths and places."""

    def short(attribute: re.Match[str]) -> str:
        return re.sub(r"(\.\d\d)\d+", r"\1", attribute[0])

    return re.sub(r' (?:(?:d|x|y|width|height|points)="[^"]*"|transform="[tr][^"]*")', short, svg)
