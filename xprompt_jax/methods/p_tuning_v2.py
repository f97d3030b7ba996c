"""P-tuning v2 (Liu et al. 2022): deep prompts, trained directly.

Every attention has keys and values of its own in front, as in prefix tuning,
and nothing makes them: their section 3.3 finds no gain in an MLP for most
understanding tasks. They start at a standard deviation of 0.02: so does the
authors' embedding, which their checkpoints lack and `from_pretrained` therefore
starts by `_init_weights`. Keys of 1 would draw the attention of T5, which does
not divide its logits by sqrt(head_dim), away from the input.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp

from xprompt_jax.methods import parameter_counts, prefixes
from xprompt_jax.methods.protocol import Adapted, EqualRows, no_prompt
from xprompt_jax.model import PromptedT5
from xprompt_jax.t5.config import T5Config

INITIAL_STD = 0.02


@dataclasses.dataclass(frozen=True, kw_only=True)
class PTuningV2(EqualRows):
  """A prefix that is its own parameter.

  Attributes:
    length: P, positions of the prefix.
  """

  length: int
  name: str = "p_tuning_v2"

  def initial(self, key: Array, config: T5Config, frozen_params: Any) -> Any:
    """For each part of the network [layers, 2, P, heads * head_dim]."""
    del frozen_params
    width = parameter_counts.attention_width(config)
    return {
        part: INITIAL_STD
        * jax.random.normal(
            jax.random.fold_in(key, i),
            (prefixes.num_layers(config, part), 2, self.length, width),
            jnp.float32,
        )
        for i, part in enumerate(prefixes.PARTS)
    }

  def adapt(
      self,
      trained: Any,
      constants: Any,
      model: PromptedT5,
      frozen_params: Mapping,
  ) -> Adapted:
    """Puts the leaves where the attentions find them."""
    del constants
    return Adapted(
        params=prefixes.with_prefix(frozen_params, trained, model.t5_config),
        **no_prompt(model.t5_config),
    )

  def trained_parameters(self, config: T5Config) -> int:
    """2 x P x heads x head_dim for every attention."""
    return parameter_counts.of_prefix(config, self.length)

  def inference_parameters(self, config: T5Config) -> int:
    """The same keys and values."""
    return self.trained_parameters(config)
