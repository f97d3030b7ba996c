"""What a method is to the trainer, and what it leaves of a row for inference.

A row has leaves that are trained and constants that are not. A method says how
they adapt the frozen model; nothing else differs between prompt tuning, its
baselines and fine-tuning, so the trainer knows none of them.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

from flax import struct
from jax import Array
import jax.numpy as jnp

from xprompt_jax.model import PromptedT5
from xprompt_jax.t5.config import T5Config


@struct.dataclass
class Adapted:
  """The model of one row: what inference needs, with nothing left to fold.

  A prefix of keys and values stands in the parameters, in each attention that
  has one (`t5/layers.py`).
  """

  params: Any  # the T5's parameters, some of them replaced or added
  prompt: Any  # Array [P, H], masked; P 0 where the method has none
  visible: Any  # Array [P], which of its positions attention may see


@runtime_checkable
class Method(Protocol):
  """What the trainer asks; implementations are hashable, so they are static."""

  @property
  def name(self) -> str:
    """As result files have it."""

  def adapt(
      self,
      trained: Any,
      constants: Any,
      model: PromptedT5,
      frozen_params: Mapping,
  ) -> Adapted:
    """The model that one row's leaves make of the frozen one.

    Args:
      trained: the row's leaves by name, without R.
      constants: the row's constants, without R.
      model: the prompted T5.
      frozen_params: its parameters.
    """

  def present(self, constants: Any) -> Array | None:
    """Which positions each row has, where rows are of different lengths.

    Args:
      constants: of all rows, leaves [R, ...].

    Returns:
      [R, P], 1 or 0; None where every row has all.
    """

  def trained_parameters(self, config: T5Config) -> int:
    """Numbers that are trained for one row, in closed form."""

  def inference_parameters(self, config: T5Config) -> int:
    """Numbers that inference needs of one row, in closed form."""


@runtime_checkable
class Baseline(Method, Protocol):
  """A method that starts from a seed alone; it has no constants."""

  @property
  def length(self) -> int:
    """P of its prompt or prefix; 0 where it has none."""

  @property
  def makes_prompt(self) -> bool:
    """Whether what is left for inference is an ordinary prompt [P, H]."""

  @property
  def rows_at_once(self) -> int | None:
    """Rows that are trained in one table; None means all."""

  def initial(self, key: Array, config: T5Config, frozen_params: Any) -> Any:
    """One row's leaves by name, float32; depends on its arguments alone."""


class EqualRows:
  """What holds of most baselines: all rows have the same sizes, and are small.

  Attributes:
    makes_prompt: as `Baseline` has it, and
    rows_at_once: likewise.
  """

  makes_prompt: ClassVar[bool] = False
  rows_at_once: ClassVar[int | None] = None

  def present(self, constants: Any) -> None:
    """Every row has all positions."""
    del constants


def no_prompt(config: T5Config) -> dict[str, Array]:
  """The fields of `Adapted` for a method without an input prompt."""
  return {
      "prompt": jnp.zeros((0, config.emb_dim)),
      "visible": jnp.ones((0,), bool),
  }
