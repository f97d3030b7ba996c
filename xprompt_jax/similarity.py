"""How alike the prompts of different tasks are: `t5x similarity`.

Vu et al. 2022 (SPoT, section 4.1) compare two prompts in two ways: by the
cosine of their mean tokens, and by the mean of the cosines of all pairs of
their tokens. Neither needs a model.
"""

from collections.abc import Mapping, Sequence
import csv
import io
import pathlib

from jaxtyping import Float
import numpy as np

from xprompt_jax import artifacts, prompt_formats, prompt_library
from xprompt_jax import masks as masks_lib
from xprompt_jax.prompt_library import NamedPrompt
from xprompt_jax.types import UserError, require

TITLES = {
    "cosine_of_means": "cosine of the mean tokens",
    "mean_of_cosines": "mean cosine over pairs of tokens",
}
PICTURE = "similarity.png"
# Of sums in float64 whose terms cancel.
_ROUNDING = 1e-12


def _kept_tokens(entry: NamedPrompt) -> np.ndarray:
  """The tokens of a prompt that are not pruned, times their piece masks."""
  table, masks = prompt_formats.read_table(
      entry.path, embed_dim=None, num_pieces=1
  )
  prompt, masks = prompt_library.take_prompt(
      table, masks, entry.path, entry.row, entry.flag
  )
  masked = np.asarray(masks_lib.apply_masks(prompt, masks), np.float64)
  kept = masked[masked.any(axis=1)]
  require(len(kept) > 0, entry.flag, "only zeros", "a token that is kept")
  lengths = np.linalg.norm(kept, axis=1)
  require(
      bool(np.linalg.norm(kept.mean(axis=0)) > _ROUNDING * lengths.max()),
      entry.flag,
      "tokens whose mean is zero",
      "a mean token that has a direction",
  )
  return kept


def _unit(vectors: Float[np.ndarray, "*N H"]) -> Float[np.ndarray, "*N H"]:
  return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def similarities(
    prompts: Sequence[Float[np.ndarray, "_ H"]],
) -> dict[str, Float[np.ndarray, "N N"]]:
  """Both measures for every pair of prompts.

  Args:
    prompts: N prompts [P, H], each with a P of its own; no token is zero.

  Returns:
    `cosine_of_means` and `mean_of_cosines`, both [N, N] in [-1, 1]. A prompt's
    pairs with itself count all its tokens with all, so only the first measure
    has ones on its diagonal.
  """
  means = _unit(np.stack([prompt.mean(axis=0) for prompt in prompts]))
  # The mean of all products is the product of the means.
  directions = np.stack([_unit(prompt).mean(axis=0) for prompt in prompts])
  return {
      "cosine_of_means": means @ means.T,
      "mean_of_cosines": directions @ directions.T,
  }


def _csv(names: Sequence[str], matrix: Float[np.ndarray, "N N"]) -> str:
  text = io.StringIO()
  writer = csv.writer(text, lineterminator="\n")
  writer.writerow(["", *names])
  for name, row in zip(names, matrix.tolist(), strict=True):
    writer.writerow([name, *(f"{value:.6f}" for value in row)])
  return text.getvalue()


def _draw(
    path: pathlib.Path, names: Sequence[str], found: Mapping[str, np.ndarray]
) -> None:
  """Both matrices side by side."""
  # Loading it takes long, and no other command draws.
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  size = 1.6 + 0.55 * len(names)
  figure = Figure(figsize=(2 * size + 1, size), layout="constrained")
  FigureCanvasAgg(figure)
  for axes, (name, matrix) in zip(
      figure.subplots(1, len(found)), found.items(), strict=True
  ):
    image = axes.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1)
    axes.set_title(TITLES[name], fontsize=9)
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    for (row, column), value in np.ndenumerate(matrix):
      dark = abs(value) > 0.6
      axes.text(
          column,
          row,
          f"{value:.2f}",
          ha="center",
          va="center",
          fontsize=7,
          color="white" if dark else "black",
      )
    figure.colorbar(image, ax=axes, shrink=0.8)
  with artifacts.replacing(path) as temporary:
    figure.savefig(temporary, format="png", dpi=150)


def compare(named_prompts: Sequence[str], output: pathlib.Path) -> None:
  """Writes and prints how alike prompts are.

  Args:
    named_prompts: `NAME=PATH` or `NAME=PATH#ROW`, two or more.
    output: folder for a CSV file of each measure and a picture of both.

  Raises:
    UserError: fewer than two, a file that cannot be read, or prompts of
      different H.
  """
  named = prompt_library.parse_named_prompts(named_prompts)
  require(len(named) > 1, "--prompt", len(named), "two prompts or more")
  prompts = {name: _kept_tokens(entry) for name, entry in named.items()}
  first = next(iter(named.values()))
  width = prompts[next(iter(prompts))].shape[1]
  for name, prompt in prompts.items():
    if prompt.shape[1] != width:
      raise UserError(
          f"{named[name].flag}: found tokens of {prompt.shape[1]} numbers,"
          f" expected {width} as in {first.path}"
      )
  names = list(prompts)
  found = similarities(list(prompts.values()))
  for measure, matrix in found.items():
    path = output / f"{measure}.csv"
    artifacts.write_text(path, _csv(names, matrix))
    print(f"{TITLES[measure]}:")
    widest = max(map(len, names))
    print(" " * widest, *(f"{name:>7}" for name in names))
    for name, row in zip(names, matrix, strict=True):
      cells = zip(names, row, strict=True)
      values = (f"{value:>{max(7, len(n))}.3f}" for n, value in cells)
      print(f"{name:<{widest}}", *values)
    print()
  _draw(output / PICTURE, names, found)
  for file in (*(f"{measure}.csv" for measure in found), PICTURE):
    print(output / file)
