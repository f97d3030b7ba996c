"""export.json beside an exported prompt: what the prompt's file cannot say.

It has the sha256 of that file, and the masks of a prompt whose format has no
place for them, as strings of 0 (pruned) and 1: `token_mask` P of them,
`piece_mask` K for each token, and `masks_sha256` of both.
"""

import hashlib
import os
import pathlib
from typing import Any

import numpy as np

from xprompt_jax import artifacts
from xprompt_jax.prompt_formats.arrays import checked
from xprompt_jax.types import PromptMasks, UserError, require

FILE = "export.json"


def beside(file: str | os.PathLike[str]) -> pathlib.Path:
  """Where the note of a prompt file stands."""
  return pathlib.Path(file).with_name(FILE)


def read(file: str | os.PathLike[str]) -> dict[str, Any] | None:
  """The note beside a prompt file, or None if there is none about it.

  Raises:
    UserError: it is damaged.
  """
  path = beside(file)
  if not path.exists():
    return None
  note = artifacts.read_json(path)
  # A name to compare with, which is never followed.
  return note if note.get("file") == pathlib.Path(file).name else None


def sha256(file: pathlib.Path) -> str:
  """Of a file's contents.

  Raises:
    UserError: it cannot be read.
  """
  try:
    return hashlib.sha256(file.read_bytes()).hexdigest()
  except OSError as e:
    raise UserError(f"{file}: cannot read: {e.strerror or e}") from e


def described(masks: PromptMasks) -> dict[str, Any]:
  """The masks [1, P] and [1, P, K] of one prompt, as the note has them."""
  arrays = {
      "token_mask": np.asarray(masks.token_mask, np.float32),
      "piece_mask": np.asarray(masks.piece_mask, np.float32),
  }
  (tokens,), (pieces,) = (a.astype(int).astype(str) for a in arrays.values())
  return {
      "token_mask": "".join(tokens),
      "piece_mask": ["".join(token) for token in pieces],
      "masks_sha256": artifacts.digest_arrays(arrays),
  }


def _mask(where: str, words: Any) -> np.ndarray:
  """[N, M] of N strings of M digits."""
  fits = (
      isinstance(words, list)
      and all(isinstance(w, str) and set(w) <= {"0", "1"} for w in words)
      and len({len(w) for w in words}) == 1
  )
  expected = "strings of 0 (pruned) and 1 (keep), all of one length"
  require(fits, where, "something else", expected)
  return np.array([list(map(float, w)) for w in words], np.float32)


def masks_of(
    file: pathlib.Path, note: dict[str, Any], prompt: np.ndarray
) -> dict[str, np.ndarray]:
  """The masks that a note has for the prompt of its file.

  Args:
    file: the prompt's.
    note: from `read`.
    prompt: [1, P, H].

  Returns:
    `token_mask` [1, P] and `piece_mask` [1, P, K]; nothing if it has none.

  Raises:
    UserError: they are no masks, were changed, or are not those of this
      prompt: another P, or a pruned entry that is not zero.
  """
  if "token_mask" not in note:
    return {}
  path = beside(file)
  masks = {
      "token_mask": _mask(f"{path}: token_mask", [note["token_mask"]]),
      "piece_mask": _mask(f"{path}: piece_mask", note.get("piece_mask"))[None],
  }
  artifacts.require_digest(
      f"{path}: masks", artifacts.digest_arrays(masks), note.get("masks_sha256")
  )
  arrays = checked(path, {"prompt": prompt, **masks}, prompt.shape[2])
  kept = arrays["piece_mask"] * arrays["token_mask"][..., None]
  width = prompt.shape[2] // kept.shape[2]
  require(
      not prompt[np.repeat(kept, width, axis=-1) == 0].any(),
      f"{path}: masks",
      "pruned entries that are not zero",
      f"the masks of {file.name}",
  )
  return {name: arrays[name] for name in ("token_mask", "piece_mask")}
