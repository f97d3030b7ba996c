"""What a pair of masks means: how it expands, multiplies and is counted.

Masks are float32, 1 keep and 0 pruned, because scores are derivatives with
respect to them. `pruning.py` decides which entries become 0.
"""

from collections.abc import Mapping, Sequence
import dataclasses

import jax
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


def take_rows(masks: PromptMasks, rows: AnyArray) -> PromptMasks:
  """The masks of some rows, in the order given: rows [N] -> [N, ...]."""
  return jax.tree.map(lambda mask: mask[rows], masks)


def without_absent(
    prompt: Float[np.ndarray, "*R P H"], masks: PromptMasks
) -> tuple[Float[np.ndarray, "*R Q H"], PromptMasks]:
  """Leaves out the positions in front that none of the prompts has.

  Exact: absent positions are hidden, and T5's positions are relative.

  Args:
    prompt: [..., P, H].
    masks: [..., P] and [..., P, K].

  Returns:
    Both with Q in place of P, the longest prompt; `present` only if another is
    shorter than that.
  """
  if masks.present is None:
    return prompt, masks
  present = np.asarray(masks.present)
  first = int(present.reshape(-1, present.shape[-1]).any(axis=0).argmax())
  present = present[..., first:]
  return prompt[..., first:, :], PromptMasks(
      token_mask=masks.token_mask[..., first:],
      piece_mask=masks.piece_mask[..., first:, :],
      present=None if present.all() else present,
  )


def concatenate(tables: Sequence[PromptMasks]) -> PromptMasks:
  """The masks of several tables of the same P and K, one after another."""
  some = any(masks.present is not None for masks in tables)
  present = [
      np.ones(masks.token_mask.shape, np.float32)
      if masks.present is None
      else masks.present
      for masks in tables
  ]
  return PromptMasks(
      token_mask=np.concatenate([masks.token_mask for masks in tables]),
      piece_mask=np.concatenate([masks.piece_mask for masks in tables]),
      present=np.concatenate(present) if some else None,
  )


def as_arrays(masks: PromptMasks) -> dict[str, np.ndarray]:
  """What files hold of masks: `present` only where there is one."""
  return {
      field.name: np.asarray(getattr(masks, field.name))
      for field in dataclasses.fields(masks)
      if getattr(masks, field.name) is not None
  }


def from_arrays(arrays: Mapping[str, np.ndarray]) -> PromptMasks:
  """Masks from what `as_arrays` made; other arrays are left alone."""
  return PromptMasks(
      token_mask=arrays["token_mask"],
      piece_mask=arrays["piece_mask"],
      present=arrays.get("present"),
  )
