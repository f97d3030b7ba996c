"""What every format is turned into, and the checks that all of them pass.

A format's reader gives arrays by the names below, in whatever shape and dtype
its file had; `checked` gives them the shapes and the dtype of a prompt table.
"""

from collections.abc import Iterable, Mapping
import itertools
import os

import numpy as np

from xprompt_jax.types import UserError, require

# The axes of each array, without R: a file may hold one prompt without rows.
AXES = {
    "prompt": "PH",
    "token_mask": "P",
    "piece_mask": "PK",
    "present": "P",
    "token_scores": "P",
    "piece_scores": "PK",
}
_NAMES_SHOWN = 3


def listed(names: Iterable[str]) -> str:
  """Names for a message: the first few, and how many more there are."""
  ordered = sorted(names)
  shown = ", ".join(map(repr, itertools.islice(ordered, _NAMES_SHOWN)))
  more = len(ordered) - _NAMES_SHOWN
  return f"{shown} and {more} more" if more > 0 else shown or "nothing"


def _numbers(where: str, array: np.ndarray) -> np.ndarray:
  """An array of real numbers as float32; scores keep float64."""
  # bfloat16 is none of NumPy's own kinds.
  real = array.dtype.kind in "fiub" or array.dtype.name == "bfloat16"
  require(real, where, str(array.dtype), "numbers")
  double = array.dtype == np.float64 and where.endswith("_scores")
  # What is too large for float32 becomes infinite, and is refused for it.
  with np.errstate(over="ignore"):
    array = array.astype(np.float64 if double else np.float32)
  require(
      bool(np.isfinite(array).all()),
      where,
      "NaN or infinity",
      "finite numbers",
  )
  return array


def _prompt(where: str, array: np.ndarray, embed_dim: int | None) -> np.ndarray:
  """[P, H] or [R, P, H] -> [R, P, H]."""
  shape = array.shape
  if array.ndim == 2:
    array = array[None]
  if embed_dim is None:
    right = array.ndim == 3 and 0 not in array.shape
    require(right, where, shape, "[P, H] or [R, P, H]")
    return array
  if array.ndim != 3 or 0 in array.shape or array.shape[2] != embed_dim:
    raise UserError(
        f"{where}: found {shape}, expected [P, {embed_dim}] or"
        f" [R, P, {embed_dim}]: the model's emb_dim is {embed_dim}"
    )
  return array


def _like_prompt(
    where: str, array: np.ndarray, axes: str, sizes: Mapping[str, int]
) -> np.ndarray:
  """[P] or [R, P], [P, K] or [R, P, K] -> with R."""
  shape = array.shape
  if array.ndim == len(axes):
    array = array[None]
  expected = [sizes["R"], sizes["P"]]
  if axes == "PK":
    num_pieces = sizes.get("K", shape[-1] if shape else 0)
    expected.append(num_pieces)
    if not num_pieces or sizes["H"] % num_pieces:
      raise UserError(
          f"{where}: found {shape}, expected [R, P, K] = ({sizes['R']},"
          f" {sizes['P']}, K) with a K that divides {sizes['H']}"
      )
  require(array.shape == tuple(expected), where, shape, str(tuple(expected)))
  return array


def checked(
    path: str | os.PathLike[str],
    arrays: Mapping[str, np.ndarray],
    embed_dim: int | None,
) -> dict[str, np.ndarray]:
  """A prompt's arrays with rows, in float32 (scores also in float64).

  Args:
    path: the file, for messages.
    arrays: by the names of `AXES`; other names are left out.
    embed_dim: H of the model; None takes any.

  Returns:
    `prompt` [R, P, H], and of `token_mask` [R, P], `piece_mask` [R, P, K],
    `present` [R, P], `token_scores` and `piece_scores`, shaped like their
    masks, those that are there. P and K are the file's own.

  Raises:
    UserError: names file and array: another shape, no numbers, NaN or
      infinity, a mask with other values than 0 and 1, a prompt that is not
      present up to its end.
  """
  path = os.fspath(path)
  where = f"{path}: prompt"
  found = {}
  prompt = _prompt(where, arrays["prompt"], embed_dim)
  found["prompt"] = _numbers(where, prompt)
  sizes = dict(zip("RPH", prompt.shape, strict=True))
  for name, axes in AXES.items():
    if name == "prompt" or name not in arrays:
      continue
    where = f"{path}: {name}"
    array = _like_prompt(where, arrays[name], axes, sizes)
    if axes == "PK":
      sizes["K"] = array.shape[-1]
    array = _numbers(where, array)
    if name == "present":
      # A shorter prompt stands at the end: 0, ..., 0, 1, ..., 1.
      at_the_end = np.isin(array, (0.0, 1.0)).all() and array[:, -1].all()
      require(
          bool(at_the_end and (np.diff(array, axis=1) >= 0).all()),
          where,
          "other values",
          "0 (absent) in front and 1 behind, at least one 1 in each row",
      )
    elif name.endswith("_mask"):
      kept_or_pruned = bool(np.isin(array, (0.0, 1.0)).all())
      expected = "only 1 (keep) and 0 (pruned)"
      require(kept_or_pruned, where, "other values", expected)
    else:
      least = float(array.min())
      require(least >= 0, where, least, "importance scores >= 0")
    found[name] = array
  return found
