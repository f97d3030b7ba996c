"""Many tickets in little room: their kept pieces and which ones they are.

A ticket is mostly zeros. Of R prompts [P, H] in K pieces this file holds

    sizes       int64 [4]           R, P, K, H
    token_bits  uint8 [(R P) / 8]   the token masks, a bit each, rows in order
    piece_bits  uint8 [(T K) / 8]   the piece masks of the T kept tokens
    pieces      float32 [N, H / K]  the N kept pieces, in order

as safetensors, sizes rounded up, the first entry in the highest bit as
`numpy.packbits` has it. Reading gives masks and masked prompts bit for bit;
what a pruned entry once was is not kept.
"""

import pathlib

import numpy as np

from xprompt_jax import artifacts
from xprompt_jax.prompt_formats.arrays import listed
from xprompt_jax.types import PromptMasks, UserError, require

FILE = "compact.safetensors"
TENSOR = "piece_bits"
_NAMES = ("sizes", "token_bits", "piece_bits", "pieces")
_MAX_WIDTH = 2**16


def write(path: pathlib.Path, prompt: np.ndarray, masks: PromptMasks) -> None:
  """Writes the kept pieces of R prompts.

  Args:
    path: the file.
    prompt: [R, P, H]; pruned entries may have any value.
    masks: [R, P] and [R, P, K]; a pruned token has no kept piece.
  """
  rows, length, width = prompt.shape
  token_mask = np.asarray(masks.token_mask) > 0
  piece_mask = np.asarray(masks.piece_mask) > 0
  num_pieces = piece_mask.shape[2]
  # [R, P, H] -> [R, P, K, H / K]
  by_piece = prompt.reshape(rows, length, num_pieces, -1)
  artifacts.save_arrays(
      path,
      {
          "sizes": np.array([rows, length, num_pieces, width], np.int64),
          "token_bits": np.packbits(token_mask),
          "piece_bits": np.packbits(piece_mask[token_mask]),
          "pieces": by_piece[piece_mask].astype(np.float32),
      },
  )


def _bits(where: str, packed: np.ndarray, count: int) -> np.ndarray:
  expected = f"uint8 ({-(-count // 8)},)"
  require(
      packed.dtype == np.uint8 and packed.shape == (-(-count // 8),),
      where,
      f"{packed.dtype} {packed.shape}",
      expected,
  )
  return np.unpackbits(packed, count=count).astype(bool)


def _sizes(where: str, array: np.ndarray, embed_dim: int | None) -> list[int]:
  sizes = array.tolist() if array.dtype == np.int64 else None
  if embed_dim is None:
    last = sizes[-1] if isinstance(sizes, list) and sizes else 0
    embed_dim = max(1, min(last, _MAX_WIDTH))
  fits = (
      isinstance(sizes, list)
      and array.shape == (4,)
      and min(sizes) >= 1
      and sizes[3] == embed_dim
      and embed_dim % sizes[2] == 0
  )
  expected = f"[R, P, K, {embed_dim}] with a K that divides {embed_dim}"
  require(fits, where, array.tolist(), expected)
  return array.tolist()


def read(path: pathlib.Path, embed_dim: int | None) -> dict[str, np.ndarray]:
  """Reads masked prompts and their masks.

  Args:
    path: the file.
    embed_dim: H of the model; sizes are believed only if they fit it. None
      takes any up to 65,536.

  Returns:
    `prompt` [R, P, H] float32 with zeros where it is pruned, `token_mask`
    [R, P] and `piece_mask` [R, P, K].

  Raises:
    UserError: the file is missing or damaged, or its arrays contradict each
      other.
  """
  arrays = artifacts.load_arrays(path)
  if set(arrays) != set(_NAMES):
    raise UserError(
        f"{path}: found {listed(arrays)}, expected {listed(_NAMES)}"
    )
  rows, length, num_pieces, width = _sizes(
      f"{path}: sizes", arrays["sizes"], embed_dim
  )
  token_bits = _bits(f"{path}: token_bits", arrays["token_bits"], rows * length)
  token_mask = token_bits.reshape(rows, length)
  kept = int(token_mask.sum())
  piece_bits = _bits(
      f"{path}: piece_bits", arrays["piece_bits"], kept * num_pieces
  )
  piece_mask = np.zeros((rows, length, num_pieces), bool)
  piece_mask[token_mask] = piece_bits.reshape(kept, num_pieces)
  pieces = arrays["pieces"]
  expected = (int(piece_mask.sum()), width // num_pieces)
  require(
      pieces.dtype == np.float32 and pieces.shape == expected,
      f"{path}: pieces",
      f"{pieces.dtype} {pieces.shape}",
      f"float32 {expected}",
  )
  by_piece = np.zeros((rows, length, *(num_pieces, expected[1])), np.float32)
  by_piece[piece_mask] = pieces
  return {
      "prompt": by_piece.reshape(rows, length, width),
      "token_mask": token_mask.astype(np.float32),
      "piece_mask": piece_mask.astype(np.float32),
  }
