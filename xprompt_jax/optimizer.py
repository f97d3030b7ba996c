"""The optimizer of a table of rows, each row for itself.

Adafactor as Lester et al. 2021 run it in T5X is the recipe of prompt tuning:
constant learning rate 0.3, second moment unfactored, no scaling by parameter
size. The other settings are those of the baselines (`methods/`): T5's own for
fine-tuning, and AdamW. Adafactor clips an update by its root mean square, so
rows are mapped over, never mixed.
"""

import dataclasses
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Float
import optax

from xprompt_jax.types import AnyArray, require, require_int, require_number

_NAMES = ("adafactor", "adamw")
_SCHEDULES = ("constant", "linear")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
  """Settings of Adafactor (Shazeer and Stern 2018) or AdamW.

  Attributes:
    learning_rate: constant, or where `linear` starts.
    decay_rate: Adafactor: exponent of the second moment's decay,
      1 - step^-decay_rate.
    clipping_threshold: Adafactor: bound on the root mean square of an update.
    weight_decay_rate: share of a parameter taken off each step; as in T5X it
      is not multiplied by Adafactor's learning rate, and as in PyTorch it is
      multiplied by AdamW's.
    name: `adafactor` or `adamw`; AdamW's moments decay at 0.9 and 0.999.
    factored: Adafactor: a matrix of at least 128 x 128 keeps the second moment
      of its rows and columns alone.
    parameter_scale: Adafactor: the learning rate is relative to the root mean
      square of each parameter, as T5 was trained and fine-tuned.
    schedule: `constant`, or `linear` from the learning rate to 0 after the
      last step.
    decay_steps: when `linear` ends; None means with the training.
  """

  learning_rate: float = 0.3
  decay_rate: float = 0.8
  clipping_threshold: float = 1.0
  weight_decay_rate: float = 1e-5
  name: str = "adafactor"
  factored: bool = False
  parameter_scale: bool = False
  schedule: str = "constant"
  decay_steps: int | None = None

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
    for field, known in (("name", _NAMES), ("schedule", _SCHEDULES)):
      found = getattr(self, field)
      require(found in known, name + field, found, f"one of {known}")
    for field in ("factored", "parameter_scale"):
      found = getattr(self, field)
      require(isinstance(found, bool), name + field, found, "True or False")
    if self.decay_steps is not None:
      require_int(name + "decay_steps", self.decay_steps, 1)

  def over(self, num_steps: int) -> "OptimizerConfig":
    """These settings for a training of so many steps."""
    if self.schedule == "constant" or self.decay_steps is not None:
      return self
    return dataclasses.replace(self, decay_steps=num_steps)

  def _rate(self) -> optax.ScalarOrSchedule:
    if self.schedule == "constant":
      return self.learning_rate
    if self.decay_steps is None:
      raise ValueError("a linear schedule needs `over` before `build`")
    return optax.linear_schedule(self.learning_rate, 0.0, self.decay_steps)

  def build(
      self, share: Float[Array, ""] | None = None
  ) -> optax.GradientTransformation:
    """The transformation of one row's tree of leaves.

    Args:
      share: of the P tokens those that the row has. The root mean square is
        that of them alone, and the others' updates, which are zero, are in the
        mean that optax takes.
    """
    threshold: Any = self.clipping_threshold
    if share is not None:
      threshold = threshold * jnp.sqrt(share)
    if self.name == "adamw":
      return optax.adamw(self._rate(), weight_decay=self.weight_decay_rate)
    return optax.adafactor(
        learning_rate=self._rate(),
        factored=self.factored,
        multiply_by_parameter_scale=self.parameter_scale,
        decay_rate=self.decay_rate,
        clipping_threshold=threshold,
        weight_decay_rate=self.weight_decay_rate,
    )


def num_rows(trained: Any) -> int:
  """R of a tree whose leaves are [R, ...]."""
  return jax.tree.leaves(trained)[0].shape[0]


def init_rows(config: OptimizerConfig, trained: Any) -> optax.OptState:
  """A fresh optimizer for each row of a tree: leaves [R, ...]."""
  return jax.vmap(config.build().init)(trained)


def update_rows(
    config: OptimizerConfig,
    gradient: Any,
    state: optax.OptState,
    trained: Any,
    rows_per_chunk: int | None = None,
    present: Float[AnyArray, "R P"] | None = None,
) -> tuple[Any, optax.OptState]:
  """One step of every row.

  Args:
    config: the settings.
    gradient: a tree of leaves [R, ...].
    state: from `init_rows` or the step before.
    trained: the tree that the gradient is of.
    rows_per_chunk: rows that are moved together; with 1 the clipping's sums
      are rounded alike however many rows there are. None means all.
    present: [R, P], as `PromptMasks` has it; clips a shorter prompt as it
      would be clipped in a table of its length.

  Returns:
    The new tree and state.
  """

  def one_row(args):
    gradient, state, trained, present = args
    share = None if present is None else jnp.mean(present)
    update = config.build(share).update
    updates, state = update(gradient, state, trained)
    return optax.apply_updates(trained, updates), state

  rows = (gradient, state, trained, present)
  if rows_per_chunk is None or rows_per_chunk >= num_rows(trained) > 1:
    return jax.vmap(one_row)(rows)
  return jax.lax.map(one_row, rows, batch_size=rows_per_chunk)
