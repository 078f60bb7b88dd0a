"""Style, colours, panels and output of all figures, as SVG and as PNG.

The figures do not depend on matplotlib's global state: the same data give the same bytes.
"""

from __future__ import annotations

import functools
import io
import math
import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The palette of Okabe and Ito: its colours differ for any kind of colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
GREY = "#b8bec6"
INK = "#2b2f36"
FRAME = "#8a929c"

_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.edgecolor": FRAME,
    "axes.facecolor": "none",
    "axes.linewidth": 0.8,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "text.parse_math": False,  # a dollar sign in a name is no mathematics
    "svg.fonttype": "none",  # letters, not their outlines: smaller, and a reader can search for them
    "svg.hashsalt": "leukotree",  # equal names of parts in each process
}
Parameters = ParamSpec("Parameters")


class Drawing(NamedTuple):
    """A figure in two forms."""

    svg: str
    png: bytes


def styled(draw: Callable[Parameters, Drawing]) -> Callable[Parameters, Drawing]:
    """A function that draws in the style of the report. Matplotlib's own settings stay unchanged."""

    @functools.wraps(draw)
    def in_style(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Drawing:
        from matplotlib import rc_context

        with rc_context(_STYLE):
            return draw(*args, **kwargs)

    return in_style


def colour(index: int) -> str:
    """The colour of an arm or variant, by its position."""
    return COLOURS[index % len(COLOURS)]


def marker(index: int) -> str:
    """The marker of an arm or variant, by its position."""
    return MARKERS[index % len(MARKERS)]


def grid(
    panels: int, columns: int, width: float, height: float, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure with `panels` axes of about width x height inches each."""
    from matplotlib.figure import Figure

    rows = math.ceil(panels / columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained", facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=sharey).ravel().tolist()
    for spare in axes[panels:]:
        spare.remove()
    return figure, axes[:panels]


def set_title(axis: Axes, text: str) -> None:
    """Set the title of a panel. A long name of a grid's arm is broken into lines and set smaller."""
    lines = textwrap.wrap(text, 24)
    axis.set_title("\n".join(lines), fontweight="bold", fontsize=10 if len(lines) == 1 else 8.5)


def shortened(name: str) -> str:
    """A name as the label of a row: in lines of about 28 letters, at most three."""
    lines = textwrap.wrap(name, 28) or [name]
    return "\n".join([*lines[:2], " ".join(lines[2:])[:27] + "…"] if len(lines) > 3 else lines)


def legend_above(figure: Figure, axis: Axes) -> None:
    """Draw one legend for all panels, from the labels of one of them."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 4))


def integer_ticks(axis: Axes) -> None:
    """Only integers as ticks of the x axis."""
    from matplotlib.ticker import MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def drawn(figure: Figure) -> Drawing:
    """Both files of a figure."""
    svg = _saved(figure, "svg", {"Date": None, "Creator": None}, facecolor="none")
    return Drawing(svg.decode(), _saved(figure, "png", {"Software": None}))


def _saved(figure: Figure, form: str, metadata: dict[str, None], **look: Any) -> bytes:
    buffer = io.BytesIO()
    box: Any = {"dpi": 120, "bbox_inches": "tight", "pad_inches": 0.08}
    figure.savefig(buffer, format=form, metadata=metadata, **box, **look)
    return buffer.getvalue()
