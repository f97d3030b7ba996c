"""How figures look: dark on white, told apart without colour.

Each method has its own colour, marker, line and hatch, the same in every
figure.
"""

from collections.abc import Callable
import io
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from xprompt_jax.html_report import names
from xprompt_jax.html_report.content import Picture

# Okabe and Ito's colours, which most colour-blind people tell apart.
_COLOURS = (
    "#000000",
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
)
_MARKERS = "soD^vPX*<>dh"
_LINES = ("-", "--", "-.", ":")
_POINTS = 72
_CSS = 96
_STYLE: dict[Any, Any] = {
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.labelsize": 11,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "legend.fontsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.linewidth": 0.6,
    "svg.hashsalt": "xprompt_jax",
    "svg.fonttype": "path",
    # A backslash or a dollar sign in a name is no mathematics.
    "text.parse_math": False,
}
PRUNED_FACE = "#d9d9d9"
PRUNED_EDGE = "#555555"


def _place(method: str) -> int:
  known = [m for m in names.METHODS if m != "prompt_tuning"]
  if method == "prompt_tuning":
    return 0
  return known.index(method) + 1 if method in known else len(known) + 1


def style_of(method: str) -> dict[str, Any]:
  """Colour, marker and line of a method."""
  if method == "xprompt":
    return {"color": "#D55E00", "marker": "o", "linestyle": "-"}
  place = _place(method)
  return {
      "color": _COLOURS[place % len(_COLOURS)],
      "marker": _MARKERS[place % len(_MARKERS)],
      "linestyle": _LINES[1 + place % 3] if place else "--",
  }


def draw(
    name: str,
    caption: str,
    alt: str,
    fill: Callable[[Figure], None],
    size: tuple[float, float] = (5.2, 3.4),
) -> Picture:
  """A figure as PNG and SVG, the same bytes for the same numbers.

  Args:
    name: of the file.
    caption: what it shows.
    alt: text in its place.
    fill: draws into it.
    size: width and height in inches.
  """
  with matplotlib.rc_context(dict(matplotlib.rcParamsDefault) | _STYLE):
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    fill(figure)
    png, svg = io.BytesIO(), io.BytesIO()
    figure.savefig(
        png, format="png", dpi=2 * _POINTS, metadata={"Software": None}
    )
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
  return Picture(
      name=name,
      caption=caption,
      alt=alt,
      png=png.getvalue(),
      svg=svg.getvalue(),
      width=round(size[0] * _CSS),
  )


def integers() -> MaxNLocator:
  """Ticks at integers alone."""
  return MaxNLocator(integer=True)


def logarithmic(axes: Axes, ratio: float) -> None:
  """Spaces x by ratios, with plain numbers as ticks.

  Args:
    axes: what is drawn into.
    ratio: of the largest place and the smallest.
  """
  axes.set_xscale("log")
  subs = (1.0, 2.0, 5.0) if ratio < 200 else (1.0,)
  axes.xaxis.set_major_locator(LogLocator(subs=subs))
  axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
  axes.minorticks_off()


def label_ends(
    axes: Axes, ends: list[tuple[float, float, str, str]], gap: float = 0.075
) -> None:
  """Writes names at the right of lines, moved apart where they would overlap.

  Args:
    axes: drawn, its limits set.
    ends: x and y of each line's end, its name and its colour.
    gap: least distance of two names, as a share of the axes' height.
  """
  low, high = axes.get_ylim()
  places = sorted(ends, key=lambda end: end[1])
  heights = [(end[1] - low) / (high - low) for end in places]
  for i in range(1, len(heights)):
    heights[i] = max(heights[i], heights[i - 1] + gap)
  # Those that left the top push the others down.
  over = max(0.0, heights[-1] - 1.0) if heights else 0.0
  heights = [height - over for height in heights]
  for (_, _, text, colour), height in zip(places, heights, strict=True):
    axes.text(
        1.02,
        height,
        text,
        color=colour,
        transform=axes.transAxes,
        va="center",
        fontsize=10,
    )
