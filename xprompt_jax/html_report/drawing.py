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

# Dark enough to read as text on white; lightness differs too.
_COLOURS = (
    "#000000",
    "#0072B2",
    "#A84300",
    "#00755A",
    "#A3447C",
    "#7A5C00",
    "#5B4FB3",
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
    return {"color": "#B84E00", "marker": "o", "linestyle": "-"}
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
    axes: Axes, ends: list[tuple[float, str]], gap: float = 0.08
) -> None:
  """Writes methods at the right of their lines, with their markers.

  Names that would overlap are moved apart.

  Args:
    axes: drawn, its limits set.
    ends: height of each line's end, and its method.
    gap: least distance of two names, as a share of the axes' height.
  """
  low, high = axes.get_ylim()
  places = sorted(ends)
  heights = [(end - low) / (high - low) for end, _ in places]
  for i in range(1, len(heights)):
    heights[i] = max(heights[i], heights[i - 1] + gap)
  # Those that left the top push the others down.
  over = max(0.0, heights[-1] - 1.0) if heights else 0.0
  for (_, method), height in zip(places, heights, strict=True):
    style = style_of(method)
    axes.plot(
        [1.04],
        [height - over],
        marker=style["marker"],
        color=style["color"],
        transform=axes.transAxes,
        clip_on=False,
        markersize=6,
    )
    axes.text(
        1.075,
        height - over,
        names.method(method),
        color=style["color"],
        transform=axes.transAxes,
        va="center",
        fontsize=10,
    )
