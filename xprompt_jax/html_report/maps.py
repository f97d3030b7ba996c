"""Importance of tokens and pieces: histograms and saliency maps."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
import numpy as np

from xprompt_jax.html_report import drawing
from xprompt_jax.html_report.content import Picture

# Scores that differ more than this are put into bins by their ratio.
_WIDE = 50.0
_BINS = 16


def _edges(values: np.ndarray) -> tuple[np.ndarray, bool]:
  """Bins of a histogram, and whether their axis is logarithmic."""
  positive = values[values > 0]
  if len(positive) == len(values) and values.max() / values.min() > _WIDE:
    return np.geomspace(values.min(), values.max(), _BINS + 1), True
  low, high = float(values.min()), float(values.max())
  if low == high:
    low, high = low - 0.5, high + 0.5
  return np.linspace(low, high, _BINS + 1), False


def histogram(
    name: str, caption: str, kept: np.ndarray, pruned: np.ndarray, unit: str
) -> Picture:
  """How importance is spread over units (Figures 6 and 7).

  Args:
    name: of the file.
    caption: what it shows.
    kept: scores of the units that XPrompt keeps.
    pruned: of those it prunes.
    unit: `tokens` or `pieces`.
  """
  values = np.concatenate([kept, pruned])
  edges, logarithmic = _edges(values)

  def fill(figure: Figure) -> None:
    axes = figure.subplots()
    titles = (f"kept ({len(kept)})", f"pruned ({len(pruned)})")
    faces = ("#9ecae1", drawing.PRUNED_FACE)
    below = np.zeros(len(edges) - 1)
    for part, title, face, hatch in zip(
        (kept, pruned), titles, faces, ("", "///"), strict=True
    ):
      heights, _ = np.histogram(part, edges)
      axes.bar(
          edges[:-1],
          heights,
          np.diff(edges),
          below,
          align="edge",
          color=face,
          edgecolor="black",
          linewidth=0.7,
          hatch=hatch,
          label=title,
      )
      below = below + heights
    if logarithmic:
      drawing.logarithmic(axes, edges[-1] / edges[0])
    axes.set_xlabel("importance, mean of |dL/dmask|")
    axes.set_ylabel(f"number of {unit}")
    axes.yaxis.set_major_locator(drawing.integers())
    figure.legend(loc="outside upper center", ncols=2, frameon=False)

  alt = (
      f"Histogram of the importance of {len(values)} {unit}: median"
      f" {np.median(values):.3g}, from {values.min():.3g} to"
      f" {values.max():.3g}; {len(kept)} kept, {len(pruned)} pruned."
  )
  return drawing.draw(name, caption, alt, fill, (5.2, 3.6))


def saliency(
    name: str,
    caption: str,
    before: np.ndarray,
    after: np.ndarray,
    mask: np.ndarray,
) -> Picture:
  """Importance of each piece before and after pruning (Figures 9 and 10).

  Args:
    name: of the file.
    caption: what it shows.
    before: [P, K], scores of the tuned prompt.
    after: [P, K], scores behind the token mask.
    mask: [P, K], 1 where the ticket keeps a piece.
  """
  tokens, pieces = before.shape
  maps = (("before pruning", before, None), ("after pruning", after, mask))

  def fill(figure: Figure) -> None:
    top = float(max(before.max(), after.max())) or 1.0
    # Few pieces matter much more than the rest, which would look the same.
    norm = PowerNorm(0.5, 0.0, top)
    both = figure.subplots(1, 2, sharey=True)
    for axes, (title, scores, kept) in zip(both, maps, strict=True):
      image = axes.imshow(
          scores,
          cmap="viridis_r",
          norm=norm,
          aspect="auto",
          interpolation="nearest",
      )
      if kept is not None:
        _hatch(axes, kept)
      axes.set_title(title)
      axes.set_xlabel("piece")
      axes.set_xticks(_ticks(pieces))
      axes.set_yticks(_ticks(tokens))
      axes.spines[:].set_visible(True)
    both[0].set_ylabel("token")
    figure.colorbar(
        image, ax=both, label="importance, colours by its root", pad=0.02
    )

  pruned = int((mask == 0).sum())
  alt = (
      f"Two maps of {tokens} tokens by {pieces} pieces. Importance before"
      f" pruning is up to {before.max():.3g}; afterwards {pruned} of"
      f" {mask.size} pieces are pruned, shown grey and hatched."
  )
  height = min(1.6 + 0.19 * tokens, 9.0)
  return drawing.draw(name, caption, alt, fill, (7.6, height))


def _hatch(axes: Axes, kept: np.ndarray) -> None:
  """Draws over the pieces that are pruned."""
  for token, piece in np.argwhere(kept == 0):
    axes.add_patch(
        Rectangle(
            (piece - 0.5, token - 0.5),
            1,
            1,
            hatch="////",
            facecolor=drawing.PRUNED_FACE,
            edgecolor=drawing.PRUNED_EDGE,
            linewidth=0,
        )
    )


def _ticks(count: int) -> Sequence[int]:
  return range(0, count, max(1, -(-count // 8)))
