"""Lines, bars and points: scores against what was varied."""

from collections.abc import Mapping, Sequence
import itertools
import textwrap
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
import numpy as np

from xprompt_jax import cells
from xprompt_jax.html_report import drawing, names
from xprompt_jax.html_report.content import Picture
from xprompt_jax.html_report.reading import Part
from xprompt_jax.html_report.settings import Sweep

Points = Mapping[float, Sequence[float]]


def _summaries(points: Points) -> tuple[list[float], list[float], list[float]]:
  """Places, means and spreads of a line."""
  found = [(x, *cells.mean_and_spread(ys)) for x, ys in sorted(points.items())]
  return ([f[0] for f in found], [f[1] for f in found], [f[2] for f in found])


def _in_words(title: str, points: Points, names_of: Mapping[float, str]) -> str:
  xs, means, _ = _summaries(points)
  parts = [
      f"{names_of.get(x, f'{x:g}')}: {mean:.1f}"
      for x, mean in zip(xs, means, strict=True)
  ]
  return f"{title} {', '.join(parts)}"


def lines(
    name: str,
    caption: str,
    series: Mapping[str, Points],
    titles: tuple[str, str],
    ticks: Mapping[float, str] | None = None,
    *,
    logarithmic: bool = False,
) -> Picture:
  """A line for each method: mean over seeds, with standard deviations.

  Args:
    name: of the file.
    caption: what it shows.
    series: by method, at each place the scores of its seeds.
    titles: of both axes.
    ticks: text at each place; None takes the places' own numbers.
    logarithmic: space the places by their ratio.
  """
  places = sorted({x for points in series.values() for x in points})

  def fill(figure: Figure) -> None:
    axes = figure.subplots()
    if logarithmic:
      axes.set_xscale("log")
    ends = []
    # Side by side, where whiskers of several would cover each other.
    for place, (method, points) in enumerate(series.items()):
      aside = 0.012 * (place - (len(series) - 1) / 2)
      xs, means, spreads = _summaries(points)
      if logarithmic:
        xs = [x * (places[-1] / places[0]) ** aside for x in xs]
      else:
        xs = [x + aside * (places[-1] - places[0]) for x in xs]
      style = drawing.style_of(method)
      axes.errorbar(
          xs,
          means,
          yerr=spreads if any(spreads) else None,
          capsize=3,
          linewidth=1.6,
          markersize=6,
          **style,
      )
      ends.append((means[-1], method))
    axes.set_xticks(places, [(ticks or {}).get(x, f"{x:g}") for x in places])
    axes.minorticks_off()
    axes.set_xlabel(titles[0])
    axes.set_ylabel(titles[1])
    axes.margins(y=0.12)
    axes.grid(axis="y", color="#dddddd", linewidth=0.7)
    drawing.label_ends(axes, ends)

  words = [
      _in_words(names.method(m), points, ticks or {})
      for m, points in series.items()
  ]
  alt = f"Line chart of {titles[1]} against {titles[0]}. {'; '.join(words)}."
  return drawing.draw(name, caption, alt, fill)


def sweep_lines(
    sweep: Sweep,
    own: Sequence[int],
    labels: Sequence[str],
    what: str,
    methods: Sequence[str],
    places: Sequence[float] | None,
    name: str,
    caption: str,
) -> Picture | None:
  """Score against the settings of one task's runs; None for fewer than two."""
  xs = [float(i) for i in range(len(own))] if places is None else list(places)
  series: dict[str, dict[float, list[float]]] = {}
  for x, index in zip(xs, own, strict=True):
    for method in methods:
      values = [
          v for v in sweep.parts[index].values(method, "score") if v is not None
      ]
      if values:
        series.setdefault(method, {}).setdefault(x, []).extend(values)
  if len(set(xs)) < 2 or not series:
    return None
  wide = places is not None and min(xs) > 0 and max(xs) / min(xs) >= 8
  # All labels together are about as wide as the axis.
  width = max(8, 60 // len(xs))
  ticks = {
      x: "\n".join(
          textwrap.fill(part, width, break_on_hyphens=False)
          for part in label.split(", ")
      )
      for x, label in zip(xs, labels, strict=True)
  }
  return lines(
      name,
      caption,
      series,
      (what, "score, %"),
      ticks,
      logarithmic=wide,
  )


def bars(
    name: str, caption: str, part: Part, methods: Sequence[str]
) -> Picture:
  """A bar for each method, with a point for each seed (Figure 5)."""
  values = {
      m: [v for v in part.values(m, "score") if v is not None] for m in methods
  }
  values = {m: v for m, v in values.items() if v}
  everything = [v for found in values.values() for v in found]
  room = max(max(everything) - min(everything), 1.0)

  def fill(figure: Figure) -> None:
    axes = figure.subplots()
    for i, (method, found) in enumerate(values.items()):
      mean, _ = cells.mean_and_spread(found)
      own = method == "xprompt"
      axes.barh(
          i,
          mean,
          height=0.62,
          color="#f5c9a8" if own else "#dce6f0",
          edgecolor="black",
          hatch="//" if own else "",
          linewidth=0.9,
      )
      spread = np.linspace(-0.2, 0.2, len(found)) if len(found) > 1 else [0.0]
      axes.plot(
          found,
          i + np.asarray(spread),
          "o",
          color="black",
          markersize=4,
          markerfacecolor="white",
      )
      axes.text(
          1.02,
          i,
          f"{mean:.1f}",
          transform=axes.get_yaxis_transform(),
          va="center",
          fontsize=10,
      )
    axes.set_yticks(range(len(values)), [names.method(m) for m in values])
    axes.invert_yaxis()
    axes.set_xlabel(f"score on {names.SPLITS[part.split]}, %")
    # Bars whose differences would not be seen from 0 begin further right.
    low = max(0.0, min(everything) - 0.6 * room)
    axes.set_xlim(low, max(everything) + 0.05 * room)

  words = [f"{names.method(m)} {np.mean(v):.1f}" for m, v in values.items()]
  alt = f"Bar chart of mean scores on {part.task}: {', '.join(words)}."
  return drawing.draw(name, caption, alt, fill, (5.2, 0.9 + 0.36 * len(values)))


# Marker, title, filled: by what a ticket has pruned and how it was scored.
_TICKETS = {
    "tuned": ("s", "prompt tuning", True),
    "token": ("o", "tokens pruned", False),
    "piece": ("^", "pieces pruned", False),
    "random": ("x", "random scores", False),
    "other": ("+", "other scores", False),
}


def _kind(ticket: Mapping[str, Any]) -> str:
  if ticket.get("control") is not None:
    return "none"
  if ticket.get("importance", "gradient") != "gradient":
    return "random" if ticket["importance"] == "random" else "other"
  if ticket.get("piece_ratio") is not None:
    return "piece"
  return "token" if ticket.get("token_ratio") is not None else "tuned"


_COLOURS = ("black", "#0072B2", "#00755A", "#A3447C", "#7A5C00")


def _plot_tickets(
    axes: Axes, kind: str, colour: str, places: Sequence[tuple[float, float]]
) -> None:
  """Marks of one kind of ticket, told apart without colour too."""
  marker, title, filled = _TICKETS[kind]
  xs, ys = zip(*places, strict=True)
  face: dict[str, Any] = (
      {} if marker in "x+" or filled else {"markerfacecolor": "none"}
  )
  axes.plot(xs, ys, marker, color=colour, label=title, markersize=6, **face)


def kept_share(
    name: str,
    caption: str,
    tickets: Sequence[Mapping[str, Any]],
    chosen: Sequence[Mapping[str, Any]],
    whole: int,
    split: str,
) -> Picture:
  """Score of every ticket against the share of pieces it keeps.

  Args:
    name: of the file.
    caption: what it shows.
    tickets: lines of `tickets.jsonl`.
    chosen: XPrompt's rows.
    whole: pieces of an unpruned prompt.
    split: what the split is that chose.
  """
  kinds = {kind: [t for t in tickets if _kind(t) == kind] for kind in _TICKETS}

  def place(ticket: Mapping[str, Any]) -> tuple[float, float]:
    return 100 * ticket["kept_pieces"] / whole, ticket["validation"]["score"]

  def fill(figure: Figure) -> None:
    axes = figure.subplots()
    for (kind, found), colour in zip(
        kinds.items(), itertools.cycle(_COLOURS), strict=False
    ):
      if found:
        _plot_tickets(axes, kind, colour, [place(ticket) for ticket in found])
    if chosen:
      xs, ys = zip(*map(place, chosen), strict=True)
      axes.plot(
          xs,
          ys,
          "*",
          color="#D55E00",
          markersize=14,
          markeredgecolor="black",
          markeredgewidth=0.8,
          label="XPrompt's choice",
      )
    axes.set_xlim(-3, 105)
    axes.margins(y=0.1)
    axes.set_xlabel("pieces kept, %")
    axes.set_ylabel(f"score on {split}, %")
    axes.grid(color="#dddddd", linewidth=0.7)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)

  picked = ", ".join(
      f"{x:.0f} % kept with score {y:.1f}" for x, y in map(place, chosen)
  )
  alt = (
      f"Scatter plot of {len(tickets)} tickets, score on {split} against the"
      f" share of pieces kept. XPrompt's choice: {picked}."
  )
  return drawing.draw(name, caption, alt, fill, (5.2, 3.9))


def masking(
    name: str,
    caption: str,
    rows: Sequence[Mapping[str, Any]],
    unmasked: Sequence[float],
    split: str,
) -> Picture:
  """Score against the number of masked tokens, by order (Figure 2).

  Args:
    name: of the file.
    caption: what it shows.
    rows: of `masking/result.json`.
    unmasked: scores of the same prompts as they are.
    split: what scores are on.
  """
  orders = {
      "importance": ("least important first", "o", "-", "#D55E00"),
      "random": ("at random", "s", "--", "#0072B2"),
  }
  lines_: dict[str, dict[float, list[float]]] = {}
  masked = min((row["num_masked"] for row in rows), default=0)
  for row in rows:
    start: dict[float, list[float]] = {}
    if unmasked and masked > 0:
      start = {0.0: list(unmasked)}
    points = lines_.setdefault(row["order"], start)
    points.setdefault(row["num_masked"], []).append(row[split]["score"])

  def fill(figure: Figure) -> None:
    axes = figure.subplots()
    for order, points in lines_.items():
      title, marker, line, colour = orders.get(
          order, (order, "^", ":", "black")
      )
      xs, means, spreads = _summaries(points)
      axes.plot(
          xs,
          means,
          marker=marker,
          linestyle=line,
          color=colour,
          label=title,
          markersize=5,
      )
      low = np.maximum(np.asarray(means) - spreads, 0.0)
      high = np.minimum(np.asarray(means) + spreads, 100.0)
      axes.fill_between(xs, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set_xlabel("tokens masked, nothing retrained")
    axes.set_ylabel(f"score on {names.SPLITS[split]}, %")
    axes.xaxis.set_major_locator(drawing.integers())
    axes.grid(axis="y", color="#dddddd", linewidth=0.7)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)

  words = [
      _in_words(orders.get(order, (order,))[0], points, {})
      for order, points in lines_.items()
  ]
  alt = f"Line chart of scores by number of masked tokens. {'; '.join(words)}."
  return drawing.draw(name, caption, alt, fill, (5.2, 3.8))
