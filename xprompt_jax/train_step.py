"""One optimizer step of all rows of a table, compiled.

The loop around it is `trainer.py`. Gradients are taken with respect to the
trained leaves alone; each row has its own loss and its own optimizer. How the
leaves of a row change the model is its method's business (`methods/`).
"""

from collections.abc import Mapping
import functools
from typing import Any

from flax import struct
import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Float, Int, UInt

from xprompt_jax import optimizer as optimizer_lib
from xprompt_jax.methods.protocol import Method
from xprompt_jax.model import PromptedT5, target_losses
from xprompt_jax.optimizer import OptimizerConfig
from xprompt_jax.types import Batch


@struct.dataclass
class TrainState:
  """The leaves that training changes."""

  trained: Any  # by name, leaves [R, ...]
  optimizer: Any  # its state, leaves [R, ...]


def row_loss(
    trained: Any,
    constants: Any,
    method: Method,
    model: PromptedT5,
    frozen_params: Mapping,
    batch: Batch,
    dropout_key: Array | None = None,
    z_loss: float = 0.0,
) -> Float[Array, ""]:
  """The training loss of one row: the mean over its target tokens, in nats.

  Args:
    trained: the row's leaves, without R.
    constants: what else the method knows of the row, without R.
    method: how they adapt the model.
    model: the prompted T5.
    frozen_params: its parameters.
    batch: T5X's keys, B examples.
    dropout_key: dropout is off without one.
    z_loss: weight of T5X's z-loss.

  Returns:
    A scalar.
  """
  batch_size = batch["encoder_input_tokens"].shape[0]
  adapted = method.adapt(trained, constants, model, frozen_params)
  prompt, visible = adapted.prompt, adapted.visible
  logits = model.logits(
      adapted.params,
      jnp.broadcast_to(prompt[None], (batch_size, *prompt.shape)),
      jnp.broadcast_to(visible[None], (batch_size, *visible.shape)),
      batch,
      dropout_key,
  )
  num_tokens = jnp.sum(batch["decoder_loss_weights"])
  return jnp.sum(target_losses(logits, batch, z_loss)) / num_tokens


@functools.partial(
    jax.jit,
    static_argnames=("method", "model", "rows_per_chunk", "z_loss"),
)
def table_gradients(
    trained: Any,
    constants: Any,
    frozen_params: Mapping,
    batch: Batch,
    seeds: UInt[Array, "R"],
    step: Int[Array, ""],
    *,
    method: Method,
    model: PromptedT5,
    rows_per_chunk: int | None = None,
    z_loss: float = 0.0,
) -> tuple[Float[Array, "R"], Any]:
  """Loss of each row and its gradient with respect to the row's leaves.

  Args:
    trained: leaves [R, ...].
    constants: leaves [R, ...] that are not trained.
    frozen_params: the T5's parameters, not differentiated.
    batch: T5X's keys, [R, B, ...].
    seeds: [R], of dropout.
    step: the step, of dropout.
    method: how a row's leaves adapt the model.
    model: the prompted T5.
    rows_per_chunk: rows in memory together; None means all.
    z_loss: weight of T5X's z-loss.

  Returns:
    [R] losses, and gradients shaped like `trained`.
  """

  def one_row(args):
    trained, constants, batch, seed = args
    key = None
    if model.t5_config.dropout_rate > 0.0:
      key = jax.random.fold_in(jax.random.key(seed), step)
    return jax.value_and_grad(row_loss)(
        trained, constants, method, model, frozen_params, batch, key, z_loss
    )

  rows = (trained, constants, batch, seeds)
  num_rows = optimizer_lib.num_rows(trained)
  if rows_per_chunk is None or rows_per_chunk >= num_rows:
    return jax.vmap(one_row)(rows)
  return jax.lax.map(one_row, rows, batch_size=rows_per_chunk)


@functools.partial(
    jax.jit,
    static_argnames=(
        "method",
        "model",
        "optimizer",
        "rows_per_chunk",
        "z_loss",
    ),
    donate_argnames=("state",),
)
def train_step(
    state: TrainState,
    constants: Any,
    frozen_params: Mapping,
    batch: Batch,
    seeds: UInt[Array, "R"],
    step: Int[Array, ""],
    *,
    method: Method,
    model: PromptedT5,
    optimizer: OptimizerConfig,
    rows_per_chunk: int | None = None,
    z_loss: float = 0.0,
) -> tuple[TrainState, Float[Array, "R"]]:
  """One step of every row: `table_gradients`, then the optimizer row by row.

  Returns:
    The new state and the [R] losses before the step.
  """
  losses, gradient = table_gradients(
      state.trained,
      constants,
      frozen_params,
      batch,
      seeds,
      step,
      method=method,
      model=model,
      rows_per_chunk=rows_per_chunk,
      z_loss=z_loss,
  )
  trained, optimizer_state = optimizer_lib.update_rows(
      optimizer,
      gradient,
      state.optimizer,
      state.trained,
      rows_per_chunk,
      method.present(constants),
  )
  return TrainState(trained=trained, optimizer=optimizer_state), losses
