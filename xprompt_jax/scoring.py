"""Importance scores: the mean over examples of |dL/dmask|.

With G = dL/dmasked from one backward pass over per-example prompts, the
derivative with respect to a piece's mask is the sum of prompt * G over the
piece, and that of a token's mask is the sum over its kept pieces: both levels
come from one pass. The absolute value is taken per example, before the mean
(Ma et al. 2022, section 3.2, after Michel et al. 2019).
"""

from collections.abc import Mapping
import functools

import jax
from jax import Array
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int
import numpy as np

from xprompt_jax import masks as masks_lib
from xprompt_jax import partitioning, progress
from xprompt_jax.model import PromptedT5, target_losses
from xprompt_jax.tables import TableRows
from xprompt_jax.types import Batch, PromptMasks


@functools.partial(jax.jit, static_argnames=("model",))
def mask_derivatives(
    prompt: Float[Array, "R P H"],
    masks: PromptMasks,
    frozen_params: Mapping,
    row_ids: Int[Array, "B"],
    batch: Batch,
    *,
    model: PromptedT5,
) -> tuple[Float[Array, "B P"], Float[Array, "B P K"]]:
  """dL/dmask of each example, at its row's current masks, dropout off.

  Args:
    prompt: [R, P, H], unmasked.
    masks: [R, P] and [R, P, K].
    frozen_params: the T5's parameters.
    row_ids: [B], the row of each example.
    batch: T5X's keys, B examples.
    model: the prompted T5.

  Returns:
    Derivatives of each example's loss (negative log-likelihood of its target,
    summed, in nats) with respect to token and piece masks: [B, P], [B, P, K].
  """
  visible = model.prompt_visible(masks_lib.take_rows(masks, row_ids))

  def total_loss(masked: Float[Array, "B P H"]) -> Float[Array, ""]:
    logits = model.logits(frozen_params, masked, visible, batch)
    return jnp.sum(target_losses(logits, batch))

  masked = masks_lib.apply_masks(prompt, masks)[row_ids]
  gradient = jax.grad(total_loss)(masked)
  num_pieces = masks.piece_mask.shape[2]
  product = prompt[row_ids] * gradient
  # [B, P, H] -> [B, P, K, H / K] -> [B, P, K]
  by_piece = product.reshape(*product.shape[:2], num_pieces, -1).sum(axis=-1)
  token = jnp.sum(by_piece * masks.piece_mask[row_ids], axis=-1)
  # The other factor of a piece's mask is its token's.
  piece = by_piece * masks.token_mask[row_ids][..., None]
  return token, piece


@functools.partial(jax.jit, static_argnames=("model",))
def _score_sums(
    prompt: Float[Array, "R P H"],
    masks: PromptMasks,
    frozen_params: Mapping,
    row_ids: Int[Array, "B"],
    valid: Bool[Array, "B"],
    batch: Batch,
    *,
    model: PromptedT5,
) -> tuple[Float[Array, "R P"], Float[Array, "R P K"]]:
  token, piece = mask_derivatives(
      prompt, masks, frozen_params, row_ids, batch, model=model
  )
  # A product and not a scatter, whose order of sums is open; accelerators
  # would round its factors to fewer bits by default.
  uses = jax.nn.one_hot(row_ids, prompt.shape[0]) * valid[:, None]
  return (
      jnp.einsum("br,bp->rp", uses, jnp.abs(token), precision="highest"),
      jnp.einsum("br,bpk->rpk", uses, jnp.abs(piece), precision="highest"),
  )


def score_table(
    prompt: np.ndarray,
    masks: PromptMasks,
    rows: TableRows,
    *,
    model: PromptedT5,
    frozen_params: Mapping,
    batch_size: int,
    mesh: Mesh | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """Importance of every token and piece of every row.

  Args:
    prompt: [R, P, H], unmasked.
    masks: [R, P] and [R, P, K], the point at which to differentiate.
    rows: the training split of each row; every example counts once.
    model: the prompted T5.
    frozen_params: its parameters.
    batch_size: B, examples a batch, all rows together; changes no score
      beyond rounding.
    mesh: devices to spread a batch over; None uses one.

  Returns:
    token_scores [R, P] and piece_scores [R, P, K], float64, >= 0.
  """
  num_rows, prompt_length, _ = prompt.shape
  token_sum = np.zeros((num_rows, prompt_length))
  piece_sum = np.zeros((*token_sum.shape, masks.piece_mask.shape[2]))
  device_prompt = jnp.asarray(prompt)
  count = np.array([len(split) for split in rows.splits], np.float64)
  done = 0
  with progress.Reporter("score", int(count.sum())) as reporter:
    for batch in rows.every_example(batch_size):
      arrays = {**batch.arrays, "rows": batch.row_ids, "valid": batch.valid}
      placed = dict(partitioning.shard_batch(arrays, mesh))
      token, piece = _score_sums(
          device_prompt,
          masks,
          frozen_params,
          placed.pop("rows"),
          placed.pop("valid"),
          placed,
          model=model,
      )
      token_sum += np.asarray(token)
      piece_sum += np.asarray(piece)
      done += int(batch.valid.sum())
      reporter.update(done, {})
  return token_sum / count[:, None], piece_sum / count[:, None, None]
