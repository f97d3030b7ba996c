"""One optimizer step of all rows of a prompt table, compiled.

The loop around it is `trainer.py`. Gradients are taken with respect to the
prompts alone; each row has its own loss and its own optimizer.
"""

from collections.abc import Mapping
import functools
from typing import Any

from flax import struct
import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Float, Int, UInt

from xprompt_jax import masks as masks_lib
from xprompt_jax import optimizer as optimizer_lib
from xprompt_jax.model import PromptedT5, target_losses
from xprompt_jax.optimizer import OptimizerConfig
from xprompt_jax.types import Batch, PromptMasks


@struct.dataclass
class TrainState:
  """The leaves that training changes."""

  prompt: Any  # Array [R, P, H]
  optimizer: Any  # Adafactor's state, leaves [R, ...]


def row_loss(
    prompt: Float[Array, "P H"],
    masks: PromptMasks,
    model: PromptedT5,
    frozen_params: Mapping,
    batch: Batch,
    dropout_key: Array | None = None,
    z_loss: float = 0.0,
) -> Float[Array, ""]:
  """The training loss of one row: the mean over its target tokens, in nats.

  Args:
    prompt: [P, H], unmasked.
    masks: [P] and [P, K].
    model: the prompted T5.
    frozen_params: its parameters.
    batch: T5X's keys, B examples.
    dropout_key: dropout is off without one.
    z_loss: weight of T5X's z-loss.

  Returns:
    A scalar.
  """
  batch_size = batch["encoder_input_tokens"].shape[0]
  masked = masks_lib.apply_masks(prompt, masks)
  visible = model.prompt_visible(jax.tree.map(lambda x: x[None], masks))
  logits = model.logits(
      frozen_params,
      jnp.broadcast_to(masked[None], (batch_size, *masked.shape)),
      jnp.broadcast_to(visible, (batch_size, visible.shape[1])),
      batch,
      dropout_key,
  )
  num_tokens = jnp.sum(batch["decoder_loss_weights"])
  return jnp.sum(target_losses(logits, batch, z_loss)) / num_tokens


@functools.partial(
    jax.jit,
    static_argnames=("model", "rows_per_chunk", "z_loss"),
)
def table_gradients(
    prompt: Float[Array, "R P H"],
    masks: PromptMasks,
    frozen_params: Mapping,
    batch: Batch,
    seeds: UInt[Array, "R"],
    step: Int[Array, ""],
    *,
    model: PromptedT5,
    rows_per_chunk: int | None = None,
    z_loss: float = 0.0,
) -> tuple[Float[Array, "R"], Float[Array, "R P H"]]:
  """Loss of each row and its gradient with respect to the row's prompt.

  Args:
    prompt: [R, P, H], unmasked.
    masks: [R, P] and [R, P, K].
    frozen_params: the T5's parameters, not differentiated.
    batch: T5X's keys, [R, B, ...].
    seeds: [R], of dropout.
    step: the step, of dropout.
    model: the prompted T5.
    rows_per_chunk: rows in memory together; None means all.
    z_loss: weight of T5X's z-loss.

  Returns:
    [R] losses and [R, P, H] gradients.
  """

  def one_row(args):
    prompt, masks, batch, seed = args
    key = None
    if model.t5_config.dropout_rate > 0.0:
      key = jax.random.fold_in(jax.random.key(seed), step)
    return jax.value_and_grad(row_loss)(
        prompt, masks, model, frozen_params, batch, key, z_loss
    )

  rows = (prompt, masks, batch, seeds)
  if rows_per_chunk is None or rows_per_chunk >= prompt.shape[0]:
    return jax.vmap(one_row)(rows)
  return jax.lax.map(one_row, rows, batch_size=rows_per_chunk)


@functools.partial(
    jax.jit,
    static_argnames=("model", "optimizer", "rows_per_chunk", "z_loss"),
    donate_argnames=("state",),
)
def train_step(
    state: TrainState,
    masks: PromptMasks,
    frozen_params: Mapping,
    batch: Batch,
    seeds: UInt[Array, "R"],
    step: Int[Array, ""],
    *,
    model: PromptedT5,
    optimizer: OptimizerConfig,
    rows_per_chunk: int | None = None,
    z_loss: float = 0.0,
) -> tuple[TrainState, Float[Array, "R"]]:
  """One step of every row: `table_gradients`, then Adafactor row by row.

  Returns:
    The new state and the [R] losses before the step.
  """
  losses, gradient = table_gradients(
      state.prompt,
      masks,
      frozen_params,
      batch,
      seeds,
      step,
      model=model,
      rows_per_chunk=rows_per_chunk,
      z_loss=z_loss,
  )
  prompt, optimizer_state = optimizer_lib.update_rows(
      optimizer,
      gradient,
      state.optimizer,
      state.prompt,
      rows_per_chunk,
      masks.present,
  )
  return TrainState(prompt=prompt, optimizer=optimizer_state), losses
