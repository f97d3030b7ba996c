"""Which format a path is, by its content, and the prompt it holds.

Suffixes decide nothing: google-research/prompt-tuning writes .npy contents
under names without one. A folder is a PEFT adapter, an export of this program
or a stage of a run. Nothing in a file or a config names another file to read.
"""

import os
import pathlib
from typing import Any

import numpy as np
import safetensors

from xprompt_jax.prompt_formats import (
    compact,
    export_note,
    native,
    npy,
    openprompt,
    peft,
    torch_file,
)
from xprompt_jax.prompt_formats.arrays import checked, listed
from xprompt_jax.prompt_formats.formats import FORMATS
from xprompt_jax.types import PromptMasks, UserError, require

# An adapter is known by its config.
_FILES = tuple(f.file for f in FORMATS.values() if f.file != peft.FILE)
# 8 bytes of length, then a JSON object.
_SAFETENSORS_BRACE = slice(8, 9)
_HEAD = 16


def file_of(path: str | os.PathLike[str]) -> pathlib.Path:
  """The prompt file that a path is, or that lies in the folder it is.

  Raises:
    UserError: the folder holds none, or several.
  """
  folder = pathlib.Path(path)
  if not folder.is_dir():
    return folder
  if peft.is_folder(folder):
    return peft.file_in(folder)
  found = [folder / name for name in _FILES if (folder / name).exists()]
  if len(found) != 1:
    names = listed(path.name for path in found)
    raise UserError(
        f"{folder}: found {names if found else 'no prompt in this folder'},"
        f" expected one of {', '.join(_FILES)}, or a PEFT adapter with"
        f" {peft.CONFIG}"
    )
  return found[0]


def _from_safetensors(
    file: pathlib.Path, embed_dim: int | None
) -> dict[str, np.ndarray]:
  try:
    # Names first: a whole model may lie here by mistake.
    with safetensors.safe_open(file, framework="numpy") as f:
      names = set(f.keys())
  except safetensors.SafetensorError as e:
    raise UserError(f"{file}: not a whole safetensors file: {e}") from e
  if native.TENSOR in names:
    return native.read(file)
  if peft.TENSOR in names:
    return peft.read(file)
  if compact.TENSOR in names:
    return compact.read(file, embed_dim)
  raise UserError(
      f"{file}: found {listed(names)}, expected a tensor named 'prompt', or"
      " 'prompt_embeddings' (PEFT)"
  )


def _from_torch(file: pathlib.Path) -> dict[str, np.ndarray]:
  state: Any = torch_file.read(file)
  if isinstance(state, dict) and peft.TENSOR in state:
    return peft.from_state(file, state)
  return openprompt.from_state(file, state)


def _arrays(file: pathlib.Path, embed_dim: int | None) -> dict[str, np.ndarray]:
  """What a file of any format holds, shaped as it is there."""
  try:
    with open(file, "rb") as f:
      head = f.read(_HEAD)
  except OSError as e:
    raise UserError(f"{file}: cannot read: {e.strerror or e}") from e
  if head.startswith(npy.MAGIC):
    return npy.read(file)
  if head[_SAFETENSORS_BRACE] == b"{":
    return _from_safetensors(file, embed_dim)
  if head.startswith(torch_file.MAGICS):
    return _from_torch(file)
  raise UserError(
      f"{file}: found a file that starts with {head[:8]!r}, expected a whole"
      " .npy, safetensors or torch file"
  )


def read_prompt(
    path: str | os.PathLike[str], embed_dim: int | None
) -> dict[str, np.ndarray]:
  """Reads a prompt, and what the file has beside it.

  Args:
    path: a .npy file, a safetensors file of ours, a PEFT adapter's folder or
      its weights, a torch file with `soft_embeds`, a compact file, or a folder
      that `t5x export` or a stage of a run wrote.
    embed_dim: H of the model; None takes any.

  Returns:
    `prompt` [R, P, H] float32, R and P as the file has them, and of
    `token_mask` [R, P], `piece_mask` [R, P, K], `present` [R, P] (all
    float32), `token_scores` and `piece_scores` those that are stored; masks may
    stand in an export.json beside the file.

  Raises:
    UserError: names the file, and the tensor where it is one's fault: missing,
      damaged, another format, another H.
  """
  file = file_of(path)
  # First, because a tensor may have a sha256 of its own.
  arrays = _arrays(file, embed_dim)
  note = export_note.read(file)
  if note is not None:
    found, stated = export_note.sha256(file), note.get("sha256")
    require(
        found == stated,
        f"{file}: sha256 of its {' and '.join(arrays)}",
        found[:12],
        f"{stated!s:.12} by {export_note.beside(file)}: it was damaged, or"
        " written again since the export",
    )
  arrays = checked(file, arrays, embed_dim)
  if note is not None and "token_mask" not in arrays:
    arrays |= export_note.masks_of(file, note, arrays["prompt"])
  return arrays


def read_table(
    path: str | os.PathLike[str], *, embed_dim: int | None, num_pieces: int
) -> tuple[np.ndarray, PromptMasks]:
  """Reads prompts with masks: ones where the file has none.

  Args:
    path: as for `read_prompt`.
    embed_dim: H of the model.
    num_pieces: K for a file that has no piece mask; one that has decides K.

  Returns:
    [R, P, H], and masks [R, P] and [R, P, K] in which a pruned token has no
    pieces, whatever the file says. `present` is there where a prompt is
    shorter than P; `masks.without_absent` makes one of that length of it.

  Raises:
    UserError: as `read_prompt`.
  """
  arrays = read_prompt(path, embed_dim)
  prompt = arrays["prompt"]
  full = np.ones((*prompt.shape[:2], num_pieces), np.float32)
  token_mask = arrays.get("token_mask", full[..., 0])
  present = arrays.get("present", full[..., 0])
  token_mask = token_mask * present
  piece_mask = arrays.get("piece_mask", full) * token_mask[..., None]
  return prompt, PromptMasks(
      token_mask=token_mask,
      piece_mask=piece_mask,
      present=None if present.all() else present,
  )
