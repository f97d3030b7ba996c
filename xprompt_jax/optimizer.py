"""Adafactor over a table of prompts, each row for itself.

The recipe is that of Lester et al. 2021 as T5X runs it: constant learning rate
0.3, second moment unfactored, no scaling by parameter size. Adafactor clips an
update by its root mean square, so rows are mapped over, never mixed.
"""

import dataclasses

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Float
import optax

from xprompt_jax.types import AnyArray, require, require_number


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
  """Adafactor's settings (Shazeer and Stern 2018).

  Attributes:
    learning_rate: constant.
    decay_rate: exponent of the second moment's decay, 1 - step^-decay_rate.
    clipping_threshold: bound on the root mean square of an update.
    weight_decay_rate: share of a parameter taken off each step; as in T5X it
      is not multiplied by the learning rate.
  """

  learning_rate: float = 0.3
  decay_rate: float = 0.8
  clipping_threshold: float = 1.0
  weight_decay_rate: float = 1e-5

  def __post_init__(self):
    name = "OptimizerConfig."
    require_number(
        name + "learning_rate", self.learning_rate, 0.0, exclusive=True
    )
    require_number(
        name + "clipping_threshold",
        self.clipping_threshold,
        0.0,
        exclusive=True,
    )
    require_number(name + "weight_decay_rate", self.weight_decay_rate, 0.0)
    require_number(name + "decay_rate", self.decay_rate, 0.0, exclusive=True)
    require(
        self.decay_rate < 1.0,
        name + "decay_rate",
        self.decay_rate,
        "a number in (0, 1)",
    )

  def build(
      self, share: Float[Array, ""] | None = None
  ) -> optax.GradientTransformation:
    """The transformation of one row [P, H].

    Args:
      share: of the P tokens those that the row has. The root mean square is
        that of them alone, and the others' updates, which are zero, are in the
        mean that optax takes.
    """
    threshold = self.clipping_threshold
    if share is not None:
      threshold = threshold * jnp.sqrt(share)
    return optax.adafactor(
        learning_rate=self.learning_rate,
        factored=False,
        multiply_by_parameter_scale=False,
        decay_rate=self.decay_rate,
        clipping_threshold=threshold,
        weight_decay_rate=self.weight_decay_rate,
    )


def init_rows(
    config: OptimizerConfig, prompt: Float[Array, "R P H"]
) -> optax.OptState:
  """A fresh optimizer for each row: leaves [R, ...]."""
  return jax.vmap(config.build().init)(prompt)


def update_rows(
    config: OptimizerConfig,
    gradient: Float[Array, "R P H"],
    state: optax.OptState,
    prompt: Float[Array, "R P H"],
    rows_per_chunk: int | None = None,
    present: Float[AnyArray, "R P"] | None = None,
) -> tuple[Float[Array, "R P H"], optax.OptState]:
  """One step of every row.

  Args:
    config: the settings.
    gradient: [R, P, H].
    state: from `init_rows` or the step before.
    prompt: [R, P, H].
    rows_per_chunk: rows that are moved together; with 1 the clipping's sums
      are rounded alike however many rows there are. None means all.
    present: [R, P], as `PromptMasks` has it; clips a shorter prompt as it
      would be clipped in a table of its length.

  Returns:
    The new prompt [R, P, H] and state.
  """

  def one_row(args):
    gradient, state, prompt, present = args
    share = None if present is None else jnp.mean(present)
    update = config.build(share).update
    updates, state = update(gradient, state, prompt)
    return optax.apply_updates(prompt, updates), state

  rows = (gradient, state, prompt, present)
  if rows_per_chunk is None or rows_per_chunk >= prompt.shape[0] > 1:
    return jax.vmap(one_row)(rows)
  return jax.lax.map(one_row, rows, batch_size=rows_per_chunk)
