"""The figure of the flow of images and patients: what came in, what was left out and why, what was tested."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from leukotree.report.drawing import GREY, INK, Drawing, drawn, grid, styled

_WIDTH = 7.6
_LINE = 0.19
"""Height of a line of text in inches."""


class Step(NamedTuple):
    """A box of the flow, and what was left out on the way to the next one."""

    text: str
    """Lines are separated by line breaks."""
    left_out: Sequence[str] = ()
    """A line per reason."""


@styled
def draw(steps: Sequence[Step]) -> Drawing:
    """The boxes from top to bottom, with what was left out to the right of the arrow below each."""
    boxes = [_lines(step.text.split("\n"), 44) for step in steps]
    sides = [_lines(step.left_out, 46) for step in steps]
    heights = [_LINE * len(lines) + 0.16 for lines in boxes]
    gaps = [max(0.34, _LINE * len(lines) + 0.24) for lines in sides]
    gaps[-1] = 0.0 if not sides[-1] else gaps[-1]
    total = sum(heights) + sum(gaps) + 0.1
    figure, (axis,) = grid(1, 1, _WIDTH, total)
    axis.set_xlim(0, _WIDTH)
    axis.set_ylim(total, 0)
    axis.axis("off")
    frame = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": INK, "linewidth": 0.8}
    top = 0.05
    for number, (lines, side, height, gap) in enumerate(zip(boxes, sides, heights, gaps, strict=True)):
        axis.text(
            1.95, top + height / 2, "\n".join(lines), ha="center", va="center", fontsize=8.5, bbox=frame
        )
        below = top + height
        if number + 1 < len(steps):
            arrow = {"arrowstyle": "->", "color": INK, "lw": 0.9}
            axis.annotate("", xy=(1.95, below + gap), xytext=(1.95, below), arrowprops=arrow)
        if side:
            middle = below + gap / 2
            axis.plot([1.95, 4.0], [middle, middle], color=GREY, lw=0.9)
            text = "\n".join(side)
            axis.text(
                4.1, middle, text, ha="left", va="center", fontsize=8, bbox={**frame, "edgecolor": GREY}
            )
        top = below + gap
    return drawn(figure)


def _lines(texts: Sequence[str], width: int) -> list[str]:
    return [line for text in texts for line in textwrap.wrap(text, width)]
