"""Importance scores: the mean over examples of |dL/dmask|.

With G = dL/dmasked from one backward pass over per-example prompts, the
derivative with respect to a piece's mask is the sum of prompt * G over the
piece, and that of a token's mask is the sum over its kept pieces: both levels
come from one pass. The absolute value is taken per example, before the mean
(Ma et al. 2022, section 3.2, after Michel et al. 2019). Without it, minus the
mean is the first-order estimate of what removing the unit adds to the loss.
"""

from collections.abc import Callable, Mapping
import functools
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Float64, Int
import numpy as np

from xprompt_jax import masks as masks_lib
from xprompt_jax import partitioning, progress
from xprompt_jax.importance import (
    PIECE_SCORES,
    PIECE_SIGNED,
    TOKEN_SCORES,
    TOKEN_SIGNED,
)
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


@functools.partial(jax.jit, static_argnames=("model", "signed"))
def _score_sums(
    prompt: Float[Array, "R P H"],
    masks: PromptMasks,
    frozen_params: Mapping,
    row_ids: Int[Array, "B"],
    valid: Bool[Array, "B"],
    batch: Batch,
    *,
    model: PromptedT5,
    signed: bool = False,
) -> dict[str, Array]:
  """Sums over a batch: [R, P] for tokens, [R, P, K] for pieces."""
  token, piece = mask_derivatives(
      prompt, masks, frozen_params, row_ids, batch, model=model
  )
  # A product and not a scatter, whose order of sums is open; accelerators
  # would round its factors to fewer bits by default.
  uses = jax.nn.one_hot(row_ids, prompt.shape[0]) * valid[:, None]

  def summed(values: Array) -> Array:
    axes = "bpk"[: values.ndim]
    return jnp.einsum(
        f"br,{axes}->r{axes[1:]}", uses, values, precision="highest"
    )

  sums = {TOKEN_SCORES: summed(jnp.abs(token))}
  sums[PIECE_SCORES] = summed(jnp.abs(piece))
  if signed:
    sums |= {TOKEN_SIGNED: summed(-token), PIECE_SIGNED: summed(-piece)}
  return sums


@functools.partial(jax.jit, static_argnames=("model",))
def _loss_sums(
    prompt: Float[Array, "R P H"],
    masks: PromptMasks,
    frozen_params: Mapping,
    row_ids: Int[Array, "B"],
    valid: Bool[Array, "B"],
    batch: Batch,
    *,
    model: PromptedT5,
) -> dict[str, Array]:
  """Sums over a batch: loss and target tokens, [R] each."""
  visible = model.prompt_visible(masks_lib.take_rows(masks, row_ids))
  masked = masks_lib.apply_masks(prompt, masks)[row_ids]
  logits = model.logits(frozen_params, masked, visible, batch)
  uses = jax.nn.one_hot(row_ids, prompt.shape[0]) * valid[:, None]
  tokens = jnp.sum(batch["decoder_loss_weights"], axis=-1)
  losses = target_losses(logits, batch)
  return {
      "loss": jnp.einsum("br,b->r", uses, losses, precision="highest"),
      "tokens": jnp.einsum("br,b->r", uses, tokens, precision="highest"),
  }


def score_table(
    prompt: np.ndarray,
    masks: PromptMasks,
    rows: TableRows,
    **settings: Any,
) -> tuple[np.ndarray, np.ndarray]:
  """Importance of every token and piece of every row.

  Args: as for `score_arrays`.

  Returns:
    token_scores [R, P] and piece_scores [R, P, K], float64, >= 0.
  """
  scores = score_arrays(prompt, masks, rows, **settings)
  return scores[TOKEN_SCORES], scores[PIECE_SCORES]


def score_arrays(
    prompt: np.ndarray,
    masks: PromptMasks,
    rows: TableRows,
    *,
    model: PromptedT5,
    frozen_params: Mapping,
    batch_size: int,
    mesh: Mesh | None = None,
    signed: bool = False,
) -> dict[str, np.ndarray]:
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
    signed: whether to give the signed estimates as well.

  Returns:
    `token_scores` [R, P] and `piece_scores` [R, P, K], float64, >= 0; and
    `token_signed` and `piece_signed` likewise, of any sign: minus the mean of
    dL/dmask, what removing the unit adds to the loss to first order.
  """
  sums = functools.partial(_score_sums, model=model, signed=signed)
  totals = _summed(
      "score", sums, prompt, masks, rows, frozen_params, batch_size, mesh
  )
  count = np.array([len(split) for split in rows.splits], np.float64)
  return {
      name: total / count.reshape(-1, *[1] * (total.ndim - 1))
      for name, total in totals.items()
  }


def loss_table(
    prompt: np.ndarray,
    masks: PromptMasks,
    rows: TableRows,
    *,
    model: PromptedT5,
    frozen_params: Mapping,
    batch_size: int,
    mesh: Mesh | None = None,
) -> Float64[np.ndarray, "R"]:
  """The training loss of every row over the whole of its split, dropout off.

  Args: as for `score_arrays`.

  Returns:
    [R], the mean over target tokens in nats.
  """
  sums = functools.partial(_loss_sums, model=model)
  totals = _summed(
      "loss", sums, prompt, masks, rows, frozen_params, batch_size, mesh
  )
  return totals["loss"] / totals["tokens"]


def _summed(
    name: str,
    sums: Callable[..., dict[str, Array]],
    prompt: np.ndarray,
    masks: PromptMasks,
    rows: TableRows,
    frozen_params: Mapping,
    batch_size: int,
    mesh: Mesh | None,
) -> dict[str, np.ndarray]:
  """What a function sums over batches, summed over every example of each row."""
  totals: dict[str, np.ndarray] = {}
  device_prompt = jnp.asarray(prompt)
  done, total = 0, sum(len(split) for split in rows.splits)
  with progress.Reporter(name, total) as reporter:
    for batch in rows.every_example(batch_size):
      arrays = {**batch.arrays, "rows": batch.row_ids, "valid": batch.valid}
      placed = dict(partitioning.shard_batch(arrays, mesh))
      found = sums(
          device_prompt,
          masks,
          frozen_params,
          placed.pop("rows"),
          placed.pop("valid"),
          placed,
      )
      for key, value in found.items():
        totals[key] = totals.get(key, 0.0) + np.asarray(value, np.float64)
      done += int(batch.valid.sum())
      reporter.update(done, {})
  return totals
