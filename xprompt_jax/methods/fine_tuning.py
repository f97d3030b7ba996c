"""Fine-tuning: every parameter of the T5 is trained (Raffel et al. 2020).

A row holds a whole model, so rows are trained one after another: whatever R is,
memory holds one of them with its gradient and the optimizer's state.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any, ClassVar

import jax
from jax import Array
import jax.numpy as jnp

from xprompt_jax.methods import parameter_counts
from xprompt_jax.methods.protocol import Adapted, EqualRows, no_prompt
from xprompt_jax.model import PromptedT5
from xprompt_jax.t5.config import T5Config


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTuning(EqualRows):
  """All parameters start at the frozen ones; there is no prompt.

  Attributes:
    length: P, none.
  """

  length: int = 0
  name: str = "fine_tuning"
  rows_at_once: ClassVar[int | None] = 1

  def initial(self, key: Array, config: T5Config, frozen_params: Any) -> Any:
    """A float32 copy, whatever the frozen ones are kept in.

    With a constant rate of 1e-3, most updates would be lost in bfloat16.
    """
    del key, config
    return jax.tree.map(lambda x: jnp.array(x, jnp.float32), frozen_params)

  def adapt(
      self,
      trained: Any,
      constants: Any,
      model: PromptedT5,
      frozen_params: Mapping,
  ) -> Adapted:
    """The trained parameters are the model."""
    del constants, frozen_params
    return Adapted(params=trained, **no_prompt(model.t5_config))

  def trained_parameters(self, config: T5Config) -> int:
    """Every parameter of the T5."""
    return parameter_counts.of_model(config)

  def inference_parameters(self, config: T5Config) -> int:
    """A whole model for each task."""
    return self.trained_parameters(config)
