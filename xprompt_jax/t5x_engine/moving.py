"""Prompts from T5X's checkpoints to this program's files, and back.

A file that is written here is one of `prompt_formats`: a run's own form, which
`PROMPT_FILE`, `PROMPT_INIT_FILE`, `t5x export` and the gin files for T5X read.
"""

from collections.abc import Mapping
import os
import pathlib
from typing import Any

from flax import traverse_util
import numpy as np

from xprompt_jax import prompt_formats
from xprompt_jax.prompt_formats import native, places
from xprompt_jax.t5x_engine import names
from xprompt_jax.types import UserError
from xprompt_jax.weights import t5x_native

_NAMES = {
    "prompt": names.PROMPT,
    "token_mask": names.TOKEN_MASK,
    "piece_mask": names.PIECE_MASK,
}


def from_parameters(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """The prompt and masks in T5X's tree of parameters, with one row.

  Args:
    params: nested, of a network with a prompt.

  Returns:
    `prompt` [1, P, H], and `token_mask` [1, P] and `piece_mask` [1, P, K]
    where the tree has them, float32.
  """
  flat = traverse_util.flatten_dict(params, sep="/")
  return {
      name: np.asarray(flat[path], np.float32)[None]
      for name, path in _NAMES.items()
      if path in flat
  }


def to_parameters(
    arrays: Mapping[str, np.ndarray], row: int = 0
) -> dict[str, Any]:
  """One row of a prompt's arrays as a part of T5X's tree of parameters.

  Args:
    arrays: `prompt` [R, P, H], `token_mask` [R, P], `piece_mask` [R, P, K].
    row: which of them.

  Returns:
    Nested: {"encoder": {"prompt": ...}}.
  """
  return traverse_util.unflatten_dict(
      {path: np.asarray(arrays[name][row]) for name, path in _NAMES.items()},
      sep="/",
  )


def read_checkpoint(path: str) -> dict[str, np.ndarray]:
  """The prompt and masks in a checkpoint of T5X's native format.

  Args:
    path: of a run of these gin files, or of google-research/prompt-tuning,
      which has no masks; on the disk or as `gs://BUCKET/PATH`.

  Returns:
    As `from_parameters`.

  Raises:
    UserError: no checkpoint, or one without a prompt.
  """
  config = t5x_native.guess_config(path)
  leaves = t5x_native.open_checkpoint(path, config)
  if names.PROMPT not in leaves:
    raise UserError(
        f"{path}: found no {names.PROMPT}, expected a checkpoint of a T5X run"
        " with a prompt"
    )
  return from_parameters(
      {name: leaves[name].whole() for name in _NAMES.values() if name in leaves}
  )


def checkpoint_to_file(
    checkpoint: str, file: str | os.PathLike[str]
) -> dict[str, np.ndarray]:
  """Writes the prompt of a T5X checkpoint as this program's own file.

  Args:
    checkpoint: as for `read_checkpoint`.
    file: such as `prompt.safetensors`; replaced if it is there.

  Returns:
    What was written, [1, P, ...].

  Raises:
    UserError: as `read_checkpoint`, or a file that cannot be written.
  """
  arrays = read_checkpoint(checkpoint)
  native.write(pathlib.Path(file), arrays)
  return arrays


def file_to_parameters(place: str, num_pieces: int) -> dict[str, Any]:
  """A prompt in any format as a part of T5X's tree of parameters.

  Args:
    place: `PATH`, or `PATH#ROW` for one of several.
    num_pieces: K for a file that has no piece mask.

  Returns:
    As `to_parameters`; masks are ones where the file has none.

  Raises:
    UserError: a file that cannot be read, or has no such row.
  """
  path, row = places.split_row(place)
  prompt, masks = prompt_formats.read_table(
      path, embed_dim=None, num_pieces=num_pieces
  )
  if row is None and len(prompt) > 1:
    raise UserError(f"{path}: found {len(prompt)} prompts, expected {path}#ROW")
  places.check_row(row or 0, path, len(prompt), place)
  return to_parameters(
      {
          "prompt": prompt,
          "token_mask": np.asarray(masks.token_mask),
          "piece_mask": np.asarray(masks.piece_mask),
      },
      row or 0,
  )
