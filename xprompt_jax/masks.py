"""What a pair of masks means: how it expands, multiplies and is counted.

Masks are float32, 1 keep and 0 pruned, because scores are derivatives with
respect to them. `pruning.py` decides which entries become 0.
"""

import jax.numpy as jnp
from jaxtyping import Float
import numpy as np

from xprompt_jax.types import AnyArray, PromptMasks


def full_masks(
    num_rows: int, prompt_length: int, num_pieces: int
) -> PromptMasks:
  """Masks that keep everything: plain prompt tuning.

  Args:
    num_rows: R.
    prompt_length: P.
    num_pieces: K.

  Returns:
    Ones of shapes [R, P] and [R, P, K].
  """
  return PromptMasks(
      token_mask=jnp.ones((num_rows, prompt_length)),
      piece_mask=jnp.ones((num_rows, prompt_length, num_pieces)),
  )


def expand(masks: PromptMasks, embed_dim: int) -> Float[AnyArray, "*R P H"]:
  """One factor for each prompt entry: gamma x zeta of the paper's equation 6.

  Args:
    masks: [..., P] and [..., P, K].
    embed_dim: H; K divides it, and a piece is H / K neighbouring entries.

  Returns:
    [..., P, H].
  """
  factor = masks.token_mask[..., None] * masks.piece_mask
  # [..., P, K] -> [..., P, H]
  return jnp.repeat(factor, embed_dim // factor.shape[-1], axis=-1)


def apply_masks(
    prompt: Float[AnyArray, "*R P H"], masks: PromptMasks
) -> Float[AnyArray, "*R P H"]:
  """Multiplies a prompt by its masks: pruned entries are exactly zero.

  Args:
    prompt: [..., P, H].
    masks: [..., P] and [..., P, K].

  Returns:
    [..., P, H].
  """
  return prompt * expand(masks, prompt.shape[-1])


def kept_tokens(masks: PromptMasks) -> np.ndarray:
  """Tokens that are kept, with at least one piece each: [R] integers."""
  some = np.asarray(masks.piece_mask).any(axis=-1)
  kept = np.asarray(masks.token_mask) * some
  return kept.sum(axis=-1).astype(np.int64)


def kept_pieces(masks: PromptMasks) -> np.ndarray:
  """Pieces that are kept, all tokens together: [R] integers."""
  return np.asarray(masks.piece_mask).sum(axis=(-2, -1)).astype(np.int64)


def tunable_parameters(masks: PromptMasks, embed_dim: int) -> np.ndarray:
  """Prompt entries that are kept and so trained: [R] integers."""
  return kept_pieces(masks) * (embed_dim // masks.piece_mask.shape[-1])


def take_rows(masks: PromptMasks, rows: np.ndarray) -> PromptMasks:
  """The masks of some rows, in the order given: rows [N] -> [N, ...]."""
  return PromptMasks(
      token_mask=masks.token_mask[rows], piece_mask=masks.piece_mask[rows]
  )
