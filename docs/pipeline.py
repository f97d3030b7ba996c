"""Draws docs/pipeline.png: one seed of a finished run, stage by stage.

    .venv/bin/python docs/pipeline.py runs/xprompt_demo docs/pipeline.png

Reads result files alone. Every cell is one of the prompt's pieces; what a
stage prunes is hatched, so the picture can be read without colour.
"""

import pathlib
import sys

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator
import numpy as np

from xprompt_jax import artifacts


def piece_norms(prompt: np.ndarray, num_pieces: int) -> np.ndarray:
  """Root mean square of each piece: [P, H] -> [P, K]."""
  pieces = prompt.reshape(prompt.shape[0], num_pieces, -1)
  return np.sqrt(np.mean(np.square(pieces), axis=-1))


def draw_cells(axes, values, mask, title, label):
  """A heat map of pieces [P, K]; pruned ones are white and hatched."""
  shown = np.ma.masked_where(mask == 0, values)
  image = axes.imshow(shown.T, aspect="auto", cmap="viridis", origin="lower")
  for p, k in np.argwhere(mask == 0):
    axes.add_patch(
        plt.Rectangle(
            (p - 0.5, k - 0.5), 1, 1, fill=False, hatch="////", lw=0, ec="0.6"
        )
    )
  axes.set_title(title, fontsize=10, loc="left")
  axes.set_xlabel("prompt token")
  axes.set_ylabel("piece")
  axes.xaxis.set_major_locator(MaxNLocator(integer=True))
  plt.colorbar(image, ax=axes, label=label)


def draw_tokens(axes, scores, mask, title):
  """Bars of token importance; pruned tokens are hatched."""
  bars = axes.bar(np.arange(len(scores)), scores, color="C0")
  for bar, kept in zip(bars, mask, strict=True):
    if not kept:
      bar.set(facecolor="white", hatch="////", edgecolor="0.6")
  axes.set_title(title, fontsize=10, loc="left")
  axes.set_xlabel("prompt token")
  axes.set_ylabel("importance")
  axes.xaxis.set_major_locator(MaxNLocator(integer=True))
  axes.set_xlim(-0.5, len(scores) - 0.5)


def main(workdir: pathlib.Path, output: pathlib.Path, row: int = 0) -> None:
  """Draws the tickets of one seed, the one in row `row` of `tune/`."""
  tuned = artifacts.load_arrays(workdir / "tune" / artifacts.PROMPT)
  final = artifacts.load_arrays(workdir / "rewind" / artifacts.PROMPT)
  summary = artifacts.read_json(workdir / artifacts.RESULT)
  ticket = artifacts.read_json(workdir / "rewind" / artifacts.RESULT)["rows"][
      row
  ]
  token_scores, piece_scores = (
      artifacts.load_arrays(
          workdir / f"score_{granularity}" / artifacts.SCORES
      )[f"{granularity}_scores"][row]
      for granularity in ("token", "piece")
  )
  num_pieces = final["piece_mask"].shape[2]
  token_mask, piece_mask = (
      final[name][row] for name in ("token_mask", "piece_mask")
  )
  ones = np.ones_like(piece_mask)
  figure, axes = plt.subplots(2, 2, figsize=(11, 6.2), layout="constrained")
  draw_cells(
      axes[0, 0],
      piece_norms(tuned["prompt"][row], num_pieces),
      ones,
      f"1  tune: all {ones.size} pieces",
      "piece norm",
  )
  draw_tokens(
      axes[0, 1],
      token_scores,
      token_mask,
      f"2  score and prune tokens: {ticket['kept_tokens']} of"
      f" {len(token_mask)} kept (ratio {ticket['token_ratio']})",
  )
  draw_cells(
      axes[1, 0],
      np.where(token_mask[:, None] > 0, piece_scores, 0.0),
      piece_mask,
      f"3  score and prune pieces: {ticket['kept_pieces']} kept (ratio"
      f" {ticket['piece_ratio']})",
      "importance",
  )
  draw_cells(
      axes[1, 1],
      piece_norms(final["prompt"][row], num_pieces),
      piece_mask,
      f"4  rewind and train again: {ticket['tunable_parameters']} parameters",
      "piece norm",
  )
  figure.suptitle(
      f"XPrompt on {summary['task']}, seed {ticket['seed']}; hatched: pruned"
  )
  figure.savefig(output, dpi=110)


if __name__ == "__main__":
  main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
