"""Which format a path is, by its content, and the prompt it holds.

Suffixes decide nothing: google-research/prompt-tuning writes .npy contents
under names without one. A folder is a PEFT adapter, an export of this program
or a stage of a run. Nothing in a file or a config names another file to read.
"""

import hashlib
import os
import pathlib
from typing import Any

import numpy as np
import safetensors

from xprompt_jax import artifacts
from xprompt_jax.prompt_formats import (
    compact,
    native,
    npy,
    openprompt,
    peft,
    torch_file,
)
from xprompt_jax.prompt_formats.arrays import checked, listed
from xprompt_jax.types import PromptMasks, UserError

# Written beside an export: what it is, and the sha256 of its prompt file.
EXPORT = "export.json"
_FILES = (native.FILE, npy.FILE, openprompt.FILE, compact.FILE)
# 8 bytes of length, then a JSON object.
_SAFETENSORS_BRACE = slice(8, 9)
_HEAD = 16


def _file_in(folder: pathlib.Path) -> pathlib.Path:
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


def _check_digest(file: pathlib.Path) -> None:
  """Checks the file against the export.json beside it, where there is one."""
  note = file.with_name(EXPORT)
  if not note.exists():
    return
  recorded = artifacts.read_json(note)
  if recorded.get("file") != file.name:
    return
  found = hashlib.sha256(file.read_bytes()).hexdigest()
  expected = recorded.get("sha256")
  if found != expected:
    raise UserError(
        f"{file}: contents have sha256 {found[:12]}, expected"
        f" {str(expected)[:12]} by {note.name}: the file is damaged"
    )


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
    `token_mask` [R, P], `piece_mask` [R, P, K] (both float32), `token_scores`
    and `piece_scores` those that are stored.

  Raises:
    UserError: names the file, and the tensor where it is one's fault: missing,
      damaged, another format, another H.
  """
  file = pathlib.Path(path)
  if file.is_dir():
    file = _file_in(file)
  try:
    with open(file, "rb") as f:
      head = f.read(_HEAD)
    _check_digest(file)
  except OSError as e:
    raise UserError(f"{file}: cannot read: {e.strerror or e}") from e
  if head.startswith(npy.MAGIC):
    arrays = npy.read(file)
  elif head[_SAFETENSORS_BRACE] == b"{":
    arrays = _from_safetensors(file, embed_dim)
  elif head.startswith(torch_file.MAGICS):
    arrays = _from_torch(file)
  else:
    raise UserError(
        f"{file}: found a file that starts with {head[:8]!r}, expected a whole"
        " .npy, safetensors or torch file"
    )
  return checked(file, arrays, embed_dim)


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
    pieces, whatever the file says.

  Raises:
    UserError: as `read_prompt`.
  """
  arrays = read_prompt(path, embed_dim)
  prompt = arrays["prompt"]
  full = np.ones((*prompt.shape[:2], num_pieces), np.float32)
  token_mask = arrays.get("token_mask", full[..., 0])
  piece_mask = arrays.get("piece_mask", full) * token_mask[..., None]
  return prompt, PromptMasks(token_mask=token_mask, piece_mask=piece_mask)
